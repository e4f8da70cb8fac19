"""From a surface to a clean triangle mesh: marching cubes, components, decimation, health."""

from __future__ import annotations

from dataclasses import dataclass

import fast_simplification
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse
from skimage import measure

from recon.field import Surface
from scene.errors import InputError

Vertices = Float[np.ndarray, "v 3"]
Faces = Int[np.ndarray, "f 3"]
OtherVertices = Float[np.ndarray, "w 3"]
OtherFaces = Int[np.ndarray, "g 3"]


@dataclass(frozen=True)
class MeshHealth:
    """What a viewer or printer would complain about."""

    vertices: int
    faces: int
    components: int
    watertight: bool
    boundary_edges: int
    non_manifold_edges: int
    euler: int
    volume: float
    size: tuple[float, float, float]


def extract_mesh(surface: Surface) -> tuple[Vertices, Faces]:
    """Marching cubes at zero, faces outward, world units; closed, since the grid is padded with outside.

    Raises:
        InputError: there is nothing inside.
    """
    sdf = np.pad(surface.sdf, 1, constant_values=float(np.abs(surface.sdf).max()))
    if not (sdf < 0).any():
        raise InputError("the surface is empty", fix="Check the masks, or lower the vote they must reach.")
    vertices, faces, _, _ = measure.marching_cubes(sdf, 0.0)
    voxel = 2 * surface.half / surface.sdf.shape[0]
    # Index 1 of the padded grid is the first voxel's centre.
    points = (vertices - 0.5) * voxel - surface.half
    return points.astype(np.float64), faces.astype(np.int64)


def drop_specks(vertices: Vertices, faces: Faces, share: float = 0.02) -> tuple[OtherVertices, OtherFaces]:
    """Keep the connected components with at least ``share`` of the largest one's area, and the vertices they use."""
    label = face_components(faces, len(vertices))
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.bincount(label, np.linalg.norm(np.cross(b - a, c - a), axis=1))
    return compact(vertices, faces[area[label] >= share * area.max()])


