"""Triangles of models: one closed manifold surface with sharp edges, about as many faces as asked for."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import sparse
from scipy.sparse import csgraph
from skimage import measure

from pipeline.training.procedural.csg import CsgModel
from scene.errors import ViewloomError
from scene.mesh import Faces, OtherFaces, OtherVertices, Vertices

# Cells along the longest side of the look that sizes the grid.
_COARSE = 30

# The grid begins at these fractions of a cell beyond the object, one after the other until the surface is a manifold.
_OFFSETS = (0.37, 0.61, 0.13, 0.83, 0.49, 0.71, 0.25)

_MAX_POINTS = 450_000


def polygonise(model: CsgModel, faces: int = 14_000, *, voxel: float | None = None) -> tuple[Vertices, Faces]:
    """The surface of a model.

    Marching cubes on a grid of distances, then two steps that move every vertex to where the tangent planes at the
    faces about it meet, which restores edges and corners. Cavities that nothing outside reaches are filled; of a model
    in several pieces the largest is kept.

    Args:
        model: what to mesh. A mirrored model gives an exactly mirrored mesh.
        faces: about how many faces; the grid is chosen by it.
        voxel: the grid's cells instead, world units.

    Returns:
        Vertices in the model's coordinates, and faces, counter-clockwise seen from outside: every edge has two faces,
        of opposite directions.

    Raises:
        ViewloomError: no grid gave a closed surface.

    Source: Ohtake and Belyaev, Dual/Primal Mesh Optimization for Polygonized Implicit Surfaces, SMA 2002.
    """
    low, high = (np.asarray(corner, np.float64) for corner in model.bounds)
    sized = voxel is None
    if voxel is None:
        low, high, voxel = _size(model, low, high, faces)
    for offset in _OFFSETS:
        vertices, triangles = _march(model, low, high, voxel, offset)
        if not len(triangles) or not is_closed(triangles):
            continue
        vertices, triangles = _outer(vertices, triangles)
        if sized and not 0.6 * faces < len(triangles) < 1.35 * faces:
            # The first look missed thin parts, or counted pieces that are not kept.
            voxel *= float(np.clip(np.sqrt(len(triangles) / faces), 0.5, 2.5))
            continue
        for _ in range(2):
            vertices = _sharpened(model, vertices, triangles, voxel)
        return vertices, triangles
    raise ViewloomError("no grid gave a closed surface of an object", fix="Ask for more faces.")


def is_closed(faces: Faces) -> bool:
    """Whether every directed edge occurs once, and its opposite too."""
    start, end = faces.astype(np.int64), np.roll(faces, -1, axis=1).astype(np.int64)
    count = int(faces.max()) + 1
    there, back = np.sort((start * count + end).reshape(-1)), np.sort((end * count + start).reshape(-1))
    return bool((np.diff(there) > 0).all() and np.array_equal(there, back))


def _size(
    model: CsgModel, low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], faces: int
) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"], float]:
    """A closer box about a model and the voxel that gives so many faces, by a look at a coarse grid."""
    coarse = float((high - low).max()) / _COARSE
    start = low - 0.5 * coarse
    if model.mirror:
        start[1] = 0.0
    shape = tuple(int(n) for n in np.ceil((high - start) / coarse + 1.5))
    field = model.on_grid(start, coarse, shape)  # type: ignore[arg-type]
    inside = field < 0
    # A crossing is a vertex of marching cubes, a closed surface has twice as many faces, and both grow with 1/voxel^2.
    crossings = sum(int((np.diff(inside, axis=k)).sum()) for k in range(3)) * (2 if model.mirror else 1)
    voxel = coarse * float(np.sqrt(2 * max(crossings, 1) / faces))
    near = np.nonzero(field < 1.5 * coarse)
    if not len(near[0]):
        return low, high, coarse
    closer_low = np.maximum(low, start + (np.array([n.min() for n in near]) - 1) * coarse)
    closer_high = np.minimum(high, start + (np.array([n.max() for n in near]) + 1) * coarse)
    if model.mirror:
        closer_low[1] = -closer_high[1]
    sides = (closer_high - closer_low) / ((1, 2, 1) if model.mirror else 1)
    return closer_low, closer_high, max(voxel, float(sides.prod() / _MAX_POINTS) ** (1 / 3))


def _march(
    model: CsgModel, low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], voxel: float, offset: float
) -> tuple[Vertices, Faces]:
    """Marching cubes; the half at y >= 0 and its mirror image for mirrored models."""
    start = low - (1 + offset) * voxel
    if model.mirror:
        start[1] = 0.0
    shape = tuple(int(n) for n in np.ceil((high - start) / voxel + 2.5))
    field = model.on_grid(start, voxel, shape)  # type: ignore[arg-type]
    # No value may be zero: the surface must pass between the grid's points.
    field = np.where(np.abs(field) < 1e-3 * voxel, np.float32(1e-3 * voxel), field)
    if not (field < 0).any():
        return np.zeros((0, 3)), np.zeros((0, 3), np.int64)
    local, faces, _, _ = measure.marching_cubes(field, 0.0)
    vertices, faces = local.astype(np.float64) * voxel + start, faces.astype(np.int64)
    if model.mirror:
        return _reflected(np.where(local[:, 1:2] == 0, vertices * (1, 0, 1), vertices), faces)
    return vertices, faces


def _reflected(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    """A half surface and its mirror image across y = 0, sewn together where they touch it."""
    off = vertices[:, 1] != 0
    other = np.arange(len(vertices))
    other[off] = len(vertices) + np.arange(int(off.sum()))
    return np.concatenate([vertices, vertices[off] * (1, -1, 1)]), np.concatenate([faces, other[faces][:, ::-1]])


def _outer(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    """The surface of the largest piece: no cavities that nothing reaches, no crumbs. Mirrored twins stay together."""
    edges = sparse.coo_array((np.ones(len(faces) * 2), (faces[:, [0, 1]].T.ravel(), faces[:, [1, 2]].T.ravel())))
    edges.resize((len(vertices), len(vertices)))
    count, label = csgraph.connected_components(edges, directed=False)
    piece = label[faces[:, 0]]
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    volumes = np.bincount(piece, np.einsum("fc,fc->f", a, np.cross(b, c)), minlength=count)
    faces = faces[(volumes > (1 - 1e-6) * volumes.max())[piece]]
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


def _sharpened(model: CsgModel, vertices: Vertices, faces: Faces, voxel: float) -> Vertices:
    """Vertices moved to where the planes of the surface about them meet."""
    # For mirrored models the faces of one half come first; the other half's planes follow from theirs.
    half = faces[: len(faces) // 2] if model.mirror else faces
    centres = vertices[half].mean(axis=1)
    # Central differences on a tetrahedron's corners: four values for the gradient and the distance.
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * (0.02 * voxel)
    points = (centres[:, None] + corners).reshape(-1, 3).T
    values = model.distance(np.ascontiguousarray(points, np.float32), near=2 * voxel).reshape(-1, 4).astype(np.float64)
    gradients = values @ corners / (4 * (0.02 * voxel) ** 2)
    square = np.maximum((gradients * gradients).sum(axis=1, keepdims=True), 1e-6)
    step = -values.mean(axis=1, keepdims=True) * gradients / square
    step *= np.minimum(1, voxel / np.maximum(np.linalg.norm(step, axis=1, keepdims=True), 1e-12))
    feet, normals = centres + step, gradients / np.sqrt(square)
    if model.mirror:
        feet, normals = (np.concatenate([a, a * (1, -1, 1)]) for a in (feet, normals))
    rows = np.concatenate(
        [
            (normals[:, :, None] * normals[:, None]).reshape(-1, 9),
            normals * np.einsum("fc,fc->f", normals, feet)[:, None],
            feet,
            np.ones((len(feet), 1)),
        ],
        axis=1,
    )
    corner = np.repeat(np.arange(len(faces)), 3)
    gather = sparse.csr_array((np.ones(len(corner)), (faces.reshape(-1), corner)), (len(vertices), len(faces)))
    sums = gather @ rows
    # The mean of the feet is where a vertex goes along directions that no plane fixes.
    planes, right, mean, count = sums[:, :9].reshape(-1, 3, 3), sums[:, 9:12], sums[:, 12:15], sums[:, 15:]
    mean = mean / count
    right = right - np.einsum("vij,vj->vi", planes, mean)
    shift = np.linalg.solve(planes + 0.01 * count[:, :, None] * np.eye(3), right[:, :, None])[:, :, 0]
    move = mean + shift - vertices
    move *= np.minimum(1, voxel / np.maximum(np.linalg.norm(move, axis=1, keepdims=True), 1e-12))
    moved = vertices + move
    return _symmetric(vertices, moved) if model.mirror else moved


def _symmetric(before: Vertices, moved: Vertices) -> Vertices:
    """Moved vertices, the other half made the first one's mirror image to the last bit."""
    first, other = before[:, 1] >= 0, before[:, 1] < 0
    result = moved.copy()
    result[before[:, 1] == 0, 1] = 0.0
    # Both halves list their vertices off the plane in the same order.
    result[other] = result[first & (before[:, 1] > 0)] * (1, -1, 1)
    return result
