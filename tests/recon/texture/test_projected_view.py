"""Pictures made ready, and what views see: no background, rims found, sampling where pixels are, hidden points."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.procedural import Part, box
from recon.mesh.health import mesh_health
from recon.texture.projected_view import ProjectedView, edge_width, read_view
from recon.texture.visibility import HIDDEN, PARTLY, WHOLE, compute_visibility, subdivided, visible
from scene.camera import Camera, look_at, orbit_camera
from scene.mesh import signed_volume, vertex_normals
from scene.raycast import mesh_caster
from scene.view import View

CAMERA = orbit_camera(0.0, 0.0, size=64)


def far_away() -> Part:
    """A mesh that no camera sees."""
    return np.array([[0, 0, -50.0], [0.01, 0, -50], [0, 0.01, -50]]), np.array([[0, 1, 2]])


def picture_of(rgba: np.ndarray, masked: bool = True) -> ProjectedView:
    height, width = rgba.shape[:2]
    camera = Camera(look_at(np.array([1.5, 0, 0])), 70.0, 70.0, width / 2, height / 2, width, height)
    return read_view(View("a", camera, rgba), masked, mesh_caster(*far_away()))


def test_what_is_ignored_is_not_trusted() -> None:
    rgba = np.full((300, 300, 4), 200, np.uint8)
    rgba[..., 3] = 255
    rgba[100:200, 150:, 3] = 0
    camera = Camera(look_at(np.array([1.5, 0, 0])), 70.0, 70.0, 150.0, 150.0, 300, 300)
    picture = read_view(View("a", camera, rgba), False, mesh_caster(*far_away()), ignored=True)
    places = np.array([[250.0, 150], [148.5, 150], [50, 150], [298, 20], [298, 298]])
    assert picture.core_at(places).tolist() == [0, 0, 1, 1, 1]
    assert picture.clean_at(places).tolist() == [0, 0, 1, 1, 1]
    assert read_view(View("a", camera, rgba), False, mesh_caster(*far_away())).core.min() == 1


def plain(camera: Camera) -> ProjectedView:
    """A grey picture without rims."""
    grey = np.full((camera.height, camera.width, 3), 0.5, np.float32)
    whole = np.ones(grey.shape[:2], np.float32)
    return ProjectedView(camera, np.full(grey.shape, 128, np.uint8), grey, whole, whole)


@settings(max_examples=20)
@given(st.integers(20, 900), st.integers(20, 900))
def test_colours_are_read_where_they_are(width: int, height: int) -> None:
    """A picture whose colours are its coordinates, at any size."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    rgb = np.stack([columns / width, rows / height, np.full((height, width), 0.25)], axis=-1)
    picture = picture_of(np.concatenate([np.round(rgb * 255), np.full((height, width, 1), 255)], -1).astype(np.uint8))
    rng = np.random.default_rng(0)
    share = rng.uniform(0.15, 0.85, (200, 2))
    pixels = (share * (width, height)).astype(np.float32)
    expected = np.concatenate([share, np.full((200, 1), 0.25)], axis=1)
    assert picture.sharp_at(pixels) == pytest.approx(expected, abs=0.012)
    assert picture.soft_at(pixels) == pytest.approx(expected, abs=0.02)
    assert max(picture.core.shape) <= 600


def test_long_lists_of_points_are_read_whole() -> None:
    rgba = np.zeros((8, 16, 4), np.uint8)
    rgba[..., 3], rgba[:, 8:, 0] = 255, 255
    pixels = np.tile(np.array([[2.5, 4.5], [13.5, 4.5]], np.float32), (150_001, 1))
    assert (picture_of(rgba).sharp_at(pixels)[:, 0] > 0.5).tolist()[-4:] == [False, True] * 2
    assert len(picture_of(rgba).sharp_at(pixels[:0])) == 0


