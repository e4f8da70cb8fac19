"""Conditions of a view model besides the noisy latent: the source, its pose, the coarse render, the rays."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

FourthEntry = Literal["radius", "polar"]


@dataclass(frozen=True)
class Conditioning:
    """Which conditions a checkpoint was trained with; the plain Zero123 layout has none of them.

    Args:
        source_row: the clean source is an extra row that target rows attend to.
        coarse: latents of the coarse volume's render and its visibility are extra input channels.
        pluecker: Plücker coordinates of the pixel rays are extra input channels.
        joint: sides of token grids at which the views of an object may share attention.
        fourth: last number of a pose: the change of the radius, or, for Stable Zero123, the source's polar angle.
        normalised: latents of source and coarse render are conditions in the scale of the diffusion model, and not raw
            as Zero123 has them.
        residual: the U-Net predicts what a linear map of the coarse render leaves (:class:`CoarseMap`).
    """

    source_row: bool = False
    coarse: bool = False
    pluecker: bool = False
    joint: tuple[int, ...] = ()
    fourth: FourthEntry = "radius"
    normalised: bool = False
    residual: bool = False

    def channels(self, latents: int) -> int:
        """Input channels of a U-Net whose latents have so many channels."""
        return 2 * latents + (latents + 4) * self.coarse + 6 * self.pluecker


@dataclass(frozen=True, eq=False)
class Conditions:
    """Conditions of the target rows of ``o`` objects with ``v`` views each; those a model does not use are ignored.

    Args:
        source: unscaled latents of the source.
        source_clean: normalised latents of the source (for the source row).
        tokens: image-and-pose token of each view.
        source_token: the token at the identity pose.
        coarse: unscaled latents of the coarse volume's render.
        visible: its visibility, two pixels per latent pixel and axis, folded into channels.
        rays: Plücker maps of the views.
        source_rays: Plücker map of the source camera.
    """

    source: Float[Tensor, "o c h w"]
    source_clean: Float[Tensor, "o c h w"]
    tokens: Float[Tensor, "o v d"]
    source_token: Float[Tensor, "o d"]
    coarse: Float[Tensor, "o v c h w"] | None = None
    visible: Float[Tensor, "o v 4 h w"] | None = None
    rays: Float[Tensor, "o v 6 h w"] | None = None
    source_rays: Float[Tensor, "o 6 h w"] | None = None

    def dropped(self, keep: Float[Tensor, "o"], keep_coarse: Float[Tensor, "o"] | None = None) -> Conditions:
        """Conditions with the source (and, by default, the coarse render) blanked where ``keep`` is 0.

        Zero token, zero source latents, zero coarse latents: Zero123's unconditional input. Rays stay.
        """

        def scale(x: Tensor, by: Tensor) -> Tensor:
            return x * by.view(-1, *([1] * (x.ndim - 1)))

        coarse_by = keep if keep_coarse is None else keep * keep_coarse
        return replace(
            self,
            source=scale(self.source, keep),
            source_clean=scale(self.source_clean, keep),
            tokens=scale(self.tokens, keep),
            source_token=scale(self.source_token, keep),
            coarse=None if self.coarse is None else scale(self.coarse, coarse_by),
            visible=None if self.visible is None else scale(self.visible, coarse_by),
        )

    def null(self) -> Conditions:
        """Unconditional input for every object."""
        return self.dropped(torch.zeros(len(self.source), device=self.source.device))


def fold_visibility(visible: Float[Tensor, "*b 1 s s"], side: int) -> Float[Tensor, "*b 4 h h"]:
    """Visibility at twice the latent side, folded into four channels of the latent side."""
    flat = F.interpolate(visible.flatten(0, -4).float(), (2 * side, 2 * side), mode="area")
    return F.pixel_unshuffle(flat, 2).reshape(*visible.shape[:-3], 4, side, side)


class CoarseMap(ModelMixin, ConfigMixin):
    """A linear map of a coarse render's latents and its visibility to latents of the view: a first estimate.

    Least squares give it in one step (:func:`pipeline.training.tasks.views.fitted_coarse_map`), and a small U-Net needs
    thousands of steps to reach it: so the U-Net is left what it does not explain.

    Args:
        latents: channels of the latents.
        kernel: side of the neighbourhood.
    """

    @register_to_config
    def __init__(self, latents: int = 4, kernel: int = 3) -> None:
        super().__init__()
        self.map = nn.Conv2d(latents + 4, latents, kernel, padding=kernel // 2)

    def forward(
        self, coarse: Float[Tensor, "*b c h w"], visible: Float[Tensor, "*b 4 h w"]
    ) -> Float[Tensor, "*b c h w"]:
        """Estimates of normalised latents."""
        planes = torch.cat([coarse, visible], -3)
        return self.map(planes.flatten(0, -4)).unflatten(0, planes.shape[:-3])


class PhotoEncoder(ModelMixin, ConfigMixin):
    """The nano stand-in for CLIP: a prepared photo to one embedding, which the pose projection reads.

    Args:
        width: length of the embedding.
        image_size: side that photos are reduced to.
    """

    @register_to_config
    def __init__(self, width: int = 128, image_size: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        sizes = [4, 32, 64, 96, width]
        for inside, outside in itertools.pairwise(sizes):
            layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.GroupNorm(8, outside), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.out = nn.Linear(width, width)

    def forward(self, rgba: Float[Tensor, "b 4 s s"]) -> Float[Tensor, "b d"]:
        """Embeddings of photos on white with alpha, [-1, 1]."""
        size, rgba = self.config["image_size"], rgba.to(self.out.weight.dtype)
        if rgba.shape[-1] != size:
            rgba = F.interpolate(rgba, (size, size), mode="bilinear", antialias=True, align_corners=False)
        return self.out(self.trunk(rgba).mean(dim=(2, 3)))


class PoseProjection(ModelMixin, ConfigMixin):
    """Zero123's ``cc_projection``: image embedding and four pose numbers to one cross-attention token.

    Args:
        width: length of embedding and token.
        pose: numbers of the pose.
    """

    @register_to_config
    def __init__(self, width: int = 768, pose: int = 4) -> None:
        super().__init__()
        self.projection = nn.Linear(width + pose, width)
        # The identity on the image part, as Zero123's training starts.
        with torch.no_grad():
            self.projection.weight.copy_(torch.eye(width, width + pose))
            self.projection.bias.zero_()

    def forward(self, embedding: Float[Tensor, "*b d"], pose: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b d"]:
        """Tokens."""
        return self.projection(torch.cat([embedding, pose], -1))
