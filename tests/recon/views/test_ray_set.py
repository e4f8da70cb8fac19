"""Views as tensors: reduced pictures, pixels in order, masks at points."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recon.views.ray_set import RaySet
from scene.camera import Camera, look_at, orbit_camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet


def one_view(rgba: np.ndarray, weight: float = 1.0, camera: Camera | None = None) -> ViewSet:
    """A set of one picture, seen along the x axis."""
    height, width = rgba.shape[:2]
    camera = camera or Camera(look_at(np.array([2.0, 0, 0])), 40.0, 40.0, width / 2, height / 2, width, height)
    return ViewSet((View("a", camera, pixels=rgba, weight=weight),), has_masks=True)


def random_picture(height: int = 6, width: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 4)).astype(np.uint8)


def test_views_without_masks_are_refused() -> None:
    with pytest.raises(InputError, match=r"needs masks\. Give RGBA pictures, or mask files"):
        RaySet.of(replace(one_view(random_picture()), has_masks=False), 64)


def test_masks_without_any_object_are_refused() -> None:
    rgba = random_picture()
    rgba[..., 3] = 127
    with pytest.raises(InputError, match=r"masks of all views are empty\. Check the masks: white must be the object"):
        RaySet.of(one_view(rgba), 64)


def test_small_pictures_stay_as_they_are() -> None:
    rgba = random_picture()
    views = one_view(rgba, weight=0.25)
    rays = RaySet.of(views, 8)
    assert rays.cameras[0] is views.views[0].camera
    assert (rays.colour[0].numpy() == (rgba[..., :3] / 255).astype(np.float32)).all()
    assert (rays.alpha[0].numpy() == (rgba[..., 3] / 255).astype(np.float32)).all()
    assert rays.weight.tolist() == [0.25]


def test_reduced_pictures_keep_the_proportions_and_the_means() -> None:
    rgba = random_picture(20, 40)
    rgba[..., 3] = 255
    rays = RaySet.of(one_view(rgba), 10)
    camera = rays.cameras[0]
    assert (camera.width, camera.height, camera.fx) == (10, 5, 10.0)
    means = rgba[..., :3].reshape(5, 4, 10, 4, 3).mean(axis=(1, 3)) / 255
    assert rays.colour[0].numpy() == pytest.approx(means, abs=1 / 255)


def test_reduced_outlines_keep_the_colour_of_the_object() -> None:
    """Pixels that lie half on the object must not take the background's colour."""
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[:, 6:10] = (200, 60, 20, 255)
    rays = RaySet.of(one_view(rgba), 4)
    assert rays.alpha[0][0].tolist() == pytest.approx([0, 0.5, 0.5, 0], abs=0.01)
    assert rays.colour[0][:, 1:3].numpy() * 255 == pytest.approx(np.broadcast_to((200, 60, 20), (4, 2, 3)), abs=1.01)


def test_flat_pixels_belong_to_their_rays() -> None:
    pictures = [random_picture(6, 8), random_picture(5, 4)]
    cameras = [orbit_camera(0.3, 0.2, size=8), orbit_camera(2.0, -0.4, size=4)]
    cameras = [replace(c, width=p.shape[1], height=p.shape[0]) for c, p in zip(cameras, pictures)]
    pairs = enumerate(zip(cameras, pictures))
    views = ViewSet(tuple(View(f"{k}", c, pixels=p, weight=1.0 - k / 2) for k, (c, p) in pairs), has_masks=True)
    origin, direction, colour, alpha, weight = (x.double().numpy() for x in RaySet.of(views, 64).flat())
    assert len(origin) == 6 * 8 + 5 * 4
    for camera, picture, part, confidence in zip(cameras, pictures, (slice(0, 48), slice(48, 68)), (1.0, 0.5)):
        pixels, depth = camera.project(origin[part] + direction[part] * 1.7)
        assert (depth > 0).all()
        column, row = np.floor(pixels).astype(int).T
        assert colour[part] == pytest.approx(picture[row, column, :3] / 255, abs=1e-6)
        assert alpha[part] == pytest.approx(picture[row, column, 3] / 255, abs=1e-6)
        assert (weight[part] == confidence).all()
        assert len({(r, c) for r, c in zip(row, column)}) == camera.width * camera.height


@given(st.integers(0, 5), st.integers(0, 7), st.floats(0.2, 5.0))
def test_masks_at_projected_pixel_centres_are_the_pixels(row: int, column: int, depth: float) -> None:
    rgba = random_picture()
    rays = RaySet.of(one_view(rgba), 64)
    point = rays.cameras[0].unproject(np.array([[column + 0.5, row + 0.5]]), np.array([depth]))
    cover, seen = rays.sample_alpha(0, torch.from_numpy(point).float())
    assert seen.tolist() == [1]
    assert float(cover[0]) == pytest.approx(rgba[row, column, 3] / 255, abs=1e-3)


@given(st.floats(-20.0, 28.0), st.floats(-20.0, 26.0), st.floats(-3.0, 3.0))
def test_a_view_sees_what_is_in_front_of_it_and_in_its_picture(x: float, y: float, depth: float) -> None:
    rays = RaySet.of(one_view(np.full((6, 8, 4), 255, np.uint8)), 64)
    if min(abs(x), abs(x - 8), abs(y), abs(y - 6), abs(depth)) < 1e-2:
        return  # rounding decides
    point = rays.cameras[0].unproject(np.array([[x, y]]), np.array([depth]))
    cover, seen = rays.sample_alpha(0, torch.from_numpy(point).float())
    expected = float(depth > 0 and 0 < x < 8 and 0 < y < 6)
    assert (seen.tolist(), cover.tolist()) == ([expected], [pytest.approx(expected)])


