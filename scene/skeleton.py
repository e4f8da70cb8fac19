"""Body skeletons: the 18 joints of COCO in 3D, their tree, their file, and forward kinematics.

The order of joints and the drawn limbs are those of OpenPose's COCO model, as ControlNet's annotator has them
(lllyasviel/ControlNet, annotator/openpose/util.py). Left and right are the body's own.

For motion the joints hang on a tree whose root, :data:`MID_HIP`, is no joint but the middle of both hips. A body bends
at :data:`PIVOTS`; all that lies beyond one turns as a rigid whole.

The file (:meth:`Skeleton.save`) is JSON and strict::

    {"layout": "coco18", "joints": {"nose": [x, y, z], ..., "left_ear": null}}

All 18 joints are named, each once; ``null`` stands for a joint that is not known. Positions are in the world of the
capture that the skeleton belongs to (right-handed, the capture's unit).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from scene.camera import Mat4, apply_transform
from scene.documents import is_number, named_type, read_object, shown
from scene.errors import InputError
from scene.files import write_text

Joints = Float[np.ndarray, "18 3"]
"""Positions in the order of :data:`JOINTS`; a row of NaN is a joint that is not known."""
Rotation = Float[np.ndarray, "3 3"]

JOINTS = (
    "nose",
    "neck",
    "right_shoulder",
    "right_elbow",
    "right_wrist",
    "left_shoulder",
    "left_elbow",
    "left_wrist",
    "right_hip",
    "right_knee",
    "right_ankle",
    "left_hip",
    "left_knee",
    "left_ankle",
    "right_eye",
    "left_eye",
    "right_ear",
    "left_ear",
)
"""COCO-18, in its order; the neck is the middle of the shoulders."""
INDEX = {name: index for index, name in enumerate(JOINTS)}
FACE = ("nose", "right_eye", "left_eye", "right_ear", "left_ear")
"""Joints that turn with the head."""
MID_HIP = "mid_hip"
"""The root of the tree: the middle of the hips."""

DRAWN_LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (1, 0), (0, 14), (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Pairs of joints that control pictures join, in the order in which they are drawn."""

PARENTS = {
    "neck": MID_HIP,
    "nose": "neck",
    "right_eye": "nose",
    "left_eye": "nose",
    "right_ear": "right_eye",
    "left_ear": "left_eye",
    "right_shoulder": "neck",
    "right_elbow": "right_shoulder",
    "right_wrist": "right_elbow",
    "left_shoulder": "neck",
    "left_elbow": "left_shoulder",
    "left_wrist": "left_elbow",
    "right_hip": MID_HIP,
    "right_knee": "right_hip",
    "right_ankle": "right_knee",
    "left_hip": MID_HIP,
    "left_knee": "left_hip",
    "left_ankle": "left_knee",
}
"""The joint at the other end of the bone that ends in a joint, parents first; a bone is called by the joint it ends in.

The drawn limbs differ in the trunk only: OpenPose joins the hips to the neck.
"""

PIVOTS = {
    "body": (MID_HIP, ()),
    "spine": (MID_HIP, ("neck", "right_shoulder", "left_shoulder")),
    "neck": ("neck", FACE),
    "right_shoulder": ("right_shoulder", ("right_elbow",)),
    "right_elbow": ("right_elbow", ("right_wrist",)),
    "left_shoulder": ("left_shoulder", ("left_elbow",)),
    "left_elbow": ("left_elbow", ("left_wrist",)),
    "right_hip": ("right_hip", ("right_knee",)),
    "right_knee": ("right_knee", ("right_ankle",)),
    "left_hip": ("left_hip", ("left_knee",)),
    "left_knee": ("left_knee", ("left_ankle",)),
}
"""Where a body bends, from the root outwards: the joint it turns about, and the joints that turn with nothing between.

``body`` turns all about the middle of the hips, ``spine`` what lies above the hips, ``neck`` the head.
"""
PIVOT_PARENTS = {
    "spine": "body",
    "neck": "spine",
    "right_shoulder": "spine",
    "right_elbow": "right_shoulder",
    "left_shoulder": "spine",
    "left_elbow": "left_shoulder",
    "right_hip": "body",
    "right_knee": "right_hip",
    "left_hip": "body",
    "left_knee": "left_hip",
}
"""The pivot that carries a pivot."""

