"""Pictures of a capture to pictures of the edited object: framed, drawn by an editor, and told how it went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.editing.boxes import BoxTarget
from pipeline.editing.consolidate import OnProgress, edit_latents
from pipeline.editing.control_pictures import both_control_pictures, control_kind
from pipeline.editing.controls import box_mesh
from pipeline.editing.framed import Frame, frame_around
from pipeline.editing.model import Controls, EditDiffusion
from pipeline.editing.settings import ConsolidateSettings
from pipeline.editing.target import EditTarget, SkeletonTarget
from pipeline.editing.task import EditTask, IntervalReport
from scene.camera import OBJECT_RADIUS, Camera
from scene.errors import CheckpointError, InputError
from scene.view import View
from scene.viewset import ViewSet

_BODY = 0.1
"""By which a body reaches beyond its joints, world units of a normalised object."""
_NO_EFFECT = 1e-6
"""Of the prediction's size: what a control changes less, it does not change."""


def chosen(views: list[View], most: int) -> list[View]:
    """Views evenly out of all, as many as asked for; 0 for all."""
    if not most or len(views) <= most:
        return views
    return [views[math.floor(k * len(views) / most)] for k in range(most)]


def frames_of(views: Sequence[View], target: EditTarget, side: int) -> list[Frame]:
    """Squares around the object before and after.

    Args:
        views: in the normalised world.
        target: there too.
        side: of the squares, pixels.

    Raises:
        InputError: a camera stands in the object, or looks away from it; its view is named.
    """
    radius = reach(target)
    frames = []
    for view in views:
        try:
            frames.append(frame_around(view.camera, np.zeros(3), radius, side))
        except InputError as error:
            raise InputError(f"view {view.name}: {error.what}", fix=error.fix) from error
    return frames


def reach(target: EditTarget) -> float:
    """Radius of a sphere about the origin around a normalised object before and after its edit."""
    if isinstance(target, SkeletonTarget):
        farthest = float(np.nanmax(np.linalg.norm(target.target.positions, axis=1))) + _BODY
    elif isinstance(target, BoxTarget):
        farthest = float(np.linalg.norm(box_mesh(target.after)[0], axis=1).max())
    else:
        farthest = float(np.linalg.norm(target.vertices, axis=1).max())
    return max(OBJECT_RADIUS, farthest)


def bytes_of(pictures: Sequence[Float[np.ndarray, "h w c"]]) -> UInt8[np.ndarray, "n h w c"]:
    """[0, 1] to 8 bits."""
    return np.round(np.stack(pictures) * 255).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class FramedDraft:
    """Views of a deformed surface in the editor's frames.

    Args:
        pictures: straight alpha.
        before, depth: inverse depth of the surface before it was deformed, and of this one.
    """

    pictures: UInt8[np.ndarray, "n s s 4"]
    before: UInt8[np.ndarray, "n s s 3"]
    depth: UInt8[np.ndarray, "n s s 3"]


@dataclass(frozen=True, eq=False)
class Redrawn:
    """Edited views.

    Args:
        pictures: straight alpha.
        controls: what they were to show.
        originals: the views as they were.
        intervals: how each went.
    """

    pictures: UInt8[np.ndarray, "n s s 4"]
    controls: UInt8[np.ndarray, "n s s 3"]
    originals: UInt8[np.ndarray, "n s s 4"]
    intervals: tuple[IntervalReport, ...]


