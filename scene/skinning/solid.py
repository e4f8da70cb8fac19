"""The solid that a surface encloses, as voxels, and distances from bones inside it.

Distances run inside the solid, never through the air between an arm and the body: geodesic voxel binding (Dionne and
de Lasa, "Geodesic Voxel Binding for Production Character Meshes", SCA 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage, sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

from scene.mesh import Faces, Vertices, vertex_normals

_RESOLUTION = 112
"""Voxels along the longest side: a figure's arm is four of them or more."""
_MARGIN = 2
"""Empty voxels around."""
_ONE_BY_ONE = 256
"""Separate parts that may hang on each other; of more, the farthest are dust."""


@dataclass(frozen=True, eq=False)
class Solid:
    """The inside of a surface.

    Args:
        inside: occupancy, array axes (x, y, z).
        corner: of the first voxel's lower corner, world frame.
        voxel: side of a voxel, world units.
    """

    inside: Bool[np.ndarray, "x y z"]
    corner: Float[np.ndarray, "3"]
    voxel: float

    @property
    def cells(self) -> Int[np.ndarray, "n 3"]:
        """Indices of solid voxels, in the order in which distances are given."""
        return np.argwhere(self.inside)

    @property
    def centres(self) -> Float[np.ndarray, "n 3"]:
        """Centres of solid voxels, world frame."""
        return (self.cells + 0.5) * self.voxel + self.corner

    @property
    def depths(self) -> Float[np.ndarray, "n"]:
        """Distance of solid voxels from the outside, world units."""
        return np.asarray(ndimage.distance_transform_edt(self.inside)[self.inside] * self.voxel)


def voxelise(vertices: Vertices, faces: Faces, resolution: int = _RESOLUTION) -> Solid:
    """The solid of a surface: voxels whose centres it winds around, and those of sheets thinner than a voxel.

    The winding is counted along the three axes and the majority counts, so that small holes do no harm. Parts that
    overlap make one solid.

    Args:
        vertices, faces: the surface.
        resolution: voxels along its longest side.
    """
    used = vertices[np.unique(faces)]  # what no face has is nowhere
    low, high = used.min(axis=0), used.max(axis=0)
    voxel = float((high - low).max()) / resolution
    shape = np.ceil((high - low) / voxel).astype(int) + 2 * _MARGIN
    # Off the lattice of whole numbers, on which modelled edges like to lie: rays through edges count twice or never.
    corner = low - (_MARGIN - 0.0137) * voxel
    corners = ((vertices - corner) / voxel)[faces].astype(np.float64)
    votes = np.zeros(shape, np.int8)
    for axis in range(3):
        order = [axis, (axis + 1) % 3, (axis + 2) % 3]
        steps = np.zeros([shape[k] for k in order], np.int32)
        _add_crossings(np.ascontiguousarray(corners[:, :, order]), steps)
        winding = np.cumsum(steps, axis=0)
        votes += np.moveaxis(winding != 0, [0, 1, 2], order).astype(np.int8)
    inside = votes >= 2
    thin = np.zeros(shape, np.bool_)
    _mark_surface(corners, thin)
    inside |= thin & ~ndimage.binary_dilation(inside, np.ones((3, 3, 3)))
    return Solid(inside, np.asarray(corner, np.float64), voxel)


@numba.njit(cache=True)
@no_type_check
def _add_crossings(corners, steps):  # pragma: no cover - compiled
    """Where columns along the first axis cross triangles: +1 from there on where they enter, -1 where they leave."""
    for f in range(corners.shape[0]):
        a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
        area = (b[1] - a[1]) * (c[2] - a[2]) - (b[2] - a[2]) * (c[1] - a[1])
        if area == 0.0:
            continue
        y0 = max(0, math.ceil(min(a[1], b[1], c[1]) - 0.5))
        y1 = min(steps.shape[1] - 1, math.floor(max(a[1], b[1], c[1]) - 0.5))
        z0 = max(0, math.ceil(min(a[2], b[2], c[2]) - 0.5))
        z1 = min(steps.shape[2] - 1, math.floor(max(a[2], b[2], c[2]) - 0.5))
        for y in range(y0, y1 + 1):
            for z in range(z0, z1 + 1):
                py, pz = y + 0.5, z + 0.5
                u = ((py - a[1]) * (c[2] - a[2]) - (pz - a[2]) * (c[1] - a[1])) / area
                v = ((b[1] - a[1]) * (pz - a[2]) - (b[2] - a[2]) * (py - a[1])) / area
                if u < 0.0 or v < 0.0 or u + v > 1.0:
                    continue
                x = a[0] + u * (b[0] - a[0]) + v * (c[0] - a[0])
                first = min(max(math.ceil(x - 0.5), 0), steps.shape[0] - 1)
                # The normal's first component is the area's sign: outside lies behind where it is negative.
                steps[first, y, z] += -1 if area > 0 else 1


@numba.njit(cache=True)
@no_type_check
def _mark_surface(corners, marked):  # pragma: no cover - compiled
    """Mark voxels that hold points of triangles, half a voxel apart."""
    for f in range(corners.shape[0]):
        a, b, c = corners[f, 0], corners[f, 1], corners[f, 2]
        longest = 0.0
        for k in range(3):
            longest = max(longest, abs(b[k] - a[k]), abs(c[k] - a[k]), abs(c[k] - b[k]))
        steps = int(longest * 2) + 1
        for i in range(steps + 1):
            for j in range(steps + 1 - i):
                u, v = i / steps, j / steps
                x = int(a[0] + u * (b[0] - a[0]) + v * (c[0] - a[0]))
                y = int(a[1] + u * (b[1] - a[1]) + v * (c[1] - a[1]))
                z = int(a[2] + u * (b[2] - a[2]) + v * (c[2] - a[2]))
                marked[x, y, z] = True