_LAYOUT = "coco18"
_FARTHEST = 1e9
"""Of a coordinate: beyond it lengths of bones are no numbers in single precision."""


@dataclass(frozen=True, eq=False)
class Skeleton:
    """A body's joints.

    Args:
        positions: world frame of the capture, in the order of :data:`JOINTS`; a row of NaN is a joint not known.

    Raises:
        InputError: a joint is infinite, known in part, or beyond all measure; it is named.
    """

    positions: Joints

    def __post_init__(self) -> None:
        positions = np.array(self.positions, np.float64)  # its own: nobody changes it from outside
        if positions.shape != (len(JOINTS), 3):
            raise InputError(f"a skeleton has {len(JOINTS)} joints of 3 numbers, got an array of {positions.shape}")
        sound = np.isnan(positions).all(axis=1) | (np.abs(positions) <= _FARTHEST).all(axis=1)
        wrong = np.asarray(~sound)
        if wrong.any():
            raise InputError(f"{_listed(wrong)} must be of finite numbers", fix="Give null for what is not known.")
        positions.setflags(write=False)
        object.__setattr__(self, "positions", positions)

    @classmethod
    def of(cls, joints: Mapping[str, Any]) -> Skeleton:
        """A skeleton of some named joints, world frame; the others are not known.

        Raises:
            InputError: there is no joint of such a name, or a position is none.
        """
        positions = np.full((len(JOINTS), 3), np.nan)
        for name, place in joints.items():
            if name not in INDEX:
                raise InputError(f"there is no joint {shown(name)}{_near(name)}")
            positions[INDEX[name]] = np.asarray(place, np.float64)
        return cls(positions)

    @property
    def known(self) -> Bool[np.ndarray, "18"]:
        """Which joints are known."""
        return np.asarray(~np.isnan(self.positions[:, 0]))

    def joint(self, name: str) -> Float[np.ndarray, "3"]:
        """Position of a joint, or of :data:`MID_HIP`; NaN if it is not known."""
        if name == MID_HIP:
            return np.asarray(self.positions[[INDEX["right_hip"], INDEX["left_hip"]]].mean(axis=0))
        return np.asarray(self.positions[INDEX[name]])

    def require(self, *names: str, where: str | Path | None = None) -> None:
        """Raise unless joints are known.

        Raises:
            InputError: some are not; they are named.
        """
        missing = [name for name in names if name in INDEX and not self.known[INDEX[name]]]
        if missing:
            raise InputError(
                f"{'joints' if missing[1:] else 'joint'} {', '.join(missing)} must be known",
                where=where,
                fix="Give positions in place of null.",
            )

    def transformed(self, matrix: Mat4) -> Skeleton:
        """The skeleton under a 4x4 similarity.

        Raises:
            InputError: the matrix shears, mirrors or is not finite.
        """
        matrix = np.asarray(matrix, np.float64)
        linear = matrix[:3, :3]
        scale = np.cbrt(np.linalg.det(linear)) if np.isfinite(matrix).all() else math.nan
        if not scale > 0 or np.abs(linear @ linear.T / scale**2 - np.eye(3)).max() > 1e-4:
            raise InputError("a skeleton is moved by rotation, positive scale and shift only")
        return Skeleton(apply_transform(matrix, self.positions))

    def bone_lengths(self) -> dict[str, float]:
        """Lengths of the bones that are known, world units, by the joint that each ends in (:data:`PARENTS`)."""
        lengths = {name: float(np.linalg.norm(self.joint(name) - self.joint(PARENTS[name]))) for name in PARENTS}
        return {name: length for name, length in lengths.items() if math.isfinite(length)}

    def posed(self, rotations: Mapping[str, Rotation], shift: Float[np.ndarray, "3"] | None = None) -> Skeleton:
        """Forward kinematics: turned at pivots; all bones keep their lengths.

        Args:
            rotations: by names of :data:`PIVOTS`, each about the axes of the world as they are in this pose, that is
                before the pivots that carry it have turned. What is not named does not turn.
            shift: of the whole, world units.

        Raises:
            InputError: there is no pivot of such a name, its place is not known, or a matrix is no rotation.
        """
        for name, matrix in rotations.items():
            if name not in PIVOTS:
                raise InputError(f"a body does not turn at {shown(name)}{_near(name, PIVOTS)}")
            if np.shape(matrix) != (3, 3) or not _is_rotation(np.asarray(matrix, np.float64)):
                raise InputError(f"the turn at {name} is no rotation matrix")
            if np.isnan(self.joint(PIVOTS[name][0])).any():
                raise InputError(f"{PIVOTS[name][0]} is not known, so that nothing can turn there")
        frames: dict[str, Mat4] = {}
        places = self.positions.copy()
        for name, (about, moved) in PIVOTS.items():
            frame = frames[PIVOT_PARENTS[name]] if name in PIVOT_PARENTS else np.eye(4)
            if name in rotations:
                frame = frame @ turned_about(np.asarray(rotations[name], np.float64), self.joint(about))
            frames[name] = frame
            for joint in ("right_hip", "left_hip") if name == "body" else moved:
                places[INDEX[joint]] = apply_transform(frame, self.positions[INDEX[joint]])
        return Skeleton(places if shift is None else places + shift)

    def compare_bones(self, other: Skeleton, share: float = 0.2) -> dict[str, float]:
        """Bones whose lengths differ by more than a share.

        Args:
            other: what is compared with: its lengths are the measure.
            share: a fifth by default.

        Returns:
            This skeleton's length as a multiple of the other's, by the joint that each bone ends in. Bones that one
            of the two does not know are left out.
        """
        mine, theirs = self.bone_lengths(), other.bone_lengths()
        ratios = {name: _ratio(mine[name], theirs[name]) for name in PARENTS if name in mine and name in theirs}
        return {name: ratio for name, ratio in ratios.items() if abs(ratio - 1) > share}

    def with_bones_of(self, other: Skeleton) -> Skeleton:
        """The same pose with the bones of another body: directions of this, lengths of the other; the root stays.

        Bones of which one of the two does not know the length keep their own, and so do bones without direction.
        """
        lengths, theirs = self.bone_lengths(), other.bone_lengths()
        places = {MID_HIP: self.joint(MID_HIP)}
        for name, parent in PARENTS.items():
            bone = self.joint(name) - self.joint(parent)
            if name in lengths and name in theirs and lengths[name] > 0:
                bone = bone * (theirs[name] / lengths[name])
            # Beyond a gap a joint goes with nothing, and stays.
            places[name] = self.joint(name) if np.isnan(places[parent] + bone).any() else places[parent] + bone
        return Skeleton(np.stack([places[name] for name in JOINTS]))

    def save(self, path: Path) -> None:
        """Write the file (see the module's docstring) aside and rename it.

        Raises:
            OutputError: it cannot be written.
        """
        write_text(path, json.dumps({"layout": _LAYOUT, "joints": self.as_plain()}, indent=1, allow_nan=False) + "\n")

    def as_plain(self) -> dict[str, list[float] | None]:
        """Positions by names of joints, as JSON holds them; None for what is not known."""
        return {
            name: place.tolist() if known else None
            for name, place, known in zip(JOINTS, self.positions, self.known, strict=True)
        }

    @classmethod
    def load(cls, path: Path) -> Skeleton:
        """Read a file that :meth:`save` wrote, or one like it.

        Raises:
            InputError: it cannot be read, or joints are missing, unknown, doubled or no positions; they are named.
        """
        content = read_object(path, unique=True)
        _require_layout(content, {"layout", "joints"}, path)
        return skeleton_of_plain(content["joints"], path)


