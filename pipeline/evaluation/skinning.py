"""Skinning by a skeleton against a figure's own rig, from the same rest pose and skeletons."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from pipeline.training.data.rigged_files import load_rigged
from pipeline.training.procedural.poses import random_worlds
from scene.camera import normalising_transform, orbit_camera
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.skeleton import Skeleton
from scene.skinning.bind import SkinnedMesh, bind_to_skeleton
from scene.skinning.pose import Method
from scene.skinning.weights import WeightSettings

DEVELOP = ("cesium_man", "rigged_figure", "kaykit_knight", "kaykit_mage", "quaternius_robot")
HELD_OUT = ("quaternius_knight", "quaternius_man_casual", "quaternius_man_worker", "quaternius_woman_casual")
"""Figures that nothing is tuned on."""


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
    """Read a figure and pose it by its clips, or, if it has none, within the limits of joints, from a seed of its name.

    Args:
        path: an ``.npz``; see :mod:`pipeline.training.data.rigged_files`.
        most: poses, spread evenly over those of the file.

    Raises:
        InputError: the file cannot be read, or no known rig has its joints.
    """
    file = load_rigged(path)
    rig, worlds = file.figure, file.clips
    if len(worlds) == 1:
        rng = np.random.default_rng(list(path.stem.encode()))
        worlds = np.stack([worlds[0], *(random_worlds(rig, rng) for _ in range(most))])
    bound = rig.posed(worlds[0])
    frame = normalising_transform(bound.vertices)
    chosen = np.unique(np.linspace(1, len(worlds) - 1, min(most, len(worlds) - 1)).round().astype(int))
    poses = [
        (f"{k}", rig.skeleton(worlds[k]).transformed(frame), rig.posed(worlds[k]).transformed(frame).vertices)
        for k in chosen
    ]
    return Figure(path.stem, bound.transformed(frame), rig.skeleton(worlds[0]).transformed(frame), poses)


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
