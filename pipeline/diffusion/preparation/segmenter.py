"""The nano segmenter: how likely each pixel of a photo belongs to its object.

A U-Net for CPUs: plain convolutions where channels are few, separable ones where they are many. At a sixteenth of the
side every place attends to all others, since what is object and what is surroundings shows only in the whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn


class _Plain(nn.Module):
    """Two 3x3 convolutions, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.second(F.relu(self.first(self.norm(x))))


class _Separable(nn.Module):
    """Depthwise 3x3 convolution, expansion, contraction; added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.widen, self.narrow = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.narrow(F.relu(self.widen(self.norm(self.around(x)))))


class _Attention(nn.Module):
    """Every place looks at all places."""

    def __init__(self, channels: int, side: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.place = nn.Parameter(torch.randn(1, side * side, channels) * 0.02)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        b, c, h, w = x.shape
        tokens = self.norm(x.flatten(2).transpose(1, 2)) + self.place
        q, k, v = self.qkv(tokens).reshape(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.out(seen).transpose(1, 2).reshape(b, c, h, w)


class SegmenterModel(ModelMixin, ConfigMixin):
    """Photo to the object's mask; see the module's text.

    Args:
        image_size: side of the input image, a multiple of 16.
        channels: widths at image_size / 2, / 4, / 8, / 16.
        blocks: how many on each of these levels on the way down.
        fine_channels: width at the full side.
    """

    @register_to_config
    def __init__(
        self,
        image_size: int = 128,
        channels: Sequence[int] = (16, 32, 96, 160),
        blocks: Sequence[int] = (1, 1, 3, 4),
        fine_channels: int = 8,
    ) -> None:
        super().__init__()
        a, b, c, d = channels
        self.stem = nn.Conv2d(3, a, 3, stride=2, padding=1)
        self.down = nn.ModuleList([nn.Conv2d(x, y, 2, stride=2) for x, y in ((a, b), (b, c), (c, d))])
        kinds = (_Plain, _Plain, _Separable, _Separable)
        self.enc = nn.ModuleList([nn.Sequential(*(kinds[k](channels[k]) for _ in range(blocks[k]))) for k in range(3)])
        deep: list[nn.Module] = [kinds[3](d) for _ in range(blocks[3])]
        deep.insert(len(deep) // 2, _Attention(d, image_size // 16))
        self.middle = nn.Sequential(*deep, _Attention(d, image_size // 16))
        self.up = nn.ModuleList([nn.Conv2d(x, y, 1) for x, y in ((d, c), (c, b), (b, a))])
        self.dec = nn.ModuleList(
            [nn.Sequential(*(kinds[k](channels[k]) for _ in range(1 + (k > 0)))) for k in (2, 1, 0)]
        )
        self.coarse = nn.Conv2d(c, 1, 1)
        self.fine_in = nn.Conv2d(3, fine_channels, 3, padding=1)
        self.spread = nn.Conv2d(a, 4 * fine_channels, 1)
        self.head = nn.Sequential(
            nn.Conv2d(2 * fine_channels, fine_channels, 3, padding=1), nn.ReLU(), nn.Conv2d(fine_channels, 1, 1)
        )

    def forward(self, rgb: Float[Tensor, "b 3 s s"]) -> tuple[Float[Tensor, "b 1 s s"], Float[Tensor, "b 1 r r"]]:
        """Logits of the mask.

        Args:
            rgb: sRGB in [0, 1].

        Returns:
            Logits at the input's side, and rough ones at an eighth of it, which only training uses.
        """
        x = (rgb - 0.5) * 4
        fine = F.relu(self.fine_in(x))
        x = F.relu(self.stem(x))
        kept = []
        for enc, down in zip(self.enc, self.down, strict=True):
            kept.append(enc(x))
            x = down(kept[-1])
        x = self.middle(x)
        rough: Tensor | None = None
        for up, dec in zip(self.up, self.dec, strict=True):
            x = dec(F.interpolate(up(x), scale_factor=2.0, mode="bilinear", align_corners=False) + kept.pop())
            rough = self.coarse(x) if rough is None else rough
        assert rough is not None
        spread = F.pixel_shuffle(self.spread(x), 2)
        return self.head(torch.cat([F.relu(spread), fine], dim=1)), rough
