"""Compiled inner loops that supervise a narrow-band SDF by measured points and normals, and carve free space.

Grid coordinates, lanes and slots as in :mod:`recon.sdf_grid.kernels`; no function has annotations, for the reason given
there.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

from recon.sdf_grid.kernels import LANES, ahead_of_depth, interpolate, scatter_value


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _within(x, y, z, shape):  # pragma: no cover - compiled
    """Whether all eight corners of a position exist."""
    low, high0, high1, high2 = 0.01, shape[0] - 1.01, shape[1] - 1.01, shape[2] - 1.01
    return x > low and y > low and z > low and x < high0 and y < high1 and z < high2


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _slope(grid, x, y, z):  # pragma: no cover - compiled
    """Gradient of the trilinear value at grid coordinates inside the grid."""
    i, j, k = int(x), int(y), int(z)
    u, v, q = x - i, y - j, z - k
    n0, n1, n2 = np.float32(0), np.float32(0), np.float32(0)
    for di in range(2):
        wu = u if di else 1 - u
        for dj in range(2):
            wv = v if dj else 1 - v
            for dk in range(2):
                wq = q if dk else 1 - q
                value = grid[i + di, j + dj, k + dk]
                n0 += wv * wq * (value if di else -value)
                n1 += wu * wq * (value if dj else -value)
                n2 += wu * wv * (value if dk else -value)
    return n0, n1, n2


@numba.njit(inline="always", fastmath=True)
@no_type_check
def _scatter_slope(index, x, y, z, e0, e1, e2, out):  # pragma: no cover - compiled
    """The adjoint of :func:`_slope`: add a gradient with respect to the slope to the eight corners' band slots."""
    i, j, k = int(x), int(y), int(z)
    u, v, q = x - i, y - j, z - k
    for di in range(2):
        wu = u if di else 1 - u
        for dj in range(2):
            wv = v if dj else 1 - v
            for dk in range(2):
                wq = q if dk else 1 - q
                out[index[i + di, j + dj, k + dk]] += (
                    wv * wq * (e0 if di else -e0) + wu * wq * (e1 if dj else -e1) + wu * wv * (e2 if dk else -e2)
                )


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def add_depth_loss(grid, index, points, weight, soft, grad_sdf):  # pragma: no cover - compiled
    """Add the gradient of the sum of weight * soft^2 / 2 * log(1 + (f / soft)^2), f at measured points.

    It acts where the surface is nearest to a point rather than at the point: the surface comes to the mean of noisy
    points, while each of them would make its own speck.

    Args:
        grid: [x y z] signed distances f, voxels; index: band slot of each voxel.
        points: [n 3] grid coordinates; weight: [n].
        soft: distance from which on a point counts less and less, as one that contradicts the others.
        grad_sdf: [LANES, slots + 1], added to.
    """
    count = points.shape[0]
    for lane in numba.prange(LANES):
        out = grad_sdf[lane]
        for r in range(lane * count // LANES, (lane + 1) * count // LANES):
            x, y, z = points[r, 0], points[r, 1], points[r, 2]
            if _within(x, y, z, grid.shape):
                f = interpolate(grid, x, y, z)
                n0, n1, n2 = _slope(grid, x, y, z)
                back = f / max(n0 * n0 + n1 * n1 + n2 * n2, np.float32(0.25))
                x, y, z = x - back * n0, y - back * n1, z - back * n2
                if _within(x, y, z, grid.shape):
                    scatter_value(index, x, y, z, weight[r] * f / (1 + (f / soft) * (f / soft)), out)


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def add_normal_loss(grid, index, points, normals, weight, soft, grad_sdf):  # pragma: no cover - compiled
    """Add the gradient of the sum of weight * soft^2 / 2 * log(1 + (e / soft)^2), e = |grad f - normal|, at points.

    Args:
        grid, index, points, weight, grad_sdf: as in :func:`add_depth_loss`.
        normals: [n 3] unit normals in the grid's axes.
        soft: difference from which on a normal counts less and less.
    """
    count = points.shape[0]
    for lane in numba.prange(LANES):
        out = grad_sdf[lane]
        for r in range(lane * count // LANES, (lane + 1) * count // LANES):
            x, y, z = points[r, 0], points[r, 1], points[r, 2]
            if not _within(x, y, z, grid.shape):
                continue
            e0, e1, e2 = _slope(grid, x, y, z)
            e0, e1, e2 = e0 - normals[r, 0], e1 - normals[r, 1], e2 - normals[r, 2]
            scale = weight[r] / (1 + (e0 * e0 + e1 * e1 + e2 * e2) / (soft * soft))
            e0, e1, e2 = scale * e0, scale * e1, scale * e2
            _scatter_slope(index, x, y, z, e0, e1, e2, out)


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def vote_free(depth, cam, weight, margin, wanted, votes):  # pragma: no cover - compiled
    """Add one depth map's opinion whether voxels are empty.

    What it sees through counts twice, as far as it is clearly in front of the surface; just behind the surface a voxel
    is likely solid, and nothing is said further behind.

    Args:
        depth: [h w] distance to the surface along each pixel's ray, voxels; 0 if unknown.
        cam: [16] its row of ``camera_rows``; weight: of the view; margin: how far is "clearly" and "just", voxels.
        wanted: [x y z] voxels that are asked about.
        votes: [x y z], added to; positive is empty.
    """
    n0, n1, n2 = votes.shape
    for i in numba.prange(n0):
        for j in range(n1):
            for k in range(n2):
                if not wanted[i, j, k]:
                    continue
                seen, ahead = ahead_of_depth(depth, cam, i, j, k)
                if seen > 0:
                    if ahead > margin:
                        votes[i, j, k] += 2 * weight
                    elif ahead > 0:
                        votes[i, j, k] += weight
                    elif ahead > -margin:
                        votes[i, j, k] -= weight
