"""TSDF fusion of depth maps, and a closed surface from such with holes: the gaps take the smoothest field.

Source: Curless and Levoy 1996 (averaged truncated distances along rays); gaps are filled by the Laplace equation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.sparse.linalg import LinearOperator, cg

from recon.sdf_grid.narrow_band import camera_rows
from recon.unmasked import tsdf_kernels
from scene.camera import Camera
from scene.voxel_grid import VoxelGrid

_TRUNCATION = 4.0
"""Distances are cut to so many voxels."""
_LAPLACIAN = 0.3
"""Weight of smoothness beside the word of enough views, in a grid of 96 voxels across the region."""
_EMPTY = 0.003
"""Weight of the assumption that what no picture shows is empty."""
_ENOUGH = 4.0
"""Views from which on more of them make no difference."""


def fuse_depth_maps(
    depths: Iterable[tuple[Camera, Float[np.ndarray, "_ _"]]], box: VoxelGrid, truncation: float
) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]]:
    """Mean truncated signed distance to what depth maps show, and how many maps say something.

    Args:
        depths: cameras with distances along their rays, voxels of the box; infinite where nothing is, 0 if unknown.
        box: the grid.
        truncation: distances are cut to it, and nothing is said further behind, voxels.

    Returns:
        Mean distance in voxels, positive in front, ``truncation`` where nothing is said; and counts.
    """
    total, count = (np.zeros(box.shape, np.float32) for _ in range(2))
    for camera, depth in depths:
        tsdf_kernels.fuse_depth(depth, camera_rows((camera,), box)[0], np.float32(truncation), total, count)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.float32(truncation))
    return mean.astype(np.float32), count


def fuse_and_fill(
    cameras: Sequence[Camera],
    depths: Sequence[Float[np.ndarray, "_ _"]],
    box: VoxelGrid,
    across: float,
    start: Float[np.ndarray, "x y z"] | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Signed distances (voxels, positive outside, at most four) to the closed surface that depth maps show.

    What lies in front of depths is outside. Behind them it is inside as deep as the smoothest field goes, and wherever
    solid lies in five of the six directions along the axes.

    Args:
        cameras: of the depth maps, at their size.
        depths: along the optical axis, world units; 0 where unknown.
        box: the grid.
        across: side of the region of interest, world units: gaps are bridged as far in relation to it on any grid.
        start: a guess, such as a coarser solution; only the time depends on it.
    """
    along = (
        (camera, (ray_lengths(camera) * depth / box.voxel).astype(np.float32))
        for camera, depth in zip(cameras, depths, strict=True)
    )
    mean, count = fuse_depth_maps(along, box, _TRUNCATION)
    known = np.where(count > 0, mean, np.float32(0))
    weight = np.minimum(count, _ENOUGH) / _ENOUGH
    laplacian = _LAPLACIAN * (across / box.voxel / 96) ** 2
    field = _filled(known, weight, laplacian, known if start is None else start)
    enclosed = _enclosed(field < 0) & (count < 1)
    field = ndimage.gaussian_filter(np.where(enclosed, -_TRUNCATION, field), 0.7)
    return field.astype(np.float32)


def without_small_components(distance: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """Without specks: parts smaller than a twentieth of the largest are made outside."""
    label, number = ndimage.label(distance < 0)
    if number < 2:
        return distance
    size = np.bincount(label.reshape(-1))[1:]
    small: Bool[np.ndarray, "x y z"] = np.isin(label, 1 + np.nonzero(size < 0.05 * size.max())[0])
    return np.where(small, np.float32(1), distance)


def ray_lengths(camera: Camera) -> Float[np.ndarray, "h w"]:
    """Length along each pixel's ray for a step of 1 along the optical axis."""
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    return np.sqrt(1 + ((x - camera.cx) / camera.fx) ** 2 + ((y - camera.cy) / camera.fy) ** 2)


def _filled(
    known: Float[np.ndarray, "x y z"],
    weight: Float[np.ndarray, "x y z"],
    laplacian: float,
    start: Float[np.ndarray, "x y z"],
) -> Float[np.ndarray, "x y z"]:
    """The field that minimises weighted squared differences from what is known, squared differences of neighbours, and
    a weak pull towards emptiness: hole filling by the Laplace equation, solved by conjugate gradients.
    """
    shape = known.shape
    own = (weight + _EMPTY).astype(np.float32)

    def apply(values: np.ndarray) -> np.ndarray:
        field = values.reshape(shape)
        out = own * field
        for axis in range(3):
            after, before = [slice(None)] * 3, [slice(None)] * 3
            after[axis], before[axis] = slice(1, None), slice(None, -1)
            step = np.float32(laplacian) * (field[tuple(after)] - field[tuple(before)])
            out[tuple(after)] += step
            out[tuple(before)] -= step
        return np.asarray(out.ravel())

    size = known.size
    diagonal = (own + np.float32(6 * laplacian)).ravel()
    system = LinearOperator((size, size), matvec=apply, dtype=np.float32)
    guess = LinearOperator((size, size), matvec=lambda values: values.ravel() / diagonal, dtype=np.float32)
    right = (weight * known + _EMPTY * _TRUNCATION).astype(np.float32).ravel()
    field, _ = cg(system, right, x0=start.astype(np.float32).ravel(), M=guess, rtol=1e-3, maxiter=300)
    return np.asarray(field, np.float32).reshape(shape)


def _enclosed(solid: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """What has solid in at least five of the six directions along the axes: an inside that may be open below."""
    walls = np.zeros(solid.shape, np.int8)
    for axis in range(3):
        walls += np.maximum.accumulate(solid, axis=axis)
        walls += np.flip(np.maximum.accumulate(np.flip(solid, axis), axis=axis), axis)
    return walls >= 5
