"""TSDF fusion: depth maps of known things become their distances, and what they leave open is closed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float

from recon.sdf_grid.narrow_band import camera_rows
from recon.unmasked import tsdf_kernels
from recon.unmasked.tsdf_fusion import fuse_and_fill, fuse_depth_maps, ray_lengths, without_small_components
from scene.camera import Camera, look_at, orbit_camera
from scene.voxel_grid import VoxelGrid
from scene.voxels import sphere_cameras

RADIUS = 0.45
BOX = VoxelGrid(np.full(3, -0.6), 0.1, (12, 12, 12))


def facing(centre: tuple[float, float, float], target: tuple[float, float, float], size: int) -> Camera:
    return replace(orbit_camera(0.0, 0.0, size=size), c2w=look_at(np.array(centre), np.array(target)))


def depth_of_ball(camera: Camera, radius: float = RADIUS) -> Float[np.ndarray, "h w"]:
    """Along the optical axis, 0 beside the ball about the origin."""
    origins, directions = camera.rays()
    along = -(origins * directions).sum(-1)
    half = radius**2 - ((origins * origins).sum(-1) - along**2)
    distance = along - np.sqrt(np.maximum(half, 0))
    return np.where(half > 0, distance / ray_lengths(camera), 0)


def sphere_depth(camera: Camera, voxel: float) -> np.ndarray:
    """Distances (voxels) along the rays to the ball; infinite beside it."""
    origin, direction = camera.rays()
    along = -(origin * direction).sum(-1)
    inside = 0.35**2 - ((origin + along[..., None] * direction) ** 2).sum(-1)
    return np.where(inside > 0, along - np.sqrt(inside.clip(0)), np.inf) / voxel


# --- fusion -----------------------------------------------------------------------------------------------------------


def fused_once(depth: np.ndarray, camera: Camera, box: VoxelGrid, truncation: float) -> tuple[np.ndarray, np.ndarray]:
    total, count = np.zeros(box.shape, np.float32), np.zeros(box.shape, np.float32)
    tsdf_kernels.fuse_depth(depth, camera_rows((camera,), box)[0], np.float32(truncation), total, count)
    return total, count


def plane_depth(camera: Camera, box: VoxelGrid, x: float) -> np.ndarray:
    """Distances (voxels) along the rays to a plane of constant grid x."""
    pixels = np.stack(np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5), -1)
    origins, directions = camera.rays(pixels)
    origin, away = box.to_grid(np.asarray(origins))[..., 0], directions[..., 0]
    ahead = (x - origin) / np.where(away == 0, 1e-12, away)
    return np.where(ahead > 0, ahead, np.inf).astype(np.float32)


def test_a_plane_is_fused_from_its_depths() -> None:
    box, truncation = VoxelGrid(np.array([-0.6, -0.5, -0.4]), 0.1, (12, 10, 8)), 3.0
    camera = facing((-3.0, 0.4, 0.3), (0.0, 0.0, 0.0), 400)
    total, count = fused_once(plane_depth(camera, box, 6.3), camera, box, truncation)
    points = np.stack(np.meshgrid(*[np.arange(n) for n in box.shape], indexing="ij"), -1).astype(float)
    origin = box.to_grid(camera.centre)
    direction = points - origin
    direction /= np.linalg.norm(direction, axis=-1, keepdims=True)
    true = (6.3 - points[..., 0]) / direction[..., 0]  # along each voxel's own ray
    clear = np.abs(true + truncation) > 0.1
    assert (count == (true > -truncation))[clear].all()
    assert 0 < count.mean() < 1
    known = count > 0
    assert total[known] == pytest.approx(
        true.clip(max=truncation)[known], abs=0.1
    )  # a pixel's ray is not quite a voxel's
    # Another view adds to it.
    again = (total.copy(), count.copy())
    row = camera_rows((camera,), box)[0]
    tsdf_kernels.fuse_depth(plane_depth(camera, box, 6.3), row, np.float32(truncation), *again)
    assert (again[0] == 2 * total).all()
    assert (again[1] == 2 * count).all()


def test_only_voxels_in_the_picture_are_told_of() -> None:
    box = VoxelGrid(np.array([-0.6, -0.5, -0.4]), 0.1, (12, 10, 8))
    camera = facing((0.0, 0.02, 0.03), (1.0, 0.02, 0.03), 40)
    empty = np.full((40, 40), np.inf, np.float32)
    total, count = fused_once(empty, camera, box, 4.0)
    points = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1).reshape(-1, 3)
    pixels, depth = camera.project(points)
    seen = ((depth > 0) & (pixels >= 0).all(-1) & (pixels < 40).all(-1)).reshape(box.shape)
    assert seen.any()
    assert ((count > 0) == seen).all()
    assert (total[seen] == 4.0).all()  # free as far as is known


def test_unknown_depths_tell_nothing_however_near_the_camera_is() -> None:
    box = VoxelGrid(np.array([-0.6, -0.5, -0.4]), 0.1, (12, 10, 8))
    camera = facing((0.0, 0.02, 0.03), (1.0, 0.02, 0.03), 40)
    total, count = fused_once(np.zeros((40, 40), np.float32), camera, box, 4.0)
    assert not total.any()
    assert not count.any()


def test_depths_of_a_ball_are_fused_to_its_distances() -> None:
    cameras = sphere_cameras(12, 96, 1.5)
    truncation = 3.0
    mean, count = fuse_depth_maps(
        ((c, sphere_depth(c, BOX.voxel).astype(np.float32)) for c in cameras), BOX, truncation
    )
    where = np.stack(np.meshgrid(*BOX.centres(), indexing="ij"), -1)
    true = (np.linalg.norm(where, axis=-1) - 0.35) / BOX.voxel
    assert ((mean < 0) == (true < 0))[np.abs(true) > 0.5].all()
    assert mean.max() <= truncation
    assert count.min() > 0
    assert count.max() <= 12
    assert (mean[true > 3.1] > 0.5 * truncation).all()  # along rays it is farther than straight to the ball


def test_where_nothing_is_said_it_is_free() -> None:
    camera = orbit_camera(0.0, 0.0, 1.5, size=16)
    blind = np.zeros((16, 16), np.float32)
    mean, count = fuse_depth_maps([(camera, blind)], BOX, 2.5)
    assert (mean == 2.5).all()
    assert not count.any()
    mean, count = fuse_depth_maps([], BOX, 2.5)
    assert (mean == 2.5).all()


# --- gaps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [1.0, 0.2])
def test_what_depth_maps_leave_open_is_closed(fraction: float) -> None:
    cameras = sphere_cameras(12, 64, 1.5)
    rng = np.random.default_rng(0)
    depths = []
    for camera in cameras:
        holes = rng.random((8, 8)).repeat(8, 0).repeat(8, 1) > fraction
        depths.append(np.where(holes, 0, depth_of_ball(camera)))
    box = VoxelGrid.of_voxel(np.full(3, -0.65), np.full(3, 0.65), 1.3 / 48)
    field = fuse_and_fill(cameras, depths, box, 1.3)
    where = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1)
    true = (np.linalg.norm(where, axis=-1) - RADIUS) / box.voxel
    clear = np.abs(true) > 1.5
    wrong = ((field < 0) != (true < 0))[clear].mean()
    assert wrong < (0.002 if fraction == 1 else 0.02)


def test_a_solution_does_not_depend_on_where_it_starts() -> None:
    cameras = sphere_cameras(6, 48, 1.5)
    depths = [depth_of_ball(camera) for camera in cameras]
    box = VoxelGrid.of_voxel(np.full(3, -0.65), np.full(3, 0.65), 1.3 / 32)
    fields = [fuse_and_fill(cameras, depths, box, 1.3, start) for start in (None, np.full(box.shape, 3.0, np.float32))]
    assert fields[0] == pytest.approx(fields[1], abs=0.2)
    near = np.abs(fields[0]) < 1
    assert fields[0][near] == pytest.approx(fields[1][near], abs=0.1)


def test_what_no_picture_shows_is_empty() -> None:
    cameras = [orbit_camera(0.0, 0.0, 1.5, size=48), orbit_camera(0.2, 0.0, 1.5, size=48)]
    box = VoxelGrid.of_voxel(np.full(3, -0.65), np.full(3, 0.65), 1.3 / 32)
    field = fuse_and_fill(cameras, [depth_of_ball(camera) for camera in cameras], box, 1.3)
    where = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1)
    front = where @ cameras[0].centre / np.linalg.norm(cameras[0].centre)
    assert (field < 0).any()
    assert (field[front < -0.3] > 0).all()


def test_specks_are_made_outside() -> None:
    distance = np.ones((20, 20, 20), np.float32)
    distance[2:10, 2:10, 2:10] = -1
    distance[15, 15, 15] = -1
    clean = without_small_components(distance)
    assert clean[15, 15, 15] > 0
    assert (clean[2:10, 2:10, 2:10] < 0).all()
    assert without_small_components(clean).tobytes() == clean.tobytes()
