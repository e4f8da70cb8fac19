"""A closed surface from depth maps with holes: distances where pictures know them, a membrane across the rest.

Source: Curless and Levoy 1996 (averaged truncated distances along rays); the gaps are those of the smoothest field.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.sparse.linalg import LinearOperator, cg

from recon.sdf_grid.narrow_band import camera_rows
from recon.unmasked import radiance_kernels
from scene.camera import Camera
from scene.voxel_grid import VoxelGrid

_REACH = 4.0
"""Distances are cut to so many voxels."""
_STIFF = 0.3
"""Weight of the membrane beside the word of enough views, in a grid of 96 voxels across the region."""
_EMPTY = 0.003
"""Weight of the assumption that what no picture shows is empty."""
_ENOUGH = 4.0
"""Views from which on more of them make no difference."""


def membrane(
    cameras: Sequence[Camera],
    depths: Sequence[Float[np.ndarray, "_ _"]],
    box: VoxelGrid,
    across: float,
    start: Float[np.ndarray, "x y z"] | None = None,
) -> Float[np.ndarray, "x y z"]:
    """Signed distances (voxels, positive outside, at most four) to the surface that depth maps show.

    What lies in front of depths is outside. Behind them it is inside as deep as the membrane is stiff, and wherever
    solid lies in five of the six directions along the axes.

    Args:
        cameras: of the depth maps, at their size.
        depths: along the optical axis, world units; 0 where unknown.
        box: the grid.
        across: side of the region of interest, world units: gaps are bridged as far in relation to it on any grid.
        start: a guess, such as a coarser solution; only the time depends on it.
    """
    total, count = (np.zeros(box.shape, np.float32) for _ in range(2))
    for camera, row, depth in zip(cameras, camera_rows(tuple(cameras), box), depths, strict=True):
        along = (ray_lengths(camera) * depth / box.voxel).astype(np.float32)
        radiance_kernels.fuse_depth(along, row, np.float32(_REACH), total, count)
    known = total / np.maximum(count, 1)
    weight = np.minimum(count, _ENOUGH) / _ENOUGH
    stiff = _STIFF * (across / box.voxel / 96) ** 2
    field = _solved(known, weight, stiff, known if start is None else start)
    enclosed = _enclosed(field < 0) & (count < 1)
    field = ndimage.gaussian_filter(np.where(enclosed, -_REACH, field), 0.7)
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


def _solved(
    known: Float[np.ndarray, "x y z"],
    weight: Float[np.ndarray, "x y z"],
    stiff: float,
    start: Float[np.ndarray, "x y z"],
) -> Float[np.ndarray, "x y z"]:
    """Minimum of weighted squared differences, the membrane's stretch, and the weak assumption of emptiness."""
    shape = known.shape
    own = (weight + _EMPTY).astype(np.float32)

    def apply(values: np.ndarray) -> np.ndarray:
        field = values.reshape(shape)
        out = own * field
        for axis in range(3):
            after, before = [slice(None)] * 3, [slice(None)] * 3
            after[axis], before[axis] = slice(1, None), slice(None, -1)
            step = np.float32(stiff) * (field[tuple(after)] - field[tuple(before)])
            out[tuple(after)] += step
            out[tuple(before)] -= step
        return np.asarray(out.ravel())

    size = known.size
    diagonal = (own + np.float32(6 * stiff)).ravel()
    system = LinearOperator((size, size), matvec=apply, dtype=np.float32)
    guess = LinearOperator((size, size), matvec=lambda values: values.ravel() / diagonal, dtype=np.float32)
    right = (weight * known + _EMPTY * _REACH).astype(np.float32).ravel()
    field, _ = cg(system, right, x0=start.astype(np.float32).ravel(), M=guess, rtol=1e-3, maxiter=300)
    return np.asarray(field, np.float32).reshape(shape)


def _enclosed(solid: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """What has solid in at least five of the six directions along the axes: an inside that may be open below."""
    walls = np.zeros(solid.shape, np.int8)
    for axis in range(3):
        walls += np.maximum.accumulate(solid, axis=axis)
        walls += np.flip(np.maximum.accumulate(np.flip(solid, axis), axis=axis), axis)
    return walls >= 5
