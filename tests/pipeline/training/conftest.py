"""Samples of the pool."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import SampleSettings, heldout_sample
from pipeline.training.data.store import SampleStore

SMALL = SampleSettings(size=32, targets=3, volume=8)


@pytest.fixture(scope="session")
def small_store(pool_folder: Path) -> SampleStore:
    """Four samples of 32 pixels, three targets and 8 voxels a side, in memory."""
    pool, store = ObjectPool(pool_folder, "val"), SampleStore(SMALL, 4)
    for k in range(4):
        store.append(heldout_sample(pool, k % 2, SMALL, seed=k))
    return store
