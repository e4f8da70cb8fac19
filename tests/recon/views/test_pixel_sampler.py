"""Pixels worth looking at, and fair draws of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from scene.camera import Camera, orbit_camera
from scene.view import View
from scene.viewset import ViewSet

CAMERA = Camera(orbit_camera(0.0, 0.0, size=40).c2w, 40.0, 40.0, 25.0, 20.0, 50, 40)


def pictures(weights: tuple[float, ...] = (1.0, 1.0)) -> ViewSet:
    """A block in an oblong picture, at another place in each view; colours tell row, column and view."""
    views = []
    for k, weight in enumerate(weights):
        rgba = np.zeros((40, 50, 4), np.uint8)
        rgba[..., 0], rgba[..., 1], rgba[..., 2] = np.arange(40)[:, None], np.arange(50), 10 * k
        rgba[12 + k : 17 + k, 20:30, 3] = 255
        rgba[12 + k, 20:30, 3] = 100
        views.append(View(f"{k}", CAMERA, pixels=rgba, weight=weight))
    return ViewSet(tuple(views), has_masks=True)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return Pixels.of(RaySet.of(pictures(), 64))


def test_what_is_ignored_is_not_drawn() -> None:
    """Without masks, the pixels are those that may be looked at, also where the pictures are reduced."""
    ignoring = replace(pictures(), has_masks=False, metadata={"mask_means": "ignore"})
    rays = RaySet.of(ignoring, 64, masked=False)
    assert sum(len(Pixels.of(rays, masked=False).inside) for _ in (0,)) == 4 * 10 * 2
    assert RaySet.of(ignoring, 25, masked=False).alpha[0].sum() < 4 * 10 / 4
    everything = RaySet.of(replace(pictures(), has_masks=False), 64, masked=False)
    assert len(Pixels.of(everything, masked=False).inside) == 2 * 40 * 50


def test_pixels_have_the_values_of_their_place(pixels: Pixels) -> None:
    assert (pixels.x % 1 == 0.5).all()
    assert np.round(pixels.rgba[:, 0] * 255) == pytest.approx(pixels.y - 0.5)
    assert np.round(pixels.rgba[:, 1] * 255) == pytest.approx(pixels.x - 0.5)
    assert np.round(pixels.rgba[:, 2] * 255) == pytest.approx(10 * pixels.view)
    assert (np.diff(pixels.view) >= 0).all()
    order = (pixels.view.astype(int) * 40 + pixels.y.astype(int)) * 50 + pixels.x.astype(int)
    assert (np.diff(order) > 0).all()


def test_all_of_the_object_and_what_is_about_it_is_looked_at(pixels: Pixels) -> None:
    """Four pixels (8 % of the side) around the mask, its soft edge included."""
    for k in range(2):
        mine = pixels.view == k
        assert (pixels.x[mine].min(), pixels.x[mine].max()) == (16.5, 33.5)
        assert (pixels.y[mine].min(), pixels.y[mine].max()) == (8.5 + k, 20.5 + k)
        assert mine.sum() == 18 * 13
    assert (pixels.rgba[pixels.inside, 3] == 1).all()
    assert len(pixels.inside) == 2 * 40
    assert set(np.round(pixels.rgba[pixels.around, 3] * 255)) == {0, 100}
    assert sorted([*pixels.inside, *pixels.around]) == list(range(len(pixels.view)))


def test_without_masks_all_pixels_count() -> None:
    found = Pixels.of(RaySet.of(pictures(), 64, masked=False), masked=False)
    assert len(found.view) == len(found.inside) == 2 * 40 * 50
    assert len(found.around) == 0
    assert len(found.draw(30, np.random.default_rng(0))) == 30


def test_draws_are_sorted_fair_and_repeatable(pixels: Pixels) -> None:
    drawn = pixels.draw(10_000, np.random.default_rng(0))
    assert (np.diff(drawn) >= 0).all()
    solid = np.isin(drawn, pixels.inside)
    assert solid.sum() == 6000
    counts = np.bincount(drawn, minlength=len(pixels.view))
    assert counts[pixels.inside].min() > 0.5 * counts[pixels.inside].mean()
    assert counts.min() > 0
    assert (pixels.draw(10_000, np.random.default_rng(0)) == drawn).all()
    assert (pixels.draw(10_000, np.random.default_rng(1)) != drawn).any()


def test_weights_are_the_views_with_mean_one() -> None:
    found = Pixels.of(RaySet.of(pictures((3.0, 1.0)), 64))
    assert found.weight.mean() == pytest.approx(1)
    assert found.weight[found.view == 0] == pytest.approx(1.5)
    assert found.weight[found.view == 1] == pytest.approx(0.5)


def test_the_mean_colour_is_the_trusted_objects() -> None:
    views = pictures((1.0, 0.0))
    found = Pixels.of(RaySet.of(views, 64))
    assert found.mean_colour() * 255 == pytest.approx([14.5, 24.5, 0])
    nobody = replace(views, views=tuple(replace(v, weight=0.0) for v in views))
    assert np.isfinite(Pixels.of(RaySet.of(nobody, 64)).mean_colour()).all()


def test_what_is_hidden_is_neither_object_nor_background() -> None:
    views = pictures()
    unknown = np.zeros(views.views[0].rgba().shape[:2], np.uint8)
    unknown[:, : unknown.shape[1] // 2] = 255
    hidden = replace(views, views=(replace(views.views[0], unknown_source=unknown), views.views[1]))
    drawn, whole = Pixels.of(RaySet.of(hidden, 64)), Pixels.of(RaySet.of(views, 64))
    first = drawn.view == 0
    assert first.any()
    assert (drawn.x[first] > unknown.shape[1] // 2).all()
    assert (~first).sum() == (whole.view == 1).sum()
