"""What an edit aims at: a body's skeleton in two poses, boxes before and after, or a mesh; read before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from pipeline.editing.boxes import BoxTarget
from pipeline.editing.controls import MissedControlError, box_mesh, check_boxes_hit
from pipeline.editing.depth_target import DepthTarget
from scene.camera import Camera, Mat4
from scene.errors import InputError
from scene.mesh import Vertices
from scene.skeleton import JOINTS, PARENTS, Skeleton

REST_FILE = "skeleton.json"
"""Of a capture folder: the skeleton in the pose in which it was captured."""
_WORLD = "Targets are in the capture's own world and unit."
_MARGIN = 0.1
"""By which joints may be outside the object's bounding box, as a fraction of its diagonal."""
_SAME = 1e-6
"""Of the target's size: what moves less does not move."""


@dataclass(frozen=True, eq=False)
class SkeletonTarget:
    """A body as it was captured, and as it shall stand.

    Args:
        rest: in the pose of the capture.
        target: the same body in another one.
    """

    rest: Skeleton
    target: Skeleton

    def transformed(self, matrix: Mat4) -> SkeletonTarget:
        """Both under a similarity of the world."""
        return SkeletonTarget(self.rest.transformed(matrix), self.target.transformed(matrix))


EditTarget = SkeletonTarget | BoxTarget | DepthTarget
"""In the capture's own world."""


@dataclass(frozen=True, eq=False)
class ReadTarget:
    """A target from files.

    Args:
        target: in the capture's own world.
        warnings: what the user should know of it.
    """

    target: EditTarget
    warnings: tuple[str, ...]


def plain_target(target: EditTarget) -> dict[str, Any]:
    """Plain values that determine what a target does, for keys of stages."""
    if isinstance(target, SkeletonTarget):
        return {"rest": target.rest.as_plain(), "target": target.target.as_plain()}
    if isinstance(target, DepthTarget):
        digest = hashlib.sha256(np.ascontiguousarray(target.vertices, np.float64).tobytes())
        digest.update(np.ascontiguousarray(target.faces, np.int64).tobytes())
        return {"mesh": digest.hexdigest()}
    return {"before": target.before.tolist(), "after": target.after.tolist()}


def read_target(
    folder: Path,
    skeleton: Path | None = None,
    boxes: Path | None = None,
    rest: Path | None = None,
    depth: Path | None = None,
    *,
    fit_bones: bool = False,
) -> ReadTarget:
    """Read the target of an edit.

    Args:
        folder: of the capture, where :data:`REST_FILE` is looked for.
        skeleton: file of the pose that is wanted, or
        boxes: file of boxes, or
        depth: file of a closed mesh.
        rest: file of the skeleton in the pose of the capture.
        fit_bones: take only the directions of the target's bones, and the lengths of the capture's.

    Raises:
        InputError: there is not exactly one of the three, a file cannot be read, joints are missing, or bones of the
            target differ by more than a fifth from the capture's.
        MissingBackendError: the mesh is of another program, and trimesh is not installed.
    """
    given = [name for name, file in (("a skeleton", skeleton), ("boxes", boxes), ("a mesh", depth)) if file is not None]
    if len(given) != 1:
        raise InputError(
            f"an edit needs one target, got {' and '.join(given) or 'none'}",
            fix="Give --skeleton FILE, --boxes FILE or --depth FILE.",
        )
    if skeleton is None and rest is not None:
        raise InputError(f"{given[0]} need no rest of a skeleton", where=rest, fix="Leave --rest out.")
    if depth is not None:
        return ReadTarget(DepthTarget.load(depth), ())
    if boxes is not None:
        found = BoxTarget.load(boxes)
        return ReadTarget(found, _still(_moved_by_boxes(found) > _SAME))
    assert skeleton is not None
    target = Skeleton.load(skeleton)
    start = Skeleton.load(rest_file(folder, rest))
    for pose, where in ((start, rest_file(folder, rest)), (target, skeleton)):
        pose.require("neck", "right_hip", "left_hip", "right_shoulder", "left_shoulder", where=where)
    if fit_bones:
        target = target.with_bones_of(start)
    ratios = target.compare_bones(start)
    if ratios:
        listed = ", ".join(f"{PARENTS[name]} to {name} {ratio:.2f} times" for name, ratio in ratios.items())
        raise InputError(
            f"bones differ in length by more than a fifth: {listed} as long as in the capture's skeleton",
            where=skeleton,
            fix="Correct the target, or give --fit-bones to take its directions only.",
        )
    size = float(np.nanmax(np.ptp(start.positions[start.known], axis=0)))
    apart = np.linalg.norm(target.positions - start.positions, axis=1)
    warnings = [*_still(bool(np.nanmax(apart) > _SAME * size)), *_half_known(start, target)]
    return ReadTarget(SkeletonTarget(start, target), tuple(warnings))


