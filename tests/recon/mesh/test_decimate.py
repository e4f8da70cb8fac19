"""Decimation: closed stays closed, on blobs, thin sheets and parts that touch; the number, the shape, the handles."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from pipeline.training.procedural import Part
from recon.mesh.decimate import decimate
from recon.mesh.health import mesh_health
from recon.mesh.metrics import distance_to_mesh, sample_surface
from recon.mesh.topology import merge_vertices
from scene.voxels import voxel_centres


def level_set(sdf: np.ndarray) -> Part:
    """The closed mesh of a grid over ``[-1, 1]^3``."""
    vertices, faces, _, _ = measure.marching_cubes(np.pad(sdf, 1, constant_values=1.0), 0.0)
    return (vertices - 0.5) * 2 / len(sdf) - 1, faces.astype(np.int64)


def blob(seed: int, resolution: int, parts: int = 8) -> np.ndarray:
    """Distances to a union of balls and boxes that partly touch, partly overlap."""
    rng = np.random.default_rng(seed)
    points = voxel_centres(resolution, 1.0)
    sdf = np.full(points.shape[:3], np.inf)
    for k in range(parts):
        centre, size = rng.uniform(-0.6, 0.6, 3), rng.uniform(0.04, 0.35, 3)
        if k % 2:
            sdf = np.minimum(sdf, (np.abs(points - centre) - size).max(axis=-1))
        else:
            sdf = np.minimum(sdf, np.linalg.norm(points - centre, axis=-1) - size[0])
    return sdf


def assert_sound(part: Part, target: int) -> None:
    """Closed, also when equal positions are merged, and of the right size."""
    vertices, faces = part
    health = mesh_health(vertices, faces)
    assert health.watertight
    assert health.consistent
    assert health.volume > 0
    assert health.degenerate_faces == 0
    assert mesh_health(*merge_vertices(vertices, faces)).watertight
    assert 0.9 * target <= health.faces <= target


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.2, 0.06]))
def test_blobs_stay_closed(seed: int, share: float) -> None:
    vertices, faces = level_set(blob(seed, 40))
    target = max(200, int(share * len(faces)))
    assert_sound(decimate(vertices, faces, target), min(target, len(faces)))


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.floats(0.5, 1.2), st.sampled_from([0.4, 0.1]))
def test_thin_sheets_stay_closed(seed: int, thickness: float, share: float) -> None:
    """Shells of one voxel, full of holes and handles where they are thinner: the decimator's worst case."""
    sdf = np.abs(blob(seed, 32, parts=4)) - thickness / 32
    vertices, faces = level_set(sdf)
    if not mesh_health(vertices, faces).watertight:
        return
    target = max(300, int(share * len(faces)))
    points, triangles = decimate(vertices, faces, target)
    health = mesh_health(points, triangles)
    assert health.watertight
    assert health.consistent
    assert health.volume > 0
    assert health.faces <= max(target, 300)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_cubes_that_touch_at_edges_and_corners_stay_closed(seed: int) -> None:
    solid = np.random.default_rng(seed).random((6, 6, 6)) < 0.4
    vertices, faces = level_set(np.where(np.kron(solid, np.ones((4, 4, 4))), -0.5, 0.5))
    points, triangles = decimate(vertices, faces, len(faces) // 3)
    health = mesh_health(points, triangles)
    assert (health.watertight, health.consistent) == (True, True)
    assert 0.8 * len(faces) // 3 <= health.faces <= len(faces) // 3


def test_the_shape_and_its_handles_are_kept() -> None:
    """The error of a sixth of the faces is a fraction of the grid's own."""
    points = voxel_centres(48, 1.0)
    ring = np.hypot(np.linalg.norm(points[..., :2], axis=-1) - 0.6, points[..., 2]) - 0.22
    vertices, faces = level_set(ring)
    small = decimate(vertices, faces, len(faces) // 6)
    assert mesh_health(*small).genus == 1
    there = distance_to_mesh(sample_surface(*small, 4000)[0], vertices, faces)
    back = distance_to_mesh(sample_surface(vertices, faces, 4000)[0], *small)
    assert max(there.max(), back.max()) < 0.25 * 2 / 48
    assert mesh_health(*small).volume == pytest.approx(mesh_health(vertices, faces).volume, rel=0.005)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_scale_and_place_do_not_matter(ball: Callable[..., Part], scale: float) -> None:
    vertices, faces = ball(0.5)
    plain, moved = decimate(vertices, faces, 800), decimate(vertices * scale + 5 * scale, faces, 800)
    assert len(plain[1]) == pytest.approx(len(moved[1]), abs=20)
    assert np.linalg.norm(moved[0] / scale - 5, axis=1) == pytest.approx(0.5, abs=0.01)


def test_parts_of_a_closed_mesh_that_are_too_few_for_the_target_survive(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    points, triangles = decimate(vertices, faces, 3)
    assert mesh_health(points, triangles).watertight
    assert len(triangles) >= 4


@pytest.mark.slow
def test_three_hundred_thousand_faces_take_seconds() -> None:
    vertices, faces = level_set(blob(3, 96))
    repeats = int(np.ceil(300_000 / len(faces)))
    many = np.concatenate([vertices + np.array([3.0 * k, 0, 0]) for k in range(repeats)])
    copies = np.concatenate([faces + k * len(vertices) for k in range(repeats)])
    start = time.process_time()
    assert_sound(decimate(many, copies, 50_000), 50_000)
    assert time.process_time() - start < 8
