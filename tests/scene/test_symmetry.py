"""Mirrored cameras and pictures."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene.camera import orbit_camera
from scene.mesh import ColouredMesh
from scene.render import UNLIT, MeshRenderer
from scene.symmetry import SymmetryPlane
from scene.view import View

angles = st.floats(-10, 10)
offsets = st.floats(-0.3, 0.3)


@given(heading=angles, offset=offsets, azimuth=angles, elevation=st.floats(-1.2, 1.2), shift=st.floats(-20, 20))
def test_the_mirrored_camera_sees_the_mirrored_point_where_the_flipped_picture_has_the_point(
    heading: float, offset: float, azimuth: float, elevation: float, shift: float
) -> None:
    plane = SymmetryPlane(heading, offset)
    camera = replace(orbit_camera(azimuth, elevation, 1.5, size=64), cx=32 + shift)
    points = np.random.default_rng(0).uniform(-0.4, 0.4, (20, 3))
    pixels, depth = camera.project(points)
    mirrored, also = plane.mirrored_camera(camera).project(plane.mirrored(points))
    np.testing.assert_allclose(mirrored[:, 0], 64 - pixels[:, 0], atol=1e-8)
    np.testing.assert_allclose(mirrored[:, 1], pixels[:, 1], atol=1e-8)
    np.testing.assert_allclose(also, depth, atol=1e-10)


@given(heading=angles, offset=offsets)
def test_mirroring_twice_changes_nothing_and_the_matrix_does_the_same(heading: float, offset: float) -> None:
    plane, points = SymmetryPlane(heading, offset), np.random.default_rng(1).normal(size=(5, 3))
    np.testing.assert_allclose(plane.mirrored(plane.mirrored(points)), points, atol=1e-10)
    np.testing.assert_allclose(plane.mirrored(points), points @ plane.matrix[:3, :3].T + plane.matrix[:3, 3])
    assert np.linalg.det(plane.matrix) == pytest.approx(-1)


def test_a_symmetric_object_looks_from_the_mirrored_camera_as_in_the_flipped_photo() -> None:
    rng = np.random.default_rng(2)
    plane = SymmetryPlane(math.radians(25), 0.05)
    half = rng.uniform(-0.3, 0.3, (12, 3, 3))
    vertices = np.concatenate([half.reshape(-1, 3), plane.mirrored(half.reshape(-1, 3))]).astype(np.float32)
    faces = np.arange(72, dtype=np.int32).reshape(-1, 3)
    faces[12:] = faces[12:, ::-1]
    colours = np.tile(rng.integers(0, 256, (36, 3)), (2, 1)).astype(np.uint8)
    renderer = MeshRenderer(ColouredMesh(vertices, faces, vertex_colours=colours), UNLIT)
    camera = orbit_camera(0.3, 0.4, 1.5, size=96)
    photo = View("photo", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8))
    view = plane.mirrored_view(photo, 0.5)
    assert view.origin == "mirrored"
    assert view.weight == 0.5
    true = np.round(renderer.render(view.camera).rgba * 255)
    different = [np.abs(true - pixels).max(axis=-1) > 8 for pixels in (view.rgba(), photo.rgba())]
    # Edges of triangles differ by what falls between the rays.
    assert different[0].mean() < 0.04 < 0.15 < different[1].mean()


@pytest.mark.parametrize(("heading", "expected"), [(0, 180), (90, 0), (80, 20), (45, 90), (-45, 90)])
def test_the_mirrored_camera_of_a_photo_stands_where_twice_the_heading_says(heading: float, expected: float) -> None:
    camera = orbit_camera(0.0, 0.0, 1.5, size=8)
    assert math.degrees(SymmetryPlane(math.radians(heading)).view_angle(camera)) == pytest.approx(expected, abs=1e-4)


def test_planes_with_opposite_normals_are_the_same() -> None:
    plane = SymmetryPlane(math.radians(5))
    assert math.degrees(plane.angle_to(math.radians(175))) == pytest.approx(10)
    assert plane.angle_to(math.radians(185)) == pytest.approx(0, abs=1e-9)
