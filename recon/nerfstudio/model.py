"""NeuS on hash grids as a nerfstudio model: signed distances, mask loss, finite-difference gradients, no CUDA needed.

Source: NeuS (Wang et al. 2021) and Neuralangelo (Li et al. 2023), as in recon/neus.py and recon/hash_sdf/field.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackAttributes, TrainingCallbackLocation
from nerfstudio.model_components.scene_colliders import AABBBoxCollider
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from torch import Tensor
from torch.nn import Parameter

from recon.hash_sdf.field import HashField
from recon.hash_sdf.ray_intervals import interval_ends
from recon.neus import neus_alpha
from scene.hashgrid import HashLayout
from scene.volume_rendering import composite, render_weights


@dataclass
class HashSurfaceModelConfig(ModelConfig):
    """Settings of the surface model."""

    _target: type = field(default_factory=lambda: HashSurfaceModel)
    levels: int = 10
    """Levels of the hash grid."""
    coarsest: int = 16
    """Vertices along the box in the first level."""
    finest: int = 256
    """Vertices along the box in the last level."""
    log2_size: int = 17
    """Binary logarithm of the rows of a level."""
    radius: float = 0.4
    """Radius of the first sphere, as a fraction of the box's longest side."""
    directional: bool = False
    """Let colour depend on the viewing direction."""
    probes: int = 64
    """Even samples along a ray that decide where its intervals go."""
    intervals: int = 48
    """Intervals along a ray."""
    background: Literal["random", "white", "black"] = "random"
    """What pictures are laid on while training; white otherwise, where it is random."""
    mask_weight: float = 1.0
    """Weight of the mask loss."""
    eikonal: float = 0.1
    """Weight that keeps distances distances."""
    curvature: float = 5e-4
    """Weight against curvature at the start of the run; it fades until the end."""
    variance: float = 0.3
    """p at the start; the inverse deviation inv_s of the density is exp(10 p), per world unit, as in NeuS."""
    eval_num_rays_per_chunk: int = 4096
    """Rays in one go when whole pictures are drawn."""


