"""Figures with a rig: a mesh bound to joints, posed exactly, with its 18 body landmarks in every pose.

A figure faces +x and stands on z = 0. Its parts may overlap: each is a closed surface of its own, so that an arm that
touches the hip in one pose comes away from it in another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from pipeline.training.procedural.csg import Material
from pipeline.training.procedural.primitives import Part
from pipeline.training.procedural.solids import Solid
from scene.camera import normalising_transform
from scene.errors import InputError
from scene.mesh import ColouredMesh, SolidTexture, Vertices
from scene.skeleton import INDEX, Joints, Skeleton

Worlds = Float[np.ndarray, "j 4 4"]
"""Of every joint: its frame to the world."""

PARTS = (
    "pelvis", "spine", "neck",
    "right_arm", "right_forearm", "right_hand", "left_arm", "left_forearm", "left_hand",
    "right_thigh", "right_shin", "right_foot", "left_thigh", "left_shin", "left_foot",
)  # fmt: skip
"""Bones that poses turn, named alike in all rigs; each is at the joint where it begins."""

_APART = 10.0
"""Between parts in the space of textures: larger than any figure."""


@dataclass(frozen=True, eq=False)
class Figure:
    """A rigged figure in its bind pose.

    Args:
        mesh: vertices in the bind pose.
        parents: the joint that carries each joint, -1 for roots; in any order.
        rest: of every joint, its frame in the rest pose.
        inverse_bind: of every joint, the world of the bind pose to its frame.
        joints, weights: which joints move each vertex, and how much; weights sum to 1.
        parts: the joint of each of :data:`PARTS`.
        landmarks: COCO's joints in the rest pose; NaN where the rig tells none.
        carriers: the joint that each landmark moves with.
    """

    mesh: ColouredMesh
    parents: tuple[int, ...]
    rest: Worlds
    inverse_bind: Worlds
    joints: Int[np.ndarray, "v k"]
    weights: Float[np.ndarray, "v k"]
    parts: Mapping[str, int]
    landmarks: Joints
    carriers: Int[np.ndarray, "18"]

    def __post_init__(self) -> None:
        missing = [name for name in PARTS if name not in self.parts]
        if missing:
            raise InputError(f"a figure's rig lacks {', '.join(missing)}")

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The joints, each after its parent."""
        found: list[int] = []
        waiting = list(range(len(self.parents)))
        while waiting:
            ready = [j for j in waiting if self.parents[j] < 0 or self.parents[j] in found]
            if not ready:
                raise InputError("the joints of a figure carry each other in a circle")
            found += ready
            waiting = [j for j in waiting if j not in found]
        return tuple(found)

    def posed(self, worlds: Worlds) -> ColouredMesh:
        """The mesh in a pose, by linear blend skinning; its solid textures stay on it.

        Args:
            worlds: of every joint, as :func:`turned` or a clip gives them.
        """
        moves = worlds @ self.inverse_bind
        vertices = self.mesh.vertices
        out = np.zeros((len(vertices), 3))
        for k in range(self.joints.shape[1]):
            move = moves[self.joints[:, k]]
            moved = np.einsum("vij,vj->vi", move[:, :3, :3], vertices) + move[:, :3, 3]
            out += self.weights[:, k : k + 1] * moved
        space = vertices if self.mesh.texture_space is None else self.mesh.texture_space
        return replace(self.mesh, vertices=out.astype(np.float32), texture_space=space if self.mesh.solid else None)

    def skeleton(self, worlds: Worlds) -> Skeleton:
        """The landmarks in a pose."""
        moves = worlds @ np.linalg.inv(self.rest)
        places = np.einsum("nij,nj->ni", moves[self.carriers, :3, :3], self.landmarks) + moves[self.carriers, :3, 3]
        # COCO's neck is no joint of a body but the middle of two.
        places[INDEX["neck"]] = places[[INDEX["right_shoulder"], INDEX["left_shoulder"]]].mean(axis=0)
        return Skeleton(places)

    def turned(self, turns: Mapping[str, Float[np.ndarray, "3 3"]], shift: Sequence[float] = (0, 0, 0)) -> Worlds:
        """The joints after turns of parts, from the rest pose.

        Args:
            turns: by names of :data:`PARTS`: rotations about the part's joint and the world's axes, as they are before
                the parts that carry it have turned.
            shift: of the whole.
        """
        moves = np.tile(np.eye(4), (len(self.parents), 1, 1))
        by_joint = {self.parts[name]: turn for name, turn in turns.items()}
        for joint in self.order:
            move = np.eye(4) if self.parents[joint] < 0 else moves[self.parents[joint]]
            if joint in by_joint:
                about, own = self.rest[joint, :3, 3], np.eye(4)
                own[:3, :3] = by_joint[joint]
                own[:3, 3] = about - by_joint[joint] @ about
                move = move @ own
            moves[joint] = move
        moves[:, :3, 3] += np.asarray(shift, float)
        return moves @ self.rest


