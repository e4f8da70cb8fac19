"""Cameras in grid coordinates, and the band that follows the surface."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recon.sdf_grid.narrow_band import NarrowBandSDF, camera_rows, redistanced
from scene.camera import Camera, look_at, orbit_camera
from scene.voxel_grid import VoxelGrid

BOX = VoxelGrid(np.array([-0.5, -0.4, -0.3]), 0.05, (20, 16, 12))


def ball(radius: float = 4.0, box: VoxelGrid = BOX, shift: float = 0.0) -> np.ndarray:
    """Distances (voxels) to a ball in the middle of the box, or beside it along x."""
    points = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1)
    middle = (box.low + box.high) / 2 + [shift * box.voxel, 0, 0]
    return (np.linalg.norm(points - middle, axis=-1) / box.voxel - radius).astype(np.float32)


def test_cameras_see_in_the_grid_what_they_see_in_the_world() -> None:
    cameras = (
        orbit_camera(0.4, 0.3, 1.5, size=32),
        Camera(look_at(np.array([1.0, -1.2, 0.5])), 50.0, 45.0, 20.0, 11.0, 36, 24),
    )
    points = np.random.default_rng(0).uniform(BOX.low, BOX.high, (30, 3))
    for camera, row in zip(cameras, camera_rows(cameras, BOX), strict=True):
        local = (BOX.to_grid(points) - row[:3]) @ row[3:12].reshape(3, 3)
        fx, fy, cx, cy = row[12:]
        pixels = np.stack([cx - fx * local[:, 0] / local[:, 2], cy + fy * local[:, 1] / local[:, 2]], -1)
        expected, depth = camera.project(points)
        assert pixels == pytest.approx(expected, abs=1e-3)
        assert -local[:, 2] * BOX.voxel == pytest.approx(depth, rel=1e-4)


def test_the_band_is_what_is_near_the_surface_but_not_the_rim() -> None:
    band = NarrowBandSDF(BOX, ball(5.5), 2.0)
    expected = np.abs(band.grid) < 2
    assert expected[:, :, 0].any()
    inner = np.zeros(BOX.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    assert {tuple(c) for c in band.cells.tolist()} == {tuple(c) for c in np.argwhere(expected & inner).tolist()}
    assert (band.index[tuple(band.cells.T)] == np.arange(len(band.cells))).all()
    assert (band.index == len(band.cells)).sum() == math.prod(BOX.shape) - len(band.cells)


def test_neighbours_are_those_of_the_six_faces() -> None:
    band = NarrowBandSDF(BOX, ball(), 2.0)
    offsets = [(-1, 0, 0), (1, 0, 0), (0, -1, 0), (0, 1, 0), (0, 0, -1), (0, 0, 1)]
    for side, offset in enumerate(offsets):
        assert (band.near[:, side] == band.index[tuple((band.cells + offset).T)]).all()


def test_refreshing_moves_the_band_and_keeps_what_was_learned() -> None:
    band = NarrowBandSDF(BOX, ball(), 2.0)
    rng = np.random.default_rng(1)
    for array in (band.colour, band.moments_sdf, band.moments_colour):
        array[:] = rng.random(array.shape)
    cells, colour, moments = band.cells, band.colour, band.moments_sdf
    band.grid = ball(shift=2.0)
    band.refresh()
    before = {tuple(c): k for k, c in enumerate(cells.tolist())}
    kept = [(k, before[tuple(c)]) for k, c in enumerate(band.cells.tolist()) if tuple(c) in before]
    new = sorted(set(range(len(band.cells))) - {k for k, _ in kept})
    assert len(kept) > 100
    assert len(new) > 100
    now, then = np.array(kept).T
    assert (band.colour[now] == colour[then]).all()
    assert (band.moments_sdf[now] == moments[then]).all()
    assert (band.colour[new] == colour[-1]).all()
    assert (band.colour[-1] == colour[-1]).all()
    assert not band.moments_sdf[new].any()
    assert not band.moments_colour[new].any()
    assert np.abs(band.grid[tuple(band.cells.T)]).max() < band.width


def test_refreshing_changes_no_distance_at_the_surface() -> None:
    band = NarrowBandSDF(BOX, ball(), 3.0)
    before = band.grid.copy()
    band.refresh()
    near = np.abs(before) < 1.5
    assert (band.grid[near] == before[near]).all()


def test_only_what_has_a_gradient_moves_against_it_by_about_the_rate() -> None:
    band = NarrowBandSDF(BOX, ball(), 2.0)
    before, colour = band.grid.copy(), band.colour.copy()
    band.grad_sdf[0, 10], band.grad_sdf[2, 11] = 0.3, -0.2
    band.grad_sdf[1, -1] = 5.0  # of voxels outside the band
    band.grad_colour[1, 20] = [0.1, 0.0, -2.0]
    band.step(0.2, 0.03, floor=0.0)
    change = (band.grid - before)[tuple(band.cells.T)]
    assert change[[10, 11]] == pytest.approx([-0.2, 0.2], rel=1e-3)
    assert np.count_nonzero(change) == 2
    assert np.count_nonzero(band.grid != before) == 2
    assert (band.colour - colour)[20] == pytest.approx([-0.03, 0, 0.03], rel=1e-3)
    assert np.count_nonzero(band.colour != colour) == 2
    now = band.grid.copy()
    band.moments_sdf[:], band.moments_colour[:] = 0, 0
    band.step(0.2, 0.03)  # the lanes were cleared
    assert (band.grid == now).all()


def test_colours_stay_colours() -> None:
    band = NarrowBandSDF(BOX, ball(), 2.0)
    band.colour[:-1] = 0.01
    band.grad_colour[0, :-1] = 1.0
    band.step(0.1, 0.5)
    assert (band.colour[:-1] == 0).all()
    for _ in range(9):
        band.grad_colour[0, :-1] = -1.0
        band.step(0.1, 0.5)
    assert (band.colour[:-1] == 1).all()


def test_little_signal_moves_little() -> None:
    """The floor of the second moment: alone, Adam would move noise as far as signal."""
    changes = []
    for floor in (0.0, 1.0):
        band = NarrowBandSDF(BOX, ball(), 2.0)
        before = band.grid.copy()
        band.grad_sdf[0, :100] = 1.0
        band.grad_sdf[0, 100:200] = 1e-3
        band.step(0.1, 0.03, floor=floor)
        changes.append((before - band.grid)[tuple(band.cells.T)])
    assert changes[0][150] == pytest.approx(changes[0][50], rel=1e-3)
    assert changes[1][150] < 2e-3 * changes[1][50]


def test_shading_turns_against_its_gradient_and_never_hides_a_colour() -> None:
    band = NarrowBandSDF(BOX, ball(), 2.0)
    for _ in range(100):
        band.steps += 1
        band.grad_shading[1] = [0.3, 0, -0.1]
        band.step_shading(0.05)
        assert not band.grad_shading.any()
    assert band.shading[0] < -0.3
    assert band.shading[1] == 0
    assert band.shading[2] > 0.3
    assert np.linalg.norm(band.shading) <= 0.6 + 1e-6


def test_voxels_outside_the_band_have_the_nearest_ones_colour() -> None:
    band = NarrowBandSDF(BOX, ball(), 1.5)
    band.colour[:-1] = np.where(band.cells[:, :1] > 9, [1.0, 0, 0], [0, 0, 1.0])
    dense = band.dense_colour()
    assert dense.shape == (*BOX.shape, 3)
    assert (dense[tuple(band.cells.T)] == band.colour[:-1]).all()
    assert (dense[-1] == [1, 0, 0]).all()
    assert (dense[0] == [0, 0, 1]).all()


@pytest.mark.parametrize("value", [3.0, -3.0])
def test_without_a_surface_there_is_no_band(value: float) -> None:
    grid = np.full(BOX.shape, value, np.float32)
    band = NarrowBandSDF(BOX, redistanced(grid), 2.0)
    assert len(band.cells) == 0
    band.regularise(0.1, 0.1, 0.1)
    band.step(0.1, 0.1, blur=2)
    band.refresh()
    assert (np.sign(band.grid) == np.sign(value)).all()
    assert (band.dense_colour() == band.colour[-1]).all()
