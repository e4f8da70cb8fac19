"""The control pictures of any target, from the cameras of a capture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pipeline.editing.boxes import BoxTarget
from pipeline.editing.controls import ControlKind, box_mesh, depth_controls, skeleton_controls
from pipeline.editing.target import EditTarget, SkeletonTarget
from scene.camera import Camera


def control_kind(target: EditTarget) -> ControlKind:
    """What kind of control tells a target."""
    return "skeleton" if isinstance(target, SkeletonTarget) else "depth"


def control_pictures(target: EditTarget, cameras: Sequence[Camera]) -> list[Float[np.ndarray, "_h _w 3"]]:
    """What each camera sees of the state after the edit: the drawn skeleton, or inverse depth; RGB in [0, 1].

    Args:
        target: in the world of the cameras.
        cameras: of the views.

    Raises:
        MissedControlError: no camera sees it.
    """
    if isinstance(target, SkeletonTarget):
        return skeleton_controls(target.target.positions, cameras)
    if isinstance(target, BoxTarget):
        return depth_controls(*box_mesh(target.after), cameras)[0]
    return depth_controls(target.vertices, target.faces, cameras)[0]


def both_control_pictures(
    target: EditTarget, cameras: Sequence[Camera]
) -> tuple[list[Float[np.ndarray, "_h _w 3"]] | None, list[Float[np.ndarray, "_h _w 3"]]]:
    """The controls of the state before the edit, None of a mesh, which has none; and of the state after it.

    Bounds of depth are one pair for all views of a state, and each state has its own: so the editor's training pairs
    are drawn, and a depth means the same in all views of the edit.

    Args:
        target: in the world of the cameras.
        cameras: of the views.

    Raises:
        MissedControlError: no camera sees one of them.
    """
    after = control_pictures(target, cameras)
    if isinstance(target, SkeletonTarget):
        return skeleton_controls(target.rest.positions, cameras), after
    if isinstance(target, BoxTarget):
        return depth_controls(*box_mesh(target.before), cameras)[0], after
    return None, after
