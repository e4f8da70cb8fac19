"""Triangles to texels: which face covers which texel centre, and where in the face that is."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from scene.mesh import Faces

_BATCH = 200_000
"""Texels tested at once."""


def rasterise(
    uv: Float[np.ndarray, "w 2"], faces: Faces, side: int
) -> tuple[Int[np.ndarray, "s s"], Float[np.ndarray, "s s 2"]]:
    """Which face covers each texel centre (-1: none), and its barycentric weights (second and third corner)."""
    face_of = np.full((side, side), -1, np.int64)
    bary = np.zeros((side, side, 2), np.float32)
    face, x, y, weights = covered_texels(uv * side, faces)
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    face, x, y, weights = face[inside], x[inside], y[inside], weights[inside]
    face_of[y, x], bary[y, x] = face, weights
    return face_of, bary


def covered_texels(
    corners: Float[np.ndarray, "w 2"], faces: Faces, slack: float = 1e-6
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Int[np.ndarray, "n"], Float[np.ndarray, "n 2"]]:
    """All pairs of a face and a texel whose centre it covers.

    Args:
        corners: positions in texels; the first texel's centre is (0.5, 0.5).
        faces: over ``corners``.
        slack: how far outside, in barycentric weights, still counts; negative leaves out what lies on the rim.

    Returns:
        Face, column, row, and barycentric weights of the second and third corner.
    """
    points = corners[faces] - 0.5
    low = np.ceil(points.min(axis=1) - 1e-9).astype(np.int64)
    extent = np.floor(points.max(axis=1) + 1e-9).astype(np.int64) - low + 1
    e1, e2 = points[:, 1] - points[:, 0], points[:, 2] - points[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    # Texels of a face in rows of its box: no face pays for the size of another.
    usable = np.nonzero((np.abs(area) > 1e-12) & (extent > 0).all(axis=1))[0]
    found = []
    total = np.cumsum(extent[usable, 0] * extent[usable, 1])
    for part in np.split(
        usable, np.searchsorted(total, np.arange(_BATCH, int(total[-1]) if len(total) else 0, _BATCH))
    ):
        if not len(part):
            continue
        size = extent[part, 0] * extent[part, 1]
        face = np.repeat(part, size)
        index = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
        row = index // extent[face, 0]
        x, y = low[face, 0] + index - row * extent[face, 0], low[face, 1] + row
        dx, dy = x - points[face, 0, 0], y - points[face, 0, 1]
        u = (dx * e2[face, 1] - dy * e2[face, 0]) / area[face]
        v = (e1[face, 0] * dy - e1[face, 1] * dx) / area[face]
        inside = np.nonzero((u >= -slack) & (v >= -slack) & (u + v <= 1 + slack))[0]
        found.append((face[inside], x[inside], y[inside], np.stack([u[inside], v[inside]], -1)))
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, 2))
    face, x, y, weights = (np.concatenate([part[k] for part in found]) for k in range(4))
    return face, x, y, weights
