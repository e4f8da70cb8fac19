"""Rows of the table of edits that need no diffusion model: the original, the truth, what a VAE keeps, a deformation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.evaluation.editing.cases import EditCase, TrueViews, drawn
from pipeline.evaluation.editing.scores import Pictures, Scored, as_pictures
from pipeline.evaluation.statistics import mean_and_interval
from pipeline.evaluation.tables import markdown_table
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.skinning.bind import bind_to_boxes, bind_to_skeleton, box_motions


@dataclass(frozen=True, eq=False)
class Edited:
    """What a row makes of a case.

    Args:
        pictures: a view from each camera, straight alpha in [0, 1].
        mesh: its surface, if it has one.
        facts: what else is known of how it was made.
    """

    pictures: Pictures
    mesh: ColouredMesh | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


Row = Callable[[TrueViews], Edited]
Deform = Callable[[EditCase], ColouredMesh]
"""The surface before the edit, deformed by its target."""


def original(views: TrueViews) -> Edited:
    """Nothing edited: the floor of every score of the edit."""
    return Edited(as_pictures(views.originals), views.case.before)


def truth(views: TrueViews) -> Edited:
    """The true edit: the ceiling."""
    return Edited(as_pictures(views.truths), views.case.after)


def through_vae(codec: LatentCodec) -> Row:
    """The true edit through a VAE: the ceiling of latent models."""

    @torch.no_grad()
    def row(views: TrueViews) -> Edited:
        raw = codec.encode_raw(torch.from_numpy(views.truths))
        return Edited(codec.decode(codec.normalise(raw)).float().clamp(0, 1).numpy())

    return row


def deformed(deform: Deform) -> Row:
    """A deformed surface, rendered under the light of the truth."""

    def row(views: TrueViews) -> Edited:
        mesh = deform(views.case)
        return Edited(as_pictures(drawn(mesh, views.cameras)), mesh)

    return row


def bound_truth(case: EditCase) -> ColouredMesh:
    """The true surface before the edit, bound to its true skeleton or boxes, and posed by the target.

    Raises:
        InputError: the case has no target, or binding fails.
    """
    if case.skeletons is not None:
        rest, target = case.skeletons
        return bind_to_skeleton(case.before, rest).posed_to(rest, target)
    if case.boxes is None:
        raise InputError("a case has neither skeletons nor boxes", where=case.name)
    before, after = case.boxes
    return bind_to_boxes(case.before, before).posed(box_motions(before, after), "linear")


_COLUMNS = {
    "excess_warp_error": ("warp error above the truth's", ".4f", 1.0),
    "foreground_psnr": ("foreground PSNR (dB)", ".2f", 1.0),
    "ssim": ("SSIM", ".3f", 1.0),
    "iou": ("silhouette IoU", ".3f", 1.0),
    "kid": ("KID x 1000, nano encoder", ".2f", 1000.0),
    "chamfer": ("Chamfer (%)", ".2f", 100.0),
}


def edits_table(rows: Mapping[str, Scored]) -> str:
    """Means over cases with 95 % bootstrap intervals; a dash where a row has no such score."""
    lines = [[name, *(_cell(scores, key) for key in _COLUMNS)] for name, scores in rows.items()]
    return markdown_table(["edited views", *(title for title, _, _ in _COLUMNS.values())], lines)


def _cell(scores: Sequence[Mapping[str, float]], key: str) -> str:
    if not scores or any(key not in found for found in scores):
        return "–"
    _, form, factor = _COLUMNS[key]
    return mean_and_interval(factor * np.array([found[key] for found in scores]), form)
