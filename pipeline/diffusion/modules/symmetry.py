"""Where a photo's object has its vertical symmetry plane: a head on the trunk of the coarse volume.

For every heading of a plane's normal the head says how likely a true plane lies within 8 degrees of it. It reads what
the trunk makes of the photo, and for every heading two cues from the coarse volume: how far the volume overlaps its
mirror image, and how much of the mirror image would stand beside the object in the photo. Neither cue is enough: the
plane in which a coarse volume overlaps itself best is often wrong by tens of degrees.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.modules.coarse_volume import CoarseVolume, CoarseVolumeModel, grid_points
from pipeline.diffusion.modules.poses import Poses
from scene.camera import OBJECT_RADIUS

_CUE_RESOLUTION = 16
"""Voxels along each side of the volume that cues are read from."""


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
    """Trunk features and cues to a probability for every heading; see the module's text.

    Args:
        channels, side: of the trunk's features.
        width: of the map that keeps its places.
        hidden: width of the layer between.
        headings: how many, evenly over half a turn.
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
        threshold: float = 0.9,
    ) -> None:
        super().__init__()
        self.map = nn.Sequential(nn.Conv2d(channels, width, 1), nn.SiLU(), nn.Dropout(0.3))
        inside = channels + width * side**2 + 2 * headings
        self.net = nn.Sequential(nn.Linear(inside, hidden), nn.SiLU(), nn.Dropout(0.3), nn.Linear(hidden, headings))

    def forward(self, features: Float[Tensor, "b c s s"], cues: Float[Tensor, "b 2 k"]) -> Float[Tensor, "b k"]:
        """Logits for headings ``k * pi / headings``."""
        return self.net(torch.cat([features.mean((2, 3)), self.map(features).flatten(1), cues.flatten(1)], 1))

    @torch.no_grad()
    def guess(
        self, coarse: CoarseVolumeModel, rgba: Float[Tensor, "b 4 s s"], volume: CoarseVolume
    ) -> list[SymmetryGuess]:
        """The likeliest plane of each photo.

        Args:
            coarse: the model whose trunk the head was trained on.
            rgba: the prepared photos on white and their alpha, [-1, 1].
            volume: what the model made of them.
        """
        count = int(self.config["headings"])
        chance = self(coarse.features(rgba).float(), symmetry_cues(volume, rgba, count)).sigmoid()
        found = []
        for confidence, k in zip(*(values.tolist() for values in chance.max(1)), strict=True):
            sure = confidence >= self.config["threshold"]
            found.append(SymmetryGuess(k * math.pi / count, confidence, sure))
        return found


def symmetry_cues(volume: CoarseVolume, rgba: Float[Tensor, "b 4 s s"], headings: int) -> Float[Tensor, "b 2 k"]:
    """For planes through the origin: overlap (IoU) of volumes with their mirror images, and share of these that the
    photo shows empty.

    Args:
        volume: of the photos, in the photos' world.
        rgba: the photos and their alpha, [-1, 1].
        headings: how many, evenly over half a turn.
    """
    b, r, device = len(volume.occupancy), _CUE_RESOLUTION, rgba.device
    solid = F.adaptive_avg_pool3d(volume.occupancy[:, None].float(), r)
    angle = torch.arange(headings, device=device) * (math.pi / headings)
    normal = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], -1)
    points = grid_points(r, device).reshape(-1, 3)
    mirrored = points - 2 * (normal @ points.T)[..., None] * normal[:, None]
    places = (mirrored / OBJECT_RADIUS).flip(-1).reshape(1, headings * r, r, r, 3).expand(b, -1, -1, -1, -1)
    image = F.grid_sample(solid, places, align_corners=False).reshape(b, headings, r**3)
    here = solid.reshape(b, 1, r**3)
    overlap = torch.minimum(image, here).sum(-1) / torch.maximum(image, here).sum(-1).clamp(min=1e-6)
    pixels, _ = Poses.of_sources(volume.source).project(mirrored.reshape(1, -1, 3).expand(b, -1, -1))
    alpha = (rgba[:, 3:].float() + 1) / 2
    covered = F.grid_sample(alpha, (pixels * 2 - 1)[:, :, None], align_corners=False).reshape(b, headings, r**3)
    beside = ((1 - covered) * here).sum(-1) / here.sum(-1).clamp(min=1e-6)
    return torch.stack([overlap, beside], 1)
