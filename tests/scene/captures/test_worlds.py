"""What is up: found from cameras however they were held."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene.camera import Camera, apply_transform, orbit_camera
from scene.captures.worlds import align_up, estimated_up, rotation_to_z, world_from_original
from scene.view import View
from scene.viewset import ViewSet

TILT = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
TILT *= np.sign(np.linalg.det(TILT))


def rolled(camera: Camera, roll: float, tilt: np.ndarray = TILT) -> Camera:
    """The camera turned about its axis, in a tilted world."""
    c, s = math.cos(roll), math.sin(roll)
    c2w = np.eye(4)
    c2w[:3, :3] = tilt @ camera.c2w[:3, :3] @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    c2w[:3, 3] = tilt @ camera.centre
    return Camera(c2w, camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height)


def off_by(cameras: list[Camera]) -> float:
    """Angle between the estimate and the truth, degrees."""
    return math.degrees(math.acos(np.clip(estimated_up(cameras)[0] @ TILT[:, 2], -1, 1)))


def test_a_ring_held_upright() -> None:
    assert off_by([rolled(orbit_camera(0.7 * k, 0.6), 0) for k in range(9)]) < 0.01


def test_cameras_on_one_side_that_look_down() -> None:
    """Their mean up vector leans back by their elevation; their level axes do not."""
    cameras = [rolled(orbit_camera(0.2 * k, 0.8), 0) for k in range(-3, 4)]
    assert off_by(cameras) < 0.1


@given(st.lists(st.floats(-0.1, 0.1), min_size=12, max_size=12))
def test_hands_that_are_not_steady(rolls: list[float]) -> None:
    assert off_by([rolled(orbit_camera(0.53 * k, 0.3 + 0.05 * (k % 4)), roll) for k, roll in enumerate(rolls)]) < 6


@given(st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=16, max_size=16))
def test_cameras_that_are_turned_by_quarters(quarters: list[int]) -> None:
    """Even where up vectors cancel out, level axes tell what is vertical, and looking down tells up from down."""
    cameras = [rolled(orbit_camera(0.4 * k, 0.4), q * math.pi / 2) for k, q in enumerate(quarters)]
    angle = off_by(cameras)
    upside_down = quarters.count(2) > quarters.count(0)  # then up vectors, where they tell, tell the wrong way
    assert min(angle, 180 - angle) < 3 if upside_down else angle < 3


@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1))
def test_the_rotation_to_z(direction: tuple[float, float, float]) -> None:
    up = np.array(direction) / np.linalg.norm(direction)
    rotation = rotation_to_z(up)
    assert rotation @ up == pytest.approx([0, 0, 1], abs=1e-9)
    assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)


def test_the_rotation_from_below() -> None:
    assert rotation_to_z(np.array([0, 0, -1.0])) @ [0, 0, -1.0] == pytest.approx([0, 0, 1])


def test_the_way_back_leads_to_where_the_cameras_were() -> None:
    cameras = [rolled(orbit_camera(float(k), 0.4), 0) for k in range(5)]
    views = ViewSet(tuple(View(str(k), camera) for k, camera in enumerate(cameras)), has_masks=False)
    before = np.diag([2.0, 2, 2, 1])
    before[:3, 3] = (1, 2, 3)
    moved = align_up(views, before)
    back = np.linalg.inv(world_from_original(moved.metadata))
    for old, new in zip(cameras, moved):
        assert apply_transform(back, new.camera.centre) == pytest.approx(old.centre)
        assert math.asin(new.camera.forward[2]) == pytest.approx(-0.4)
