"""Captures of any scale, place and heading end up in the normalised world."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.procedural import Part, box, moved, rotation
from recon.views.normalise import common_view, look_at_point, normalise_capture, normalise_scene
from scene.camera import OBJECT_RADIUS, Camera, Mat4, apply_transform, c2w_from_opencv, look_at, orbit_camera
from scene.errors import InputError
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras


def similarity(scale: float, angle: float, offset: tuple[float, float, float]) -> Mat4:
    """Turn about a slanted axis, scale, shift."""
    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation("x", 0.7) @ rotation("z", angle)
    matrix[:3, 3] = offset
    return matrix


AWAY = similarity(3.0, 0.5, (5.0, -2.0, 7.0))
RINGS = {
    "4 from the side": [orbit_camera(k * math.pi / 2, 0.0, size=64) for k in range(4)],
    "8 from above": [orbit_camera(k * math.pi / 4, 0.3, size=64) for k in range(8)],
    "16 from all around": sphere_cameras(16, 64, 1.5),
}


@pytest.mark.parametrize("cameras", RINGS.values(), ids=RINGS.keys())
@pytest.mark.parametrize("radius", [0.25, 0.55])
def test_a_ball_fills_the_sphere_wherever_it_was(
    cameras: list[Camera], radius: float, ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    views, matrix = normalise_capture(shoot(ball(radius), cameras).transformed(AWAY))
    centre = apply_transform(matrix @ AWAY, np.zeros((1, 3)))[0]
    reach = float(np.cbrt(np.linalg.det((matrix @ AWAY)[:3, :3]))) * radius
    assert np.linalg.norm(centre) + reach < OBJECT_RADIUS * 1.05
    assert reach > 0.8 * OBJECT_RADIUS
    assert len(views) == len(cameras)


def test_a_small_object_far_from_the_cameras_is_measured_again_from_near(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    """Four voxels of the first look would be wrong by a quarter."""
    _, matrix = normalise_capture(shoot(ball(0.07), sphere_cameras(16, 128, 1.5)))
    assert matrix[0, 0] * 0.07 == pytest.approx(OBJECT_RADIUS, rel=0.12)


def test_an_object_off_the_middle_is_centred_by_its_box(shoot: Callable[..., ViewSet]) -> None:
    part = moved(box((0.25, 0.1, 0.05)), (0.2, -0.15, 0.1))
    _, matrix = normalise_capture(shoot(part, sphere_cameras(24, 96, 1.5)).transformed(AWAY))
    corners = apply_transform(matrix @ AWAY, part[0])
    assert corners.max(axis=0) + corners.min(axis=0) == pytest.approx([0, 0, 0], abs=0.1)
    assert 0.8 * OBJECT_RADIUS < np.linalg.norm(corners, axis=1).max() < 1.05 * OBJECT_RADIUS


def test_the_matrix_is_the_one_the_cameras_moved_by(ball_views: ViewSet) -> None:
    before = ball_views.transformed(AWAY)
    after, matrix = normalise_capture(before)
    for old, new in zip(before, after):
        assert new.camera.centre == pytest.approx(apply_transform(matrix, old.camera.centre))
        assert (new.name, new.pixels is old.pixels, new.weight) == (old.name, True, old.weight)


@given(st.floats(0.01, 100), st.floats(-4, 4), st.tuples(*[st.floats(-50, 50)] * 3))
def test_moved_cameras_see_moved_points_in_the_same_pixels(
    ball_views: ViewSet, scale: float, angle: float, offset: tuple[float, float, float]
) -> None:
    matrix = similarity(scale, angle, offset)
    points = np.array([[0.1, 0.2, -0.3], [-0.2, 0.1, 0.25]])
    for old, new in zip(ball_views.views[:3], ball_views.transformed(matrix)):
        pixels, depth = old.camera.project(points)
        again, deeper = new.camera.project(apply_transform(matrix, points))
        assert again == pytest.approx(pixels, abs=1e-5)
        assert deeper == pytest.approx(depth * scale, rel=1e-6)


@given(st.tuples(*[st.floats(-50, 50)] * 3), st.integers(2, 6))
def test_the_point_that_cameras_look_at(target: tuple[float, float, float], count: int) -> None:
    at = np.array(target)
    spots = [at + (1 + k) * np.array([math.cos(2 * k), math.sin(2 * k), 0.3 * k]) for k in range(count)]
    cameras = [Camera(look_at(spot, at), 50.0, 50.0, 16.0, 16.0, 32, 32) for spot in spots]
    assert look_at_point(cameras) == pytest.approx(at, abs=1e-6)


def test_one_view_is_no_capture(ball_views: ViewSet) -> None:
    with pytest.raises(InputError, match="a capture needs at least two views"):
        normalise_capture(replace(ball_views, views=ball_views.views[:1]))


def test_cameras_side_by_side_are_refused(ball_views: ViewSet) -> None:
    views = []
    for k, view in enumerate(ball_views.views[:3]):
        c2w = look_at(np.array([1.5, 0, 0]))
        c2w[1, 3] = k
        views.append(replace(view, camera=replace(view.camera, c2w=c2w)))
    with pytest.raises(InputError, match=r"look in the same direction\. A surface needs views from around the object"):
        normalise_capture(replace(ball_views, views=tuple(views)))


def test_poses_in_other_axes_are_found_out(ball_views: ViewSet) -> None:
    """OpenCV poses taken for OpenGL ones look away from the object."""
    views = tuple(
        replace(view, camera=replace(view.camera, c2w=c2w_from_opencv(view.camera.c2w))) for view in ball_views
    )
    with pytest.raises(InputError, match=r"see no common region\. Check the poses: they must be camera-to-world"):
        normalise_capture(replace(ball_views, views=views))


def test_views_without_masks_are_refused(ball_views: ViewSet) -> None:
    with pytest.raises(InputError, match="needs masks"):
        normalise_capture(replace(ball_views, has_masks=False))


@pytest.mark.parametrize(("times", "believed"), [(0.3, True), (1.0, True), (2.0, True), (5.0, False), (40.0, False)])
def test_a_region_far_larger_than_the_common_view_is_not_believed(
    times: float, believed: bool, ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    """The object lies in the bounding sphere all the same."""
    views = shoot(ball(0.5), sphere_cameras(16, 32, 1.5)).transformed(AWAY)
    centre, radius = common_view([view.camera for view in views])
    region = {"centre": centre.tolist(), "radius": times * radius}
    views = replace(views, has_masks=False, metadata={"region": region})
    moved, matrix = normalise_scene(views)
    assert matrix[0, 0] == pytest.approx(
        normalise_scene(views, (centre, radius * (times if believed else 1))).matrix[0, 0]
    )
    assert ("region" in moved.metadata) is believed
    assert any("in common" in note for note in moved.metadata.get("notes", [])) is not believed
    if times >= 1:
        middle = apply_transform(matrix @ AWAY, np.zeros((1, 3)))[0]
        reach = float(np.cbrt(np.linalg.det((matrix @ AWAY)[:3, :3]))) * 0.5
        assert 0.25 * OBJECT_RADIUS < np.linalg.norm(middle) + reach < 1.05 * OBJECT_RADIUS


def test_cameras_that_look_around_a_room_have_no_common_view(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    views = shoot(ball(0.5), [orbit_camera(k * math.pi / 4, 0.3, size=32) for k in range(8)])
    away = np.diag([-1.0, 1.0, -1.0, 1.0])
    around = tuple(replace(v, camera=replace(v.camera, c2w=v.camera.c2w @ away)) for v in views)
    region = {"centre": [0.0, 0.0, 0.0], "radius": 50.0}
    moved, matrix = normalise_scene(replace(views, views=around, has_masks=False, metadata={"region": region}))
    assert matrix[0, 0] == pytest.approx(OBJECT_RADIUS / 50)
    assert "notes" not in moved.metadata
