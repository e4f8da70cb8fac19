"""Worlds of found cameras are put in order, however they lie."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.views.upright import upright_transform
from scene.camera import Camera, apply_transform, orbit_camera
from scene.errors import InputError


def in_world(camera: Camera, matrix: np.ndarray) -> Camera:
    """The camera after a similarity of its world."""
    c2w = camera.c2w.copy()
    c2w[:3, :3] = matrix[:3, :3] / np.cbrt(np.linalg.det(matrix[:3, :3])) @ c2w[:3, :3]
    c2w[:3, 3] = apply_transform(matrix, camera.centre)
    return replace(camera, c2w=c2w)


@given(st.integers(0, 10_000), st.floats(0.01, 100))
def test_any_similarity_is_undone(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = scale * turn * np.sign(np.linalg.det(turn))
    matrix[:3, 3] = rng.normal(size=3) * 10
    cameras = [orbit_camera(k * math.pi / 5, 0.4 + 0.1 * (k % 3), 1.5) for k in range(10)]
    found = upright_transform([in_world(c, matrix) for c in cameras], matrix[:3, 3])
    assert np.allclose(found @ matrix, np.eye(4), atol=1e-6)


def test_the_first_camera_stands_at_azimuth_0_and_the_median_one_at_the_default_distance() -> None:
    cameras = [orbit_camera(1 + k * 0.7, 0.3, radius) for k, radius in enumerate((2.0, 3.0, 4.0, 5.0, 9.0))]
    matrix = upright_transform(cameras, np.zeros(3))
    centres = [apply_transform(matrix, camera.centre) for camera in cameras]
    assert centres[0][1] == pytest.approx(0, abs=1e-9)
    assert centres[0][0] > 0
    assert np.linalg.norm(centres[2]) == pytest.approx(1.5)


def test_a_first_camera_overhead_has_no_azimuth_to_keep() -> None:
    cameras = [orbit_camera(0.0, math.pi / 2), *(orbit_camera(k * 1.2, 0.2) for k in range(5))]
    matrix = upright_transform(cameras, np.zeros(3))
    assert np.allclose(matrix[2, :3], (0, 0, 1), atol=1e-6)
    assert np.linalg.det(matrix[:3, :3]) > 0


def test_cameras_at_the_point_they_look_at_are_refused() -> None:
    cameras = []
    for azimuth in (0.0, 1.0, 2.0, 3.0):
        camera = orbit_camera(azimuth, 0.3)
        c2w = camera.c2w.copy()
        c2w[:3, 3] = 0
        cameras.append(replace(camera, c2w=c2w))
    with pytest.raises(InputError, match="stand at the point"):
        upright_transform(cameras, np.zeros(3))