@torch.no_grad()
def redrawn(
    model: EditDiffusion,
    originals: UInt8[np.ndarray, "n s s 4"],
    target: EditTarget,
    cameras: Sequence[Camera],
    settings: ConsolidateSettings,
    *,
    draft: FramedDraft | None = None,
    work: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Redrawn:
    """Views drawn by an editor.

    Args:
        model: the editor.
        originals: square, of its size.
        target: in the world of the cameras.
        cameras: of the originals.
        settings: of the method.
        draft: what is drawn over: it gives the start, and its depth is the control.
        work: see :func:`pipeline.editing.consolidate.edit_latents`.
        on_progress: see there.

    Raises:
        InputError: the model or the settings do not go with the task.
        CheckpointError: the control makes no difference to the model.
    """
    if draft is None:
        kind, (own, wanted) = control_kind(target), both_control_pictures(target, cameras)
        before, controls = None if own is None else bytes_of(own), bytes_of(wanted)
    else:
        kind, before, controls = "depth", draft.before, draft.depth
    task = EditTask(
        encoded(model, originals),
        kind,
        as_control(controls),
        tuple(cameras),
        None if before is None else as_control(before),
        None if draft is None else encoded(model, draft.pictures),
    )
    check_effect(model, task)
    edited = edit_latents(model, task, settings, folder=work, on_progress=on_progress)
    pictures = [decoded(model, latents[None])[0] for latents in edited.latents]
    return Redrawn(np.stack(pictures), controls, originals, edited.intervals)


def as_control(pictures: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Pictures as networks take controls, in [0, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255


def encoded(model: EditDiffusion, pictures: UInt8[np.ndarray, "n s s 4"]) -> Float[Tensor, "n c h w"]:
    """Normalised latents of pictures, one after the other."""
    codec = model.codec
    return torch.cat(
        [
            codec.normalise(codec.encode_raw(torch.from_numpy(picture)[None].to(model.device))).float().cpu()
            for picture in pictures
        ]
    )


def decoded(model: EditDiffusion, latents: Float[Tensor, "n c h w"]) -> UInt8[np.ndarray, "n s s 4"]:
    """Pictures of latents, 8 bits."""
    shown = model.codec.decode(latents.to(model.device)).float().cpu().numpy()
    return np.round(shown * 255).astype(np.uint8)


@torch.no_grad()
def check_effect(model: EditDiffusion, task: EditTask) -> None:
    """Whether the control changes what the model predicts: one that does not would be found only at the end.

    The view is taken whose control has most in it.

    Raises:
        CheckpointError: it does not.
    """
    t = len(model.schedule) // 2
    view = int(task.pictures.flatten(1).sum(1).argmax())
    z, pictures = (values[view : view + 1].to(model.device) for values in (task.originals, task.pictures))
    without, given = (
        model.predict(z, t, Controls(task.kind, pictures, torch.full((1,), scale, device=z.device)))
        for scale in (0.0, 1.0)
    )
    if float((given - without).abs().max()) <= _NO_EFFECT * float(without.abs().max()):
        raise CheckpointError(
            f"the control ({task.kind}) changes nothing of what the editor draws",
            fix="Its ControlNet was not trained: give other weights.",
        )


def edit_capture(
    views: ViewSet,
    target: EditTarget,
    model: EditDiffusion,
    settings: ConsolidateSettings = ConsolidateSettings(),
    *,
    work: Path | None = None,
    on_progress: OnProgress | None = None,
) -> ViewSet:
    """A capture of the edited object, drawn by an editor.

    Args:
        views: with masks, in a world in which the object lies within :data:`scene.camera.OBJECT_RADIUS` of the origin.
        target: in that world.
        model: the editor.
        settings: of the method.
        work: see :func:`pipeline.editing.consolidate.edit_latents`.
        on_progress: see there; what it raises ends the edit.

    Returns:
        Square views of the editor's size around the object, with alpha, by the names of the given ones.

    Raises:
        InputError: there is one view only, or no masks, or a camera stands in the object.
        CheckpointError: the control makes no difference.
    """
    check_editable(views)
    frames = frames_of(views.views, target, model.image_size)
    pictures = np.stack([frame.picture(view.rgba()) for frame, view in zip(frames, views, strict=True)])
    cameras = [frame.camera for frame in frames]
    drawn = redrawn(model, pictures, target, cameras, settings, work=work, on_progress=on_progress)
    made = tuple(
        View(view.name, camera, picture, weight=view.weight, origin="generated")
        for view, camera, picture in zip(views, cameras, drawn.pictures, strict=True)
    )
    return ViewSet(made, True, {"normalised": True, "edited": True})


def check_editable(views: ViewSet) -> None:
    """Whether an editor can draw views of a capture.

    Raises:
        InputError: there is one view only, or no masks.
    """
    if len(views) < 2:
        raise InputError("one view tells no object that could be edited", fix="Give several views.")
    if not views.has_masks:
        raise InputError(
            "the editor needs to know what is the object, and the capture has no masks",
            fix="Give masks, or use --method deform.",
        )
