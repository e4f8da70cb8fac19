"""What an edit by diffusion is given, and what it gives."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.modules.attention import Step
from pipeline.editing.controls import ControlKind
from pipeline.editing.model import EditDiffusion
from pipeline.editing.queries import Queries
from pipeline.editing.settings import ConsolidateSettings
from qnerf.field import QueryField
from qnerf.store import QueryLayer
from scene.camera import OBJECT_RADIUS, Camera
from scene.errors import InputError


@dataclass(frozen=True, eq=False)
class EditTask:
    """Photos of one object, and what they are to show.

    Args:
        originals: clean normalised latents of the photos.
        kind: of the controls.
        pictures: the controls, in [0, 1].
        cameras: of the photos, world frame, square.
        source_pictures: the controls of the originals, in [0, 1], if they are known.
        start: clean normalised latents of a draft of the edit, which denoising begins with; the originals by default.
        masks: how much each place counts in the edited pictures, in [0, 1]; any size.
        bounds: lowest and highest corner of the field's box, world units; by default the cube around a normalised
            object's sphere.

    Raises:
        InputError: they do not go together, or a picture is not square.
    """

    originals: Float[Tensor, "n c h w"]
    kind: ControlKind
    pictures: Float[Tensor, "n2 3 H W"]
    cameras: Sequence[Camera]
    source_pictures: Float[Tensor, "n3 3 H2 W2"] | None = None
    start: Float[Tensor, "n4 c2 h2 w2"] | None = None
    masks: Float[Tensor, "n5 Hm Wm"] | None = None
    bounds: Float[np.ndarray, "2 3"] | None = None

    def __post_init__(self) -> None:
        views = len(self.originals)
        if not views:
            raise InputError("there is no view to edit")
        for name, given in (
            ("controls", self.pictures),
            ("cameras", self.cameras),
            ("controls of originals", self.source_pictures),
            ("drafts", self.start),
            ("masks", self.masks),
        ):
            if given is not None and len(given) != views:
                raise InputError(f"there are {len(given)} {name} for {views} views")
        if self.source_pictures is not None and self.source_pictures.shape != self.pictures.shape:
            raise InputError("the controls of originals have another size than those of the edit")
        if self.start is not None and self.start.shape != self.originals.shape:
            raise InputError("the drafts' latents have another size than the originals'")
        if any(camera.width != camera.height for camera in self.cameras):
            raise InputError("edits need square pictures", fix="Crop the pictures to squares.")

    @property
    def views(self) -> int:
        """How many photos."""
        return len(self.originals)

    @property
    def corners(self) -> Float[Tensor, "2 3"]:
        """Of the field's box."""
        if self.bounds is None:
            return torch.tensor([[-OBJECT_RADIUS] * 3, [OBJECT_RADIUS] * 3])
        return torch.from_numpy(self.bounds).float()


@runtime_checkable
class QueryTargets(Protocol):
    """Where the queries come from that views are to have, in place of a field."""

    def at(self, step: Step, views: Sequence[int]) -> Queries:
        """Standardised queries of some views for a step, all decoder layers."""

    def shares(self, step: Step) -> Mapping[QueryLayer, Float[Tensor, "_c"]] | None:
        """How much each channel counts, see :func:`pipeline.editing.guidance.objective`; None for all alike."""


@dataclass(frozen=True)
class StepReport:
    """How a guided step went, over all views.

    Args:
        index: of the step.
        before, after: mean distance of standardised queries from their targets, over layers and views: with the
            latents that came, and with those that the step left. Of queries that were replaced the latter is 0.
        halved, kept: how many views took half a step, and none.
    """

    index: int
    before: float
    after: float
    halved: int
    kept: int


@dataclass(frozen=True)
class IntervalReport:
    """How an interval went.

    Args:
        guided: its guided steps.
        misfit: mean distance of the queries that the field was fitted to from what it renders, over layers, in
            deviations; None without a field.
        field_seconds: that fitting and rendering took.
        diffusion_seconds: that the network took.
    """

    guided: tuple[StepReport, ...]
    misfit: float | None
    field_seconds: float
    diffusion_seconds: float


@dataclass(frozen=True, eq=False)
class EditedLatents:
    """The outcome of an edit.

    Args:
        latents: clean and normalised.
        intervals: how each went.
        field: the last one that was fitted.
    """

    latents: Float[Tensor, "n c h w"]
    intervals: tuple[IntervalReport, ...]
    field: QueryField | None


def digest_of(model: EditDiffusion, task: EditTask, settings: ConsolidateSettings) -> str:
    """A digest of all that the outcome follows from: weights, photos, controls, cameras and settings."""
    digest = hashlib.sha256(repr((settings, model.scheduler, model.source, model.unet.config, task.kind)).encode())

    def take(name: str, values: Tensor | None) -> None:
        digest.update(f"{name} {None if values is None else (values.dtype, tuple(values.shape))}".encode())
        if values is not None:
            digest.update(values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())

    control = model.controlnets.get(task.kind)
    for part in (model.unet, *(() if control is None else (control,))):
        for name, weights in part.state_dict().items():
            take(name, weights)
    for name, values in (
        ("prompt", model.prompt),
        ("originals", task.originals),
        ("pictures", task.pictures),
        ("source_pictures", task.source_pictures),
        ("start", task.start),
        ("masks", task.masks),
        ("corners", task.corners),
    ):
        take(name, values)
    for camera in task.cameras:
        digest.update(repr((camera.fx, camera.fy, camera.cx, camera.cy, camera.width)).encode())
        digest.update(np.ascontiguousarray(camera.c2w).tobytes())
    return digest.hexdigest()
