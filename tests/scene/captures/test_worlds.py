"""What is up: found from cameras however they were held."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene.camera import Camera, apply_transform, orbit_camera
from scene.captures.worlds import Up, align_up, estimated_up, rotation_to_z, turned_up, world_from_original
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


# --- worlds whose files say what is up --------------------------------------------------------------------------------

RING = [orbit_camera(2 * math.pi * k / 16, 0.5, 1.5, size=32) for k in range(16)]


def leaning(degrees: float, rolls: float = 0.0, count: int = 16) -> ViewSet:
    """A ring in a world that leans about x, held by hands that are off by ``rolls``."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    hands = np.random.default_rng(1).normal(0, max(rolls, 1e-12), count)
    cameras = [rolled(camera, roll, tilt) for camera, roll in zip(RING[:count], hands)]
    views = tuple(View(f"{k}", camera, np.zeros((32, 32, 4), np.uint8)) for k, camera in enumerate(cameras))
    region = {"centre": (tilt @ [0, 0, 0.2]).tolist(), "radius": 1.0}
    return ViewSet(views, False, {"up": "given", "region": region}, np.array([tilt @ [0, 0, 1.0]]))


@pytest.mark.parametrize("degrees", [15, 30, 90, 150, 180, -60])
def test_a_leaning_world_is_turned_upright_and_told(degrees: float) -> None:
    views = turned_up(leaning(degrees))
    assert [view.camera.centre for view in views] == pytest.approx(np.array([c.centre for c in RING]), abs=1e-6) or (
        # a full turn about z is left open
        [view.camera.centre[2] for view in views] == pytest.approx([c.centre[2] for c in RING], abs=1e-6)
    )
    assert views.points == pytest.approx(np.array([[0, 0, 1.0]]), abs=1e-6)
    assert views.metadata["region"]["centre"] == pytest.approx([0, 0, 0.2], abs=1e-6)
    assert views.metadata["up"] == "estimated"
    how = "is upside down" if degrees == 180 else f"leans by {abs(degrees)} degrees"
    assert how in views.metadata["notes"][0]
    world = world_from_original(views.metadata)
    assert world[:3, :3] @ leaning(degrees).views[3].camera.centre == pytest.approx(views.views[3].camera.centre)


@pytest.mark.parametrize("views", [leaning(0), leaning(8), leaning(8, 0.08), leaning(40, count=4), leaning(12, 0.6)])
def test_worlds_that_stand_or_whose_cameras_do_not_agree_are_left_to_the_byte(views: ViewSet) -> None:
    assert turned_up(views) is views


def test_worlds_of_our_own_are_trusted() -> None:
    views = leaning(30)
    assert turned_up(views, trusted=True) is views
    normalised = ViewSet(views.views, False, {**views.metadata, "normalised": True})
    assert turned_up(normalised, "+x") is normalised


@pytest.mark.parametrize("up", ["+x", "-x", "+y", "-y", "+z", "-z"])
def test_the_axis_that_points_up_can_be_said(up: Up) -> None:
    for views in (leaning(30), align_up(leaning(30))):
        turned = turned_up(views, up)
        axis = np.eye(3)["xyz".index(up[1])] * (1 if up[0] == "+" else -1)
        world = np.array(turned.metadata.get("world_from_file", np.eye(4)))
        assert world[:3, :3] @ axis == pytest.approx([0, 0, 1], abs=1e-9)
        assert turned.metadata["up"] == "given"
        moved = world[:3, :3] @ leaning(30).views[0].camera.centre
        assert turned.views[0].camera.centre == pytest.approx(moved, abs=1e-9)
