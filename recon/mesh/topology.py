"""Which faces hang together: edges and their faults, components, sheets that touch, holes that are filled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int
from scipy import sparse

from scene.mesh import Faces, OtherFaces, OtherVertices, Vertices, area_normals


@dataclass(frozen=True, eq=False)
class Edges:
    """The undirected edges of a mesh.

    Args:
        ends: the vertices of each edge, the smaller first.
        uses: how many faces have it.
        orientation_sum: how many of them run from the smaller to the larger end, less those that run back; 0 between
            two faces that agree on what is outside.
        of_face: the edges of each face: corner 0 to 1, 1 to 2, 2 to 0.
    """

    ends: Int[np.ndarray, "e 2"]
    uses: Int[np.ndarray, "e"]
    orientation_sum: Int[np.ndarray, "e"]
    of_face: Int[np.ndarray, "f 3"]

    @property
    def faulty(self) -> Bool[np.ndarray, "e"]:
        """Edges with more than two faces, or with two that disagree on what is outside."""
        return (self.uses > 2) | ((self.uses == 2) & (self.orientation_sum != 0))

    @property
    def closed(self) -> bool:
        """Whether every edge has two faces that agree."""
        return bool(((self.uses == 2) & (self.orientation_sum == 0)).all())

    def pairs(self) -> Int[np.ndarray, "p 2"]:
        """The two faces of each edge that has two."""
        order = np.argsort(self.of_face.reshape(-1), kind="stable")
        starts = np.concatenate([[0], np.cumsum(self.uses)[:-1]])[self.uses == 2]
        return np.stack([order[starts], order[starts + 1]], axis=-1) // 3


def edges_of(faces: Faces) -> Edges:
    """The edges of a mesh, sorted by their ends."""
    start, end = faces.astype(np.int64), np.roll(faces, -1, axis=1).astype(np.int64)
    low, high = np.minimum(start, end), np.maximum(start, end)
    count = int(high.max()) + 1 if len(faces) else 1
    # One number for each edge: sorting those is several times faster than sorting rows.
    key, edge, uses = np.unique((low * count + high).reshape(-1), return_inverse=True, return_counts=True)
    edge = edge.reshape(faces.shape)
    orientation_sum = np.bincount(edge.reshape(-1), np.where(start < end, 1, -1).reshape(-1), minlength=len(key))
    return Edges(np.stack([key // count, key % count], axis=-1), uses, orientation_sum.astype(np.int64), edge)


def remove_unreferenced_vertices(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    """Drop faces that repeat a vertex, and vertices that no face uses."""
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    used = np.zeros(len(vertices), bool)
    used[faces] = True
    return vertices[used], (np.cumsum(used) - 1)[faces]


def merge_vertices(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    """One vertex for each position; faces that thereby lose a corner are dropped."""
    _, first, index = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    return remove_unreferenced_vertices(vertices[first], index.reshape(-1)[faces])


def contract_short_edges(vertices: Vertices, faces: Faces, length: float) -> tuple[OtherVertices, OtherFaces]:
    """Let the ends of edges of at most ``length`` fall together in one of them; faces that lose a corner go."""
    ends = edges_of(faces).ends
    short = ends[np.linalg.norm(vertices[ends[:, 0]] - vertices[ends[:, 1]], axis=1) <= length]
    if not len(short):
        return vertices, faces
    _, first, index = np.unique(connected_components([short], len(vertices)), return_index=True, return_inverse=True)
    return remove_unreferenced_vertices(vertices[first], index[faces])


def drop_doubles(faces: Faces) -> OtherFaces:
    """Keep one of equal faces; of faces with the same corners that look both ways, as many go as look the other way.

    Two that lie back to back enclose nothing, and without them every edge keeps an even number of faces.
    """
    count = int(faces.max()) + 1 if len(faces) else 1
    corners = np.sort(faces, axis=1).astype(np.int64)
    turn = np.argmin(faces, axis=1)
    after = np.take_along_axis(faces, (turn[:, None] + 1) % 3, axis=1)[:, 0]
    forward = after == corners[:, 1]
    # Numbers below 2^31 in pairs: no key can overflow.
    pair = np.unique(corners[:, 0] * count + corners[:, 1], return_inverse=True)[1].reshape(-1).astype(np.int64)
    _, group = np.unique(pair * count + corners[:, 2], return_inverse=True)
    sides = np.stack([np.bincount(group, forward), np.bincount(group, ~forward)], axis=-1)
    surplus = sides[:, 0] - sides[:, 1]
    wanted = np.where(forward, surplus[group] > 0, surplus[group] < 0)
    first = np.zeros(len(faces), bool)
    candidates = np.nonzero(wanted)[0]
    first[candidates[np.unique(group[candidates], return_index=True)[1]]] = True
    return faces[first]


def face_components(faces: Faces, count: int) -> Int[np.ndarray, "f"]:
    """Connected component of each face (by shared vertices)."""
    label = connected_components([faces[:, [0, 1]], faces[:, [1, 2]]], count)
    return np.unique(label[faces[:, 0]], return_inverse=True)[1]


def remove_small_components(
    vertices: Vertices, faces: Faces, fraction: float = 0.02
) -> tuple[OtherVertices, OtherFaces]:
    """Keep the connected components with at least ``fraction`` of the largest one's area, and the vertices they use."""
    label = face_components(faces, len(vertices))
    area = np.bincount(label, np.linalg.norm(area_normals(vertices, faces), axis=1))
    return remove_unreferenced_vertices(vertices, faces[area[label] >= fraction * area.max()])


