"""Level sets of functions: the same mesh whatever the blocks, closed, and evaluated only near the surface."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure

from recon.mesh.extract import extract_level_set
from recon.mesh.health import mesh_health
from scene.errors import InputError

LOW, HIGH = np.array([-0.6, -0.5, -0.55]), np.array([0.6, 0.62, 0.5])
Sdf = Callable[[np.ndarray], np.ndarray]


def sphere(radius: float, centre: tuple[float, float, float] = (0.05, 0.0, -0.02)) -> Sdf:
    return lambda p: np.linalg.norm(p - np.array(centre), axis=-1) - radius


def waves(seed: int) -> Sdf:
    """A ball whose surface is waved; it changes at most 1.6 per unit length."""
    rng = np.random.default_rng(seed)
    turn = rng.normal(size=(5, 3)) * 7
    phase, height = rng.uniform(0, 6, 5), 0.6 / np.linalg.norm(turn, axis=1) / 5
    return lambda p: np.linalg.norm(p, axis=-1) - 0.36 + np.sin(p @ turn.T + phase) @ height


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 8, 16, 24, 37]), st.sampled_from([0.03, 0.041, 0.06]))
def test_blocks_make_no_difference(seed: int, block: int, voxel: float) -> None:
    one = extract_level_set(waves(seed), LOW, HIGH, voxel, block=10_000)
    many = extract_level_set(waves(seed), LOW, HIGH, voxel, block=block, batch=5000)
    assert len(many.faces) == len(one.faces)
    assert many.evaluations == one.evaluations
    one_sorted, many_sorted = (x.vertices[np.lexsort(np.round(x.vertices, 9).T)] for x in (one, many))
    assert many_sorted == pytest.approx(one_sorted, abs=1e-9)
    health = mesh_health(many.vertices, many.faces)
    assert (health.watertight, health.consistent, health.degenerate_faces) == (True, True, 0)
    assert health.volume == pytest.approx(mesh_health(one.vertices, one.faces).volume)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_it_is_the_mesh_of_the_whole_grid(seed: int) -> None:
    """Looking only near the surface misses nothing."""
    voxel = 0.05
    found = extract_level_set(waves(seed), np.full(3, -0.6), np.full(3, 0.6), voxel, block=8)
    axis = (np.arange(24) + 0.5) * voxel - 0.6
    grid = waves(seed)(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)).reshape(24, 24, 24)
    vertices, faces, _, _ = measure.marching_cubes(grid, 0.0)
    vertices = (vertices + 0.5) * voxel - 0.6
    assert len(found.faces) == pytest.approx(len(faces), abs=4)  # ambiguous cells may be joined another way
    one, other = (mesh_health(v, f.astype(np.int64)) for v, f in ((found.vertices, found.faces), (vertices, faces)))
    assert one.volume == pytest.approx(other.volume, rel=1e-3)


def test_vertices_lie_on_the_surface() -> None:
    voxel = 0.025
    found = extract_level_set(sphere(0.4), LOW, HIGH, voxel)
    distance = np.abs(sphere(0.4)(found.vertices))
    assert distance.max() < voxel**2 / (4 * 0.4) + 2e-3 * voxel
    health = mesh_health(found.vertices, found.faces)
    assert (health.watertight, health.genus, health.components) == (True, 0, 1)
    assert health.volume == pytest.approx(4 / 3 * math.pi * 0.4**3, rel=0.005)


def test_only_points_near_the_surface_are_asked_for_and_each_once() -> None:
    asked: list[np.ndarray] = []

    def counted(points: np.ndarray) -> np.ndarray:
        asked.append(points)
        return sphere(0.4)(points)

    voxel = 1.2 / 128
    found = extract_level_set(counted, np.full(3, -0.6), np.full(3, 0.6), voxel, block=32, steepness=1.0)
    points = np.concatenate(asked)
    assert found.evaluations == len(points) < 0.2 * found.voxels
    assert found.voxels == 128**3
    assert max(len(part) for part in asked) <= 1 << 18
    # What the coarse passes asked for may be asked for again.
    assert len(points) - len(np.unique(np.round(points / voxel * 2), axis=0)) < 0.03 * len(points)
    fine = points[np.abs(sphere(0.4)(points)) > 12 * voxel]
    assert len(fine) < 0.02 * found.voxels


def test_what_the_box_cuts_is_closed_at_its_wall() -> None:
    found = extract_level_set(sphere(0.7, (0, 0, 0)), LOW, HIGH, 0.05, block=8)
    health = mesh_health(found.vertices, found.faces)
    assert (health.watertight, health.consistent) == (True, True)
    assert found.vertices.min(axis=0) == pytest.approx(LOW, abs=0.026)
    assert found.vertices.max(axis=0) == pytest.approx(HIGH, abs=0.026)


def test_a_function_that_is_zero_at_voxel_centres_gives_no_flat_faces() -> None:
    """The plane x = 0.025 passes exactly through a layer of centres."""
    found = extract_level_set(
        lambda p: np.abs(p - 0.025).max(axis=-1) - 0.3, np.full(3, -0.6), np.full(3, 0.6), 0.05, block=8
    )
    health = mesh_health(found.vertices, found.faces)
    assert (health.watertight, health.degenerate_faces) == (True, 0)
    assert health.volume == pytest.approx(0.6**3, rel=0.05)


def test_nothing_inside_and_no_box_are_errors() -> None:
    with pytest.raises(InputError, match=r"the surface is empty\. Check the masks"):
        extract_level_set(lambda p: np.ones(len(p)), LOW, HIGH, 0.1)
    with pytest.raises(InputError, match="cannot extract a surface from a box"):
        extract_level_set(sphere(0.4), HIGH, LOW, 0.1)
    with pytest.raises(InputError, match="voxel 0"):
        extract_level_set(sphere(0.4), LOW, HIGH, 0.0)
