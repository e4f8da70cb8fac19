"""ViewFusion's network: one picture of the object beside a noisy view, to that view's noise and to how much it knows.

Every input picture goes through it alone, with the same noisy view (a stream); what streams say is fused afterwards
(:mod:`pipeline.diffusion.viewfusion.model`). The published network has 33,947,206 parameters, and 33,948,934 where
pictures come with one of reference.

Source: Spiegl, Perin, Deny and Ilin 2024 (arXiv 2402.02906), section 3; sizes as in its published configuration.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

Fusing = Literal["learned", "equal", "concatenated"]
"""How streams become one: weighed by what the network says, all alike, or not at all: pictures are channels of a single
stream, blank where there are fewer than its slots (the last two for comparison)."""
Angle = Literal["raw", "periodic"]
"""How the network is told an angle: by sinusoids of the number of radians, as published, for which 0 and 2 pi are two
angles; or by sines and cosines of whole multiples, for which they are one."""


class FusionUNet(ModelMixin, ConfigMixin):
    """The network, with what is needed to use it right in its config.

    Args:
        channels: of a picture, or of its latents.
        sample_size: side of these.
        width: channels of the finest level.
        multipliers: of that, for each level.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attended: sides of maps with attention.
        groups: of group normalisation.
        embedding: numbers of each code, of the noise level and of the angle.
        angle: how the angle is told.
        relative: angles are told from the first picture of an object, which all of its streams see; else from the
            heading that objects of the training data share.
        fusing: how streams are fused.
        slots: pictures of a stream, where they are concatenated.
        vae: digest of the one whose latents the pictures are; empty for pixels in [0, 1].
        steps, first, last: of the linear noise schedule that it was trained with.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 3,
        sample_size: int = 64,
        width: int = 64,
        multipliers: Sequence[int | float] = (1, 2, 3, 5),
        blocks: int = 3,
        attended: Sequence[int] = (16,),
        groups: int = 32,
        embedding: int = 32,
        angle: Angle = "raw",
        relative: bool = False,
        fusing: Fusing = "learned",
        slots: int = 6,
        vae: str = "",
        steps: int = 2000,
        first: float = 1e-6,
        last: float = 1e-2,
    ) -> None:
        super().__init__()
        widths = [round(width * factor) for factor in multipliers]
        pictures = slots if fusing == "concatenated" else 1
        inside = channels * (pictures + 1 + (relative and fusing != "concatenated"))
        condition = 2 * embedding
        self.condition = nn.Sequential(
            nn.Linear(condition, 4 * condition), nn.SiLU(), nn.Linear(4 * condition, condition)
        )

        def block(before: int, after: int, side: int | None) -> FusionBlock:
            return FusionBlock(before, after, condition, groups, attention=side is None or side in attended)

        self.downs = nn.ModuleList([nn.Conv2d(inside, width, 3, padding=1)])
        skips, now, side = [width], width, sample_size
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.downs.append(block(now, out, side))
                now = out
                skips.append(now)
            if level < len(widths) - 1:
                self.downs.append(Downsample(now))
                skips.append(now)
                side //= 2
        self.mid = nn.ModuleList([block(now, now, None), FusionBlock(now, now, condition, groups, attention=False)])
        self.ups = nn.ModuleList()
        for level, out in reversed(list(enumerate(widths))):
            for _ in range(blocks + 1):
                self.ups.append(block(now + skips.pop(), out, side))
                now = out
            if level:
                self.ups.append(Upsample(now))
                side *= 2
        made = channels * (2 if fusing == "learned" else 1)
        self.head = nn.ModuleDict({"norm": nn.GroupNorm(groups, now), "conv": nn.Conv2d(now, made, 3, padding=1)})

    def forward(
        self, x: Float[Tensor, "r c h w"], gamma: Float[Tensor, "r"], azimuth: Float[Tensor, "r"]
    ) -> Float[Tensor, "r d h w"]:
        """Noise of rows, and behind it the logits of their weights where these are learned.

        Args:
            x: the picture of reference if there is one, a picture, and the noisy view, on the channel axis.
            gamma: share of signal in the noisy view's variance, in (0, 1).
            azimuth: of the view, radians.
        """
        size = int(self.config["embedding"])
        told = periodic if self.config["angle"] == "periodic" else sinusoids
        dtype = self.dtype
        condition = self.condition(torch.cat([sinusoids(gamma, size), told(azimuth, size)], -1).to(dtype))
        maps, kept = x.to(dtype), []
        for layer in self.downs:
            maps = layer(maps, condition) if isinstance(layer, FusionBlock) else layer(maps)
            kept.append(maps)
        for layer in self.mid:
            maps = layer(maps, condition)
        for layer in self.ups:
            maps = layer(torch.cat([maps, kept.pop()], 1), condition) if isinstance(layer, FusionBlock) else layer(maps)
        out: Tensor = self.head["conv"](F.silu(self.head["norm"](maps)))
        return out


class FusionBlock(nn.Module):
    """A residual block that is told its conditions by a bias for each channel, with self-attention behind it.

    Args:
        before, after: channels.
        condition: numbers of the conditions.
        groups: of normalisation.
        attention: whether it has attention.
    """

    def __init__(self, before: int, after: int, condition: int, groups: int, *, attention: bool) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(groups, before), nn.Conv2d(before, after, 3, padding=1)
        self.bias = nn.Linear(condition, after)
        self.norm2, self.conv2 = nn.GroupNorm(groups, after), nn.Conv2d(after, after, 3, padding=1)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        self.attention = FusionAttention(after, groups) if attention else None

    def forward(self, x: Float[Tensor, "r c h w"], condition: Float[Tensor, "r e"]) -> Float[Tensor, "r d h w"]:
        """The block's maps."""
        maps = self.conv1(F.silu(self.norm1(x))) + self.bias(condition)[..., None, None]
        maps = self.conv2(F.silu(self.norm2(maps))) + self.skip(x)
        return maps if self.attention is None else self.attention(maps)


class FusionAttention(nn.Module):
    """Self-attention of one head over all places of a map, around which the map goes unchanged."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "r c h w"]) -> Float[Tensor, "r c h w"]:
        """The map, and what its places read of each other."""
        q, k, v = self.qkv(self.norm(x)).flatten(2).mT.chunk(3, -1)
        read = F.scaled_dot_product_attention(q, k, v).mT.unflatten(2, x.shape[2:])
        return x + self.out(read)


class Downsample(nn.Module):
    """Half the side, by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Float[Tensor, "r c h w"]) -> Float[Tensor, "r c _ _"]:
        """The smaller map."""
        return self.conv(x)


class Upsample(nn.Module):
    """Twice the side, by repeating places, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Float[Tensor, "r c h w"]) -> Float[Tensor, "r c _ _"]:
        """The larger map."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def sinusoids(x: Float[Tensor, "r"], size: int) -> Float[Tensor, "r size"]:
    """Sines, then cosines, of a number at geometrically falling frequencies from 1."""
    half = size // 2
    frequencies = torch.exp(-math.log(1e4) * torch.arange(half, device=x.device) / half)
    angles = x[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def periodic(x: Float[Tensor, "r"], size: int) -> Float[Tensor, "r size"]:
    """Sines, then cosines, of whole multiples of an angle."""
    angles = x[:, None].float() * torch.arange(1, size // 2 + 1, device=x.device)
    return torch.cat([angles.sin(), angles.cos()], -1)