@pytest.mark.parametrize("size", [64, 1000])
def test_what_lies_behind_the_mask_shows_nowhere_near_it(size: int) -> None:
    """A red bar on a picture whose hidden pixels are green."""
    rgba = np.zeros((size, size, 4), np.uint8)
    rgba[..., 1] = 255
    rgba[:, size // 2 - 3 : size // 2 + 3] = (200, 0, 0, 255)
    picture = picture_of(rgba)
    pixels = np.stack([np.linspace(size / 2 - 4.5, size / 2 + 4.5, 40), np.full(40, size / 2)], axis=1)
    for colours in (picture.sharp_at(pixels), picture.soft_at(pixels)):
        assert colours[:, 1].max() < 0.02
        assert colours[:, 0] == pytest.approx(np.full(40, 200 / 255), abs=0.03)


def test_rims_of_masks_count_little_and_what_is_beside_them_nothing() -> None:
    rgba = np.zeros((300, 300, 4), np.uint8)
    rgba[100:200, 100:200] = 255
    core = picture_of(rgba).core_at(np.array([[150.0, 150], [101.5, 150], [150, 198.5], [90, 150], [150, 210]]))
    assert core == pytest.approx([1, 0.15, 0.15, 0, 0], abs=0.01)
    clean = picture_of(rgba).clean_at(np.array([[150.0, 150], [101.5, 150], [100.5, 150], [90, 150]]))
    assert clean == pytest.approx([1, 1, 0.15, 0], abs=0.01)
    rgba[:] = 255  # what the picture's border cuts off has no rim there
    assert picture_of(rgba).core.min() == 1


def test_edges_of_what_stands_in_front_are_found_and_slanted_planes_have_none(ball: Callable[..., Part]) -> None:
    """Two balls, one before the other; a plane seen at six degrees."""
    front, back = ball(0.15, (0.4, 0, 0)), ball(0.4, (-0.2, 0, 0))
    part = np.concatenate([front[0], back[0]]), np.concatenate([front[1], back[1] + len(front[0])])
    camera, white = orbit_camera(0.0, 0.0, size=256), np.full((256, 256, 4), 255, np.uint8)
    core = read_view(View("a", camera, white), False, mesh_caster(*part)).core
    rows, columns = np.mgrid[0:256, 0:256] + 0.5
    radius = np.hypot(rows - 128, columns - 128)
    outline = camera.fx * np.tan(np.arcsin(0.15 / 1.1))
    assert core[np.abs(radius - outline) < 1].max() < 0.2
    assert core[radius < outline - 5].min() == 1
    assert core[(radius > outline + 4) & (radius < outline + 12)].min() == 1
    floor = box((20.0, 20.0, 0.001))
    low = Camera(look_at(np.array([1.0, 0, 0.1]), np.zeros(3)), 300.0, 300.0, 32.0, 32.0, 64, 64)
    assert read_view(View("b", low, white[:64, :64]), False, mesh_caster(*floor)).core[33:].min() == 1


def test_faces_are_seen_whole_in_part_or_not_at_all(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=3)
    picture = ProjectedView(
        CAMERA,
        np.full((64, 64, 3), 128, np.uint8),
        np.full((64, 64, 3), 0.5, np.float32),
        np.ones((64, 64), np.float32),
        np.ones((64, 64), np.float32),
    )
    seen = compute_visibility(
        vertices, faces, vertex_normals(vertices, faces), [picture], [0.5], mesh_caster(vertices, faces), 2.0
    )
    middle = vertices[faces].mean(axis=1)[:, 0]
    assert (seen.extent[0][middle > 0.3] == WHOLE).all()
    assert (seen.extent[0][middle < 0.1] == HIDDEN).all()
    assert (seen.extent[0] == PARTLY).any()
    towards = CAMERA.centre - vertices
    cosine = np.einsum("nc,nc->n", towards / np.linalg.norm(towards, axis=1, keepdims=True), vertices / 0.5)
    assert seen.weight[0] == pytest.approx(np.where(cosine > 0.1, 0.5 * np.maximum(cosine, 0) ** 2, 0), abs=0.02)
    assert (seen.colour[0][seen.weight[0] > 0] == 0.5).all()


def test_views_from_far_away_weigh_less(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.1, subdivisions=2)
    pictures = [plain(orbit_camera(0.0, 0.0, radius, size=64)) for radius in (1.0, 2.0)]
    weight = compute_visibility(
        vertices, faces, vertices / 0.1, pictures, [1.0, 1.0], mesh_caster(vertices, faces), 1.0
    ).weight
    front = vertices[:, 0].argmax()
    assert weight[1, front] / weight[0, front] == pytest.approx(0.25, rel=0.02)


def test_one_large_picture_leaves_the_others_the_weight_they_have_beside_one_of_four_times_their_size(
    ball: Callable[..., Part],
) -> None:
    vertices, faces = ball(0.1)
    small = [plain(orbit_camera(k, 0.0, size=32)) for k in (1.0, 2.0, 3.0)]
    weights = [
        compute_visibility(
            *(vertices, faces, vertices / 0.1, [plain(orbit_camera(0.0, 0.0, size=size)), *small], [1.0] * 4),
            *(mesh_caster(vertices, faces), 1.0),
        ).weight
        for size in (64, 128, 512)
    ]
    assert weights[0][1:].max() == pytest.approx(1 / 4, rel=0.05)
    assert weights[1][1:].max() == pytest.approx(1 / 16, rel=0.05)
    assert np.array_equal(weights[2][1:], weights[1][1:])


def test_points_behind_things_or_outside_the_picture_are_not_visible(ball: Callable[..., Part]) -> None:
    points = np.array([[0.0, 0, 0], [0.45, 0, 0], [0, 3, 0], [5, 0, 0], [0, 0.3, 0.3]])
    caster = mesh_caster(*ball(0.1, (0.3, 0, 0)))
    assert visible(CAMERA, points, np.ones(5, bool), caster).tolist() == [False, True, False, False, True]
    assert not visible(CAMERA, points, np.zeros(5, bool), caster).any()


def test_divided_faces_are_the_same_surface() -> None:
    vertices, faces = box((0.5, 0.3, 0.2))
    points, parts = subdivided(vertices, faces)
    assert len(parts) == 4 * len(faces)
    assert mesh_health(points, parts).watertight
    assert signed_volume(points, parts) == pytest.approx(signed_volume(vertices, faces))
    for k in range(len(faces)):
        assert points[parts[4 * k : 4 * k + 4]].mean(axis=(0, 1)) == pytest.approx(vertices[faces[k]].mean(axis=0))


@pytest.mark.parametrize("factor", [1, 3, 6])
def test_the_width_of_an_edge_is_that_of_the_pixels_before_enlarging(factor: int) -> None:
    yy, xx = np.mgrid[:96, :96] - 47.5
    alpha = np.round(255 * np.clip(30.5 - np.hypot(xx, yy), 0, 1)).astype(np.uint8)
    enlarged = cv2.resize(alpha, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    assert edge_width(enlarged) == pytest.approx(1.5 * factor, abs=0.5 * factor)


def test_masks_without_a_border_have_no_edge() -> None:
    assert edge_width(np.full((8, 8), 255, np.uint8)) == 0
    assert edge_width(np.zeros((8, 8), np.uint8)) == 0
