"""Rigged figures of files through the interface of the procedural ones: their own skin, joints found by their names.

A file is an ``.npz`` of bind vertices ``V``, faces ``F``, joints and weights ``J``, ``W``, ``color`` or ``uv`` with an
encoded ``tex``, ``inv_bind``, ``joint_world`` of some poses (the first is the rest pose), ``joint_parent`` and
``joint_name``; y up, facing +z.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from pipeline.training.procedural.palette import pick
from pipeline.training.procedural.poses import fits
from pipeline.training.procedural.rigged import Figure, PosePair, pose_pair
from pipeline.training.procedural.textures import Rng
from scene.archives import read_npz
from scene.errors import ViewloomError
from scene.mesh import ColouredMesh
from scene.rigs import names_of_rig, skeletons_of_rig
from scene.skeleton import INDEX

_UPRIGHT = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])
"""Y up, facing +z, to z up, facing +x."""
_CARRIED = re.compile(r"sword|shield|staff|wand|spellbook", re.IGNORECASE)
"""Joints of things that a file shows in all variants at once, of which a figure holds one in a hand."""
_SPINE = 0.3
"""Where a trunk bends, between hips and shoulders."""


@dataclass(frozen=True, eq=False)
class FileFigure:
    """A figure of a file.

    Args:
        name: of the file.
        figure: its mesh and rig.
        clips: joints of the poses of its clips, the rest pose first.
    """

    name: str
    figure: Figure
    clips: Float[np.ndarray, "p j 4 4"]


def load_rigged(path: Path, variant: int = 0) -> FileFigure:
    """Read a figure.

    Args:
        path: the file.
        variant: which of the things that a hand could hold it holds, counted around.

    Raises:
        InputError: the file cannot be read, or no known rig has its joints.
    """
    rig = read_npz(path, "a rigged figure")
    names = [str(name) for name in rig["joint_name"]]
    clips = _UPRIGHT @ np.asarray(rig["joint_world"], np.float64)
    _, numbers = names_of_rig(names)
    parents = _parents(names, [int(p) for p in rig["joint_parent"]], numbers)
    kept = _shown(names, parents, rig, variant)
    mesh = _mesh(rig, kept)
    used = np.unique(rig["F"][kept])
    joints, weights = rig["J"][used].astype(np.int64), rig["W"][used].astype(np.float64)
    inverse = np.asarray(rig["inv_bind"], np.float64)
    parts = _parts(numbers, parents, clips[0])
    figure = Figure(
        mesh,
        parents,
        clips[0],
        inverse,
        joints,
        weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9),
        parts,
        np.full((len(INDEX), 3), np.nan),
        np.zeros(len(INDEX), np.int64),
    )
    return FileFigure(path.stem, _with_landmarks(figure, names, numbers), clips)


def clip_pair(figure: FileFigure, rng: Rng) -> PosePair:
    """A figure in two poses of its clips that fit a view; see :func:`pipeline.training.procedural.poses.random_pair`.

    Raises:
        ViewloomError: it has none.
    """
    for _ in range(100):
        before, after = (pick(rng, list(figure.clips)) for _ in range(2))
        pair = pose_pair(figure.figure, before, after)
        if fits(pair):
            return pair
    raise ViewloomError("no two poses of its clips fit a view", where=figure.name)


def _parents(names: Sequence[str], parents: list[int], numbers: dict[str, int]) -> tuple[int, ...]:
    """What carries each joint: doubles hang on the first of their name, feet on shins that an inverse rig parts."""
    for joint, name in enumerate(names):
        first = names.index(name)
        if first != joint:
            parents[joint] = first
    for side in ("left", "right"):
        foot, shin = numbers[f"{side}_ankle"], numbers[f"{side}_knee"]
        if shin not in _above(foot, parents):
            parents[foot] = shin
    return tuple(parents)


def _above(joint: int, parents: Sequence[int]) -> list[int]:
    """The joints that carry a joint, the nearest first."""
    found: list[int] = []
    while parents[joint] >= 0 and parents[joint] not in found:
        joint = parents[joint]
        found.append(joint)
    return found


def _parts(numbers: dict[str, int], parents: Sequence[int], rest: Float[np.ndarray, "j 4 4"]) -> dict[str, int]:
    """The joints that poses turn."""
    parts = {}
    for side in ("left", "right"):
        for part, joint in (
            ("arm", "shoulder"), ("forearm", "elbow"), ("hand", "wrist"),
            ("thigh", "hip"), ("shin", "knee"), ("foot", "ankle"),
        ):  # fmt: skip
            parts[f"{side}_{part}"] = numbers[f"{side}_{joint}"]
    legs, arms = (_above(numbers[name], parents) for name in ("left_hip", "left_shoulder"))
    parts["pelvis"] = next((joint for joint in legs if joint in arms), arms[-1])
    hips, shoulders = (rest[numbers[name], 2, 3] for name in ("left_hip", "left_shoulder"))
    trunk = arms[: arms.index(parts["pelvis"])] or [parts["pelvis"]]
    wanted = hips + _SPINE * (shoulders - hips)
    parts["spine"] = min(trunk, key=lambda joint: abs(float(rest[joint, 2, 3] - wanted)))
    above = parents[numbers["head"]]
    parts["neck"] = numbers["head"] if above in (*arms, -1) else above
    return parts


def _with_landmarks(figure: Figure, names: Sequence[str], numbers: dict[str, int]) -> Figure:
    """The figure with COCO's joints, its face on the vertices of the head."""
    heaviest = figure.joints[np.arange(len(figure.joints)), figure.weights.argmax(axis=1)]
    head = numbers["head"]
    of_head = np.array([head in (joint, *_above(joint, figure.parents)) for joint in range(len(names))])
    points = figure.posed(figure.rest).vertices[of_head[heaviest]].astype(np.float64)
    skeletons = skeletons_of_rig(names, figure.rest, points)
    carriers = np.array([numbers.get(name, head) for name in INDEX])
    carriers[INDEX["neck"]] = figure.parts["spine"]
    return Figure(
        figure.mesh, figure.parents, figure.rest, figure.inverse_bind, figure.joints, figure.weights, figure.parts,
        np.array(skeletons.of(figure.rest).positions), carriers,
    )  # fmt: skip


