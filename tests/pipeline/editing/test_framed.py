"""Squares around an object: where points fall, how large it is, what lies beyond a picture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.editing.framed import FILL, frame_around
from scene.camera import orbit_camera
from scene.errors import InputError

CENTRE = np.array([0.1, -0.2, 0.05])


@given(
    azimuth=st.floats(-3, 3),
    elevation=st.floats(-1.2, 1.2),
    distance=st.floats(1.2, 8),
    size=st.integers(20, 3000),
    radius=st.floats(0.1, 0.6),
)
def test_the_sphere_fills_the_same_part_of_every_frame(
    azimuth: float, elevation: float, distance: float, size: int, radius: float
) -> None:
    camera = orbit_camera(azimuth, elevation, distance, size=size)
    frame = frame_around(camera, CENTRE, radius, 64)
    assert (frame.camera.width, frame.camera.height) == (64, 64)
    pixels, depth = frame.camera.project(CENTRE[None])
    np.testing.assert_allclose(pixels[0], (32, 32), atol=1e-6)
    up = camera.c2w[:3, 1]
    rim, _ = frame.camera.project((CENTRE + radius * up)[None])
    assert np.linalg.norm(rim[0] - pixels[0]) == pytest.approx(FILL * 32, rel=1e-6)
    assert depth[0] > radius


def test_pictures_are_cut_where_the_camera_says() -> None:
    camera = replace(orbit_camera(0.3, 0.2, 2.0, size=200), cx=80.0, cy=130.0)
    frame = frame_around(camera, CENTRE, 0.4, 50)
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[..., 3] = 255
    point = CENTRE + np.array([0.1, 0.05, 0.12])
    (x, y), _ = (values[0] for values in camera.project(point[None]))
    rgba[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4] = 255
    drawn = frame.picture(rgba)
    (u, v), _ = (values[0] for values in frame.camera.project(point[None]))
    rows, columns = np.nonzero(drawn[..., 0] > 128)
    assert abs(rows.mean() + 0.5 - v) < 1
    assert abs(columns.mean() + 0.5 - u) < 1


def test_what_lies_beyond_the_picture_is_transparent() -> None:
    camera = replace(orbit_camera(0.0, 0.0, 2.0, size=100), cx=0.0)
    drawn = frame_around(camera, np.zeros(3), 0.4, 40).picture(np.full((100, 100, 4), 255, np.uint8))
    assert (drawn[:, :18, 3] == 0).all()
    assert (drawn[:, 22:, 3] == 255).all()


def test_cameras_in_or_before_the_object_are_refused() -> None:
    with pytest.raises(InputError, match="around it"):
        frame_around(orbit_camera(0.0, 0.0, 0.3), np.zeros(3), 0.4, 40)
    away = orbit_camera(0.0, 0.0, 3.0)
    turned = replace(away, c2w=away.c2w @ np.diag([-1.0, 1, -1, 1]))
    with pytest.raises(InputError, match="behind it"):
        frame_around(turned, np.zeros(3), 0.4, 40)