def skeleton_of_plain(joints: Any, where: str | Path, of: str = "") -> Skeleton:
    """A skeleton of the object that JSON holds (:meth:`Skeleton.as_plain`).

    Args:
        joints: all 18, by name.
        where: the file, for messages.
        of: what of the file, for messages, such as ``pose 3: ``.

    Raises:
        InputError: joints are missing, unknown, or no positions; they are named.
    """
    if not isinstance(joints, dict):
        raise InputError(f"{of}joints are {named_type(joints)}, not an object", where=where)
    unknown = [name for name in joints if name not in INDEX]
    if unknown:
        raise InputError(f"{of}there is no joint {shown(unknown[0])}{_near(unknown[0])}", where=where)
    missing = [name for name in JOINTS if name not in joints]
    if missing:
        word = "joint is" if len(missing) == 1 else "joints are"
        raise InputError(
            f"{of}{word} missing: {', '.join(missing)}", where=where, fix="Give null for what is not known."
        )
    for name, place in joints.items():
        if place is not None and not _is_place(place):
            raise InputError(
                f"{of}{name} is {shown(place)}, not three finite numbers",
                where=where,
                fix="Give null for what is not known.",
            )
    return Skeleton.of({name: place for name, place in joints.items() if place is not None})


@dataclass(frozen=True, eq=False)
class Motion:
    """A list of poses of one body.

    The file is JSON::

        {"layout": "coco18", "seconds": [0, 0.5, ...], "poses": [{"nose": [x, y, z], ...}, ...]}

    Args:
        seconds: when each pose is reached, rising from 0 or more.
        poses: as many skeletons.
    """

    seconds: tuple[float, ...]
    poses: tuple[Skeleton, ...]

    def transformed(self, matrix: Mat4) -> Motion:
        """All poses under a 4x4 similarity; see :meth:`Skeleton.transformed`."""
        return Motion(self.seconds, tuple(pose.transformed(matrix) for pose in self.poses))

    def with_bones_of(self, body: Skeleton) -> Motion:
        """All poses with the bones of a body; see :meth:`Skeleton.with_bones_of`."""
        return Motion(self.seconds, tuple(pose.with_bones_of(body) for pose in self.poses))

    def save(self, path: Path) -> None:
        """Write the file aside and rename it."""
        content = {"layout": _LAYOUT, "seconds": list(self.seconds), "poses": [pose.as_plain() for pose in self.poses]}
        write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Motion:
        """Read a file of poses.

        Raises:
            InputError: it cannot be read, or is not of that kind.
        """
        content = read_object(path, unique=True)
        _require_layout(content, {"layout", "seconds", "poses"}, path)
        seconds, poses = content["seconds"], content["poses"]
        if not isinstance(poses, list) or not poses:
            raise InputError("holds no poses", where=path, fix="Give a list of objects with 18 joints each.")
        if not isinstance(seconds, list) or len(seconds) != len(poses):
            raise InputError(f"needs as many seconds as poses ({len(poses)})", where=path)
        if not all(is_number(value, 0, 1e6) for value in seconds):
            raise InputError("seconds must be numbers that rise, from 0 on", where=path)
        # Clips hold them in single precision.
        close = [k for k, gap in enumerate(np.diff(np.array(seconds, np.float32)), 1) if not gap > 0]
        if close:
            raise InputError(
                f"seconds must rise, but {shown(seconds[close[0]])} comes after {shown(seconds[close[0] - 1])}",
                where=path,
                fix="Give each pose a time of its own, in the order of time.",
            )
        read = [skeleton_of_plain(pose, path, f"pose {number}: ") for number, pose in enumerate(poses)]
        return cls(tuple(float(value) for value in seconds), tuple(read))


