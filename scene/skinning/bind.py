"""Surfaces bound to a skeleton or to boxes: what is computed once, and posed often."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from scene.errors import InputError
from scene.mesh import ColouredMesh, Faces, OtherVertices, Vertices
from scene.skeleton import FACE, PARENTS, Skeleton
from scene.skinning.cut import Topology, cut, next_corner, ring_centre, without_islands
from scene.skinning.motion import PARTS, part_motions
from scene.skinning.pose import Method, posed_vertices
from scene.skinning.solid import InnerDistances, voxelise
from scene.skinning.weights import Meetings, Weights, WeightSettings, falloff, part_distances, smoothed

_LARGEST = 200_000
"""Faces of a surface that is bound."""
_SHORTEST = 0.01
"""Of a bone's length, relative to the longest."""


@dataclass(frozen=True)
class BindReport:
    """What binding did to a surface.

    Args:
        was_closed, is_closed: whether every edge has two faces that agree, before and after.
        cuts: rings along which parts that were glued together were cut apart, and closed, on both sides.
        left_open: edges of cuts that could not be closed, since they run into holes.
    """

    was_closed: bool
    is_closed: bool
    cuts: int
    left_open: int


@dataclass(frozen=True, eq=False)
class SkinnedMesh:
    """A surface with weights.

    Args:
        mesh: in the pose in which it was bound; cut where parts were glued, colours and texture as they were.
        skin: weights of its vertices.
        welds: a number for each vertex, the same for those that a chart border doubled.
        source: the vertex of the original surface whose attributes a vertex has.
        report: what was cut.
    """

    mesh: ColouredMesh
    skin: Weights
    welds: Int[np.ndarray, "v"]
    source: Int[np.ndarray, "v"]
    report: BindReport

    def posed(self, motions: Float[np.ndarray, "p 4 4"], method: Method = "dual_quaternion") -> ColouredMesh:
        """The surface under motions of its parts, world frame; see :func:`scene.skinning.pose.posed_vertices`."""
        moved = posed_vertices(self.mesh.vertices, self.skin, motions, method)
        space = self.mesh.vertices if self.mesh.texture_space is None else self.mesh.texture_space
        return replace(
            self.mesh, vertices=moved.astype(self.mesh.vertices.dtype), texture_space=space if self.mesh.solid else None
        )

    def posed_to(self, rest: Skeleton, target: Skeleton, method: Method = "dual_quaternion") -> ColouredMesh:
        """The surface as the target stands.

        Args:
            rest: the skeleton that it was bound to.
            target: another pose of the same body.
            method: see :data:`scene.skinning.pose.Method`.

        Raises:
            InputError: the trunk of one of the two is not known.
        """
        return self.posed(part_motions(rest, target), method)


