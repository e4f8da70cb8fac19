"""Radiance volumes: known scenes are rendered, and found again from their pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recon.sdf_grid.narrow_band import camera_rows
from recon.unmasked.radiance_volume import OptimizerState, RadianceVolume
from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from scene.camera import Camera, orbit_camera
from scene.voxel_grid import VoxelGrid
from scene.voxels import sphere_cameras

BOX = VoxelGrid(np.full(3, -0.6), 0.1, (12, 12, 12))
GREY, ORANGE, BLUE = np.array([0.5, 0.5, 0.5]), np.array([0.9, 0.5, 0.1]), np.array([0.1, 0.3, 0.8])
RADIUS = 0.35


def ball(box: VoxelGrid = BOX, background: tuple[int, int] = (0, 8)) -> RadianceVolume:
    """An orange ball in an empty box, in front of blue surroundings."""
    volume = RadianceVolume.uniform(box, ORANGE, background, side=16)
    where = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1)
    # Half opaque where the ball's surface is, with a steep slope.
    volume.inner[..., 0] = 20 * (RADIUS - np.linalg.norm(where, axis=-1)) / box.voxel + 3
    volume.outer[..., 1:] = BLUE
    return volume


def seen(volume: RadianceVolume, camera: Camera, *, empty: bool = False) -> np.ndarray:
    """All pixels of a camera, [h w 6]."""
    y, x = (np.mgrid[: camera.height, : camera.width].reshape(2, -1) + 0.5).astype(np.float32)
    rows = camera_rows((camera,), volume.box)
    out = volume.render(rows, np.zeros(len(x), np.int32), x, y, empty=empty)
    return out.reshape(camera.height, camera.width, 6)


def sphere_depth(camera: Camera, voxel: float) -> np.ndarray:
    """Distances (voxels) along the rays to the ball; infinite beside it."""
    origin, direction = camera.rays()
    along = -(origin * direction).sum(-1)
    inside = RADIUS**2 - ((origin + along[..., None] * direction) ** 2).sum(-1)
    return np.where(inside > 0, along - np.sqrt(inside.clip(0)), np.inf) / voxel


def pictures(volume: RadianceVolume, cameras: list[Camera]) -> RaySet:
    colours = tuple(torch.from_numpy(seen(volume, camera)[..., :3].clip(0, 1)) for camera in cameras)
    alphas = tuple(torch.ones(c.shape[:2]) for c in colours)
    return RaySet(tuple(cameras), colours, alphas, torch.ones(len(cameras)))


# --- volumes ----------------------------------------------------------------------------------------------------------


def test_a_uniform_volume_has_one_colour_and_is_clearer_than_its_surroundings() -> None:
    volume = RadianceVolume.uniform(BOX, ORANGE, (0, 8))
    camera = orbit_camera(0.0, 0.0, 1.5, size=9)
    out = seen(volume, camera)
    assert out[..., :3] == pytest.approx(np.broadcast_to(ORANGE, (9, 9, 3)), abs=1e-4)
    # Through the middle: so many voxels, each with the density of a softplus at its shift.
    assert out[4, 4, 3] == pytest.approx(1 - np.exp(-np.log1p(np.exp(-3)) * 11), abs=0.03)
    assert not out[..., 5].any()
    assert not seen(volume, camera, empty=True)[..., 3].any()


def test_another_resolution_is_the_same_field() -> None:
    volume = ball()
    where = np.stack(np.meshgrid(*BOX.centres(), indexing="ij"), -1)
    volume.inner[..., 0] = where @ [2.0, -3.0, 1.0]
    box = VoxelGrid(BOX.low, BOX.voxel * 12 / 20, (20, 20, 20))
    fine = volume.at(box)
    assert fine.inner.shape == (20, 20, 20, 4)
    assert fine.inner.dtype == np.float32
    where = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1)
    inside = (np.abs(where) < 0.55).all(-1)  # among the coarse voxels' centres
    assert fine.inner[..., 0][inside] == pytest.approx((where @ [2.0, -3.0, 1.0])[inside], abs=1e-5)
    assert fine.inner[..., 1:] == pytest.approx(np.broadcast_to(ORANGE, (20, 20, 20, 3)), abs=1e-6)
    assert fine.outer is volume.outer
    assert fine.background == volume.background
    assert volume.at(BOX).inner == pytest.approx(volume.inner, abs=1e-6)


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("voxel", [0.1, 0.05])
def test_a_ball_is_seen_in_its_colour_and_at_its_distance(voxel: float) -> None:
    count = round(1.2 / voxel)
    volume = ball(VoxelGrid(np.full(3, -0.6), voxel, (count, count, count)))
    camera = orbit_camera(0.4, 0.3, 1.5, size=24)
    out, true = seen(volume, camera), sphere_depth(camera, voxel)
    origin, direction = camera.rays()
    passes = np.linalg.norm(np.cross(origin, direction), axis=-1)
    hit, miss = passes < RADIUS - 0.08, passes > RADIUS + 0.08
    assert hit.any()
    assert miss.any()
    assert out[hit][:, :3] == pytest.approx(np.broadcast_to(ORANGE, (hit.sum(), 3)), abs=0.01)
    assert out[miss][:, :3] == pytest.approx(np.broadcast_to(BLUE, (miss.sum(), 3)), abs=0.01)
    assert seen(volume, camera, empty=True)[..., :3] == pytest.approx(np.broadcast_to(BLUE, (24, 24, 3)), abs=1e-4)
    depth = volume.depth(camera)
    assert (np.abs(depth[hit] - true[hit]) < 1).all()
    assert np.isinf(depth[miss]).all()


def test_what_is_hidden_in_front_of_the_box_has_no_known_distance() -> None:
    volume = ball(background=(4, 8))
    volume.outer[..., 0] = 30.0
    assert not volume.depth(orbit_camera(0.4, 0.3, 1.5, size=16)).any()


# --- fits -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shots() -> RaySet:
    return pictures(ball(), sphere_cameras(10, 24, 1.5))


def fitted(rays: RaySet, pixels: Pixels, optimizer: OptimizerState, volume: RadianceVolume, steps: int = 60) -> int:
    """Fit to the end; returns the number of steps that it took."""
    return sum(1 for _ in volume.fit(rays, pixels, optimizer, count=512, steps=steps, rate=0.5, decay=0.1))


def test_a_ball_is_found_again_from_its_pictures(shots: RaySet) -> None:
    pixels = Pixels.of(shots, masked=False)
    volume = RadianceVolume.uniform(BOX, pixels.mean_colour(), (0, 8), side=16)
    optimizer = OptimizerState.begin(volume, [0])
    assert fitted(shots, pixels, optimizer, volume) == optimizer.step == 60
    camera = orbit_camera(0.9, 0.2, 1.5, size=24)  # none of those that it was fitted to
    off = np.abs(seen(volume, camera)[..., :3] - seen(ball(), camera)[..., :3]).mean()
    grey = np.abs(pixels.mean_colour() - seen(ball(), camera)[..., :3]).mean()
    assert off < 0.25 * grey
    middle = (slice(9, 15),) * 2
    assert np.median(volume.depth(camera)[middle] - sphere_depth(camera, BOX.voxel)[middle]) == pytest.approx(0, abs=1)


def test_a_fit_goes_on_from_its_optimizer_to_the_same_bytes(shots: RaySet) -> None:
    pixels = Pixels.of(shots, masked=False)
    begin = RadianceVolume.uniform(BOX, GREY, (0, 8), side=16)
    copy = lambda v: replace(v, inner=v.inner.copy(), outer=v.outer.copy())  # noqa: E731
    whole = copy(begin)
    fitted(shots, pixels, OptimizerState.begin(whole, [3]), whole, 12)
    half = copy(begin)
    optimizer = OptimizerState.begin(half, [3])
    for _ in half.fit(shots, pixels, optimizer, count=512, steps=12, rate=0.5, decay=0.1):
        if optimizer.step == 5:
            break
    again, rng = copy(half), np.random.default_rng()
    rng.bit_generator.state = optimizer.rng.bit_generator.state
    first, second = optimizer.moments
    assert fitted(shots, pixels, OptimizerState((first.copy(), second.copy()), rng, 5), again, 12) == 7
    assert again.inner.tobytes() == whole.inner.tobytes()
    assert again.outer.tobytes() == whole.outer.tobytes()
    other = copy(begin)
    fitted(shots, pixels, OptimizerState.begin(other, [4]), other, 12)
    assert other.inner.tobytes() != whole.inner.tobytes()
