"""Compiled inner loop of TSDF fusion: depth maps into truncated signed distances on a grid.

Grid coordinates as in :mod:`recon.sdf_grid.kernels`; no function has annotations, for the reason given there.
"""

from __future__ import annotations

from typing import no_type_check

import numba

from recon.sdf_grid.kernels import ahead_of_depth


@numba.njit(parallel=True, fastmath=True, cache=True)
@no_type_check
def fuse_depth(depth, cam, truncation, total, count):  # pragma: no cover - compiled
    """Add one view's truncated distances along its rays (voxels, positive in front) to every voxel that it sees.

    Args:
        depth: [h w] distance to the surface along each pixel's ray, voxels; infinite where nothing is, 0 if unknown.
        cam: [16] its row of ``camera_rows``; truncation: distances are cut to it, and nothing is said further behind.
        total, count: [x y z], added to.
    """
    n0, n1, n2 = total.shape
    for i in numba.prange(n0):
        for j in range(n1):
            for k in range(n2):
                seen, ahead = ahead_of_depth(depth, cam, i, j, k)
                if seen > 0 and ahead > -truncation:
                    total[i, j, k] += min(ahead, truncation)
                    count[i, j, k] += 1