def rest_file(folder: Path, rest: Path | None) -> Path:
    """The file of the skeleton in the pose of the capture.

    Raises:
        InputError: none was given and the capture has none.
    """
    path = folder / REST_FILE if rest is None else rest
    if rest is None and not path.is_file():
        raise InputError(
            f"the capture has no {REST_FILE}, the skeleton in the pose in which it was captured",
            where=folder,
            fix="Put one there, or give it with --rest FILE; docs/editing.md says how one is made.",
        )
    return path


def _still(moves: bool) -> tuple[str, ...]:
    return () if moves else ("The target is equal to the original: nothing moves.",)


def _moved_by_boxes(boxes: BoxTarget) -> float:
    """How far corners of boxes move, as a fraction of all boxes' size."""
    before, after = (box_mesh(frames)[0] for frames in (boxes.before, boxes.after))
    return float(np.linalg.norm(after - before, axis=1).max() / np.ptp(before, axis=0).max())


def _half_known(rest: Skeleton, target: Skeleton) -> list[str]:
    """A sentence each for joints that only one of two skeletons knows."""
    said = []
    lost, new = rest.known & ~target.known, target.known & ~rest.known
    if lost.any():
        said.append(f"The target does not know {_names(lost)}: what hangs there goes with the part that carries it.")
    if new.any():
        said.append(f"The capture's skeleton does not know {_names(new)}: in the target they change nothing.")
    return said


def _names(chosen: Bool[np.ndarray, "18"]) -> str:
    return ", ".join(name for name, yes in zip(JOINTS, chosen, strict=True) if yes)


def check_seen(target: EditTarget, cameras: Sequence[Camera]) -> tuple[str, ...]:
    """Whether cameras of a capture see its target; returns what the user should know.

    Args:
        target: in the world of the cameras.
        cameras: of all views.

    Raises:
        MissedControlError: most joints of a skeleton, or all of a box, lie outside all pictures or behind all cameras.
    """
    if isinstance(target, BoxTarget):
        for index, frame in enumerate(target.after):
            corners = box_mesh(frame[None])[0]
            if not _seen(np.concatenate([corners, frame[None, :3, 3]]), cameras)[0].any():
                raise MissedControlError(f"after the edit, box {index} lies outside all views", fix=_WORLD)
        return ()
    if isinstance(target, DepthTarget):
        if not _seen(target.vertices, cameras)[0].any():
            raise MissedControlError("the control mesh lies outside all views", fix=_WORLD)
        return ()
    said = []
    for what, pose in (("the capture's skeleton", target.rest), ("the target", target.target)):
        seen, before = _seen(pose.positions[pose.known], cameras)
        names = np.array(JOINTS)[pose.known]
        if 2 * int((~seen).sum()) > len(seen):
            where = "behind all cameras" if not before.any() else "outside all views"
            raise MissedControlError(
                f"{int((~seen).sum())} of {len(seen)} joints of {what} lie {where}, such as {names[~seen][0]}",
                fix=_WORLD,
            )
        if not seen.all():
            said.append(f"No view shows {', '.join(names[~seen])} of {what}.")
    return tuple(said)


def _seen(
    points: Float[np.ndarray, "n 3"], cameras: Sequence[Camera]
) -> tuple[Bool[np.ndarray, "n"], Bool[np.ndarray, "n"]]:
    """Which points some picture shows, and which are in front of some camera."""
    seen, before = np.zeros(len(points), bool), np.zeros(len(points), bool)
    for camera in cameras:
        pixels, depth = camera.project(points)
        seen |= camera.shows(pixels, depth)
        before |= depth > 0
    return seen, before


def check_meets(target: EditTarget, vertices: Vertices) -> None:
    """Whether a target is where the object is.

    Args:
        target: in the frame of the surface.
        vertices: of the surface.

    Raises:
        MissedControlError: a box holds nothing of the object, or most joints lie outside its bounding box.
    """
    vertices = vertices.astype(np.float64)
    if isinstance(target, BoxTarget):
        check_boxes_hit(target.before, vertices)
        return
    if isinstance(target, DepthTarget):
        outer, inner = ((part.min(axis=0), part.max(axis=0)) for part in (vertices, target.vertices))
        if (outer[0] > inner[1]).any() or (inner[0] > outer[1]).any():
            raise MissedControlError("the control mesh misses the object", fix=_WORLD)
        return
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    room = _MARGIN * float(np.linalg.norm(high - low))
    joints = target.rest.positions[target.rest.known]
    outside = ((joints < low - room) | (joints > high + room)).any(axis=1)
    if 2 * int(outside.sum()) > len(joints):
        raise MissedControlError(
            f"the skeleton lies outside the object: {int(outside.sum())} of its {len(joints)} joints are far from it",
            fix=_WORLD,
        )