def connected_components(links: list[Int[np.ndarray, "_ 2"]], count: int) -> Int[np.ndarray, "n"]:
    """Component of each of ``count`` nodes."""
    one, other = np.concatenate(links).T
    graph = sparse.coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return sparse.csgraph.connected_components(graph, directed=False)[1]


def part_touching_sheets(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, Faces]:
    """Give every fan of faces about a vertex a vertex of its own, so that sheets that touch are parted.

    Faces hang together by edges of two faces. At an edge of four, the two fans at one of its ends say which faces
    belong together at the other end too. No position changes.
    """
    count = len(faces)
    # One node for each corner of each face; an edge's sides are its face's corners k and k + 1.
    first = np.arange(3 * count).reshape(count, 3)
    nodes = np.stack([first, np.roll(first, -1, axis=1)], -1).reshape(-1, 2)
    turned = (faces > np.roll(faces, -1, axis=1)).reshape(-1)
    nodes[turned] = nodes[turned][:, ::-1]
    edges = edges_of(faces)
    order = np.argsort(edges.of_face.reshape(-1), kind="stable")
    starts = np.concatenate([[0], np.cumsum(edges.uses)[:-1]]).astype(np.int64)
    plain = starts[(edges.uses == 2) & (edges.orientation_sum == 0)]
    links = [np.stack([nodes[order[plain]], nodes[order[plain + 1]]], -1).reshape(-1, 2)]
    fan = connected_components(links, 3 * count)
    for start in starts[edges.uses == 4]:
        corners = nodes[order[start : start + 4]]
        for near, far in ((0, 1), (1, 0)):
            names, size = np.unique(fan[corners[:, near]], return_counts=True)
            if size.tolist() == [2, 2]:
                links += [corners[fan[corners[:, near]] == name][:, far][None] for name in names]
                break
    _, corner, vertex_of = np.unique(connected_components(links, 3 * count), return_index=True, return_inverse=True)
    return vertices[faces.reshape(-1)[corner]], vertex_of.reshape(count, 3)


def spread_touching(vertices: Vertices, faces: Faces, fraction: float = 0.02) -> Vertices:
    """Move vertices of equal position apart, each towards its own neighbours, so that merging would not join them.

    Args:
        vertices, faces: a mesh after :func:`part_touching_sheets`.
        fraction: how far they move, as part of the way to the mean of the neighbours.
    """
    _, index, uses = np.unique(vertices, axis=0, return_inverse=True, return_counts=True)
    moved = np.nonzero(uses[index.reshape(-1)] > 1)[0]
    if not len(moved):
        return vertices
    here = np.isin(faces, moved)
    total, degree = np.zeros_like(vertices), np.zeros(len(vertices))
    for k in range(3):
        for other in (1, 2):
            rows = here[:, k]
            np.add.at(total, faces[rows, k], vertices[faces[rows, (k + other) % 3]])
            np.add.at(degree, faces[rows, k], 1)
    out = vertices.copy()
    out[moved] += fraction * (total[moved] / degree[moved, None] - out[moved])
    return out


def refill_faults(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    """Cut out the faces at faulty edges of a mesh without borders and fill the holes: the result is closed.

    Once they are gone, every edge has one face or two that agree. Parted into fans, every vertex on a border lies on
    just one border, so borders are simple loops, and a fan from a new vertex in the middle of each closes it without
    touching an existing edge.
    """
    vertices, faces = remove_unreferenced_vertices(vertices, faces)
    faces = drop_doubles(faces)
    while True:
        edges = edges_of(faces)
        bad = edges.faulty[edges.of_face].any(axis=1)
        if not bad.any():
            break
        faces = faces[~bad]
    vertices, faces = part_touching_sheets(*remove_unreferenced_vertices(vertices, faces))
    edges = edges_of(faces)
    open_face, side = np.nonzero(edges.uses[edges.of_face] == 1)
    if not len(open_face):
        return vertices, faces
    start, end = faces[open_face, side], faces[open_face, (side + 1) % 3]
    loop = np.unique(connected_components([np.stack([start, end], -1)], len(vertices))[start], return_inverse=True)[1]
    length = np.bincount(loop)
    middle = np.stack([np.bincount(loop, vertices[start, axis]) for axis in range(3)], -1) / length[:, None]
    # The filling runs against the border, as the face on the other side of an edge does.
    fan = np.stack([end, start, len(vertices) + loop], axis=-1)
    return remove_unreferenced_vertices(np.concatenate([vertices, middle]), np.concatenate([faces, fan]))
