"""What the method is tested with: a capture of a ball with its queries, and one short run on it without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from qnerf.settings import QueryFieldSettings
from qnerf.store import QueryStore
from scene.view import View
from scene.viewset import ViewSet
from tests.nerfstudio_runs import collected, trained
from tests.qnerf.conftest import LAYERS, Ball, ring

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip the files of this folder where nerfstudio is not installed."""
    return collected(module_path, parent)


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory, ball: Ball) -> Path:
    """A capture of the ball, whose frames are not in the order of their names, with its queries."""
    folder = tmp_path_factory.mktemp("capture")
    cameras = ring(10)
    views = [
        View(f"{(7 * k) % 10:02d}", camera, np.full((128, 128, 4), 20 * k + 10, np.uint8))
        for k, camera in enumerate(cameras)
    ]
    ViewSet(tuple(views), has_masks=True).save(folder)
    store = QueryStore.create(folder / "queries", LAYERS, 10)
    for k, camera in enumerate(cameras):
        store.put(k, ball.queries(camera))
    return folder


def small_config(data: Path, out: Path, steps: int) -> TrainerConfig:
    """The method with little of everything."""
    from qnerf.nerfstudio.method import query_field_method

    config = query_field_method().config
    config.machine.device_type, config.machine.seed = "cpu", 0
    config.data = config.pipeline.datamanager.data = data
    config.output_dir, config.timestamp, config.max_num_iterations = out, "run", steps
    config.pipeline.datamanager.train_num_rays_per_batch = 128
    config.pipeline.model.network = QueryFieldSettings(levels=3, finest=32, width=16, geometry=16, hidden=16, samples=8)
    return config


@pytest.fixture(scope="session")
def run(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, list[float]]:
    """A trainer that has done sixty steps, and the losses of its steps."""
    return trained(small_config(capture, tmp_path_factory.mktemp("runs"), 60))