def _shown(names: Sequence[str], parents: Sequence[int], rig: dict[str, Any], variant: int) -> Bool[np.ndarray, "f"]:
    """Which faces are shown: of the things that one joint carries, one."""
    hidden = np.zeros(len(names), bool)
    carried: dict[int, list[int]] = {}
    for joint, name in enumerate(names):
        if _CARRIED.search(name):
            carried.setdefault(parents[joint], []).append(joint)
    for joints in carried.values():
        hidden[joints] = True
        hidden[joints[variant % len(joints)]] = False
    heaviest = rig["J"][np.arange(len(rig["J"])), rig["W"].argmax(axis=1)].astype(int)
    return np.asarray(~hidden[heaviest][rig["F"].astype(np.int64)].any(axis=1))


def _mesh(rig: dict[str, Any], kept: Bool[np.ndarray, "f"]) -> ColouredMesh:
    """The bind pose with its colours."""
    used, faces = np.unique(rig["F"][kept].astype(np.int64), return_inverse=True)
    faces_of: Int[np.ndarray, "f 3"] = faces.reshape(-1, 3)
    vertices = rig["V"][used].astype(np.float32)
    if "tex" not in rig:
        return ColouredMesh(vertices, faces_of, vertex_colours=rig["color"][used].astype(np.uint8))
    picture = np.asarray(Image.open(io.BytesIO(rig["tex"].tobytes())).convert("RGB"))
    return ColouredMesh(vertices, faces_of, uv=rig["uv"][used].astype(np.float32), texture=picture)