def test_points_in_the_plane_of_the_camera_are_not_seen_and_no_nan() -> None:
    rays = RaySet.of(one_view(np.full((6, 8, 4), 255, np.uint8)), 64)
    cover, seen = rays.sample_alpha(0, torch.tensor([[2.0, 0, 0], [2.0, 1, 0]]))
    assert cover.tolist() == [0, 0]
    assert seen.tolist() == [0, 0]


@pytest.mark.parametrize("border", [(0, 3), (5, 3), (2, 0), (2, 7)])
def test_a_mask_at_any_border_may_go_on_beyond_it(border: tuple[int, int]) -> None:
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[2:4, 2:6] = 255
    assert RaySet.of(one_view(rgba), 64).shows_all(0)
    rgba[border] = 255
    assert not RaySet.of(one_view(rgba), 64).shows_all(0)


def test_only_views_that_show_all_vote_on_what_lies_beside_the_picture() -> None:
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[2:4, 2:6] = 255
    points = torch.tensor([[0.0, 0.0, 0.0], [0.0, 40.0, 0.0]])
    whole = RaySet.of(one_view(rgba), 64).votes(0, points)
    rgba[0] = 255
    cut = RaySet.of(one_view(rgba), 64).votes(0, points)
    for (cover, voted), beside in ((whole, 1.0), (cut, 0.0)):
        assert cover[1] == 0
        assert voted.tolist() == [1, beside]
    assert whole[0][0] == cut[0][0] > 0.9


def test_an_empty_mask_does_not_show_the_object() -> None:
    views = ViewSet(
        tuple(
            View(name, orbit_camera(0.0, 0.0, size=4), pixels=np.full((4, 4, 4), value, np.uint8))
            for name, value in (("empty", 0), ("full", 255))
        ),
        has_masks=True,
    )
    assert not RaySet.of(views, 64).shows_all(0)


@pytest.mark.parametrize("size", [4, 16, 32])
def test_small_outlines_cover_the_same_directions(size: int) -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[:8] = 255  # the upper half
    origin, direction, mask, _ = RaySet.of(one_view(rgba), 64).small(0, size)
    assert len(mask) == size * size
    assert torch.equal(mask, direction[:, 2] > 0)
    assert origin.numpy() == pytest.approx(np.broadcast_to([2.0, 0, 0], (size * size, 3)))


def test_principal_points_off_the_centre_are_kept() -> None:
    camera = Camera(look_at(np.array([2.0, 0, 0])), 40.0, 30.0, 2.0, 5.0, 8, 6)
    rgba = np.zeros((6, 8, 4), np.uint8)
    rgba[4:6, 1:3] = 255
    rays = RaySet.of(one_view(rgba, camera=camera), 64)
    assert rays.sample_alpha(0, torch.zeros(1, 3))[0].tolist() == pytest.approx([1.0])
    assert rays.sample_alpha(0, torch.tensor([[0.0, 0.5, 0.5]]))[0].tolist() == pytest.approx([0.0])
    assert math.isclose(RaySet.of(one_view(rgba, camera=camera), 4).cameras[0].cy, 2.5)


def hidden_half(size: int = 16) -> View:
    """A square of which something hides the left half."""
    rgba, unknown = np.zeros((size, size, 4), np.uint8), np.zeros((size, size), np.uint8)
    rgba[4:12, 4:12] = 255
    unknown[3:13, 3:8] = 255
    return replace(one_view(rgba).views[0], unknown_source=unknown)


def test_what_is_hidden_has_no_vote_but_for_the_others() -> None:
    """y points to the right in the picture: the hidden half is at y < 0."""
    rays = RaySet.of(ViewSet((hidden_half(),), True), 64)
    points = torch.tensor([[0.0, 0.15, 0.0], [0.0, -0.15, 0.0], [0.0, 0.35, 0.0], [0.0, 40.0, 0.0]])
    cover, voted = rays.votes(0, points)
    assert voted.tolist() == [1, 0, 1, 1]
    assert cover.tolist() == pytest.approx([1, 0, 0, 0], abs=0.01)
    assert rays.shows_all(0)
    at_the_border = np.zeros((16, 16), np.uint8)
    at_the_border[:, 3:8] = 255
    view = replace(hidden_half(), unknown_source=at_the_border)
    assert not RaySet.of(ViewSet((view,), True), 64).shows_all(0)


@pytest.mark.parametrize("size", [8, 16])
def test_small_outlines_know_what_is_hidden(size: int) -> None:
    rays = RaySet.of(ViewSet((hidden_half(),), True), 64)
    _, _, mask, known = (values.reshape(-1) for values in rays.small(0, size))
    assert not (mask & ~known).any()
    assert mask.sum() == (size // 4) * (size // 2)
    assert (~known).reshape(size, size).any(0).nonzero().flatten().tolist() == list(range(3 * size // 16, size // 2))


def test_pixels_with_any_hidden_part_are_unknown_when_reduced() -> None:
    rays = RaySet.of(ViewSet((hidden_half(64),), True), 32)
    known = rays.known[0]
    assert known is not None
    assert known.shape == (32, 32)
    assert (~known).nonzero().amin(0).tolist() == [1, 1]
    assert (~known).nonzero().amax(0).tolist() == [6, 3]
