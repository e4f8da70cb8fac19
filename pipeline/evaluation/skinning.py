"""Skinning by a skeleton against a figure's own rig, from the same rest pose and skeletons."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from scene.archives import read_npz
from scene.camera import Mat4, apply_transform, normalising_transform, orbit_camera, z_up_from_y_up
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.rigs import RigSkeletons, skeletons_of_rig
from scene.skeleton import Skeleton
from scene.skinning.bind import SkinnedMesh, bind_to_skeleton
from scene.skinning.pose import Method
from scene.skinning.weights import WeightSettings

DEVELOP = ("cesium_man", "rigged_figure", "kaykit_knight", "kaykit_mage", "quaternius_robot")
HELD_OUT = ("quaternius_knight", "quaternius_man_casual", "quaternius_man_worker", "quaternius_woman_casual")
"""Figures that nothing is tuned on."""
_CARRIED = re.compile(r"sword|shield|staff|wand|spellbook|dagger|crossbow", re.IGNORECASE)
"""Joints of things that are shown in all variants at once, of which a figure would hold one."""
_LIMBS = {
    "left_shoulder": (1.1, 0.6),
    "right_shoulder": (1.1, 0.6),
    "left_elbow": (1.2, 0.0),
    "right_elbow": (1.2, 0.0),
    "left_hip": (0.7, 0.3),
    "right_hip": (0.7, 0.3),
    "left_knee": (0.9, 0.0),
    "right_knee": (0.9, 0.0),
    "head": (0.4, 0.4),
}
"""Joints that are turned where a figure has no clips, and about how far (radians): a sway, and about any axis."""


@dataclass(frozen=True, eq=False)
class Figure:
    """A rigged figure, normalised by its rest pose, world frame (z up).

    Args:
        name: of its file.
        mesh: in the rest pose.
        rest: its skeleton.
        poses: of the rig, with the skeletons they give and the vertices that the rig's own weights give.
    """

    name: str
    mesh: ColouredMesh
    rest: Skeleton
    poses: list[tuple[str, Skeleton, Float[np.ndarray, "v 3"]]] = field(default_factory=list)


def load_figure(path: Path, most: int = 8) -> Figure:
    """Read a figure's bind pose, weights and clips (``V F J W inv_bind joint_world joint_parent joint_name``).

    A figure without clips is posed by turning its joints, from a seed made of its name.

    Args:
        path: an ``.npz``.
        most: poses, spread evenly over those of the file.

    Raises:
        InputError: the file cannot be read, or no known rig has its joints.
    """
    rig = read_npz(path, "a rigged figure")
    names = [str(name) for name in rig["joint_name"]]
    worlds = np.asarray(rig["joint_world"], np.float64)
    if len(worlds) == 1:
        worlds = np.concatenate([worlds, _turned(path.stem, names, rig["joint_parent"], worlds[0], most)])
    rest = _skinned(rig, worlds[0])
    heaviest = rig["J"][np.arange(len(rest)), rig["W"].argmax(axis=1)].astype(int)
    of_head = np.array([name.lower().split("_joint")[0].endswith(("head", "neck")) for name in names])
    skeletons = skeletons_of_rig(names, worlds[0], None)
    of_head |= np.arange(len(names)) == skeletons.numbers["head"]
    skeletons = skeletons_of_rig(names, worlds[0], rest[of_head[heaviest]])
    kept = ~np.array([bool(_CARRIED.search(name)) for name in names])[heaviest]
    faces = rig["F"].astype(np.int64)
    faces = faces[kept[faces].all(axis=1)]
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    frame = _frame(rest[used])
    colour = rig["color"][used].astype(np.uint8)
    mesh = ColouredMesh(_placed(frame, rest[used]), faces, colour)
    chosen = np.unique(np.linspace(1, len(worlds) - 1, min(most, len(worlds) - 1)).round().astype(int))
    poses = [
        (f"{k}", _skeleton(skeletons, worlds[k], frame), _placed(frame, _skinned(rig, worlds[k])[used])) for k in chosen
    ]
    return Figure(path.stem, mesh, _skeleton(skeletons, worlds[0], frame), poses)


@dataclass(frozen=True)
class SkinningScore:
    """How near the posed surface is to the rig's own.

    Args:
        pose: its name.
        iou: of silhouettes, mean over views.
        worst_iou: of the view that fits least.
        error: mean distance of vertices from where the rig puts them, as a share of the figure's longest side.
        seconds: of posing.
        bones: bones whose lengths differ by more than a fifth from the rest pose's.
        unedited: IoU of the rest pose with the true pose.
    """

    pose: str
    iou: float
    worst_iou: float
    error: float
    seconds: float
    bones: tuple[str, ...]
    unedited: float


def score_figure(
    figure: Figure,
    settings: WeightSettings = WeightSettings(),
    method: Method = "dual_quaternion",
    views: int = 8,
    size: int = 128,
) -> tuple[SkinnedMesh, list[SkinningScore], float]:
    """Bind a figure's rest pose to its rest skeleton, and pose it by the skeletons of its other poses.

    Returns:
        What was bound; a score for each pose; seconds of binding.
    """
    start = time.perf_counter()
    bound = bind_to_skeleton(figure.mesh, figure.rest, settings)
    binding = time.perf_counter() - start
    scores = []
    before = silhouettes(figure.mesh, views, size)
    for name, skeleton, truth in figure.poses:
        start = time.perf_counter()
        posed = bound.posed_to(figure.rest, skeleton, method)
        seconds = time.perf_counter() - start
        theirs = silhouettes(ColouredMesh(truth, figure.mesh.faces), views, size)
        ious = _ious(silhouettes(posed, views, size), theirs)
        kept = len(bound.mesh.vertices) - 3 * _cap_faces(figure, bound)
        gap = np.linalg.norm(posed.vertices[:kept] - truth[bound.source[:kept]], axis=1).mean()
        side = float(np.ptp(figure.mesh.vertices, axis=0).max())
        bones = tuple(skeleton.compare_bones(figure.rest))
        unedited = float(_ious(before, theirs).mean())
        scores.append(
            SkinningScore(name, float(ious.mean()), float(ious.min()), float(gap / side), seconds, bones, unedited)
        )
    return bound, scores, binding


def silhouettes(mesh: ColouredMesh, views: int, size: int) -> Bool[np.ndarray, "n s s"]:
    """Silhouettes of a mesh from cameras around it, at two heights."""
    renderer = MeshRenderer(mesh)
    cameras = [orbit_camera(2 * np.pi * k / views, 0.0 if k % 2 else 0.35, 2.2, size=size) for k in range(views)]
    return np.stack([renderer.render(camera, samples=1).rgba[..., 3] > 0.5 for camera in cameras])


def _ious(first: Bool[np.ndarray, "n s s"], second: Bool[np.ndarray, "n s s"]) -> Float[np.ndarray, "n"]:
    both, either = (first & second).sum(axis=(1, 2)), (first | second).sum(axis=(1, 2))
    return np.asarray(both / np.maximum(either, 1))


def _cap_faces(figure: Figure, bound: SkinnedMesh) -> int:
    return len(bound.mesh.faces) - len(figure.mesh.faces)


def _skinned(rig: dict[str, np.ndarray], world: Float[np.ndarray, "j 4 4"]) -> Float[np.ndarray, "v 3"]:
    motion = world @ rig["inv_bind"]
    blend = np.einsum("vk,vkij->vij", rig["W"], motion[rig["J"].astype(int)][:, :, :3])
    return np.asarray(np.einsum("vij,vj->vi", blend[:, :, :3], rig["V"]) + blend[:, :, 3])


def _frame(vertices: Float[np.ndarray, "v 3"]) -> Mat4:
    return normalising_transform(z_up_from_y_up(vertices))


def _placed(frame: Mat4, points: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    return np.asarray(apply_transform(frame, z_up_from_y_up(points)))


def _skeleton(rig: RigSkeletons, world: Float[np.ndarray, "j 4 4"], frame: Mat4) -> Skeleton:
    return Skeleton(_placed(frame, rig.of(world).positions))


def _turned(
    name: str, names: list[str], parents: Int[np.ndarray, "j"], rest: Float[np.ndarray, "j 4 4"], count: int
) -> Float[np.ndarray, "n j 4 4"]:
    """Poses of a rig without clips: limbs and head turned about axes of the world, the rest carried along."""
    draw = np.random.default_rng(sum(name.encode()))
    numbers = skeletons_of_rig(names, rest).numbers
    poses = []
    for _ in range(count):
        turns = {}
        for joint, (sway, wild) in _LIMBS.items():
            vector = draw.normal(0, wild, 3) + np.array([draw.uniform(-1, 1) * sway, 0, 0])
            turns[numbers[joint]] = Rotation.from_rotvec(vector).as_matrix()
        poses.append(_forward(parents, rest, turns, names))
    return np.stack(poses)


def _forward(
    parents: Int[np.ndarray, "j"],
    rest: Float[np.ndarray, "j 4 4"],
    turns: dict[int, Float[np.ndarray, "3 3"]],
    names: list[str],
) -> Float[np.ndarray, "j 4 4"]:
    """Matrices of joints after turns about axes of the rest pose's world."""
    moved: dict[int, np.ndarray] = {}
    # A joint that is listed twice moves as its first mention.
    first = {joint: names.index(names[joint]) for joint in range(len(names))}

    def motion(joint: int) -> np.ndarray:
        joint = first[joint]
        if joint not in moved:
            carried = np.eye(4) if parents[joint] < 0 else motion(int(parents[joint]))
            own = np.eye(4)
            if joint in turns:
                centre = rest[joint, :3, 3]
                own[:3, :3], own[:3, 3] = turns[joint], centre - turns[joint] @ centre
            moved[joint] = carried @ own
        return moved[joint]

    return np.stack([motion(joint) @ rest[joint] for joint in range(len(names))])
