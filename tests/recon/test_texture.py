"""Textures: charts without overlap, colours on the side they were seen from, nothing from behind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from recon.field import Surface
from recon.texture import TexturedMesh, bake, project_colours, rasterise, unwrap
from scene.camera import orbit_camera
from scene.mesh import sample_image
from scene.procedural import Part, box
from scene.raycast import mesh_caster
from scene.viewset import View, ViewSet
from scene.voxels import sphere_cameras

GREY = Surface(np.zeros((2, 2, 2), np.float32), np.full((2, 2, 2, 3), 0.5, np.float32), 0.648, {})
ORANGE = (200, 60, 20)


class ByPlace:
    """Colours that tell where they are: a mirrored or turned texture shows at once."""

    def __call__(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        return (points + 0.5).astype(np.float32)


def vertex_colours(mesh: TexturedMesh) -> np.ndarray:
    """What a viewer shows at the vertices."""
    return sample_image(mesh.texture, mesh.uv.astype(np.float32))


def flat_view(colour: tuple[int, ...], azimuth: float = 0.0, name: str = "a", weight: float = 1.0) -> View:
    """A picture of one colour."""
    rgba = np.broadcast_to(np.array([*colour, 255], np.uint8), (64, 64, 4)).copy()
    return View(name, orbit_camera(azimuth, 0.0, size=64), pixels=rgba, weight=weight)


def seen_from(views: list[View], point: tuple[float, float, float], normal: tuple[float, float, float]) -> np.ndarray:
    """Colour of one point with nothing around it, on a black fallback."""
    caster = mesh_caster(*TINY_TRIANGLE)
    points, normals = np.array([point], float), np.array([normal], float)
    return project_colours(points, normals, ViewSet(tuple(views), False), caster, np.zeros((1, 3)))[0]


TINY_TRIANGLE = (np.array([[0, 0, -5.0], [0.01, 0, -5], [0, 0.01, -5]]), np.array([[0, 1, 2]]))
"""Out of everybody's way."""


# --- charts ------------------------------------------------------------------------------------------------------


def test_charts_keep_faces_lie_in_the_picture_and_do_not_overlap(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=3)
    source, new_faces, uv = unwrap(vertices, faces, 256)
    assert (source[new_faces] == faces).all()
    assert uv.min() >= 0
    assert uv.max() <= 1
    corners = uv[new_faces] * 256
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    face_of, _ = rasterise(uv, new_faces, 256)
    assert (face_of >= 0).sum() == pytest.approx(areas.sum(), rel=0.02)
    assert areas.sum() > 0.3 * 256**2


def test_charts_are_not_stretched() -> None:
    """A long flat box packs into an atlas that is far from square."""
    vertices, faces = box((0.6, 0.06, 0.03))
    source, new_faces, uv = unwrap(vertices, faces, 256)
    edges = np.concatenate([new_faces[:, [k, (k + 1) % 3]] for k in range(3)])
    flat, solid = (np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1) for x in (uv, vertices[source]))
    ratio = flat / solid
    assert ratio.max() < 1.1 * ratio.min()


@given(arrays(np.float64, (3, 2), elements=st.floats(0, 1)), st.sampled_from([8, 16, 33]))
def test_rasterising_finds_the_texels_whose_centres_lie_inside(uv: np.ndarray, side: int) -> None:
    a, b, c = uv * side
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    face_of, bary = rasterise(uv, np.array([[0, 1, 2]]), side)
    if abs(area) < 1e-3:
        return
    for row in range(side):
        for column in range(side):
            p = np.array([column + 0.5, row + 0.5])
            v = ((c[0] - p[0]) * (a[1] - p[1]) - (c[1] - p[1]) * (a[0] - p[0])) / area
            w = ((a[0] - p[0]) * (b[1] - p[1]) - (a[1] - p[1]) * (b[0] - p[0])) / area
            margin = min(v, w, 1 - v - w)
            if abs(margin) < 1e-5:
                continue  # rounding decides
            assert face_of[row, column] == (0 if margin > 0 else -1)
            if margin > 0:
                assert bary[row, column] == pytest.approx([v, w], abs=1e-4)


