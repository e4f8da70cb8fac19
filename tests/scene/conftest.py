"""Shared by the tests of the vocabulary: a ring of cameras, pictures for them, the check that a reader found them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from PIL import Image

from scene.camera import Camera, Mat4, apply_transform, colmap_from_c2w, orbit_camera
from scene.captures.worlds import world_from_original
from scene.viewset import ViewSet

SIZE = (64, 48)


def rigid(angle: float = 0.8, offset: tuple[float, float, float] = (3.0, -1.0, 2.0)) -> Mat4:
    """A slanted rotation, and a shift."""
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    matrix[:3, 3] = offset
    return matrix


@pytest.fixture
def file_from_scene() -> Mat4:
    """From a z-up scene to the slanted world of a capture file."""
    return rigid()


@pytest.fixture
def scene_cameras() -> list[Camera]:
    """Cameras in a ring that look down on the origin; z is up."""
    ring = [orbit_camera(0.9 * k, 0.35, 2.0) for k in range(7)]
    return [Camera(camera.c2w, 70.0, 71.0, 33.0, 23.5, *SIZE) for camera in ring]


@pytest.fixture
def file_cameras(scene_cameras: list[Camera], file_from_scene: Mat4) -> list[Camera]:
    """The same cameras in the world of a capture file."""
    return [Camera(file_from_scene @ c.c2w, c.fx, c.fy, c.cx, c.cy, c.width, c.height) for c in scene_cameras]


@pytest.fixture
def draw() -> Callable[..., list[Path]]:
    """Writes noise pictures and returns their paths."""

    def write(folder: Path, names: Sequence[str], size: tuple[int, int] = SIZE, *, mode: str = "RGB") -> list[Path]:
        rng = np.random.default_rng(0)
        paths = []
        for name in names:
            pixels = rng.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
            pixels[..., 3] = np.where(np.hypot(*np.indices((size[1], size[0])) - 20) < 15, 255, 0)
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).convert(mode).save(path)
            paths.append(path)
        return paths

    return write


@pytest.fixture
def same() -> Callable[..., None]:
    """Checks that views see points of the file's world in the pixels in which the file's cameras see them."""

    def check(views: ViewSet, cameras: Sequence[Camera], *, upright: Mat4 | None = None, shift: float = 0.0) -> None:
        points = np.random.default_rng(1).uniform(-0.3, 0.3, (10, 3))
        middle = np.mean([camera.centre + 2 * camera.forward for camera in cameras], axis=0)
        world = world_from_original(views.metadata)
        assert len(views) == len(cameras)
        for view, camera in zip(views, cameras):
            expected, _ = camera.project(points + middle)
            found, deep = view.camera.project(apply_transform(world, points + middle))
            assert found == pytest.approx(expected + shift, abs=2e-3)
            assert (deep > 0).all()
            assert (view.camera.width, view.camera.height) == view.rgba().shape[1::-1]
        if upright is not None:  # what was up in the scene is z again
            turned = world[:3, :3] @ upright[:3, :3] @ [0, 0, 1.0]
            assert turned / np.linalg.norm(turned) == pytest.approx([0, 0, 1], abs=1e-3)

    return check


@pytest.fixture
def one_left_out() -> Callable[..., None]:
    """Checks that one of seven views was left out, and that a note says why."""

    def check(views: ViewSet, reason: str) -> None:
        assert len(views) == 6
        assert any(re.search(reason, note) and "left out" in note for note in views.metadata["notes"])

    return check


@pytest.fixture
def w2c() -> Callable[[Camera], tuple[np.ndarray, np.ndarray]]:
    """World-to-camera rotation and translation in OpenCV axes."""
    return lambda camera: colmap_from_c2w(camera.c2w)


@pytest.fixture
def shapes_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: wrong shapes reach the code's own checks instead of the annotations'."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
