"""The surface stage: its state and its device; and what captures do without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.jobs.runner import StageRun
from pipeline.jobs.stages import surface as stage_module
from pipeline.jobs.stages.capture_folder import CaptureFolder
from pipeline.jobs.stages.surface import SurfaceStage, fit_device
from recon.settings import FitSettings
from recon.surface import Surface
from recon.surface_report import SurfaceReport
from scene.camera import orbit_camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet


def capture(folder: Path, *, masks: bool) -> StageRun[CaptureFolder]:
    """Two pictures, with or without alpha."""
    pixels = np.full((8, 8, 4), 200, np.uint8)
    views = tuple(View(f"{k}", orbit_camera(float(k), 0.2, size=8), pixels) for k in range(2))
    ViewSet(views, has_masks=masks).save(folder)
    return StageRun("views", folder, "key", 0.0, False, CaptureFolder)


def stand_in(asked: list[Path | None], *, stops: bool) -> Callable[..., Surface]:
    """A fit that writes a state, and then stops or returns a surface."""

    def fit(views: ViewSet, settings: FitSettings, *, checkpoint: Path | None = None, **_: object) -> Surface:
        asked.append(checkpoint)
        if checkpoint is not None:
            checkpoint.write_bytes(b"state")
        if stops:
            raise KeyboardInterrupt
        return Surface.cube(np.ones((8, 8, 8), np.float32), np.ones((2, 2, 2, 3), np.float32), 0.6)

    return fit


@pytest.mark.parametrize("masks", [True, False], ids=["masks", "no masks"])
def test_the_state_of_a_fit_outlives_its_stop_and_not_its_end(
    masks: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views, state = capture(tmp_path / "capture", masks=masks), tmp_path / "state.npz"
    used, other = ("fit_surface", "fit_unmasked") if masks else ("fit_unmasked", "fit_surface")
    asked: list[Path | None] = []
    monkeypatch.delattr(stage_module, other)
    monkeypatch.setattr(stage_module, used, stand_in(asked, stops=True))
    with pytest.raises(KeyboardInterrupt):
        SurfaceStage(views, FitSettings(), checkpoint=state).run(tmp_path)
    assert state.exists()
    assert not (tmp_path / "surface.npz").exists()
    monkeypatch.setattr(stage_module, used, stand_in(asked, stops=False))
    SurfaceStage(views, FitSettings(), checkpoint=state).run(tmp_path)
    assert not state.exists()
    assert Surface.load(tmp_path / "surface.npz").sdf.shape == (8, 8, 8)
    SurfaceStage(views, FitSettings()).run(tmp_path)
    assert asked == [state, state, None]


def test_the_device_reaches_the_fit_and_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    views = capture(tmp_path / "capture", masks=True)
    seen: list[torch.device] = []

    def fit(views: ViewSet, settings: FitSettings, *, device: torch.device, **_: object) -> Surface:
        seen.append(device)
        return Surface.cube(np.ones((8, 8, 8), np.float32), np.ones((2, 2, 2, 3), np.float32), 0.6, SurfaceReport())

    monkeypatch.setattr(stage_module, "fit_surface", fit)
    monkeypatch.setattr(stage_module, "pick_device", torch.device)  # stands for a machine that has it
    stages = {device: SurfaceStage(views, FitSettings(), device) for device in ("auto", "cpu", "mps")}
    for stage in stages.values():
        stage.run(tmp_path)
    assert [device.type for device in seen] == ["cpu", "cpu", "mps"]
    assert stages["auto"].key == stages["cpu"].key != stages["mps"].key


def test_a_device_that_is_not_there_is_said() -> None:
    with pytest.raises(InputError, match="abacus"):
        fit_device("abacus")


def test_captures_need_no_diffusion_library() -> None:
    """Neither to import the job nor to start it: diffusers takes seconds."""
    code = "import sys, pipeline.jobs.reconstruct; print('diffusers' in sys.modules, 'transformers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