def turned_about(rotation: Rotation, centre: Float[np.ndarray, "3"]) -> Mat4:
    """The rigid motion that turns about a point."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, centre - rotation @ centre
    return matrix


def _require_layout(content: dict[str, Any], keys: set[str], path: Path) -> None:
    unknown = [key for key in content if key not in keys]
    if unknown:
        raise InputError(f"there is no key {shown(unknown[0])}{_near(unknown[0], keys)}", where=path)
    missing = sorted(keys - set(content))
    if missing:
        raise InputError(f"misses the key {missing[0]!r}", where=path)
    if content["layout"] != _LAYOUT:
        raise InputError(f"has the layout {shown(content['layout'])}, not {_LAYOUT!r}", where=path)


def _is_place(value: object) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(is_number(v, -_FARTHEST, _FARTHEST) for v in value)


def _is_rotation(matrix: Float[np.ndarray, "3 3"]) -> bool:
    return bool(np.abs(matrix @ matrix.T - np.eye(3)).max() < 1e-6 and np.linalg.det(matrix) > 0)


def _ratio(mine: float, theirs: float) -> float:
    if theirs > 0:
        return mine / theirs
    return 1.0 if mine == 0 else math.inf


def _near(name: object, known: Mapping[str, Any] | set[str] = INDEX) -> str:
    """What a name that is none may have meant, as the end of a sentence."""
    near = difflib.get_close_matches(str(name).lower(), sorted(known), 1, 0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _listed(chosen: Bool[np.ndarray, "18"]) -> str:
    names = list(_names(chosen))
    return f"{'joints' if names[1:] else 'joint'} {', '.join(names)}"


def _names(chosen: Bool[np.ndarray, "18"]) -> Iterator[str]:
    return (name for name, yes in zip(JOINTS, chosen, strict=True) if yes)
