"""The model that fuses photos: known by its files before any work, loaded when a stage first needs it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8

from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.checkpoints.weight_files import PICKLES
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.viewfusion.model import ViewFusionModel
from pipeline.jobs.runner import digest_of_file, digest_of_folder
from scene.backends import pick_device
from scene.errors import CheckpointError
from scene.files import reading
from scene.resources import default_weights

_ENDINGS = (".json", ".safetensors", *PICKLES)
_HEADING = (
    "The weights count azimuths from the heading that all objects of their training share, and no photo's: with "
    "ShapeNet's, view_00 looks at an object's front."
)


@dataclass(eq=False)
class JobFusionModel:
    """A checkpoint that a job fuses photos with.

    Args:
        weights: folder, file, or hub id.
        device: where it runs.

    Raises:
        CheckpointError: no weights were named, or nothing is there.
    """

    weights: Path | None
    device: str
    path: Path = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if self.weights is None:
            raise CheckpointError(
                "no weights for fusing photos come with viewloom yet",
                fix="Name some with --weights: a folder of scripts/train_fusion.py, or a file of ViewFusion's code.",
            )
        self.path = local_checkpoint(self.weights)
        with reading(self.path):
            folder = self.path.is_dir()
            self.digest = digest_of_folder(self.path, _ENDINGS) if folder else digest_of_file(self.path)

    @cached_property
    def loaded(self) -> ViewFusionModel:
        """The model on its device."""
        model = ViewFusionModel.from_pretrained(self.path, default_weights() / "vae")
        device = pick_device(self.device)
        model.unet.to(device).eval().requires_grad_(False)
        if model.vae is not None:
            model.vae.to(device).eval().requires_grad_(False)
        return model

    @property
    def warnings(self) -> list[str]:
        """What the user should know of it."""
        return [] if self.loaded.unet.config["relative"] else [_HEADING]

    def elevation_of(self, photo: UInt8[np.ndarray, "s s 4"]) -> float:
        """Elevation in degrees that the embedded coarse volume sees in a framed cut-out of 128 pixels."""
        coarse = cast(CoarseVolumeModel, load_part(CoarseVolumeModel, default_weights() / "coarse"))
        with torch.no_grad():
            source = coarse(images_from_rgba(torch.from_numpy(photo)[None], 4))[2]
        return math.degrees(float(source[0, 0]))
