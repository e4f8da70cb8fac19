"""Black borders of pictures that were undistorted elsewhere: found where they are, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.jobs.stages.capture import with_masks
from pipeline.training.procedural import rotation
from recon.fit import hull_surface
from recon.settings import FitSettings
from scene.camera import Camera
from scene.captures import load_capture
from scene.captures.borders import with_borders_unknown
from scene.errors import InputError
from scene.lens import Lens
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

COUNT, SIZE, RADIUS = 16, 96, 0.4
FIT = FitSettings(levels=(32,), iterations=(1,), rays=256, image_side=96, hull_resolution=32, hull_threshold=0.95)


def wedges(camera: Camera, k1: float = 0.25) -> np.ndarray:
    """Pixels that a lens of the same focal length did not see."""
    x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    plane = np.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy], axis=-1)
    raw = Lens(k1=k1).distort(plane) * [camera.fx, camera.fy] + [camera.cx, camera.cy]
    return ((raw < 0) | (raw > [camera.width, camera.height])).any(axis=-1)


def beside(cameras: list[Camera], angle: float) -> list[Camera]:
    """Cameras that look past the object, so that it reaches the borders of their pictures."""
    turned = []
    for k, camera in enumerate(cameras):
        c2w = camera.c2w.copy()
        c2w[:3, :3] = c2w[:3, :3] @ rotation("xy"[k % 2], (-1) ** (k // 2) * angle)
        turned.append(replace(camera, c2w=c2w))
    return turned


def ball_before(clutter: Callable[[], np.ndarray], angle: float) -> ViewSet:
    """A ball, its masks in its alpha."""
    views = []
    for k, camera in enumerate(beside(sphere_cameras(COUNT, SIZE, 1.5), angle)):
        origins, directions = camera.rays()
        along = (origins * directions).sum(-1)
        hit = (along**2 - (origins**2).sum(-1) + RADIUS**2 > 0).reshape(SIZE, SIZE, 1)
        rgb = np.where(hit, (190, 90, 60), clutter())
        views.append(View(f"{k:02d}", camera, np.concatenate([rgb, 255 * hit], -1).astype(np.uint8)))
    return ViewSet(tuple(views), True)


@pytest.fixture(scope="module")
def whole() -> ViewSet:
    """Before a cluttered background, and reaching beyond the borders of the pictures."""
    rng = np.random.default_rng(0)
    return ball_before(lambda: np.kron(rng.integers(50, 220, (8, 8, 3)), np.ones((12, 12, 1))), 0.2)


def written(folder: Path, views: ViewSet, ending: str, *, masked: bool = True, bordered: bool = True) -> Path:
    """A capture of pictures whose borders are black, and whose masks are black there."""
    frames, folders = [], (folder / "images", folder / "masks")
    for place in folders:
        place.mkdir(parents=True)
    for view in views:
        rgba, gone = view.rgba().copy(), wedges(view.camera)
        if bordered:
            rgba[gone] = 0
        Image.fromarray(rgba[..., :3]).save(folders[0] / f"{view.name}.{ending}", quality=92)
        frame = {"file_path": f"images/{view.name}.{ending}", "transform_matrix": view.camera.c2w.tolist()}
        if masked:
            Image.fromarray(rgba[..., 3]).save(folders[1] / f"{view.name}.png")
            frame["mask_path"] = f"masks/{view.name}.png"
        frames.append(frame)
    c = views.views[0].camera
    content = {"fl_x": c.fx, "fl_y": c.fy, "cx": c.cx, "cy": c.cy, "w": SIZE, "h": SIZE, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def overlap(views: ViewSet) -> float:
    """IoU of the hull with the ball."""
    surface = hull_surface(views, FIT)
    solid = surface.sdf < 0
    x, y, z = np.meshgrid(*surface.box.centres(), indexing="ij")
    ball = np.sqrt(x**2 + y**2 + z**2) < RADIUS
    return float((solid & ball).sum() / (solid | ball).sum())


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_black_borders_beside_masks_carve_nothing(tmp_path: Path, whole: ViewSet, ending: str) -> None:
    views = load_capture(written(tmp_path / "in", whole, ending), up="+z")
    assert any("the object reaches black borders" in note for note in views.metadata["notes"])
    for view, uncut in zip(views, whole, strict=True):
        unknown, gone = view.unknown(), wedges(view.camera)
        assert unknown is not None
        assert (unknown[gone & (uncut.rgba()[..., 3] > 127)] == 255).all()
        assert (unknown > 0).mean() < 0.3 * gone.mean()
    cut = replace(views, views=tuple(replace(view, unknown_source=None) for view in views))
    before, now, ideal = overlap(cut), overlap(views), overlap(whole)
    assert before < 0.8
    assert now > ideal - 0.01
    views.save(tmp_path / "again")
    again = ViewSet.load(tmp_path / "again")
    assert all(np.array_equal(a.unknown(), b.unknown()) for a, b in zip(again, views, strict=True))


def test_an_object_that_fills_its_pictures_stays_bounded(tmp_path: Path) -> None:
    """Borders that it does not reach are background."""
    views = load_capture(written(tmp_path, ball_before(lambda: np.full((SIZE, SIZE, 3), 200), 0.0), "png"), up="+z")
    assert all(view.unknown_source is None for view in views)


def test_without_masks_black_borders_are_not_looked_at(tmp_path: Path, whole: ViewSet) -> None:
    views = load_capture(written(tmp_path / "in", whole, "png", masked=False), up="+z")
    assert not views.has_masks
    seen = with_masks(views, "auto")
    assert seen.has_ignored
    assert all((view.rgba()[..., 3][wedges(view.camera)] == 0).mean() > 0.95 for view in seen)
    seen.save(tmp_path / "again")
    again = ViewSet.load(tmp_path / "again")
    assert again.has_ignored
    assert all(np.array_equal(a.rgba(), b.rgba()) for a, b in zip(again, seen, strict=True))
    assert not with_masks(views, "none").has_ignored
    with pytest.raises(InputError, match="the capture has no masks"):
        with_masks(views, "object")


def test_a_plain_backdrop_with_black_borders_shows_the_outline(tmp_path: Path) -> None:
    plain = ball_before(lambda: np.full((SIZE, SIZE, 3), 230), 0.04)
    views = load_capture(written(tmp_path / "in", plain, "png", masked=False), up="+z")
    found = with_masks(views, "auto")
    assert found.has_masks
    assert overlap(found) > overlap(plain) - 0.03


def black_backdrop(whole: ViewSet) -> ViewSet:
    parts = []
    for view in whole:
        rgba = view.rgba().copy()
        rgba[rgba[..., 3] <= 127, :3] = 0
        parts.append(replace(view, pixels=rgba))
    return replace(whole, views=tuple(parts))


def vignette(whole: ViewSet) -> ViewSet:
    """Dark corners, as of a wide aperture."""
    far = np.hypot(*(np.indices((SIZE, SIZE)) - SIZE / 2)) / SIZE
    dim = np.clip(1.3 - 1.6 * far, 0.02, 1)[..., None]
    parts = []
    for view in whole:
        rgba = view.rgba().copy()
        rgba[..., :3] = rgba[..., :3] * dim
        parts.append(replace(view, pixels=rgba))
    return replace(whole, views=tuple(parts))


@pytest.mark.parametrize(
    "kind", [lambda views: views, black_backdrop, vignette, lambda v: replace(v, views=v.views[:2])]
)
def test_other_pictures_stay_as_they_are(whole: ViewSet, kind: Callable[[ViewSet], ViewSet]) -> None:
    views = kind(whole)
    assert with_borders_unknown(views) is views