def bind_to_skeleton(
    mesh: ColouredMesh,
    skeleton: Skeleton,
    settings: WeightSettings = WeightSettings(),
    welds: Int[np.ndarray, "v"] | None = None,
) -> SkinnedMesh:
    """Bind a surface to a skeleton.

    Args:
        mesh: at most 200,000 faces.
        skeleton: in the same frame and pose.
        settings: of the weights.
        welds: which vertices are one (the same number); by default those of one position.

    Raises:
        InputError: the skeleton misses the surface, its trunk is not known, both ends of a bone are in one place, or
            the surface has no faces or too many.
    """
    _require_usable(mesh)
    skeleton.require("neck", "right_hip", "left_hip", "right_shoulder", "left_shoulder")
    _require_lengths(skeleton)
    welds = _same_places(mesh.vertices) if welds is None else welds
    places, faces = _welded(mesh, welds)
    inner = InnerDistances(voxelise(places, faces))
    distances, radii = part_distances(inner, skeleton)
    known = np.isfinite(distances).any(axis=0)
    near = np.full((len(places), len(PARTS)), np.inf)
    near[:, known] = inner.at_vertices(distances[:, known], places, faces)
    relative = near / radii
    topology = Topology.of(faces)
    labels, glued = _glued(topology, places, relative, skeleton, settings)
    opened = cut(topology, glued)
    # Numbers of corners to vertices after the cut, in whose order places and weights are.
    names, first = np.unique(opened.corners, return_index=True)
    corners = np.searchsorted(names, opened.corners)
    origin = faces.reshape(-1)[first]
    side = labels[first // 3]
    dense = falloff(near[origin], radii, settings.power)
    meetings = Meetings(skeleton, places[origin], settings.reach)
    dense = _of_one_side(dense, side, meetings)
    dense = smoothed(dense, places[origin], corners, settings.smoothing)
    dense = _of_one_side(dense, side, meetings)
    return _assembled(mesh, corners, dense, places[origin], opened.loops, (topology.closed, opened.open))


def _require_usable(mesh: ColouredMesh) -> None:
    if not len(mesh.faces):
        raise InputError("a surface without faces cannot be bound")
    if len(mesh.faces) > _LARGEST:
        raise InputError(
            f"a surface of {len(mesh.faces):,} faces is too large to be bound (at most {_LARGEST:,})",
            fix="Reduce it first.",
        )
    if not np.ptp(mesh.vertices[mesh.faces.reshape(-1)], axis=0).max() > 0:
        raise InputError("a surface in a single point cannot be bound")


def _require_lengths(skeleton: Skeleton) -> None:
    """Raise if a bone that turns has no length: no part of the surface would be near it, and its limb be cut off."""
    lengths = {name: length for name, length in skeleton.bone_lengths().items() if name not in FACE}
    for name, length in lengths.items():
        if length <= _SHORTEST * max(lengths.values()):
            raise InputError(
                f"{PARENTS[name]} and {name} are in one place", fix="Correct them, or give null for what is not known."
            )


def _same_places(vertices: Vertices) -> Int[np.ndarray, "v"]:
    return np.asarray(np.unique(vertices, axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def _welded(mesh: ColouredMesh, welds: Int[np.ndarray, "v"]) -> tuple[OtherVertices, Faces]:
    """Vertices and faces, those of one weld being one."""
    places = np.zeros((int(welds.max()) + 1, 3))
    places[welds] = mesh.vertices
    return places, welds[mesh.faces]


def _glued(
    topology: Topology,
    places: Vertices,
    relative: Float[np.ndarray, "w p"],
    skeleton: Skeleton,
    settings: WeightSettings,
) -> tuple[Int[np.ndarray, "f"], Bool[np.ndarray, "e"]]:
    """The part of each face, and the edges at which parts meet that should not."""
    labels = relative[topology.faces].sum(axis=1).argmin(axis=1)
    middles = places[topology.middles].mean(axis=1)
    one, two = topology.first // 3, topology.second // 3
    meetings = Meetings(skeleton, middles, settings.reach)
    for _ in range(3):
        glued = ~meetings.natural(labels[one], labels[two])
        calmer = without_islands(topology, places, labels, glued)
        if np.array_equal(calmer, labels):
            break
        labels = calmer
    return labels, ~meetings.natural(labels[one], labels[two])


def _of_one_side(
    dense: Float[np.ndarray, "v p"], side: Int[np.ndarray, "v"], meetings: Meetings
) -> Float[np.ndarray, "v p"]:
    """Weights without those of parts that may not blend with a vertex's own part there."""
    out = dense.copy()
    for part in range(dense.shape[1]):
        out[~meetings.natural(side, part), part] = 0
    total = out.sum(axis=1)
    lost = total < 1e-9
    out[lost, side[lost]] = 1
    return np.asarray(out / out.sum(axis=1, keepdims=True))


def _assembled(
    mesh: ColouredMesh,
    corners: Int[np.ndarray, "f 3"],
    dense: Float[np.ndarray, "w p"],
    places: Float[np.ndarray, "w 3"],
    loops: list[Int[np.ndarray, "_"]],
    before: tuple[bool, int],
) -> SkinnedMesh:
    """The surface after the cut, with caps: one vertex for each vertex after the cut and original one."""
    was_closed, left_open = before
    flat, original = corners.reshape(-1), mesh.faces.reshape(-1)
    pairs, number = np.unique(np.stack([flat, original], axis=1), axis=0, return_inverse=True)
    welds, source, faces = [pairs[:, 0]], [pairs[:, 1]], [number.reshape(-1, 3)]
    position = [np.asarray(mesh.vertices, np.float64)[pairs[:, 1]]]
    count, rows = len(pairs), [dense]
    for number_of_cap, ring in enumerate(loops):
        start, end = flat[ring], flat[next_corner(ring)]
        centre = ring_centre(places[start])
        middle = len(dense) + number_of_cap
        rows.append(dense[start].mean(axis=0, keepdims=True))
        # Each face of a cap has the colour of one point of the ring: between charts, nothing could be blended.
        n = len(ring)
        welds.append(np.stack([end, start, np.full(n, middle)], axis=1).reshape(-1))
        source.append(np.repeat(original[ring], 3))
        position.append(np.stack([places[end], places[start], np.tile(centre, (n, 1))], axis=1).reshape(-1, 3))
        faces.append(count + np.arange(3 * n).reshape(-1, 3))
        count += 3 * n
    weld, origin = np.concatenate(welds), np.concatenate(source)
    all_faces = np.concatenate(faces)
    closed = Topology.of(weld[all_faces]).closed
    return SkinnedMesh(
        replace(
            mesh,
            vertices=np.concatenate(position).astype(mesh.vertices.dtype),
            faces=all_faces.astype(mesh.faces.dtype),
            vertex_colours=None if mesh.vertex_colours is None else mesh.vertex_colours[origin],
            uv=None if mesh.uv is None else mesh.uv[origin],
            texture_space=None if mesh.texture_space is None else mesh.texture_space[origin],
        ),
        Weights.of(np.concatenate(rows)[weld]),
        weld.astype(np.int64),
        origin.astype(np.int64),
        BindReport(was_closed, closed, len(loops), left_open),
    )


def bind_to_boxes(
    mesh: ColouredMesh, boxes: Float[np.ndarray, "b 4 4"], softness: float = 0.5, most: int = 4
) -> SkinnedMesh:
    """Bind a surface to boxes: what lies in one goes with it, what lies between goes with the nearest, blended.

    It is posed by :func:`box_motions` and linear blend.

    Args:
        mesh: the surface.
        boxes: affine frames, world from the cube [-1, 1]^3: columns are a box's half axes and its middle.
        softness: distance over which weights of neighbouring boxes blend, as a multiple of half the shorter side of
            the smaller of the two.
        most: boxes that move a vertex, at most.

    Raises:
        InputError: a box is flat or not finite, or all miss the surface.
    """
    _require_usable(mesh)
    _require_boxes(boxes)
    local = np.einsum("bij,vj->bvi", np.linalg.inv(boxes)[:, :3, :3], mesh.vertices)
    local += np.linalg.inv(boxes)[:, None, :3, 3]
    sides = np.linalg.norm(boxes[:, :3, :3], axis=1)  # half lengths, along the box's own axes
    outside = np.maximum(np.abs(local) - 1, 0) * sides[:, None]
    gap = np.linalg.norm(outside, axis=2)
    if not (gap < 1e-6 * sides.max(axis=1)[:, None]).any():
        raise InputError("the boxes miss the surface", fix="Both must be in one frame and one unit.")
    # How deep inside, so that what two boxes share goes with the one that it is deeper in, and changes smoothly.
    inner = np.where(gap > 0, 0, (1 - np.abs(local)).min(axis=2).clip(0) * sides.min(axis=1)[:, None])
    signed = (gap - inner).T
    width = softness * float(sides.min())
    score = -(signed - signed.min(axis=1, keepdims=True)) / width
    dense = np.exp(np.maximum(score, -60) * 4)
    source = np.arange(len(mesh.vertices))
    closed = Topology.of(_welded(mesh, _same_places(mesh.vertices))[1]).closed
    report = BindReport(closed, closed, 0, 0)
    return SkinnedMesh(
        mesh, Weights.of(dense / dense.sum(axis=1, keepdims=True), most), _same_places(mesh.vertices), source, report
    )


def box_motions(before: Float[np.ndarray, "b 4 4"], after: Float[np.ndarray, "c 4 4"]) -> Float[np.ndarray, "b 4 4"]:
    """The affine motions that take boxes to boxes, world frame; see :func:`bind_to_boxes`.

    Raises:
        InputError: a box is flat or not finite, or there is not one for each.
    """
    if before.shape != after.shape:
        raise InputError(f"there are {len(before)} boxes before and {len(after)} after", fix="Give as many.")
    _require_boxes(before)
    _require_boxes(after)
    return np.asarray(after @ np.linalg.inv(before))


def _require_boxes(boxes: Float[np.ndarray, "b 4 4"]) -> None:
    if not len(boxes):
        raise InputError("there is no box")
    for number, box in enumerate(boxes):
        if not np.isfinite(box).all():
            raise InputError(f"box {number} is not of finite numbers")
        if not np.linalg.det(box[:3, :3]) > 1e-12 * np.linalg.norm(box[:3, :3]) ** 3:
            raise InputError(f"box {number} is flat or mirrored", fix="Give three sides that span a volume.")
