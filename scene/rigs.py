"""Joints of usual rigs as COCO-18: tables of names, and a face for heads that have none.

A rig's joint stands where its bone begins, so that a shoulder is where the upper arm does. COCO's face is on no rig: it
is put on the head by its size, and goes with the head's joint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scene.errors import InputError
from scene.skeleton import INDEX, MID_HIP, Skeleton

_BODY = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_HEAD = "head"


@dataclass(frozen=True)
class RigNames:
    """What a family of rigs calls its joints.

    Args:
        family: its name.
        joints: names by joints of COCO-18, and by ``head``; where there are several, the first that a rig has.
    """

    family: str
    joints: Mapping[str, tuple[str, ...]]

    def find(self, names: Sequence[str]) -> dict[str, int] | None:
        """Numbers of a rig's joints by joints of COCO-18 and ``head``; None if one is missing."""
        number = {name: index for index, name in reversed(list(enumerate(names)))}  # of doubles, the first
        found = {}
        for joint, known in self.joints.items():
            index = next((number[name] for name in known if name in number), None)
            if index is None:
                return None
            found[joint] = index
        return found


def _sided(family: str, left: Sequence[str], head: str, swap: tuple[str, str]) -> RigNames:
    """A table from the names of the left side, in the order of shoulder to ankle; ``|`` parts alternatives."""
    joints: dict[str, tuple[str, ...]] = {_HEAD: tuple(head.split("|"))}
    for place, names in zip(_BODY, left, strict=True):
        joints[f"left_{place}"] = tuple(names.split("|"))
        joints[f"right_{place}"] = tuple(name.replace(*swap) for name in names.split("|"))
    return RigNames(family, joints)


def _prefixed(prefix: str, names: Sequence[str]) -> list[str]:
    return [prefix + name for name in names]


_MIXAMO = ("LeftArm", "LeftForeArm", "LeftHand", "LeftUpLeg", "LeftLeg", "LeftFoot")
RIGS = (
    *(
        _sided("mixamo", _prefixed(prefix, _MIXAMO), f"{prefix}Head", ("Left", "Right"))
        for prefix in ("mixamorig:", "mixamorig", "mixamorig_", "")
    ),
    _sided(
        "quaternius",
        ("UpperArm.L", "LowerArm.L", "Hand.L|Palm.L|Palm2.L", "UpperLeg.L", "LowerLeg.L", "Foot.L"),
        "Head",
        (".L", ".R"),
    ),
    _sided(
        "kaykit", ("upperarm.l", "lowerarm.l", "wrist.l", "upperleg.l", "lowerleg.l", "foot.l"), "head", (".l", ".r")
    ),
    RigNames(
        "cesium",
        {
            _HEAD: ("Skeleton_neck_joint_2",),
            "left_shoulder": ("Skeleton_arm_joint_L__4_",),
            "left_elbow": ("Skeleton_arm_joint_L__3_",),
            "left_wrist": ("Skeleton_arm_joint_L__2_",),
            "right_shoulder": ("Skeleton_arm_joint_R",),
            "right_elbow": ("Skeleton_arm_joint_R__2_",),
            "right_wrist": ("Skeleton_arm_joint_R__3_",),
            **{
                f"{side}_{place}": (f"leg_joint_{letter}_{number}",)
                for side, letter in (("left", "L"), ("right", "R"))
                for number, place in enumerate(("hip", "knee", "ankle"), 1)
            },
        },
    ),
    _sided(
        "khronos",
        ("arm_joint_L_1", "arm_joint_L_2", "arm_joint_L_3", "leg_joint_L_1", "leg_joint_L_2", "leg_joint_L_3"),
        "neck_joint_2",
        ("_L_", "_R_"),
    ),
    _sided(
        "vrm",
        ("leftUpperArm", "leftLowerArm", "leftHand", "leftUpperLeg", "leftLowerLeg", "leftFoot"),
        "head",
        ("left", "right"),
    ),
    _sided(
        "vroid",
        _prefixed("J_Bip_L_", ("UpperArm", "LowerArm", "Hand", "UpperLeg", "LowerLeg", "Foot")),
        "J_Bip_C_Head",
        ("_L_", "_R_"),
    ),
    # MakeHuman's default rig, which anny takes over.
    _sided(
        "makehuman",
        ("upperarm01.L", "lowerarm01.L", "wrist.L", "upperleg01.L", "lowerleg01.L", "foot.L"),
        "head",
        (".L", ".R"),
    ),
)
"""Tables, the first that fits is taken."""


