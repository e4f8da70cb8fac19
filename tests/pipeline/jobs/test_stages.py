"""The surface stage: its state is handed on, kept when it is stopped, and removed when it is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.jobs import stages
from recon.settings import FitSettings
from recon.surface import Surface
from scene.camera import orbit_camera
from scene.view import View
from scene.viewset import ViewSet


def capture(folder: Path, *, masks: bool) -> Path:
    """Two pictures, with or without alpha."""
    pixels = np.full((8, 8, 4), 200, np.uint8)
    views = tuple(View(f"{k}", orbit_camera(float(k), 0.2, size=8), pixels) for k in range(2))
    ViewSet(views, has_masks=masks).save(folder)
    return folder


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
    monkeypatch.delattr(stages, other)
    monkeypatch.setattr(stages, used, stand_in(asked, stops=True))
    with pytest.raises(KeyboardInterrupt):
        stages.surface_stage(tmp_path, views, FitSettings(), checkpoint=state)
    assert state.exists()
    assert not (tmp_path / "surface.npz").exists()
    monkeypatch.setattr(stages, used, stand_in(asked, stops=False))
    stages.surface_stage(tmp_path, views, FitSettings(), checkpoint=state)
    assert not state.exists()
    assert Surface.load(tmp_path / "surface.npz").sdf.shape == (8, 8, 8)
    stages.surface_stage(tmp_path, views, FitSettings())
    assert asked == [state, state, None]
