"""Weights that bind a surface to the parts of a body, from distances inside the solid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int
from scipy import sparse

from scene.errors import InputError
from scene.mesh import Faces, Vertices
from scene.skeleton import FACE, INDEX, MID_HIP, PIVOTS, Skeleton
from scene.skinning.motion import PARENT_OF, PARTS
from scene.skinning.solid import InnerDistances

MOST_JOINTS = 4
"""Parts that move a vertex, at most: as glTF's JOINTS_0 has room for."""

_HAND = 1.8
"""How far a forearm's line may go on in the hand, as a multiple of its bone."""
_FAR = 0.05
"""Of the surface's diagonal: from there on a joint is far outside of it."""
_SMALLEST = 0.1
"""Of the surface's diagonal, that a skeleton spans at least: the trunk alone spans a quarter of a figure."""


@dataclass(frozen=True)
class WeightSettings:
    """How weights are made of distances.

    Args:
        power: how fast a part's weight falls with its distance, as a multiple of the nearest part's.
        smoothing: rounds of averaging over neighbouring vertices.
        reach: how far from the joint between them, as a multiple of the bone's length, two parts may blend; parts that
            meet farther away were glued together by the capture.
    """

    power: float = 6.0
    smoothing: int = 4
    reach: float = 0.7


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of a surface's vertices.

    Args:
        joints: numbers of :data:`scene.skinning.motion.PARTS`, the heaviest first.
        weights: of these, in rows that add up to 1.
    """

    joints: Int[np.ndarray, "v k"]
    weights: Float32[np.ndarray, "v k"]

    @classmethod
    def of(cls, dense: Float[np.ndarray, "v p"], most: int = MOST_JOINTS) -> Weights:
        """The heaviest few of each row, made to add up to 1."""
        most = min(most, dense.shape[1])
        order = np.argsort(-dense, axis=1, kind="stable")[:, :most]
        kept = np.take_along_axis(dense, order, axis=1)
        kept = np.where(kept > 1e-3, kept, 0)
        kept = (kept / kept.sum(axis=1, keepdims=True)).astype(np.float32)
        return cls(np.where(kept > 0, order, 0).astype(np.int64), kept)

    def dense(self, parts: int) -> Float[np.ndarray, "v p"]:
        """All weights of every vertex."""
        out = np.zeros((len(self.joints), parts))
        for column in range(self.joints.shape[1]):
            np.add.at(out, (np.arange(len(out)), self.joints[:, column]), self.weights[:, column])
        return out


def bone_points(skeleton: Skeleton, step: float) -> dict[int, Float[np.ndarray, "n 3"]]:
    """Points along the bones of each part that is known, world frame.

    Args:
        skeleton: in the pose of the surface.
        step: distance between points, world units.
    """
    joint = skeleton.joint
    lines: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {part: [] for part in PARTS}
    hip = joint(MID_HIP)
    lines["body"] = [(hip + 0.8 * (joint(f"{s}_hip") - hip), hip) for s in ("right", "left")]
    neck = joint("neck")
    lines["spine"] = [(hip + 0.25 * (neck - hip), neck)]
    lines["spine"] += [(neck + 0.6 * (joint(f"{s}_shoulder") - neck), neck) for s in ("right", "left")]
    head = skeleton.positions[[INDEX[name] for name in FACE]]
    head = head[~np.isnan(head[:, 0])]
    if len(head):
        middle = head.mean(axis=0)
        lines["neck"] = [(neck + 0.35 * (middle - neck), middle), *((middle, 0.5 * (middle + place)) for place in head)]
        # The joints are of the face: of the back of the head the ears tell, between which its middle lies.
        skull = 0.5 * (joint("right_ear") + joint("left_ear"))
        lines["neck"] += [(skull, skull + 0.5 * (skull - joint("nose"))), (neck + 0.35 * (skull - neck), skull)]
    for part in PARTS[3:]:
        about, (end,) = PIVOTS[part][0], PIVOTS[part][1]
        bone = joint(end) - joint(about)
        # Of hands COCO-18 knows nothing: they go on from the forearm.
        longer = _HAND if end.endswith("wrist") else 1.0
        lines[part] = [(joint(about), joint(about) + longer * bone)]
    points = {}
    for number, part in enumerate(PARTS):
        found = [_along(a, b, step) for a, b in lines[part] if not np.isnan(a + b).any()]
        if found:
            points[number] = np.concatenate(found)
    return points


def part_distances(
    inner: InnerDistances, skeleton: Skeleton
) -> tuple[Float[np.ndarray, "n p"], Float[np.ndarray, "p"]]:
    """Distances of solid voxels from the bones of each part, inside the solid, and how thick the parts are.

    Returns:
        Distances, world units, infinite for parts that are not known; and for each part the median over its bones of
        the distance from the outside.

    Raises:
        InputError: the skeleton misses the surface.
    """
    solid = inner.solid
    distances = np.full((len(inner.centres), len(PARTS)), np.inf)
    radii = np.full(len(PARTS), solid.voxel)
    depth = solid.depths
    points = bone_points(skeleton, solid.voxel)
    _require_meeting(inner, skeleton)
    for part, line in points.items():
        gap, nearest = inner.nearest(line)
        left = np.nonzero((gap > solid.voxel) & (np.arange(len(line)) * _HAND > len(line)))[0]
        # Beyond the wrist only as far as the hand goes.
        end = left[0] if PARTS[part].endswith("elbow") and len(left) else len(line)
        places, gap, nearest = line[:end], gap[:end], nearest[:end]
        distances[:, part] = inner.from_points(places)
        inside = gap < 1.5 * solid.voxel
        radii[part] = float(np.median(depth[nearest[inside] if inside.any() else nearest]))
    return distances, np.maximum(radii, solid.voxel)


def _require_meeting(inner: InnerDistances, skeleton: Skeleton) -> None:
    """Raise if a skeleton is not in the solid, or all but not, or a speck in it."""
    places = skeleton.positions[skeleton.known]
    size = float(np.linalg.norm(np.ptp(inner.centres, axis=0)))
    gap, _ = inner.nearest(places)
    span = float(np.linalg.norm(np.ptp(places, axis=0)))
    if span < _SMALLEST * size:
        raise InputError(
            f"the skeleton spans {span / size:.1%} of the surface only",
            fix="Both must be in one frame and one unit: that of the surface's file.",
        )
    if (gap > _FAR * size).sum() * 2 >= len(places):
        raise InputError(
            "the skeleton misses the surface: most of its joints are far outside",
            fix="Both must be in one frame and one unit: that of the surface's file.",
        )


def falloff(distances: Float[np.ndarray, "n p"], radii: Float[np.ndarray, "p"], power: float) -> np.ndarray:
    """Weights from distances: what is nearest, measured in thicknesses of the parts, weighs most."""
    # In its own thickness every part has its surface at 1, so that the border between a thick and a thin part lies in
    # the crease between them, and not on the thick one.
    relative = distances / radii
    nearest = relative.min(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        weight = (np.maximum(relative, 1e-9) / np.maximum(nearest, 1e-9)) ** -power
    return np.asarray(weight / weight.sum(axis=1, keepdims=True))


class Meetings:
    """Which parts may meet at some points: one carries the other, or a third carries both, and their joint is near.

    Args:
        skeleton: in the pose of the surface.
        points: where parts meet, world frame.
        reach: see :class:`WeightSettings`.
    """

    def __init__(self, skeleton: Skeleton, points: Vertices, reach: float) -> None:
        near = [_relative_gaps(skeleton, part, points) <= reach for part in range(len(PARTS))]
        # The last column is of pairs that may meet nowhere.
        self._near = np.stack([*near, np.zeros(len(points), bool)], axis=1)

    def natural(self, first: Int[np.ndarray, "n"], second: Int[np.ndarray, "n"] | int) -> Bool[np.ndarray, "n"]:
        """Whether two parts, given by number, may meet at each of the points."""
        pivots, rows = _PIVOTS_OF_PAIRS[first, second], np.arange(len(first))
        return np.asarray((first == second) | self._near[rows, pivots[:, 0]] | self._near[rows, pivots[:, 1]])


def _pivots_of_pairs() -> Int[np.ndarray, "11 11 2"]:
    """By the numbers of two parts, those whose pivots must be near where they meet, one of two; -1 for none."""
    pivots = np.full((len(PARTS), len(PARTS), 2), -1)
    for a in range(len(PARTS)):
        for b in range(len(PARTS)):
            up, down = PARENT_OF.get(a), PARENT_OF.get(b)
            if up == b:
                pivots[a, b, 0] = a
            elif down == a:
                pivots[a, b, 0] = b
            elif up is not None and up == down:
                pivots[a, b] = a, b
            elif up is not None and PARENT_OF.get(up) == b and PARTS[b] == "body":
                pivots[a, b] = a, up  # shoulders and head to the hips: all that lies between is the trunk
            elif down is not None and PARENT_OF.get(down) == a and PARTS[a] == "body":
                pivots[a, b] = b, down
            elif {PARTS[a], PARTS[b]} & {"spine"} and {PARTS[a], PARTS[b]} & {"right_hip", "left_hip"}:
                pivots[a, b, 0] = a if PARTS[a].endswith("hip") else b
    return pivots


_PIVOTS_OF_PAIRS = _pivots_of_pairs()


def _relative_gaps(skeleton: Skeleton, part: int, points: np.ndarray) -> np.ndarray:
    """Distances of points from a part's pivot, as multiples of its bone's length; infinite if it is not known."""
    about, moved = PIVOTS[PARTS[part]]
    centre = skeleton.joint(about)
    if PARTS[part] in ("body", "spine"):  # the waist is wide: all of the trunk may be where it bends
        return np.zeros(len(points))
    bones = np.linalg.norm(skeleton.positions[[INDEX[name] for name in moved]] - centre, axis=1)
    length = float(np.nanmax(bones)) if not np.isnan(bones).all() else np.nan
    if PARTS[part] == "neck":
        length *= 1.5
    if not length > 0:
        return np.full(len(points), np.inf)
    return np.asarray(np.linalg.norm(points - centre, axis=1) / length)


def smoothed(
    dense: Float[np.ndarray, "v p"], vertices: Vertices, faces: Faces, rounds: int
) -> Float[np.ndarray, "v p"]:
    """Weights averaged with those of neighbours, half each round."""
    if not rounds:
        return dense
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = len(vertices)
    link = sparse.csr_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), (count, count))
    link = sparse.csr_array(((link + link.T) > 0).astype(np.float64))
    degree = np.asarray(link.sum(axis=1)).reshape(-1, 1)
    for _ in range(rounds):
        dense = np.where(degree > 0, 0.5 * dense + 0.5 * (link @ dense) / np.maximum(degree, 1), dense)
    return dense


def _along(start: np.ndarray, end: np.ndarray, step: float) -> np.ndarray:
    count = max(2, int(np.ceil(np.linalg.norm(end - start) / step)) + 1)
    return np.asarray(start + np.linspace(0, 1, count)[:, None] * (end - start))