def test_faces_of_all_sizes_are_rasterised() -> None:
    """A square of two halves, one of them cut into small pieces along a fan."""
    fan = np.stack([np.linspace(0, 1, 12), np.ones(12)], axis=1)
    uv = np.concatenate([[[0.0, 0.0], [1.0, 0.0]], fan])
    faces = np.array([[0, 1, 13]] + [[0, k + 1, k] for k in range(2, 13)])
    face_of, _ = rasterise(uv, faces, 64)
    assert (face_of >= 0).all()
    assert set(face_of.reshape(-1).tolist()) == set(range(12))


# --- whole bakes -------------------------------------------------------------------------------------------------


def test_colours_come_to_the_places_they_were_seen_at(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=3)
    mesh = bake(*part, shoot(part, sphere_cameras(16, 96, 1.5), solid=(ByPlace(),)), GREY, 256)
    assert mesh.texture.shape == (256, 256, 3)
    assert np.abs(vertex_colours(mesh) - (mesh.vertices + 0.5)).mean() < 0.015
    assert np.abs(vertex_colours(mesh) - (mesh.vertices + 0.5)).max() < 0.1


def test_one_colour_stays_that_colour_in_every_texel(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """No gamma, no background at outlines or between charts."""
    part = ball(0.5, subdivisions=3)
    views = []
    for view in shoot(part, sphere_cameras(16, 96, 1.5)):
        rgba = view.rgba().copy()
        rgba[rgba[..., 3] < 250, :3] = (0, 255, 0)
        views.append(replace(view, pixels=rgba))
    same = replace(GREY, colour=np.broadcast_to(np.array(ORANGE, np.float32) / 255, (2, 2, 2, 3)).copy())
    mesh = bake(*part, ViewSet(tuple(views), True), same, 128)
    assert mesh.texture.astype(int) == pytest.approx(np.broadcast_to(ORANGE, (128, 128, 3)), abs=3)


def test_what_no_view_sees_has_the_colour_of_the_model(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    part = ball(0.5, subdivisions=3)
    blue = replace(GREY, colour=np.broadcast_to(np.array([0, 0, 1], np.float32), (2, 2, 2, 3)).copy())
    mesh = bake(*part, shoot(part, [orbit_camera(0.0, 0.0, size=96)]), blue, 128)
    colours = vertex_colours(mesh)
    front, back = mesh.vertices[:, 0] > 0.45, mesh.vertices[:, 0] < 0.1
    assert colours[front] * 255 == pytest.approx(np.broadcast_to(ORANGE, (front.sum(), 3)), abs=24)
    assert colours[back] == pytest.approx(np.broadcast_to([0, 0, 1], (back.sum(), 3)), abs=0.01)


def test_normals_are_continuous_over_chart_borders(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=2)
    mesh = bake(*part, shoot(part, [orbit_camera(0.0, 0.0, size=32)]), GREY, 64)
    assert len(mesh.vertices) > len(part[0])  # there are borders
    assert mesh.normals == pytest.approx(mesh.vertices / 0.5, abs=0.03)


# --- single points -----------------------------------------------------------------------------------------------


def test_what_stands_in_front_hides_what_is_behind(ball: Callable[..., Part]) -> None:
    view = ViewSet((flat_view((255, 0, 0)),), False)
    points, normals = np.array([[0.55, 0.0, 0.0], [-0.3, 0.0, 0.0]]), np.array([[1.0, 0, 0], [1.0, 0, 0]])
    colours = project_colours(points, normals, view, mesh_caster(*ball(0.1, (0.3, 0, 0))), np.zeros((2, 3)))
    assert colours[0, 0] > 0.95
    assert colours[1].tolist() == [0, 0, 0]


def test_surfaces_facing_away_and_points_beside_the_picture_are_not_seen() -> None:
    view = flat_view((255, 0, 0))
    assert seen_from([view], (0, 0, 0), (1, 0, 0))[0] > 0.95
    assert seen_from([view], (0, 0, 0), (-1, 0, 0))[0] == 0
    assert seen_from([view], (0, 2, 0), (1, 0, 0))[0] == 0
    assert seen_from([view], (9, 0, 0), (-1, 0, 0))[0] == 0  # behind the camera


def test_views_count_by_confidence_and_by_how_squarely_they_look() -> None:
    red, blue = (255, 0, 0), (0, 0, 255)
    both = [flat_view(red, 0.5, "r"), flat_view(blue, -0.5, "b")]
    even = seen_from(both, (0, 0, 0), (1, 0, 0))
    assert even[0] == pytest.approx(even[2])
    assert even[0] > 0.45
    trusted = seen_from([flat_view(red, 0.5, "r", 0.9), flat_view(blue, -0.5, "b", 0.1)], (0, 0, 0), (1, 0, 0))
    assert trusted[0] == pytest.approx(9 * trusted[2], rel=1e-4)
    square = seen_from([flat_view(red, 0.0, "r"), flat_view(blue, 1.0, "b")], (0, 0, 0), (1, 0, 0))
    assert square[2] / square[0] == pytest.approx(math.cos(1.0) ** 4, rel=1e-4)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_only_the_best_views_are_blended_whatever_their_order(order: tuple[int, ...]) -> None:
    red, green, blue = flat_view((255, 0, 0), 0.1, "r"), flat_view((0, 255, 0), 0.5, "g"), flat_view((0, 0, 255), 0.9)
    views = ViewSet(tuple((red, green, blue)[k] for k in order), False)
    caster, point, normal = mesh_caster(*TINY_TRIANGLE), np.zeros((1, 3)), np.array([[1.0, 0, 0]])
    one = project_colours(point, normal, views, caster, np.zeros((1, 3)), best=1)[0]
    two = project_colours(point, normal, views, caster, np.zeros((1, 3)), best=2)[0]
    assert (one > 0).tolist() == [True, False, False]
    assert (two > 0).tolist() == [True, True, False]
    assert two[1] / two[0] == pytest.approx((math.cos(0.5) / math.cos(0.1)) ** 4, rel=1e-4)


def test_what_lies_behind_a_mask_does_not_bleed_into_thin_parts() -> None:
    """A part of one pixel is all rim: it must keep its colour, whatever the hidden pixels beside it hold."""
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., :3] = (0, 255, 0)
    rgba[:, 32] = (200, 0, 0, 255)
    camera = orbit_camera(0.0, 0.0, size=64)
    points = camera.unproject(np.array([[32.2, 20.5], [32.8, 40.5]]), np.full(2, 1.5))
    normals = np.broadcast_to([1.0, 0, 0], (2, 3))
    views = ViewSet((View("a", camera, rgba),), True)
    colours = project_colours(points, normals, views, mesh_caster(*TINY_TRIANGLE), np.full((2, 3), [200 / 255, 0, 0]))
    assert colours[:, 0] == pytest.approx(200 / 255, abs=0.01)
    assert colours[:, 1] == pytest.approx(0, abs=0.01)


def test_pixels_in_the_rim_of_the_mask_count_little() -> None:
    """The outermost pixel of a mask is a mixture with the background, the ones within are not."""
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[:, 20:44] = 255
    camera = orbit_camera(0.0, 0.0, size=64)
    views = ViewSet((View("a", camera, rgba),), True)
    pixels = np.array([[24.5, 32.5], [20.5, 32.5], [10.5, 32.5]])
    points = camera.unproject(pixels, np.full(3, 1.5))
    normals = np.broadcast_to([1.0, 0, 0], (3, 3))
    inner, rim, outside = project_colours(points, normals, views, mesh_caster(*TINY_TRIANGLE), np.zeros((3, 3)))[:, 0]
    assert inner > 0.95
    assert 0.5 < rim < 0.9
    assert outside == 0
