"""Meshes of level sets of functions: evaluated only near the surface, in blocks, closed over their borders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from skimage import measure

from recon.mesh.topology import remove_unreferenced_vertices
from scene.errors import InputError
from scene.mesh import Faces, Vertices

SdfAt = Callable[[Float[np.ndarray, "n 3"]], Float[np.ndarray, "n"]]
Grid = Float[np.ndarray, "_ _ _"]
Mask = Bool[np.ndarray, "_ _ _"]

_FINE, _COARSE = 4, 16
"""Strides, in voxels, of the two passes that look for the surface."""


@dataclass(frozen=True, eq=False)
class LevelSet:
    """The mesh of a level set.

    Args:
        vertices, faces: closed, faces outward, world units.
        evaluations: points the function was asked for, coarse passes included.
        voxels: of the whole box.
    """

    vertices: Vertices
    faces: Faces
    evaluations: int
    voxels: int


def extract_level_set(
    sdf_at: SdfAt,
    low: Float[np.ndarray, "3"],
    high: Float[np.ndarray, "3"],
    voxel: float,
    *,
    block: int = 64,
    steepness: float = 1.5,
    batch: int = 1 << 18,
) -> LevelSet:
    """Marching cubes of a function's zero, on voxel centres of the box; what lies beyond the box is outside.

    Two coarse passes decide where the surface can be; only there every voxel is evaluated, each one once. The lattice
    is walked in slabs of ``block`` voxels along x (one slab is all that is held) and in cubes within them. Vertices on
    borders are known by the lattice edge they lie on, so the cubes join exactly, whatever their size.

    Args:
        sdf_at: signed distances of points, positive outside, world units.
        low, high: corners of the box; its sides are rounded to whole voxels.
        voxel: side of a voxel.
        block: side of a cube in voxels; rounded to a multiple of 4.
        steepness: the function changes at most this much per unit length. Parts may be missed if it changes faster.
        batch: most points in a call.

    Raises:
        InputError: the box or the voxels have no size, or there is nothing inside.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (voxel > 0 and (high > low).all()):
        raise InputError(f"cannot extract a surface from a box {low.tolist()} to {high.tolist()}, voxel {voxel}")
    lattice = _Lattice(sdf_at, low, voxel, np.maximum(1, np.round((high - low) / voxel).astype(np.int64)), batch)
    cells, rough = _near_surface(lattice, steepness)
    parts = [
        _cube(lattice, values, start)
        for slab_start, slab in _slabs(lattice, cells, rough, max(_FINE, block // _FINE * _FINE))
        for start, values in _cubes(slab_start, slab, cells, max(_FINE, block // _FINE * _FINE))
    ]
    parts = [part for part in parts if len(part[2])]
    if not parts:
        raise InputError("the surface is empty", fix="Check the masks, or lower the vote they must reach.")
    keys = np.concatenate([part[0] for part in parts])
    starts = np.cumsum([0] + [len(part[0]) for part in parts[:-1]])
    faces = np.concatenate([part[2] + start for part, start in zip(parts, starts, strict=True)])
    _, first, index = np.unique(keys, return_index=True, return_inverse=True)
    vertices, faces = remove_unreferenced_vertices(
        np.concatenate([part[1] for part in parts])[first], index.reshape(-1)[faces]
    )
    return LevelSet(vertices, faces, lattice.evaluations, int(np.prod(lattice.inner)))


class _Lattice:
    """Voxel centres with a ring of outside about them: node 1 along an axis is the first voxel's centre."""

    def __init__(
        self, sdf_at: SdfAt, low: Float[np.ndarray, "3"], voxel: float, inner: Int[np.ndarray, "3"], batch: int
    ) -> None:
        self.sdf_at, self.low, self.voxel, self.inner, self.batch = sdf_at, low, voxel, inner, batch
        self.nodes = inner + 2
        self.evaluations = 0

    def world(self, nodes: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        return self.low + (nodes - 0.5) * self.voxel

    def evaluate(self, nodes: Int[np.ndarray, "n 3"]) -> Float[np.ndarray, "n"]:
        out = np.empty(len(nodes), np.float32)
        for start in range(0, len(nodes), self.batch):
            part = nodes[start : start + self.batch]
            out[start : start + len(part)] = self.sdf_at(self.world(part.astype(np.float64)))
        self.evaluations += len(nodes)
        return out

    def outside_ring(self, nodes: Int[np.ndarray, "*n 3"]) -> Bool[np.ndarray, "*n"]:
        return np.asarray(((nodes < 1) | (nodes > self.inner)).any(axis=-1))


def _near_surface(lattice: _Lattice, steepness: float) -> tuple[Mask, Grid]:
    """Cells of the stride of 4 that the surface may pass, and values at their corners, of the right sign elsewhere."""
    counts = -(-(lattice.nodes - 1) // _FINE)
    ratio = _COARSE // _FINE
    wide = -(-counts // ratio)
    values = _strided(lattice, _COARSE, np.ones(wide + 1, bool), None)
    cells = _crossed(lattice, values, _COARSE, steepness)
    # Corners far from the surface take the sign of the coarse corner before them: they lie in the same coarse cell.
    for axis in range(3):
        cells = cells.repeat(ratio, axis=axis).take(range(counts[axis]), axis=axis)
        values = values.repeat(ratio, axis=axis).take(range(counts[axis] + 1), axis=axis)
    values = _strided(lattice, _FINE, _corners(cells), values)
    return cells & _crossed(lattice, values, _FINE, steepness), values


def _strided(lattice: _Lattice, stride: int, wanted: Mask, values: Grid | None) -> Grid:
    """Values at every ``stride``-th node where wanted; those beyond the box are taken at its border."""
    out = np.zeros(wanted.shape, np.float32) if values is None else values.copy()
    index = np.argwhere(wanted)
    out[tuple(index.T)] = lattice.evaluate(np.clip(index * stride, 1, lattice.inner))
    return out


def _crossed(lattice: _Lattice, values: Grid, stride: int, steepness: float) -> Mask:
    """Cells whose corners differ in sign, are near the surface, or lie inside at the border of the box."""
    least, most, nearest = values, values, np.abs(values)
    for axis in range(3):
        behind, ahead = [slice(None)] * 3, [slice(None)] * 3
        behind[axis], ahead[axis] = slice(None, -1), slice(1, None)
        least = np.minimum(least[tuple(behind)], least[tuple(ahead)])
        most = np.maximum(most[tuple(behind)], most[tuple(ahead)])
        nearest = np.minimum(nearest[tuple(behind)], nearest[tuple(ahead)])
    # No point of a cell is farther from a corner than half its diagonal.
    reach = steepness * stride * lattice.voxel * np.sqrt(3) / 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in least.shape], indexing="ij"), axis=-1)
    border = ((index == 0) | ((index + 1) * stride >= lattice.nodes - 1)).any(axis=-1)
    return ((least < 0) & (most >= 0)) | (nearest <= reach) | (border & (least < 0))


def _corners(cells: Mask) -> Mask:
    """Nodes that belong to a marked cell."""
    out = np.pad(cells, 1)
    for axis in range(3):
        ahead, behind = [slice(None)] * 3, [slice(None)] * 3
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        out = out[tuple(ahead)] | out[tuple(behind)]
    return out


def _slabs(lattice: _Lattice, cells: Mask, rough: Grid, block: int) -> Iterator[tuple[int, Grid]]:
    """Values of slabs of ``block`` cells along x; the last layer of nodes of one is the first of the next."""
    _, ny, nz = lattice.nodes
    carried: tuple[Grid, Mask] | None = None
    for start in range(0, lattice.nodes[0] - 1, block):
        stop = min(start + block, int(lattice.nodes[0]) - 1)
        thick = slice(start // _FINE, -(-stop // _FINE))
        marked = cells[thick]
        size = (stop - start + 1, int(ny), int(nz))
        values = rough[start // _FINE : stop // _FINE + 1]
        for axis in range(3):
            marked = marked.repeat(_FINE, axis=axis).take(range(size[axis] - 1), axis=axis)
            values = values.repeat(_FINE, axis=axis).take(range(size[axis]), axis=axis)
        known = np.zeros(size, bool)
        if carried is not None:
            values[0] = np.where(carried[1], carried[0], values[0])
            known[0] = carried[1]
        index = np.argwhere(_corners(marked) & ~known) + np.array([start, 0, 0])
        ring = lattice.outside_ring(index)
        found = np.full(len(index), lattice.voxel, np.float32)
        found[~ring] = lattice.evaluate(index[~ring])
        values[index[:, 0] - start, index[:, 1], index[:, 2]] = found
        known[index[:, 0] - start, index[:, 1], index[:, 2]] = True
        carried = values[-1].copy(), known[-1]
        yield start, values


def _cubes(start: int, slab: Grid, cells: Mask, block: int) -> Iterator[tuple[Int[np.ndarray, "3"], Grid]]:
    """Cubes of a slab that the surface may pass."""
    for y in range(0, slab.shape[1] - 1, block):
        for z in range(0, slab.shape[2] - 1, block):
            near = cells[start // _FINE : (start + block) // _FINE, y // _FINE : (y + block) // _FINE]
            if near[:, :, z // _FINE : (z + block) // _FINE].any():
                yield np.array([start, y, z]), slab[:, y : y + block + 1, z : z + block + 1]


def _cube(lattice: _Lattice, values: Grid, start: Int[np.ndarray, "3"]) -> tuple[Int[np.ndarray, "v"], Vertices, Faces]:
    """Marching cubes of one cube: vertices with a number that is theirs in the whole lattice."""
    if not (values < 0).any() or not (values >= 0).any():
        return np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    # Only signs and the order of values decide how faces lie. Squeezed between 0.1 and 1.1, no vertex comes so close
    # to a node that its edge could not be told; where it really lies is found below, in double precision.
    size = np.abs(values)
    squeezed = np.where(values < 0, -1, 1) * (0.1 + size / (size + lattice.voxel))
    local, faces, _, _ = measure.marching_cubes(squeezed.astype(np.float32), 0.0)
    part = np.abs(local - np.round(local))
    axis = part.argmax(axis=1)
    lone = (part > 0.01).sum(axis=1) == 1
    base = np.where(lone[:, None] & (np.arange(3) != axis[:, None]), np.round(local), np.floor(local)).astype(np.int64)
    step = np.eye(3, dtype=np.int64)[axis]
    far = np.minimum(base + step, np.array(values.shape) - 1)
    one, other = (values[tuple(node.T)].astype(np.float64) for node in (base, far))
    gap = np.where(one == other, 1.0, one - other)
    along = np.clip(one / gap, 1e-3, 1 - 1e-3)  # not at a node, where faces would lose their area
    ring = lattice.outside_ring(base + start) | lattice.outside_ring(far + start)
    along = np.where(ring, 0.5, along)  # the wall of the box
    nodes = base + start + step * along[:, None]
    # A vertex within a cell is the mean of those it is joined to.
    joined = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    joined = np.concatenate([joined, joined[:, ::-1]])
    joined = np.unique(joined[~lone[joined[:, 0]] & lone[joined[:, 1]]], axis=0)
    degree = np.bincount(joined[:, 0], minlength=len(local))
    total = np.stack([np.bincount(joined[:, 0], nodes[joined[:, 1], k], minlength=len(local)) for k in range(3)], -1)
    nodes = np.where(lone[:, None], nodes, total / np.maximum(degree, 1)[:, None])
    place = np.ravel_multi_index(tuple((base + start).T), tuple(lattice.nodes))
    return place * 4 + np.where(lone, axis, 3), lattice.world(nodes), faces.astype(np.int64)
