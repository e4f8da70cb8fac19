"""Views for a texture: those that add something, sharp and near ones first; the bound and reduced reading in bake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.training.procedural import Part, Pattern
from recon.texture import bake as bake_module
from recon.texture.bake import bake
from recon.texture.choice import choose_for_texture
from scene.camera import orbit_camera
from scene.raycast import mesh_caster
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

WAVES = Pattern("noise", (0.2, 0.6, 0.3), 2.0, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.1, 0.2, 0.3))


class Grey:
    """A model without colours of its own."""

    def colours_at(self, points: np.ndarray) -> np.ndarray:
        return np.full(points.shape, 0.5, np.float32)


def chosen(part: Part, views: list[View], most: int) -> list[str]:
    vertices, faces = part
    return [views[k].name for k in choose_for_texture(vertices, faces, views, mesh_caster(*part), most, 4.0)]


def test_few_views_are_all_taken(ball: Callable[..., Part]) -> None:
    views = [View(f"{k}", orbit_camera(0.1 * k, 0.0)) for k in range(4)]
    assert chosen(ball(0.5), views, 4) == ["0", "1", "2", "3"]


def test_views_of_all_sides_come_before_many_of_one(ball: Callable[..., Part]) -> None:
    front = [View(f"f{k}", orbit_camera(0.002 * k, 0.0)) for k in range(30)]
    others = [View(f"o{k}", camera) for k, camera in enumerate(sphere_cameras(8, 64, 1.5))]
    taken = chosen(ball(0.5), [*front, *others], 10)
    assert sum(name.startswith("o") for name in taken) >= 7


def test_near_and_sharp_views_come_first(ball: Callable[..., Part]) -> None:
    good = [View(f"good{k}", camera) for k, camera in enumerate(sphere_cameras(6, 64, 1.5))]
    far = [View(f"far{k}", camera) for k, camera in enumerate(sphere_cameras(6, 64, 4.0))]
    blurred = [replace(view, name=f"blurred{k}", sharpness=0.3) for k, view in enumerate(good)]
    assert chosen(ball(0.5), [*far, *blurred, *good], 6) == [view.name for view in good]


def test_what_is_hidden_is_worth_nothing(ball: Callable[..., Part]) -> None:
    """A ball behind a wider one: the views that see it are taken, however well others see the first."""
    front, back = ball(0.4, (0.5, 0, 0)), ball(0.2, (-0.5, 0, 0))
    both = np.concatenate([front[0], back[0]]), np.concatenate([front[1], back[1] + len(front[0])])
    before = [View(f"before{k}", orbit_camera(0.01 * k, 0.0, radius=3.0)) for k in range(6)]
    behind = View("behind", orbit_camera(np.pi, 0.0, radius=3.0))
    assert "behind" in chosen(both, [*before, behind], 2)


def test_a_bound_says_what_was_left_out_and_costs_little(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    part = ball(0.5, subdivisions=3)
    views = shoot(part, sphere_cameras(40, 96, 1.5), (WAVES,))
    every, some = (bake(*part, views, Grey(), 128, most_views=most) for most in (40, 16))
    assert every.left_out == ()
    assert len(some.left_out) == 24
    assert set(some.left_out) < {view.name for view in views}
    difference = np.abs(every.texture.astype(int) - some.texture).mean()
    assert 0 < difference < 3
    unbounded = bake(*part, views, Grey(), 128)
    assert (unbounded.texture == every.texture).all()


def test_views_of_other_origin_are_not_chosen_among(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=2)
    views = shoot(part, sphere_cameras(8, 48, 1.5), (WAVES,))
    views = replace(views, views=tuple(replace(v, origin="generated") if k else v for k, v in enumerate(views)))
    assert bake(*part, views, Grey(), 64, most_views=3).left_out == ()


@pytest.fixture
def on_disk(ball: Callable[..., Part], shoot: Callable[..., ViewSet], tmp_path: Path) -> ViewSet:
    """Photos of 320 pixels with masks beside them."""
    views = []
    for view in shoot(ball(0.5, subdivisions=3), sphere_cameras(10, 320, 1.5), (WAVES,)):
        file, mask = tmp_path / f"{view.name}.jpg", tmp_path / f"{view.name}_mask.png"
        rgba = view.rgba()
        Image.fromarray(rgba[..., :3]).save(file, quality=98)
        Image.fromarray(rgba[..., 3]).save(mask)
        views.append(View(view.name, view.camera, image_path=file, mask_path=mask))
    return ViewSet(tuple(views), has_masks=True)


@pytest.mark.parametrize("held", [True, False])
def test_captures_that_cannot_be_held_are_read_as_finely_as_texels_are(
    held: bool, ball: Callable[..., Part], on_disk: ViewSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = ball(0.5, subdivisions=3)
    whole = bake(*part, on_disk, Grey(), 64)
    read = list[tuple[int, ...]]()
    reduced = View.reduced
    monkeypatch.setattr("scene.view.LARGE", 320 * 320)
    monkeypatch.setattr(bake_module, "LARGE", 320 * 320)
    monkeypatch.setattr(bake_module, "_HELD_PIXELS", 10 * 320 * 320 - 1 if held else 1)

    def noted(view: View, max_side: int, *, worth: float = 2.0) -> np.ndarray:
        found = reduced(view, max_side, worth=worth)
        read.append(found.shape[:2])
        return found

    monkeypatch.setattr(View, "reduced", noted)
    few = bake(*part, on_disk, Grey(), 64)
    assert len(read) == (10 if held else 20)
    assert set(read) <= {(160, 160), (80, 80), (40, 40)}  # texels are several pixels wide

    def error(texture: np.ndarray) -> float:
        mesh = replace(whole, texture=texture).coloured()
        drawn = [MeshRenderer(mesh, UNLIT).render(view.camera.resized(80, 80)).rgba for view in on_disk]
        true = [view.rgba()[..., :3].reshape(80, 4, 80, 4, 3).mean(axis=(1, 3)) / 255 for view in on_disk]
        inside = [one[..., 3] > 0.99 for one in drawn]
        return float(np.mean([np.square(d[..., :3] - t)[i].mean() for d, t, i in zip(drawn, true, inside)]))

    assert error(few.texture) < 1.1 * error(whole.texture)


def test_fine_textures_are_read_whole(
    ball: Callable[..., Part], on_disk: ViewSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = ball(0.5, subdivisions=3)
    before = bake(*part, on_disk, Grey(), 1024).texture
    monkeypatch.setattr("scene.view.LARGE", 320 * 320)
    monkeypatch.setattr(bake_module, "LARGE", 320 * 320)
    monkeypatch.setattr(bake_module, "_HELD_PIXELS", 10 * 320 * 320 - 1)
    monkeypatch.setattr(bake_module, "_COMPARED_SIDE", 320)
    assert (bake(*part, on_disk, Grey(), 1024).texture == before).all()
