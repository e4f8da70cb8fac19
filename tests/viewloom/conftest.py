"""Small inputs for commands, and a way to call them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import yaml

from pipeline.jobs.item_result import ItemResult
from pipeline.training.procedural import random_object
from scene.camera import orbit_camera
from scene.render import MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from viewloom.cli import main

TINY = {
    "fit": {"levels": [8, 16], "iterations": [2, 2], "rays": 256, "image_side": 32, "hull_resolution": 16},
    "mesh": {"max_faces": 400, "texture": 64, "smoothing": 2, "turntable": [48, 4]},
    "views": {"sampling": {"steps": 2}},
}


@pytest.fixture
def as_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: tyro's mark of a missing value stands where the annotations promise a path."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def weights(tiny_checkpoint: Path) -> Path:
    """A checkpoint folder, whose files are looked at before the photos."""
    return tiny_checkpoint


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A preset for quick jobs."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path / "tiny.yaml"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A small capture."""
    renderer = MeshRenderer(random_object(3, "creature"))
    views = []
    for k in range(6):
        camera = orbit_camera(math.pi * k / 3, 0.3, 1.5, size=32)
        views.append(View(f"v{k}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8)))
    ViewSet(tuple(views), True).save(tmp_path / "toy")
    return tmp_path / "toy"


def code_of(*arguments: str | Path) -> int:
    """Exit code of a command line, whether it is returned or raised."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else -1


def job_of(results: Iterable[ItemResult]) -> Callable[..., list[ItemResult]]:
    """A job with these results, each told as it is drawn."""

    def job(*_: object, done: Callable[[ItemResult], None], **__: object) -> list[ItemResult]:
        told = []
        for result in results:
            told.append(result)
            done(result)
        return told

    return job
