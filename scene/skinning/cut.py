"""Cuts of a surface where parts of a body were glued together, and the caps that close it again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import sparse
from scipy.sparse import csgraph

from scene.mesh import Faces, Vertices, face_areas

_ISLAND = 0.004
"""Share of the area below which a patch that is cut off all around goes with what surrounds it."""


@dataclass(frozen=True, eq=False)
class Topology:
    """Pairs of faces that share an edge.

    Args:
        faces: vertex indices, those of one place being one.
        first, second: corners (3 * face + k) at which the shared edge begins, in each of the two faces.
        closed: whether every edge has two faces that agree on what is outside.
    """

    faces: Faces
    first: Int[np.ndarray, "e"]
    second: Int[np.ndarray, "e"]
    closed: bool

    @classmethod
    def of(cls, faces: Faces) -> Topology:
        """Find them; an edge of more than two faces joins each with the next."""
        start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        count = int(faces.max()) + 1 if len(faces) else 1
        key = np.minimum(start, end) * count + np.maximum(start, end)
        # A face that welding has folded flat joins nothing; its neighbours meet as if it were not there.
        flat = (faces[:, [0, 1, 2]] == faces[:, [1, 2, 0]]).any(axis=1)
        sound = np.nonzero(np.repeat(~flat, 3))[0]
        order = sound[np.argsort(key[sound], kind="stable")]
        same = key[order][1:] == key[order][:-1]
        first, second = order[:-1][same], order[1:][same]
        _, uses = np.unique(key[sound], return_counts=True)
        agree = start[first] == end[second]
        return cls(faces, first, second, bool((uses == 2).all() and agree.all()))

    @property
    def middles(self) -> Int[np.ndarray, "e 2"]:
        """The two vertices of each shared edge."""
        return np.stack([self.faces.reshape(-1)[self.first], self.faces.reshape(-1)[_next(self.first)]], axis=1)


@dataclass(frozen=True, eq=False)
class Cut:
    """A surface that was cut.

    Args:
        corners: of each face, numbers of vertices after the cut; those of one place on two sides are two.
        loops: rings of corners (3 * face + k) whose edges were opened, in the direction of their faces.
        open: opened edges that belong to no ring, since the cut runs into a hole.
    """

    corners: Int[np.ndarray, "f 3"]
    loops: list[Int[np.ndarray, "_"]]
    open: int


def without_islands(
    topology: Topology, vertices: Vertices, labels: Int[np.ndarray, "f"], glued: Bool[np.ndarray, "e"]
) -> Int[np.ndarray, "f"]:
    """Labels of faces, those of small patches that are cut off all around taken from their neighbours.

    Args:
        topology, vertices: the surface.
        labels: parts that faces belong to.
        glued: shared edges that are to be cut.
    """
    one, two = topology.first // 3, topology.second // 3
    patch = _components(len(labels), one[~glued], two[~glued])
    area = np.bincount(patch, face_areas(vertices, topology.faces))
    small = area < _ISLAND * area.sum()
    out = labels.copy()
    one, two = one[glued], two[glued]
    for inner, outer in ((one, two), (two, one)):
        use = small[patch[inner]] & ~small[patch[outer]]
        # Of several neighbours, the last: patches so small have one as a rule.
        taken = dict(zip(patch[inner[use]].tolist(), labels[outer[use]].tolist(), strict=True))
        for number, label in taken.items():
            out[patch == number] = label
    return out


def cut(topology: Topology, glued: Bool[np.ndarray, "e"]) -> Cut:
    """Open shared edges: both sides get vertices of their own.

    Args:
        topology: the surface.
        glued: shared edges to open.
    """
    faces = topology.faces
    flat = faces.reshape(-1)
    opened = np.zeros(int(flat.max()) + 1, bool)
    opened[topology.middles[glued].reshape(-1)] = True
    # Corners of one vertex hang together over the edges that stay; where nothing is cut, all of them do.
    a, b = topology.first[~glued], topology.second[~glued]
    agree = flat[a] == flat[_next(b)]
    starts = np.concatenate([a, _next(a)])
    ends = np.concatenate([np.where(agree, _next(b), b), np.where(agree, b, _next(b))])
    keep = opened[flat[starts]]
    whole = np.nonzero(~opened[flat])[0]
    anchor = np.full(len(opened), -1)
    anchor[flat[whole]] = whole
    component = _components(
        len(flat), np.concatenate([starts[keep], whole]), np.concatenate([ends[keep], anchor[flat[whole]]])
    )
    corners = component.reshape(-1, 3)
    edges = np.concatenate([topology.first[glued], topology.second[glued]])
    loops, left = _rings(component, edges)
    return Cut(corners, loops, left)


def _rings(component: np.ndarray, edges: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Rings of opened half edges, and how many belong to none."""
    following: dict[int, list[int]] = {}
    for edge in edges.tolist():
        following.setdefault(int(component[edge]), []).append(edge)
    rings, left = [], 0
    unused = set(edges.tolist())
    for edge in edges.tolist():
        if edge not in unused:
            continue
        ring, at = [], edge
        while at in unused:
            unused.discard(at)
            ring.append(at)
            onward = [e for e in following.get(int(component[_next(at)]), []) if e in unused]
            if not onward:
                break
            at = onward[0]
        if component[_next(ring[-1])] != component[ring[0]]:
            left += len(ring)
        elif len(ring) > 2:  # a single edge that was opened has not come apart
            rings.append(np.array(ring))
    return rings, left


def _next(corner: np.ndarray | int) -> np.ndarray:
    """The next corner of the same face."""
    corner = np.asarray(corner)
    return np.asarray(corner // 3 * 3 + (corner % 3 + 1) % 3)


def next_corner(corner: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
    """The corner that follows in the same face: the other end of the edge that begins at a corner."""
    return _next(corner)


def _components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    graph = sparse.csr_array((np.ones(len(first), np.int8), (first, second)), (count, count))
    return np.asarray(csgraph.connected_components(graph, directed=False)[1], np.int64)


def ring_centre(places: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "3"]:
    """Where the faces of a cap meet."""
    return np.asarray(places.mean(axis=0))
