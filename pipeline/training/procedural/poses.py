"""Poses of bodies within the limits of their joints, the same for all rigs: limbs are told by where they point."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural.palette import between, chance, pick
from pipeline.training.procedural.primitives import rotation
from pipeline.training.procedural.rigged import Figure, PosePair, Worlds, pose_pair
from pipeline.training.procedural.textures import Rng
from scene.camera import OBJECT_RADIUS
from scene.errors import ViewloomError
from scene.skeleton import INDEX, MID_HIP, Joints, Skeleton

Vector = Float[np.ndarray, "3"]
Turn = Float[np.ndarray, "3 3"]

_ROOM = 1.03 * OBJECT_RADIUS
"""How far a pose may reach from the origin, normalised by the original: what views at the default radius show."""
_STIRRED = 0.16
"""How far the joint that moves farthest moves at least, world units."""
_TRIES = 400


@dataclass(frozen=True)
class Limb:
    """Where an arm or leg points, relative to the trunk part that carries it (radians).

    Args:
        away: angle between the upper part and straight down.
        side: direction in which it is lifted: 0 forwards, a quarter turn outwards, half a turn backwards.
        bend: angle of elbow or knee.
        twist: turns the plane of the bend about the upper part, outwards if positive.
    """

    away: float = 0.0
    side: float = 0.0
    bend: float = 0.0
    twist: float = 0.0

    def directions(self, left: bool, forwards: bool) -> tuple[Vector, Vector]:
        """Unit directions of the upper and the lower part for a trunk that is upright and faces +x.

        Args:
            left: of the left side of the body.
            forwards: whether the lower part bends forwards as an elbow does, or backwards as a knee.
        """
        sign = 1.0 if left else -1.0
        flat = np.array([math.cos(self.side), sign * math.sin(self.side), 0.0])
        upper = math.sin(self.away) * flat + np.array([0.0, 0.0, -math.cos(self.away)])
        pole = turn_between(np.array([0.0, 0.0, -1.0]), upper) @ np.array([1.0 if forwards else -1.0, 0.0, 0.0])
        pole = about(upper, -sign * self.twist) @ pole
        return upper, math.cos(self.bend) * upper + math.sin(self.bend) * pole


@dataclass(frozen=True)
class BodyPose:
    """A pose (radians). Positive: forwards, towards the left, and turning to the left.

    Args:
        lean: of the pelvis, forwards.
        bend, tilt, twist: of the spine.
        nod, cock, turn: of the head.
        right_arm, left_arm, right_leg, left_leg: the limbs.
    """

    lean: float = 0.0
    bend: float = 0.0
    tilt: float = 0.0
    twist: float = 0.0
    nod: float = 0.0
    cock: float = 0.0
    turn: float = 0.0
    right_arm: Limb = Limb()
    left_arm: Limb = Limb()
    right_leg: Limb = Limb()
    left_leg: Limb = Limb()


def about(axis: Vector, angle: float) -> Turn:
    """Rotation about a unit axis (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


def turn_between(start: Vector, end: Vector) -> Turn:
    """The smallest rotation that brings one unit direction to another; of opposite ones, one about some axis."""
    axis = np.cross(start, end)
    length = float(np.linalg.norm(axis))
    if length < 1e-9:
        if float(start @ end) > 0:
            return np.eye(3)
        other = np.cross(start, (0.0, 1.0, 0.0) if abs(start[1]) < 0.9 else (1.0, 0.0, 0.0))
        return about(other / np.linalg.norm(other), math.pi)
    return about(axis / length, math.atan2(length, float(start @ end)))


def worlds_of(figure: Figure, pose: BodyPose) -> Worlds:
    """The joints of a figure in a pose, with the lowest point of the feet's joints at the height that it had."""
    turns: dict[str, Turn] = {
        "pelvis": rotation("y", pose.lean),
        "spine": rotation("z", pose.twist) @ rotation("x", -pose.tilt) @ rotation("y", pose.bend),
        "neck": rotation("z", pose.turn) @ rotation("x", -pose.cock) @ rotation("y", pose.nod),
    }
    for side in ("right", "left"):
        left = side == "left"
        arm, leg = (pose.left_arm, pose.left_leg) if left else (pose.right_arm, pose.right_leg)
        for limb, names, forwards in ((arm, ("arm", "forearm", "hand"), True), (leg, ("thigh", "shin", "foot"), False)):
            upper, lower, end = (figure.rest[figure.parts[f"{side}_{name}"], :3, 3] for name in names)
            wanted_upper, wanted_lower = limb.directions(left, forwards)
            first = turn_between(_unit(lower - upper), wanted_upper)
            turns[f"{side}_{names[0]}"] = first
            turns[f"{side}_{names[1]}"] = turn_between(_unit(end - lower), first.T @ wanted_lower)
    worlds = figure.turned(turns)
    feet = [figure.parts["right_foot"], figure.parts["left_foot"]]
    worlds[:, 2, 3] += figure.rest[feet, 2, 3].min() - worlds[feet, 2, 3].min()
    return worlds


def _unit(vector: Vector) -> Vector:
    return vector / np.linalg.norm(vector)


# --- drawing poses -----------------------------------------------------------------------------------------------

_Kind = Literal["stand", "walk", "run", "sit", "crouch", "wave", "reach", "fight", "hips", "star", "bow", "kick", "any"]
_KINDS: tuple[_Kind, ...] = (
    "stand", "walk", "run", "sit", "crouch", "wave", "reach", "fight", "hips", "star", "bow", "kick", "any", "any",
    "any", "any",
)  # fmt: skip


def random_pose(rng: Rng) -> BodyPose:
    """A pose of some kind that people take, loosely, or any within the limits of the joints."""
    kind = pick(rng, _KINDS)
    pose = _anywhere(rng) if kind == "any" else _POSES[kind](rng)
    if kind != "any" and chance(rng, 0.5):
        pose = _mirrored(pose)
    return replace(pose, nod=between(rng, -0.3, 0.4), cock=between(rng, -0.25, 0.25), turn=between(rng, -0.9, 0.9))


def _mirrored(pose: BodyPose) -> BodyPose:
    return replace(
        pose,
        tilt=-pose.tilt,
        twist=-pose.twist,
        right_arm=pose.left_arm,
        left_arm=pose.right_arm,
        right_leg=pose.left_leg,
        left_leg=pose.right_leg,
    )


def _anywhere(rng: Rng) -> BodyPose:
    """Any pose within limits: what is farthest from rest is rarest."""

    def arm() -> Limb:
        side = between(rng, -0.4, 2.4)
        # Behind the back an arm goes up a little only.
        most = 2.75 if side < 1.7 else 0.9
        return Limb(most * rng.random() ** 1.2, side, 2.4 * rng.random() ** 1.5, between(rng, -1.2, 0.8))

    def leg() -> Limb:
        side = pick(rng, [between(rng, -0.2, 0.5), between(rng, 0.5, 1.9), between(rng, 2.6, 3.3)])
        most = {True: 1.7, False: 0.8}[side < 0.5] if side < 2.6 else 0.6
        return Limb(most * rng.random() ** 1.5, side, 2.0 * rng.random() ** 1.8, between(rng, -0.2, 0.3))

    return BodyPose(
        lean=between(rng, -0.1, 0.4),
        bend=between(rng, -0.25, 0.6),
        tilt=between(rng, -0.35, 0.35),
        twist=between(rng, -0.6, 0.6),
        right_arm=arm(),
        left_arm=arm(),
        right_leg=leg(),
        left_leg=leg(),
    )


def _down(rng: Rng) -> Limb:
    return Limb(between(rng, 0.1, 0.35), between(rng, 0.8, 1.9), between(rng, 0.05, 0.4), between(rng, -0.4, 0.1))


def _straight(rng: Rng) -> Limb:
    return Limb(between(rng, 0.0, 0.15), between(rng, 1.0, 2.0), between(rng, 0.0, 0.08))


def _stand(rng: Rng) -> BodyPose:
    return BodyPose(right_arm=_down(rng), left_arm=_down(rng), right_leg=_straight(rng), left_leg=_straight(rng))


def _walk(rng: Rng) -> BodyPose:
    """Right leg and left arm forwards."""
    s = between(rng, 0.25, 0.55)
    return BodyPose(
        bend=between(rng, 0.0, 0.1),
        twist=between(rng, 0.0, 0.2),
        right_arm=Limb(0.9 * s, 2.6, between(rng, 0.1, 0.4)),
        left_arm=Limb(s, 0.3, between(rng, 0.2, 0.6)),
        right_leg=Limb(s, 0.0, between(rng, 0.0, 0.3)),
        left_leg=Limb(0.8 * s, math.pi, between(rng, 0.1, 0.6)),
    )


def _run(rng: Rng) -> BodyPose:
    s = between(rng, 0.6, 1.0)
    return BodyPose(
        lean=between(rng, 0.1, 0.3),
        twist=between(rng, 0.1, 0.3),
        right_arm=Limb(0.9, 2.7, between(rng, 1.1, 1.7)),
        left_arm=Limb(0.8 * s, 0.2, between(rng, 1.1, 1.7), -0.3),
        right_leg=Limb(s + 0.2, 0.0, between(rng, 0.8, 1.4)),
        left_leg=Limb(0.6 * s, math.pi, between(rng, 0.6, 1.5)),
    )


def _sit(rng: Rng) -> BodyPose:
    leg = Limb(between(rng, 1.3, 1.6), between(rng, 0.0, 0.3), between(rng, 1.2, 1.7))
    arm = Limb(between(rng, 0.3, 0.7), between(rng, 0.2, 0.6), between(rng, 0.5, 1.2), -0.2)
    return BodyPose(bend=between(rng, -0.05, 0.25), right_arm=arm, left_arm=arm, right_leg=leg, left_leg=leg)


def _crouch(rng: Rng) -> BodyPose:
    a = between(rng, 0.7, 1.5)
    leg = Limb(a + 0.2, between(rng, 0.1, 0.5), 1.5 * a)
    arm = Limb(between(rng, 0.5, 1.1), between(rng, 0.1, 0.5), between(rng, 0.3, 1.3), -0.2)
    return BodyPose(lean=0.3 * a, bend=0.3 * a, right_arm=arm, left_arm=arm, right_leg=leg, left_leg=leg)


def _wave(rng: Rng) -> BodyPose:
    arm = Limb(between(rng, 1.5, 2.3), between(rng, 1.1, 1.7), between(rng, 0.6, 1.6), between(rng, 1.0, 1.6))
    return replace(_stand(rng), tilt=between(rng, 0.0, 0.2), right_arm=arm)


def _reach(rng: Rng) -> BodyPose:
    arm = Limb(between(rng, 1.3, 2.4), between(rng, -0.2, 0.5), between(rng, 0.0, 0.4))
    both = chance(rng, 0.4)
    return replace(_walk(rng), bend=between(rng, 0.0, 0.3), right_arm=arm, left_arm=arm if both else _down(rng))


def _fight(rng: Rng) -> BodyPose:
    return BodyPose(
        bend=between(rng, 0.0, 0.3),
        twist=between(rng, -0.4, 0.4),
        right_arm=Limb(between(rng, 0.6, 1.2), between(rng, 0.1, 0.8), between(rng, 1.5, 2.1), -0.3),
        left_arm=Limb(between(rng, 0.9, 1.6), between(rng, 0.0, 0.5), between(rng, 0.2, 1.6), -0.3),
        right_leg=Limb(between(rng, 0.2, 0.5), math.pi, 0.3),
        left_leg=Limb(between(rng, 0.3, 0.7), 0.3, between(rng, 0.4, 0.8)),
    )


def _hips(rng: Rng) -> BodyPose:
    arm = Limb(between(rng, 0.65, 0.85), between(rng, 1.6, 1.9), between(rng, 1.3, 1.55), -1.5)
    one = chance(rng, 0.4)
    legs = Limb(between(rng, 0.1, 0.25), between(rng, 1.2, 1.8), 0.0)
    return replace(_stand(rng), right_arm=arm, left_arm=_down(rng) if one else arm, right_leg=legs, left_leg=legs)


def _star(rng: Rng) -> BodyPose:
    arm = Limb(between(rng, 1.2, 1.9), between(rng, 1.3, 1.7), between(rng, 0.0, 0.2))
    leg = Limb(between(rng, 0.2, 0.6), between(rng, 1.3, 1.7), 0.0)
    return BodyPose(tilt=between(rng, -0.15, 0.15), right_arm=arm, left_arm=arm, right_leg=leg, left_leg=leg)


def _bow(rng: Rng) -> BodyPose:
    return replace(_stand(rng), lean=between(rng, 0.2, 0.6), bend=between(rng, 0.2, 0.6))


def _kick(rng: Rng) -> BodyPose:
    return replace(
        _fight(rng),
        bend=between(rng, -0.3, 0.0),
        right_leg=Limb(between(rng, 0.8, 1.5), between(rng, 0.0, 0.6), between(rng, 0.0, 0.5)),
        left_leg=Limb(between(rng, 0.0, 0.15), math.pi, between(rng, 0.0, 0.2)),
    )


_POSES: dict[_Kind, Callable[[Rng], BodyPose]] = {
    "stand": _stand, "walk": _walk, "run": _run, "sit": _sit, "crouch": _crouch, "wave": _wave, "reach": _reach,
    "fight": _fight, "hips": _hips, "star": _star, "bow": _bow, "kick": _kick,
}  # fmt: skip


# --- poses that bodies can take ----------------------------------------------------------------------------------


def tangled(skeleton: Skeleton) -> bool:
    """Whether limbs go through the trunk, the head or each other, by the thickness that bodies usually have."""
    at = {name: skeleton.positions[INDEX[name]] for name in INDEX}
    middle, neck = skeleton.joint(MID_HIP), at["neck"]
    unit = float(np.linalg.norm(neck - middle))
    head = (at["right_ear"] + at["left_ear"]) / 2
    for side, other in (("right", "left"), ("left", "right")):
        elbow, wrist = at[f"{side}_elbow"], at[f"{side}_wrist"]
        hand = wrist + 0.3 * (wrist - elbow)
        knee, ankle = at[f"{other}_knee"], at[f"{other}_ankle"]
        for point in (wrist, hand):
            if _apart(point, middle, neck) < 0.42 * unit or float(np.linalg.norm(point - head)) < 0.4 * unit:
                return True
            for part in ("right", "left"):
                if _apart(point, at[f"{part}_hip"], at[f"{part}_knee"]) < 0.24 * unit:
                    return True
        if _apart(elbow, middle, neck) < 0.34 * unit:
            return True
        if (
            min(
                _apart(ankle, at[f"{side}_knee"], at[f"{side}_ankle"]),
                _apart(knee, at[f"{side}_hip"], at[f"{side}_knee"]),
            )
            < 0.24 * unit
        ):
            return True
    return float(np.linalg.norm(at["right_wrist"] - at["left_wrist"])) < 0.2 * unit


def _apart(point: Vector, start: Vector, end: Vector) -> float:
    """Distance of a point from a segment."""
    along = end - start
    t = float(np.clip((point - start) @ along / max(float(along @ along), 1e-12), 0, 1))
    return float(np.linalg.norm(point - start - t * along))


def random_worlds(figure: Figure, rng: Rng) -> Worlds:
    """The joints of a figure in a random pose in which no limbs go through each other, if one is found soon."""
    for _ in range(20):
        worlds = worlds_of(figure, random_pose(rng))
        if not tangled(figure.skeleton(worlds)):
            break
    return worlds


def random_pair(figure: Figure, rng: Rng) -> PosePair:
    """A figure in two random poses.

    Both are drawn again until the second stays within what views show, normalised by the first, and joints have moved.

    Raises:
        ViewloomError: none were found.
    """
    for attempt in range(_TRIES):
        if attempt % 8 == 0:
            before = random_worlds(figure, rng)
        pair = pose_pair(figure, before, random_worlds(figure, rng))
        if fits(pair):
            return pair
    raise ViewloomError("no pair of poses of a figure stays within its bounding sphere")


def fits(pair: PosePair) -> bool:
    """Whether the second pose stays within what views show, and differs from the first."""
    return pair.reach <= _ROOM and stirred(pair.skeleton_before.positions, pair.skeleton_after.positions)


def stirred(before: Joints, after: Joints) -> bool:
    """Whether some joint has moved visibly, in the frame of a normalised original."""
    return float(np.nanmax(np.linalg.norm(after - before, axis=1))) >= _STIRRED