def compact(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    """Drop faces that repeat a vertex, and vertices that no face uses."""
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    used, index = np.unique(faces, return_inverse=True)
    return vertices[used], index.reshape(faces.shape).astype(np.int64)


def face_components(faces: Faces, count: int) -> Int[np.ndarray, "f"]:
    """Connected component of each face (by shared vertices)."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = sparse.coo_array((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), shape=(count, count))
    _, label = sparse.csgraph.connected_components(graph, directed=False)
    return np.unique(label[faces[:, 0]], return_inverse=True)[1]


def decimate(vertices: Vertices, faces: Faces, target: int) -> tuple[OtherVertices, OtherFaces]:
    """Quadric decimation to at most ``target`` faces, kept closed where that can be had.

    The decimator now and then leaves edges with four faces, where two sheets touch. These are parted; if that does not
    help, other targets are tried. If none is clean, a closed mesh of up to 40,000 faces stays as it is, and otherwise
    the result with the fewest faults is taken (:func:`mesh_health` tells).
    """
    if len(faces) <= target:
        return vertices, faces
    best: tuple[int, Vertices, Faces] | None = None
    for attempt in (1.0, 0.97, 0.94, 0.9, 0.85):
        points, triangles = fast_simplification.simplify(
            np.ascontiguousarray(vertices, np.float64),
            np.ascontiguousarray(faces, np.int64),
            target_count=int(target * attempt),
        )
        points, triangles = compact(np.asarray(points, np.float64), np.asarray(triangles, np.int64))
        boundary, crowded = _edge_faults(triangles)
        if crowded:
            parted = part_touching_sheets(points, triangles)
            if _edge_faults(parted[1]) == (0, 0):
                return parted
        if best is None or boundary + crowded < best[0]:
            best = (boundary + crowded, points, triangles)
        if best[0] == 0:
            break
    assert best is not None
    # More faces would take the unwrapping minutes.
    if best[0] and len(faces) <= 40_000 and _edge_faults(faces) == (0, 0):
        return vertices, faces
    return best[1], best[2]


def part_touching_sheets(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, Faces]:
    """Give every fan of faces about a vertex a vertex of its own, so that sheets that touch are parted.

    Faces hang together by edges of two faces. At an edge of four, the two fans at one of its ends say which faces
    belong together at the other end too. No position changes.
    """
    count = len(faces)
    # One node for each corner of each face; an edge's sides are its face's corners k and k + 1.
    first = np.arange(3 * count).reshape(count, 3)
    ends = np.stack([faces, np.roll(faces, -1, axis=1)], -1).reshape(-1, 2)
    nodes = np.stack([first, np.roll(first, -1, axis=1)], -1).reshape(-1, 2)
    turned = ends[:, 0] > ends[:, 1]
    ends[turned], nodes[turned] = ends[turned][:, ::-1], nodes[turned][:, ::-1]
    _, edge, uses = np.unique(ends, axis=0, return_inverse=True, return_counts=True)
    order = np.argsort(edge.reshape(-1), kind="stable")
    starts = np.concatenate([[0], np.cumsum(uses)[:-1]])
    links = [np.stack([nodes[order[starts[uses == 2]]], nodes[order[starts[uses == 2] + 1]]], -1).reshape(-1, 2)]
    fan = _linked(links, 3 * count)
    for start in starts[uses == 4]:
        corners = nodes[order[start : start + 4]]
        for near, far in ((0, 1), (1, 0)):
            names, size = np.unique(fan[corners[:, near]], return_counts=True)
            if size.tolist() == [2, 2]:
                links += [corners[fan[corners[:, near]] == name][:, far][None] for name in names]
                break
    _, corner, vertex_of = np.unique(_linked(links, 3 * count), return_index=True, return_inverse=True)
    return vertices[faces.reshape(-1)[corner]], vertex_of.reshape(count, 3)


def _linked(links: list[Int[np.ndarray, "_ 2"]], count: int) -> Int[np.ndarray, "n"]:
    """Component of each of ``count`` nodes."""
    one, other = np.concatenate(links).T
    graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def taubin(vertices: Vertices, faces: Faces, rounds: int = 6, shrink: float = 0.5, inflate: float = -0.53) -> Vertices:
    """Taubin smoothing: takes the stairs off marching cubes without shrinking the object."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    count = len(vertices)
    graph = sparse.csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    graph.data[:] = 1.0  # an edge listed by both of its faces counts once
    degree = np.maximum(graph.sum(axis=1), 1)[:, None]
    out = vertices
    for _ in range(rounds):
        for factor in (shrink, inflate):
            out = out + factor * (graph @ out / degree - out)
    return out


def vertex_normals(vertices: Vertices, faces: Faces) -> Vertices:
    """Unit normals, weighted by area; a vertex without area gets +z, since a zero normal is invalid in files."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], normal)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(length > 1e-12, out / np.maximum(length, 1e-12), (0.0, 0.0, 1.0))


def signed_volume(vertices: Vertices, faces: Faces) -> float:
    """Volume; positive if faces look outward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def mesh_health(vertices: Vertices, faces: Faces) -> MeshHealth:
    """Count what can be wrong with a mesh."""
    boundary, crowded = _edge_faults(faces)
    edges = len(np.unique(_edges(faces), axis=0))
    size = vertices.max(axis=0) - vertices.min(axis=0)
    return MeshHealth(
        len(vertices),
        len(faces),
        int(face_components(faces, len(vertices)).max()) + 1,
        boundary == 0 and crowded == 0,
        boundary,
        crowded,
        len(vertices) - edges + len(faces),
        signed_volume(vertices, faces),
        (float(size[0]), float(size[1]), float(size[2])),
    )


def _edges(faces: Faces) -> Int[np.ndarray, "e 2"]:
    return np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)


def _edge_faults(faces: Faces) -> tuple[int, int]:
    """Edges with one face, and edges with more than two."""
    _, count = np.unique(_edges(faces), axis=0, return_counts=True)
    return int((count == 1).sum()), int((count > 2).sum())
