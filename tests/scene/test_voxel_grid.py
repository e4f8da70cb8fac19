"""Grids of cubic voxels: boxes about things, and grid coordinates."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene.voxel_grid import VoxelGrid

BOX = VoxelGrid(np.array([-0.5, -0.4, -0.3]), 0.05, (20, 16, 12))
COORDINATE = st.floats(-2.0, 2.0)
SIZE = st.floats(0.01, 2.0)


@given(st.tuples(*[COORDINATE] * 3), st.tuples(*[SIZE] * 3), st.integers(1000, 50_000))
def test_a_box_encloses_what_it_is_about_with_about_the_voxels_asked_for(
    low: tuple[float, float, float], size: tuple[float, float, float], voxels: int
) -> None:
    start, end = np.array(low), np.array(low) + size
    box = VoxelGrid.around(start, end, voxels)
    assert box.voxel**3 * voxels == pytest.approx(math.prod(size), rel=1e-6)
    assert (box.low <= start + 1e-5 * box.voxel).all()
    assert (box.high >= end - 1e-5 * box.voxel).all()
    assert (box.low + box.high) / 2 == pytest.approx((start + end) / 2)
    assert (np.array(box.shape) <= np.maximum(np.array(size) / box.voxel + 1.001, 8)).all()
    assert min(box.shape) >= 8


def test_flat_things_have_boxes() -> None:
    box = VoxelGrid.around(np.zeros(3), np.array([1.0, 1.0, 0.0]), 1000)
    assert np.isfinite(box.low).all()
    assert box.voxel > 0


def test_grid_coordinates_of_voxel_centres_are_their_indices() -> None:
    points = np.stack(np.meshgrid(*BOX.centres(), indexing="ij"), -1)
    assert points.shape == (*BOX.shape, 3)
    assert BOX.to_grid(points) == pytest.approx(np.stack(np.indices(BOX.shape), -1), abs=1e-9)
    assert points[0, 0, 0] == pytest.approx(BOX.low + 0.025)
    assert points[-1, -1, -1] == pytest.approx(BOX.high - 0.025)


def test_coordinates_in_another_grid_are_those_of_the_centres() -> None:
    fine = VoxelGrid.around(BOX.low + 0.1, BOX.high, 500)
    found = fine.coordinates_in(BOX)
    points = np.stack(np.meshgrid(*fine.centres(), indexing="ij"), -1)
    assert found.shape == (3, *fine.shape)
    assert np.moveaxis(found, 0, -1) == pytest.approx(BOX.to_grid(points), abs=1e-9)
    assert BOX.coordinates_in(BOX) == pytest.approx(np.indices(BOX.shape), abs=1e-9)