@dataclass(frozen=True, eq=False)
class RigSkeletons:
    """How a rig's joints become skeletons.

    Args:
        family: the table that fits.
        numbers: the rig's joints by joints of COCO-18 and ``head``.
        face: nose, eyes and ears in the head joint's own frame, by joints of COCO-18.
    """

    family: str
    numbers: Mapping[str, int]
    face: Mapping[str, Float[np.ndarray, "3"]]

    def of(self, joint_world: Float[np.ndarray, "j 4 4"]) -> Skeleton:
        """The skeleton of a pose of the rig, given as matrices of its joints, world frame."""
        joints = {name: joint_world[k][:3, 3] for name, k in self.numbers.items() if name in INDEX}
        joints["neck"] = (joints["left_shoulder"] + joints["right_shoulder"]) / 2
        head = joint_world[self.numbers[_HEAD]]
        joints |= {name: head[:3, :3] @ place + head[:3, 3] for name, place in self.face.items()}
        return Skeleton.of(joints)


def names_of_rig(names: Sequence[str]) -> tuple[str, dict[str, int]]:
    """The family of a rig, and its joints by joints of COCO-18 and ``head``.

    Raises:
        InputError: no table fits; the joints that the nearest one misses are named.
    """
    for table in RIGS:
        found = table.find(names)
        if found is not None:
            return table.family, found
    nearest = min(RIGS, key=lambda table: len(_missing(table, names)))
    raise InputError(
        f"no known rig has these joints; {nearest.family}'s would have {', '.join(_missing(nearest, names)[:4])} too",
        fix="Name the joints as Mixamo, Quaternius, KayKit, Cesium, Khronos, VRM or MakeHuman does.",
    )


def skeletons_of_rig(
    names: Sequence[str], joint_world: Float[np.ndarray, "j 4 4"], head_points: Float[np.ndarray, "n 3"] | None = None
) -> RigSkeletons:
    """Find a rig's joints, and put a face on its head.

    Args:
        names: of its joints.
        joint_world: of its rest pose, world frame.
        head_points: vertices of the head in the rest pose; without them the head's size is guessed by the shoulders.

    Raises:
        InputError: see :func:`names_of_rig`.
    """
    family, numbers = names_of_rig(names)
    body = RigSkeletons(family, numbers, {}).of(joint_world)
    head = joint_world[numbers[_HEAD]]
    face = _face(body, head[:3, 3], head_points)
    back = np.linalg.inv(head)
    return RigSkeletons(family, numbers, {name: back[:3, :3] @ place + back[:3, 3] for name, place in face.items()})


def _face(
    body: Skeleton, head: Float[np.ndarray, "3"], points: Float[np.ndarray, "n 3"] | None
) -> dict[str, Float[np.ndarray, "3"]]:
    """Nose, eyes and ears on a box around the head, world frame."""
    left = body.joint("left_shoulder") - body.joint("right_shoulder")
    width = float(np.linalg.norm(left))
    left = left / width
    up = body.joint("neck") - body.joint(MID_HIP)
    up = up - (up @ left) * left
    up /= np.linalg.norm(up)
    axes = np.stack([left, np.cross(left, up), up])  # left, forwards, up
    if points is None or len(points) < 4:
        middle, half = head + 0.3 * width * up, np.array([0.22, 0.28, 0.32]) * width
    else:
        # A tenth left off on either side: hair and hats stand out.
        local = points @ axes.T
        low, high = np.quantile(local, 0.05, axis=0), np.quantile(local, 0.95, axis=0)
        middle, half = ((low + high) / 2) @ axes, (high - low) / 2
    places = {
        "nose": (0, 1, 0),
        "right_eye": (-0.4, 0.85, 0.2),
        "left_eye": (0.4, 0.85, 0.2),
        "right_ear": (-1, 0, 0.1),
        "left_ear": (1, 0, 0.1),
    }
    return {name: middle + (np.array(place) * half) @ axes for name, place in places.items()}


def _missing(table: RigNames, names: Sequence[str]) -> list[str]:
    have = set(names)
    return [known[0] for known in table.joints.values() if not have & set(known)]
