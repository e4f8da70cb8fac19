"""The query field as a nerfstudio model. What is shown is a picture of three components, never the wide queries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.models.base_model import Model, ModelConfig
from nerfstudio.utils import colormaps
from torch import Tensor
from torch.nn import Parameter

from qnerf.field import QueryField
from qnerf.nerfstudio.data import SOURCE, QuerySource
from qnerf.principal import PrincipalAxes
from qnerf.settings import QueryFieldSettings


@dataclass
class QueryModelConfig(ModelConfig):
    """Settings of the query field's model."""

    _target: type = field(default_factory=lambda: QueryModel)
    network: QueryFieldSettings = QueryFieldSettings()
    """Sizes of the field."""
    robust: bool = False
    """Huber's loss in place of the squared error."""
    eval_num_rays_per_chunk: int = 4096
    """Rays in one go when whole pictures are drawn."""


class QueryModel(Model):
    """A query field over the scene box."""

    config: QueryModelConfig
    colour_mean: Tensor
    colour_axes: Tensor
    colour_spread: Tensor

    def populate_modules(self) -> None:
        """Build the field for the layers of the capture's queries; there is no perceptual metric."""
        super().populate_modules()
        source: QuerySource = self.kwargs["metadata"][SOURCE]
        low, high = self.scene_box.aabb.float()
        self.field = QueryField(low, high, source.store.layers, self.config.network)
        self.shown = source.shown
        for name, values in zip(("mean", "axes", "spread"), source.axes, strict=True):
            self.register_buffer(f"colour_{name}", values)
        # The field knows where its box is.
        self.collider = None

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Parameters by the optimiser that moves them."""
        return {group["name"]: list(group["params"]) for group in self.field.parameter_groups(1.0, 1.0)}

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Queries as colours, opacity, and depth along the ray; and what losses need, which is no tensor.

        nerfstudio shows and collects tensors only, so that the rest stays with the rays it was made for.
        """
        samples = self.field.trace(
            ray_bundle.origins, ray_bundle.directions, jitter="sample" if self.training else "none"
        )
        axes = PrincipalAxes(self.colour_mean, self.colour_axes, self.colour_spread)
        return {
            "rgb": axes.colours(self.field.queries(samples, self.shown)),
            "accumulation": samples.opacity[:, None],
            "depth": samples.depth[:, None],
            "samples": samples,
        }

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Error of the queries: mean over rays and channels of each layer, mean over layers."""
        measure = F.huber_loss if self.config.robust else F.mse_loss
        each = [
            measure(self.field.queries(outputs["samples"], layer), target.to(self.device))
            for layer, target in zip(self.field.layers, batch["queries"], strict=True)
        ]
        return {"queries": torch.stack(each).mean()}

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Tensor]:
        """PSNR of the colours."""
        return {"psnr": torch.tensor(_psnr(outputs["rgb"], batch["principal"].to(self.device)))}

    def get_image_metrics_and_images(
        self, outputs: dict[str, Any], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """A picture of a view's own queries beside the rendered ones."""
        own = batch["principal"].to(self.device)
        drawn = {
            "img": torch.cat([own, outputs["rgb"]], 1),
            "accumulation": colormaps.apply_colormap(outputs["accumulation"]),
            "depth": colormaps.apply_depth_colormap(outputs["depth"], accumulation=outputs["accumulation"]),
        }
        return {"psnr": _psnr(outputs["rgb"], own)}, drawn


def _psnr(one: Tensor, other: Tensor) -> float:
    return -10 * math.log10(max(float((one - other).detach().square().mean()), 1e-10))
