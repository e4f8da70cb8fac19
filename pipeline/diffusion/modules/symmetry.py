"""Where a photo's object has its vertical symmetry plane: a head on the trunk of the coarse volume.

For every heading of a plane's normal the head says how likely a true plane lies within a few degrees of it. It reads
what the frozen trunk makes of the photo, and begins as a copy of the coarse volume's middle, which has learnt where
things are in depth. The plane in which a coarse volume overlaps itself best is no substitute: it is often wrong by tens
of degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel, middle_layers


@dataclass(frozen=True)
class SymmetryGuess:
    """The likeliest vertical symmetry plane of a photo's object.

    Args:
        heading: azimuth of its normal, radians in [0, pi); the photo's camera stands at azimuth 0.
        confidence: how likely it is within 8 degrees of a true one.
        sure: whether that is enough to rely on it.
    """

    heading: float
    confidence: float
    sure: bool


class SymmetryHead(ModelMixin, ConfigMixin):
    """Trunk features to a probability for every heading; see the module's text.

    Args:
        channels, side: of the trunk's features.
        width: of the map that keeps its places.
        hidden: width of the layer between.
        headings: how many, evenly over half a turn.
        dropout: while it is trained.
        threshold: confidence from which a plane is relied on.
    """

    @register_to_config
    def __init__(
        self,
        channels: int = 192,
        side: int = 8,
        width: int = 32,
        hidden: int = 256,
        headings: int = 36,
        dropout: float = 0.4,
        threshold: float = 0.95,
    ) -> None:
        super().__init__()
        self.middle = middle_layers(channels, side)
        self.map = nn.Sequential(nn.Conv2d(channels, width, 1), nn.SiLU(), nn.Dropout(dropout))
        inside = channels + width * side**2
        self.net = nn.Sequential(nn.Linear(inside, hidden), nn.SiLU(), nn.Dropout(dropout), nn.Linear(hidden, headings))

    @classmethod
    def beside(cls, coarse: CoarseVolumeModel) -> SymmetryHead:
        """A head to be trained, whose middle is a copy of the coarse volume's."""
        settings = coarse.settings
        head = cls(channels=settings["channels"][-1], side=settings["image_size"] // 8)
        head.middle.load_state_dict(coarse.middle.state_dict())
        return head

    def forward(self, features: Float[Tensor, "b c s s"]) -> Float[Tensor, "b k"]:
        """Logits for headings ``k * pi / headings``; features as of :meth:`CoarseVolumeModel.features`."""
        x = self.middle(features)
        return self.net(torch.cat([x.mean((2, 3)), self.map(x).flatten(1)], 1))

    @torch.no_grad()
    def chances(self, coarse: CoarseVolumeModel, rgba: Float[Tensor, "b 4 s s"]) -> Float[Tensor, "b k"]:
        """Probabilities of headings; those of a mirrored photo are the same at the opposite headings."""
        one, other = (self(coarse.features(photo).float()) for photo in (rgba, rgba.flip(-1)))
        return ((one + opposite(other)) / 2).sigmoid()

    @torch.no_grad()
    def guess(self, coarse: CoarseVolumeModel, rgba: Float[Tensor, "b 4 s s"]) -> list[SymmetryGuess]:
        """The likeliest plane of each photo, from what the head says of the photo and of its mirror image.

        Args:
            coarse: the model whose trunk the head was trained on.
            rgba: the prepared photos on white and their alpha, [-1, 1].
        """
        chance = self.chances(coarse, rgba)
        found = []
        for row, best in zip(chance, chance.argmax(1).tolist(), strict=True):
            confidence = float(row[best])
            found.append(SymmetryGuess(peak(row, best) % math.pi, confidence, confidence >= self.config["threshold"]))
        return found


def opposite(headings: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Values of headings as the mirrored photo has them: 0 stays, k becomes -k."""
    return headings.flip(1).roll(1, 1)


def peak(chance: Float[Tensor, "k"], best: int) -> float:
    """Heading of the middle of the peak around the likeliest heading, radians."""
    count = len(chance)
    near = torch.arange(-2, 3, device=chance.device)
    weight = (chance[(best + near) % count] - 0.7 * chance[best]).clamp(min=0)
    return (best + float((near * weight).sum() / weight.sum())) * math.pi / count