class HashSurfaceModel(Model):
    """A hash field over the scene box, rendered with NeuS weights."""

    config: HashSurfaceModelConfig

    def populate_modules(self) -> None:
        """Build the field; there is no perceptual metric, whose weights would come from the network."""
        super().populate_modules()
        settings = self.config
        low, high = self.scene_box.aabb.float()
        self.field = HashField(
            low,
            high,
            layout=HashLayout(settings.levels, 2, settings.coarsest, settings.finest, settings.log2_size),
            radius=settings.radius * float((high - low).max()),
            directional=settings.directional,
        )
        self.variance = Parameter(torch.tensor(settings.variance))
        self.collider = AABBBoxCollider(self.scene_box)
        self.progress = 0.0

    @property
    def inv_s(self) -> Tensor:
        """Inverse deviation of the density, per world unit."""
        return torch.exp(10 * self.variance).clamp(1e-6, 1e6)

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Parameters by the optimiser that moves them."""
        groups = {group["name"]: list(group["params"]) for group in self.field.parameter_groups(1.0)}
        return groups | {"variance": [self.variance]}

    def get_training_callbacks(
        self, training_callback_attributes: TrainingCallbackAttributes
    ) -> list[TrainingCallback]:
        """Bands of the hash grid join as the run goes on."""
        trainer = training_callback_attributes.trainer
        steps = trainer.config.max_num_iterations if trainer is not None else 1

        def progress(step: int) -> None:
            self.progress = min(1.0, step / max(1, steps - 1))
            self.field.set_progress(self.progress)

        return [TrainingCallback([TrainingCallbackLocation.BEFORE_TRAIN_ITERATION], progress, update_every_num_iters=1)]

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """Colour on its background, opacity, distance along the ray, normal; in training also what losses need."""
        origins, directions = ray_bundle.origins, ray_bundle.directions
        near, far = ray_bundle.nears[..., 0], ray_bundle.fars[..., 0]
        ends = interval_ends(
            self.field,
            origins,
            directions,
            near,
            far,
            self.inv_s.detach(),
            probes=self.config.probes,
            count=self.config.intervals,
            jitter=self.training,
        )
        length = ends.diff(dim=-1)
        at_ends = self.field.sdf(origins[:, None] + directions[:, None] * ends[..., None])
        alpha = neus_alpha(
            (at_ends[:, 1:] + at_ends[:, :-1]) / 2, at_ends.diff(dim=-1) / length.clamp(min=1e-6), length, self.inv_s
        )
        weights = render_weights(alpha)
        middle = (ends[:, 1:] + ends[:, :-1]) / 2
        points = origins[:, None] + directions[:, None] * middle[..., None]
        colour = composite(weights, self._colours(points, directions, weights))
        cover = weights.sum(-1, keepdim=True)
        background = self._background(colour.device)
        depth = (weights * middle).sum(-1, keepdim=True) / cover.clamp(min=1e-4)
        outputs = {"rgb": colour + (1 - cover) * background, "accumulation": cover, "depth": depth}
        if self.training:
            outputs["background"] = background
            outputs["gradient"], outputs["laplacian"] = self._derivatives(points, weights)
        else:
            normal = F.normalize(self.field.gradient(origins + depth * directions), dim=-1)
            outputs["normal"] = (normal * 0.5 + 0.5) * cover
        return outputs

    def get_loss_dict(
        self, outputs: dict[str, Tensor], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Colour, mask, and in training the terms that keep the field a distance, and smooth at first."""
        image = batch["image"].to(self.device)
        target, cover = self._on_background(image, outputs), outputs["accumulation"][..., 0]
        losses = {
            "colour": (outputs["rgb"] - target).abs().mean(),
            "mask": self.config.mask_weight * F.binary_cross_entropy(cover.clamp(1e-3, 1 - 1e-3), image[..., 3]),
        }
        if self.training:
            off = (outputs["gradient"].square().sum(-1) + 1e-12).sqrt() - 1
            losses["eikonal"] = self.config.eikonal * off.square().mean()
            fade = self.config.curvature * (1 - self.progress)
            losses["curvature"] = fade * outputs["laplacian"].abs().mean() * self.field.extent / 2
        return losses

    def get_metrics_dict(self, outputs: dict[str, Tensor], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the rays, and the inverse deviation of the density."""
        error = (outputs["rgb"] - self._on_background(batch["image"].to(self.device), outputs)).square().mean()
        return {"psnr": -10 * torch.log10(error.clamp(min=1e-10)).detach(), "inv_s": self.inv_s.detach()}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """A whole picture beside what was drawn."""
        target = self._on_background(batch["image"].to(self.device), outputs)
        error = float((outputs["rgb"] - target).square().mean())
        drawn = {
            "img": torch.cat([target, outputs["rgb"]], 1),
            "accumulation": colormaps.apply_colormap(outputs["accumulation"]),
            "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"]),
            "normal": outputs["normal"],
        }
        return {"psnr": -10 * math.log10(max(error, 1e-10))}, drawn

    def _colours(self, points: Tensor, directions: Tensor, weights: Tensor) -> Tensor:
        """Colours where they count; black where nothing is."""
        counts = weights.detach() > 1e-4
        colours = torch.zeros_like(points)
        chosen, towards = points[counts], directions[:, None].expand_as(points)[counts]
        colours[counts] = self.field.rgb(chosen, directions=towards)
        return colours

    def _derivatives(self, points: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Of the point that each ray sees most of, and of as many points anywhere in the box."""
        seen = weights.argmax(-1)
        chosen = points[torch.arange(len(points), device=points.device), seen]
        low, high = self.field.low, self.field.high
        anywhere = low + (high - low) * torch.rand_like(chosen)
        return self.field.gradient_and_laplacian(torch.cat([chosen, anywhere]))

    def _background(self, device: torch.device) -> Tensor:
        if self.config.background == "random" and self.training:
            return torch.rand(3, device=device)
        return torch.full((3,), float(self.config.background != "black"), device=device)

    def _on_background(self, image: Tensor, outputs: dict[str, Tensor]) -> Tensor:
        background = outputs["background"] if "background" in outputs else self._background(image.device)
        return image[..., :3] * image[..., 3:] + (1 - image[..., 3:]) * background.to(image.device)