@dataclass(frozen=True, eq=False)
class PosePair:
    """One figure in two poses, in the frame in which the first fills the bounding sphere of an object.

    Args:
        before, after: the meshes; faces and colours are the same.
        skeleton_before, skeleton_after: their landmarks.
    """

    before: ColouredMesh
    after: ColouredMesh
    skeleton_before: Skeleton
    skeleton_after: Skeleton

    @property
    def reach(self) -> float:
        """Distance of the farthest point of the second pose from the origin; the first one's is the object radius."""
        return float(np.linalg.norm(self.after.vertices, axis=1).max())


def pose_pair(figure: Figure, before: Worlds, after: Worlds) -> PosePair:
    """A figure in two poses, both normalised by the first."""
    first, second = figure.posed(before), figure.posed(after)
    matrix = normalising_transform(first.vertices)
    return PosePair(
        first.transformed(matrix),
        second.transformed(matrix),
        figure.skeleton(before).transformed(matrix),
        figure.skeleton(after).transformed(matrix),
    )


# --- making figures of parts -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coat:
    """The colours of a part: a material, and others inside of solids, the later ones over the earlier.

    Solids are in the coordinates of the rest pose.
    """

    base: Material
    paints: tuple[tuple[Solid, Material], ...] = ()

    def colours(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB colours of points."""
        colours = np.array(self.base.colours(points))
        rows = np.ascontiguousarray(points.T, np.float32)
        for solid, material in self.paints:
            inside = np.nonzero(solid.distance(rows) < 0)[0]
            if len(inside):
                colours[inside] = material.colours(points[inside])
        return colours


@dataclass(frozen=True, eq=False)
class Piece:
    """A closed surface that moves with joints.

    Args:
        vertices, faces: in the rest pose.
        coat: its colours.
        share: of every vertex, how much each joint moves it.
    """

    vertices: Vertices
    faces: Int[np.ndarray, "f 3"]
    coat: Coat
    share: Float[np.ndarray, "v j"]


@dataclass(frozen=True, eq=False)
class Coats:
    """The colours of all parts as one solid texture: in its space part k lies :data:`_APART` * k along x."""

    coats: tuple[Coat, ...]

    def __call__(self, points: Float[np.ndarray, "n 3"], base: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB colours of points of the parts."""
        colours = np.array(base, np.float32)
        of = np.round(points[:, 0] / _APART).astype(int)
        for k in np.unique(of):
            at = np.nonzero(of == k)[0]
            colours[at] = self.coats[k].colours(points[at] - np.array([_APART * k, 0, 0]))
        return colours


def coated(pieces: Sequence[tuple[Part, Coat, Float[np.ndarray, "3"]]]) -> ColouredMesh:
    """One mesh of closed parts, side by side in memory.

    Args:
        pieces: surfaces, their colours, and the point that is the origin of these.
    """
    vertices = np.concatenate([part[0] for part, _, _ in pieces])
    starts = np.cumsum([0] + [len(part[0]) for part, _, _ in pieces[:-1]])
    faces = np.concatenate([part[1] + start for (part, _, _), start in zip(pieces, starts, strict=True)])
    space = [part[0] - origin + (_APART * k, 0, 0) for k, (part, _, origin) in enumerate(pieces)]
    texture: SolidTexture = Coats(tuple(coat for _, coat, _ in pieces))
    return ColouredMesh(
        vertices.astype(np.float32),
        faces.astype(np.int32),
        solid=(texture,),
        texture_space=np.concatenate(space).astype(np.float64),
    )


def figure_of(
    pieces: Sequence[Piece],
    places: Float[np.ndarray, "j 3"],
    parents: Sequence[int],
    parts: Mapping[str, int],
    landmarks: Joints,
    carriers: Int[np.ndarray, "18"],
) -> Figure:
    """A figure of closed parts; joints have the world's axes in the rest pose.

    Args:
        pieces: the parts.
        places: of the joints, in the rest pose.
        parents, parts, landmarks, carriers: as in :class:`Figure`.
    """
    mesh = coated([((piece.vertices, piece.faces), piece.coat, np.zeros(3)) for piece in pieces])
    share = np.concatenate([piece.share for piece in pieces])
    joints = np.argsort(-share, axis=1)[:, :4]
    weights = np.take_along_axis(share, joints, axis=1)
    rest = np.tile(np.eye(4), (len(places), 1, 1))
    rest[:, :3, 3] = places
    return Figure(
        mesh,
        tuple(int(p) for p in parents),
        rest,
        np.linalg.inv(rest),
        joints,
        weights / weights.sum(axis=1, keepdims=True),
        parts,
        landmarks,
        carriers,
    )
