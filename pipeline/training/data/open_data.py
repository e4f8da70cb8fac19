"""Opening training data: stored samples or a stream rendered on the fly, and the held-out set."""

from __future__ import annotations

import contextlib
from pathlib import Path

from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import SampleSettings, SampleStream, heldout_sample
from pipeline.training.data.store import Refill, SampleStore


def held_out_store(objects: Path, settings: SampleSettings = SampleSettings()) -> SampleStore:
    """Evaluation samples of the pool's val split, in memory, in manifest order."""
    pool = ObjectPool(objects, "val")
    store = SampleStore(settings, len(pool))
    for k in range(len(pool)):
        store.append(heldout_sample(pool, k, settings))
    return store


def open_data(
    stack: contextlib.ExitStack,
    objects: Path,
    samples_dir: Path | None,
    workers: int,
    held: int,
    seed: int,
    settings: SampleSettings = SampleSettings(),
) -> tuple[SampleStore, SampleStore]:
    """Training and held-out stores.

    Args:
        stack: keeps the rendering processes alive.
        objects: folder of the object pool.
        samples_dir: stored samples; rendered on the fly if None.
        workers, held: rendering processes, and samples kept in memory, when rendering on the fly.
        seed: of the stream.
        settings: of what is rendered here.
    """
    held_out = held_out_store(objects, settings)
    if samples_dir is not None:
        return SampleStore.open(samples_dir), held_out
    store = SampleStore(settings, held)
    stream = SampleStream(objects, settings, seed=seed, workers=workers)
    stack.enter_context(Refill(store, stream.read(), first=min(200, held)))
    return store, held_out
