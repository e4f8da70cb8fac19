"""Triangulation: exact where views agree, unmoved by those that do not, and silent where too few are left."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene.camera import Camera, orbit_camera
from scene.errors import InputError
from scene.skeleton import INDEX, Skeleton
from scene.triangulation import triangulate_detections, triangulate_skeleton
from tests.bodies import standing


def seen(views: int, noise: float = 0.0, seed: int = 0) -> tuple[Skeleton, list[Camera], np.ndarray, np.ndarray]:
    """A body, cameras around it, its joints in them, and confidences."""
    matrix = np.diag([0.4, 0.4, 0.4, 1.0])
    matrix[2, 3] = -0.4
    body = standing().transformed(matrix)
    cameras = [orbit_camera(2 * math.pi * k / views, 0.3, 1.8, size=256) for k in range(views)]
    pixels = np.stack([camera.project(body.positions)[0] for camera in cameras])
    pixels += np.random.default_rng(seed).normal(0, noise, pixels.shape) if noise else 0
    return body, cameras, pixels, np.full((views, 18), 0.9)


@pytest.mark.parametrize("views", [2, 3, 8])
def test_views_that_agree_give_the_joints(views: int) -> None:
    # Two views face to face have rays that run along each other.
    body, cameras, pixels, confidences = seen(2 * views + 1)
    found = triangulate_skeleton(cameras[:views], pixels[:views], confidences[:views])
    np.testing.assert_allclose(found.skeleton.positions, body.positions, atol=1e-9)
    assert (found.agreeing == views).all()
    assert (found.seen == views).all()
    assert found.error == pytest.approx(np.zeros(18), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_views_that_are_wrong_move_nothing(seed: int) -> None:
    body, cameras, pixels, confidences = seen(9)
    draw = np.random.default_rng(seed)
    for joint in range(18):  # a third of the views see another thing, as sure of it as the others
        wrong = draw.permutation(9)[:3]
        pixels[wrong, joint] = draw.uniform(0, 256, (3, 2))
    found = triangulate_skeleton(cameras, pixels, confidences)
    np.testing.assert_allclose(found.skeleton.positions, body.positions, atol=0.02)
    assert np.median(np.linalg.norm(found.skeleton.positions - body.positions, axis=1)) < 1e-6
    assert (found.agreeing >= 6).all()


def test_noise_averages_out() -> None:
    errors = []
    for views in (4, 24):
        body, cameras, pixels, confidences = seen(views, noise=0.7)
        found = triangulate_skeleton(cameras, pixels, confidences, tolerance=0.02)
        errors.append(float(np.linalg.norm(found.skeleton.positions - body.positions, axis=1).mean()))
    assert errors[1] < 0.6 * errors[0] < 0.006


def test_too_few_views_leave_a_joint_unknown() -> None:
    body, cameras, pixels, confidences = seen(5)
    nose, neck, wrist = INDEX["nose"], INDEX["neck"], INDEX["left_wrist"]
    confidences[1:, nose] = 0.1  # one view left
    pixels[:, neck] = np.nan
    pixels[:, wrist] = np.random.default_rng(1).uniform(0, 256, (5, 2))
    found = triangulate_skeleton(cameras, pixels, confidences, least_views=3)
    assert not found.skeleton.known[[nose, neck, wrist]].any()
    assert found.skeleton.known.sum() == 15
    assert (found.seen[nose], found.seen[neck], found.seen[wrist]) == (1, 0, 5)
    assert (found.agreeing[[nose, neck, wrist]] == 0).all()
    assert np.isnan(found.error[nose])
    elbow = INDEX["left_elbow"]
    np.testing.assert_allclose(found.skeleton.positions[elbow], body.positions[elbow], atol=1e-9)


def test_views_that_take_left_for_right_are_turned() -> None:
    body, cameras, pixels, confidences = seen(12, noise=1.0)
    left = [INDEX[name] for name in INDEX if name.startswith("left_")]
    right = [INDEX[name] for name in INDEX if name.startswith("right_")]
    for view in (1, 4, 6, 7, 10):
        pixels[view, left + sorted(right)] = pixels[view, sorted(right) + left]
    plain = triangulate_skeleton(cameras, pixels, confidences, tolerance=0.04)
    found = triangulate_detections(cameras, pixels, confidences)
    assert np.linalg.norm(found.skeleton.positions - body.positions, axis=1).max() < 0.02
    assert (found.agreeing == 12).all()
    assert (plain.agreeing < 12).any()


def test_without_any_joint_nothing_is_known() -> None:
    _, cameras, pixels, confidences = seen(3)
    found = triangulate_detections(cameras, np.full_like(pixels, np.nan), 0 * confidences)
    assert not found.skeleton.known.any()


def test_points_behind_cameras_are_none() -> None:
    _, cameras, pixels, confidences = seen(2 * 3 + 1)
    back = [Camera(c.c2w @ np.diag([1, -1, -1, 1.0]), c.fx, c.fy, c.cx, c.cy, 256, 256) for c in cameras[:3]]
    mirrored = pixels[:3].copy()
    mirrored[..., 0] = 256 - mirrored[..., 0]
    assert not triangulate_skeleton(back, mirrored, confidences[:3]).skeleton.known.any()


def test_what_does_not_fit_together_is_refused() -> None:
    _, cameras, pixels, confidences = seen(3)
    with pytest.raises(InputError, match="two views or more"):
        triangulate_skeleton(cameras[:1], pixels[:1], confidences[:1])
    with pytest.raises(InputError, match="3 cameras need as many"):
        triangulate_skeleton(cameras, pixels[:2], confidences[:2])