class InnerDistances:
    """Distances inside a solid, along steps between neighbouring voxels (26 of them).

    What hangs together with nothing (a floating hat) is joined to what is nearest.

    Args:
        solid: the solid.
    """

    def __init__(self, solid: Solid) -> None:
        self.solid, self.centres = solid, solid.centres
        self._tree = cKDTree(self.centres)
        self._graph = self._linked(self._steps())

    def from_points(self, points: Float[np.ndarray, "m 3"]) -> Float[np.ndarray, "n"]:
        """Distance of every solid voxel from the nearest of some points, world units.

        A point outside the solid counts from the solid voxel that is nearest to it, if that is not far.
        """
        gap, nearest = self._tree.query(points)
        use = gap <= max(1.0 * self.solid.voxel, float(gap.min()) * 1.5)
        # One node more stands for all points: it is joined to their voxels by their distances from their centres.
        start = np.full(len(self.centres), np.inf)
        np.minimum.at(start, nearest[use], gap[use])
        ends = np.nonzero(np.isfinite(start))[0]
        count = len(self.centres)
        row = sparse.csr_array((start[ends] + 1e-9, (np.zeros(len(ends), int), ends)), (1, count))
        graph = sparse.block_array([[self._graph, None], [row, sparse.csr_array((1, 1))]], format="csr")
        return np.asarray(csgraph.dijkstra(graph, indices=count)[:count])

    def nearest(self, points: Float[np.ndarray, "m 3"]) -> tuple[Float[np.ndarray, "m"], Int[np.ndarray, "m"]]:
        """Distance of points from the centre of the nearest solid voxel, and its number."""
        gap, index = self._tree.query(points)
        return np.asarray(gap), np.asarray(index, np.int64)

    def _steps(self) -> sparse.csr_array:
        index = np.full(self.solid.inside.shape, -1, np.int64)
        cells = self.solid.cells
        index[tuple(cells.T)] = np.arange(len(cells))
        starts, ends, lengths = [], [], []
        for step in np.ndindex(3, 3, 3):
            move = np.array(step) - 1
            if tuple(move) <= (0, 0, 0):  # each pair once
                continue
            there = index[tuple((cells + move).T)]
            found = there >= 0
            starts.append(np.nonzero(found)[0])
            ends.append(there[found])
            lengths.append(np.full(int(found.sum()), np.linalg.norm(move) * self.solid.voxel))
        i, j, length = (np.concatenate(parts) for parts in (starts, ends, lengths))
        return self._both_ways(i, j, length)

    def _linked(self, graph: sparse.csr_array) -> sparse.csr_array:
        """The graph with a link from each separate part to the nearest voxel of the largest, part by part."""
        count, part = csgraph.connected_components(graph, directed=False)
        if count == 1:
            return graph
        order = np.argsort(-np.bincount(part), kind="stable")
        left = np.nonzero(part != order[0])[0]
        gap, to = self._nearest_of(part == order[0], left)
        links = []
        for _ in range(min(count - 1, _ONE_BY_ONE)):
            at = int(np.argmin(gap))
            links.append((left[at], to[at], gap[at]))
            new = part == part[left[at]]
            keep = ~new[left]
            left, gap, to = left[keep], gap[keep], to[keep]
            if not len(left):
                break
            nearer, there = self._nearest_of(new, left)
            to, gap = np.where(nearer < gap, there, to), np.minimum(nearer, gap)
        # Dust: each to the nearest of what has been joined.
        by_part = np.lexsort((gap, part[left]))
        first = by_part[np.unique(part[left][by_part], return_index=True)[1]]
        links += zip(left[first], to[first], gap[first], strict=True)
        i, j, length = (np.array(column) for column in zip(*links, strict=True))
        return sparse.csr_array(graph + self._both_ways(i, j, length))

    def _nearest_of(self, there: Bool[np.ndarray, "n"], voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distance of some voxels, given by number, from the nearest of others, and its number."""
        gap, to = cKDTree(self.centres[there]).query(self.centres[voxels])
        return np.asarray(gap), np.nonzero(there)[0][to]

    def _both_ways(self, i: np.ndarray, j: np.ndarray, length: np.ndarray) -> sparse.csr_array:
        count = len(self.centres)
        return sparse.csr_array(
            (np.concatenate([length, length]), (np.concatenate([i, j]), np.concatenate([j, i]))), (count, count)
        )

    def at_vertices(
        self, values: Float[np.ndarray, "n k"], vertices: Vertices, faces: Faces
    ) -> Float[np.ndarray, "v k"]:
        """Values of voxels at a surface's vertices: means of near voxels on the inner side, weighted by nearness."""
        # A little inwards: outside a narrow gap, the nearest voxel may be the other body's.
        inwards = vertices - 0.75 * self.solid.voxel * vertex_normals(vertices, faces)
        gap, near = self._tree.query(inwards, k=min(6, len(self.centres)))
        gap, near = gap.reshape(len(vertices), -1), near.reshape(len(vertices), -1)
        weight = np.exp(-((gap / self.solid.voxel) ** 2) + ((gap[:, :1] / self.solid.voxel) ** 2))
        weight *= gap <= gap[:, :1] + 1.2 * self.solid.voxel
        weight /= weight.sum(axis=1, keepdims=True)
        return np.einsum("vk,vkj->vj", weight, values[near])
