"""CLIP's image encoder behind the same call as the nano model's photo encoder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.checkpoints.weight_files import fill
from scene.backends import import_failure, optional_module
from scene.errors import CheckpointError, MissingBackendError

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IGNORED = r".*position_ids"
"""Stored by older releases of the library, computed by newer ones."""


class ClipPhotoEncoder(nn.Module):
    """A CLIP vision tower with its projection: photos to embeddings.

    Args:
        tower: a CLIPVisionModelWithProjection.
        antialias: reduce photos as the processors of transformers do. Zero-1-to-3 was trained without: bicubic, corners
            aligned, no filter.
    """

    def __init__(self, tower: nn.Module, *, antialias: bool = False) -> None:
        super().__init__()
        self.tower, self.antialias = tower, antialias

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.tower.parameters()).dtype

    @property
    def width(self) -> int:
        """Length of the embedding."""
        return int(self.config.projection_dim)

    @property
    def config(self) -> Any:
        """Of the tower, in transformers' terms."""
        return self.tower.config

    def pixels(self, images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b 3 p p"]:
        """What the tower sees of photos in [-1, 1]; alpha is ignored, since colours are on their background already."""
        size, colour = int(self.config.image_size), images[:, :3].float()
        if colour.shape[-1] != size:
            corners = not self.antialias
            colour = F.interpolate(
                colour, (size, size), mode="bicubic", align_corners=corners, antialias=self.antialias
            )
        values = (colour + 1) / 2
        mean, std = (torch.tensor(v, device=values.device).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
        return (values - mean) / std

    def forward(self, images: Float[Tensor, "b c s s"]) -> Float[Tensor, "b d"]:
        """Embeddings of photos on their background, [-1, 1]; a fourth channel is ignored."""
        return self.tower(self.pixels(images).to(self.dtype)).image_embeds


def transformers() -> ModuleType:
    """The library of CLIP.

    Raises:
        MissingBackendError: it is not installed or cannot load.
    """
    module = optional_module("transformers")
    if module is None:
        broken = import_failure("transformers")
        raise MissingBackendError(
            "public checkpoints need the package transformers for their CLIP encoder"
            + ("" if broken is None else f", and the one that is installed cannot load ({broken})"),
            fix="pip install viewloom[checkpoints]",
        )
    return module


def build_tower(
    config: dict[str, Any], weights: dict[str, Tensor], where: Path, dtype: torch.dtype, *, antialias: bool = False
) -> ClipPhotoEncoder:
    """A vision tower of its config and weights, in transformers' names.

    Raises:
        MissingBackendError: transformers is not installed.
        CheckpointError: the config or the weights do not fit.
    """
    library = transformers()
    tower = meta_built(library.CLIPVisionModelWithProjection, library.CLIPVisionConfig, config, where)
    tower = with_positions(fill(tower, weights, where, dtype, IGNORED))
    return ClipPhotoEncoder(tower, antialias=antialias).eval()


def meta_built(kind: Any, config_kind: Any, config: dict[str, Any], where: Path) -> Any:
    """A transformers model of its config, without memory of its own.

    Raises:
        CheckpointError: the config is not one of such a model.
    """
    try:
        with torch.device("meta"):
            return kind(config_kind.from_dict(config))
    except Exception as error:  # the library has checks of its own, with errors of their own
        raise CheckpointError(f"its config cannot be used ({' '.join(str(error).split())})", where=where) from error


def with_positions(model: Any) -> Any:
    """The same model with its table of positions, which no file holds."""
    for module in model.modules():
        held = module._buffers.get("position_ids")
        if held is not None and held.is_meta:
            module._buffers["position_ids"] = torch.arange(held.shape[-1]).expand(held.shape)
    return model
