"""How the parts of a body move between two poses: rotations without scale, with as little twist as can be."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from scene.errors import InputError
from scene.skeleton import FACE, INDEX, MID_HIP, PIVOT_PARENTS, PIVOTS, Skeleton

PARTS = tuple(PIVOTS)
"""Rigid parts of a body, each called by the pivot that moves it; parents come before those that they carry."""
PARENT_OF = {PARTS.index(part): PARTS.index(parent) for part, parent in PIVOT_PARENTS.items()}
"""The part that carries a part, by number."""
_TINY = 1e-9
_FLAT = 1e-4
"""Sine of the angle between two directions below which they tell no plane."""

Motions = Float[np.ndarray, "p 4 4"]
"""A motion for each part, world frame."""


def part_motions(rest: Skeleton, target: Skeleton) -> Float[np.ndarray, "11 4 4"]:
    """The rigid motion of each part of a body, from one pose to another.

    Hips and trunk are turned by their frames (hips and spine, spine and shoulders), the head by its face, and limbs by
    the least turn from where the part that carries them took them. Each part goes with its pivot, so that bones that
    differ in length pull the surface, and scale nothing. What one of the two does not know moves with its parent.

    Args:
        rest: the pose in which the surface was bound.
        target: another pose of the same body.

    Returns:
        Matrices in the order of :data:`PARTS`.

    Raises:
        InputError: hips, or shoulders, or the neck are not known in one of the two.
    """
    for skeleton in (rest, target):
        skeleton.require("neck", "right_hip", "left_hip", "right_shoulder", "left_shoulder")
    turns: dict[str, np.ndarray] = {}
    motions = np.tile(np.eye(4), (len(PARTS), 1, 1))
    for number, part in enumerate(PARTS):
        about = PIVOTS[part][0]
        start, end = rest.joint(about), target.joint(about)
        parent = PIVOT_PARENTS.get(part)
        turn = _turn(part, rest, target, np.eye(3) if parent is None else turns[parent])
        if parent is not None and np.isnan(start + end).any():
            turns[part], motions[number] = turns[parent], motions[PARTS.index(parent)]
            continue
        turns[part] = turn
        motions[number, :3, :3], motions[number, :3, 3] = turn, end - turn @ start
        if part == "neck":
            motions[number, :3, 3] = _head_shift(rest, target, turn)
    return motions


def least_turn(start: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The rotation by the least angle that takes one direction to another; of opposite ones, any half turn.

    Args:
        start, end: of any length; if one has none, nothing turns.
    """
    lengths = np.linalg.norm(start), np.linalg.norm(end)
    if min(lengths) < _TINY:
        return np.eye(3)
    a, b = start / lengths[0], end / lengths[1]
    axis, cosine = np.cross(a, b), float(a @ b)
    sine = float(np.linalg.norm(axis))
    if sine < _TINY:
        if cosine > 0:
            return np.eye(3)
        axis = np.cross(a, np.eye(3)[int(np.argmin(np.abs(a)))])
        return np.asarray(Rotation.from_rotvec(np.pi * axis / np.linalg.norm(axis)).as_matrix())
    return np.asarray(Rotation.from_rotvec(axis / sine * np.arctan2(sine, cosine)).as_matrix())


def _turn(part: str, rest: Skeleton, target: Skeleton, carried: np.ndarray) -> np.ndarray:
    if part == "body":
        return _frame(target, "hip", "up") @ _frame(rest, "hip", "up").T
    if part == "spine":
        return _frame(target, "shoulder", "along") @ _frame(rest, "shoulder", "along").T
    if part == "neck":
        return _head_turn(rest, target, carried)
    about, (moved,) = PIVOTS[part][0], PIVOTS[part][1]
    start, end = rest.joint(moved) - rest.joint(about), target.joint(moved) - target.joint(about)
    if np.isnan(start + end).any():
        return carried
    return least_turn(carried @ start, end) @ carried


def _frame(skeleton: Skeleton, across: str, kept: str) -> np.ndarray:
    """A frame of the trunk: to its left, forwards, and up.

    Args:
        across: ``hip`` or ``shoulder``: what says where the left is.
        kept: ``up``: the axis across is kept, and the spine made square to it; ``along``: the other way round.
    """
    left = skeleton.joint(f"left_{across}") - skeleton.joint(f"right_{across}")
    spine = skeleton.joint("neck") - skeleton.joint(MID_HIP)
    forward = np.cross(left, spine)
    if np.linalg.norm(forward) <= _FLAT * np.linalg.norm(left) * np.linalg.norm(spine):
        raise InputError(
            f"the {across}s and the spine lie on one line, which tells no front", fix="Check the joints of the trunk."
        )
    first, second = (left, spine) if kept == "up" else (spine, left)
    first = first / np.linalg.norm(first)
    second = second - (second @ first) * first
    second /= np.linalg.norm(second)
    return np.stack([first, second, np.cross(first, second)], axis=1)


def _head_turn(rest: Skeleton, target: Skeleton, carried: np.ndarray) -> np.ndarray:
    face = [INDEX[name] for name in FACE if rest.known[INDEX[name]] and target.known[INDEX[name]]]
    # The neck bends too, so that it tells the head's turn only where the face alone does not.
    known = face if len(face) > 2 and not _on_a_line(rest.positions[face]) else [INDEX["neck"], *face]
    if len(known) < 2:
        return carried
    start, end = rest.positions[known], target.positions[known]
    start, end = start - start.mean(axis=0), end - end.mean(axis=0)
    if len(known) == 2 or _on_a_line(start) or _on_a_line(end):
        return least_turn(carried @ (start[-1] - start[0]), end[-1] - end[0]) @ carried
    # Kabsch: the rotation of least squares; scipy's takes b to a.
    return np.asarray(Rotation.align_vectors(end, start)[0].as_matrix())


def _on_a_line(points: np.ndarray) -> bool:
    values = np.linalg.svd(points - points.mean(axis=0))[1]
    return bool(values[1] <= 1e-3 * values[0])


def _head_shift(rest: Skeleton, target: Skeleton, turn: np.ndarray) -> np.ndarray:
    known = [INDEX[name] for name in FACE if rest.known[INDEX[name]] and target.known[INDEX[name]]]
    known = known or [INDEX["neck"]]
    return np.asarray(target.positions[known].mean(axis=0) - turn @ rest.positions[known].mean(axis=0))
