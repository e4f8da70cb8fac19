"""What nerfstudio is tested with: a capture of a ball, and one short run on it without a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from scene.camera import Camera, look_at
from scene.viewset import ViewSet
from tests.nerfstudio_runs import collected, trained

if TYPE_CHECKING:
    from nerfstudio.engine.trainer import Trainer, TrainerConfig


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Skip the files of this folder where nerfstudio is not installed."""
    return collected(module_path, parent)


BALL = 0.5
"""Radius of the ball in the normalised world, which is 1.5 away from the cameras."""
WORLD = np.array([[0, -2.0, 0, 3], [2.0, 0, 0, -1], [0, 0, 2.0, 2], [0, 0, 0, 1]])
"""From there to the world of the capture: turned, twice as large, elsewhere."""


@pytest.fixture(scope="session")
def capture(tmp_path_factory: pytest.TempPathFactory, ball_views: ViewSet) -> Path:
    """A capture folder of the ball, in its own world."""
    folder = tmp_path_factory.mktemp("capture")
    ball_views.transformed(WORLD).save(folder)
    return folder


@pytest.fixture(scope="session")
def odd_cameras() -> list[Camera]:
    """Cameras of several focal lengths and principal points, none of them square."""
    rng = np.random.default_rng(0)
    stands = [(1.4, 0.3, 0.5), (-0.2, 1.3, -0.4), (-1.0, -0.9, 0.9)]
    return [
        Camera(look_at(np.array(stand)), 40.0 + 3 * k, 44.0 - 2 * k, 21.0 + rng.random(), 15.0 + rng.random(), 40, 30)
        for k, stand in enumerate(stands)
    ]


def small_config(data: Path, out: Path, steps: int) -> TrainerConfig:
    """The method with little of everything, for a capture that nerfstudio has to move and scale."""
    from recon.nerfstudio.method import surface_method

    config = surface_method().config
    config.machine.device_type, config.machine.seed = "cpu", 0
    config.data = config.pipeline.datamanager.data = data
    config.output_dir, config.timestamp, config.max_num_iterations = out, "run", steps
    parser = config.pipeline.datamanager.dataparser
    parser.orientation_method, parser.center_method, parser.auto_scale_poses = "up", "poses", True
    config.pipeline.datamanager.train_num_rays_per_batch = 192
    model = config.pipeline.model
    model.levels, model.finest, model.log2_size, model.probes, model.intervals = 5, 32, 10, 16, 16
    # The ball has radius 0.33 or so after the scaling, the first sphere 0.4.
    model.radius = 0.3
    config.optimizers["networks"]["optimizer"] = replace(config.optimizers["networks"]["optimizer"], lr=5e-3)
    return config


@pytest.fixture(scope="session")
def run(capture: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, list[float]]:
    """A trainer that has done sixty steps, and the losses of its steps."""
    return trained(small_config(capture, tmp_path_factory.mktemp("runs"), 60))
