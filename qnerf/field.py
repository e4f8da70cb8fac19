"""The query field: density and features in a box, and a linear head for each attention layer.

Queries decide where things are in a picture, so they are modelled like the colours of a radiance field: a point has one
query for each layer, whatever side it is seen from, and a ray's query is the sum along it by volume rendering.

All queries here are standardised: the mean and the deviation of the step of denoising at hand are the caller's.

Source: QNeRF (Patashnik et al., arXiv 2402.14792); hash grid and truncated exponential as in Instant NGP.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qnerf.settings import QueryFieldSettings
from qnerf.store import QueryLayer
from scene.errors import SettingsError
from scene.hashgrid import HashGrid, HashLayout
from scene.volume_rendering import alpha_from_density, ray_box_span, render_weights, stratified_fractions

_STEEPEST = 15.0
"""Exponent beyond which the exponential stands still: e^15 per box is opaque already."""
_LEAST = 1e-9
"""Weight of a sample below which it counts for nothing."""
_CHUNK = 1 << 11
"""Rays in one go where no gradients are needed: what they take stays near a CPU's cache."""


@dataclass(frozen=True)
class RaySamples:
    """What rays gather on their way through the box.

    Args:
        features: hidden activations, summed by weight: those of an opaque ray are a mean, of an empty one zero.
        weights: of each sample; their sum is the ray's opacity, at most 1.
        distances: of each sample from the ray's origin, world units; zero where a ray misses the box.
        spacing: length that each sample stands for, world units; zero where a ray misses the box.
    """

    features: Float[Tensor, "r f"]
    weights: Float[Tensor, "r n"]
    distances: Float[Tensor, "r n"]
    spacing: Float[Tensor, "r"]

    @property
    def opacity(self) -> Float[Tensor, "r"]:
        """How much of what stands behind the box a ray does not see, in [0, 1]."""
        return self.weights.sum(-1)

    @property
    def depth(self) -> Float[Tensor, "r"]:
        """Mean distance at which a ray ends, world units along it; zero where it hits nothing."""
        return (self.weights * self.distances).sum(-1) / self.opacity.clamp(min=1e-6)


class QueryField(nn.Module):
    """Density and standardised queries in an axis-aligned box, world frame.

    Args:
        low, high: corners of the box, world units.
        layers: that the queries are of; each has a head.
        settings: sizes.
        seed: of the first weights.

    Raises:
        SettingsError: the box is empty, or there is no layer.
    """

    low: Tensor
    high: Tensor

    def __init__(
        self,
        low: Float[Tensor, "3"],
        high: Float[Tensor, "3"],
        layers: Sequence[QueryLayer],
        settings: QueryFieldSettings = QueryFieldSettings(),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not bool((high > low).all()):
            raise SettingsError("the box of a query field needs corners low < high")
        if not layers:
            raise SettingsError("a query field needs a layer")
        self.register_buffer("low", low.float().clone())
        self.register_buffer("high", high.float().clone())
        self.extent = float((high - low).max())
        """Longest side of the box, world units."""
        self.layers, self.settings = tuple(layers), settings
        layout = HashLayout(settings.levels, settings.features, settings.coarsest, settings.finest, settings.log2_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.grid = HashGrid(layout)
            self.trunk = nn.Linear(3 + self.grid.width, settings.width)
            self.density_out = nn.Linear(settings.width, 1)
            self.geometry = nn.Linear(settings.width, settings.geometry)
            self.hidden = nn.Linear(settings.geometry, settings.hidden)
            self.heads = nn.ModuleList(nn.Linear(settings.hidden, layer.channels) for layer in layers)
        self.backgrounds = nn.ParameterList(
            nn.Parameter(torch.zeros(layer.channels)) for layer in layers if settings.background
        )
        nn.init.constant_(self.density_out.bias, math.log(settings.density))

    def parameter_groups(self, grid_rate: float, network_rate: float) -> list[dict[str, Any]]:
        """Groups for an optimiser of Adam's kind.

        Args:
            grid_rate: step of what is looked up as it is: the grid's table and the background queries.
            network_rate: step of everything else.
        """
        looked_up = [self.grid.table, *self.backgrounds]
        known = {id(parameter) for parameter in looked_up}
        networks = [parameter for parameter in self.parameters() if id(parameter) not in known]
        return [
            {"name": "grid", "params": looked_up, "lr": grid_rate},
            {"name": "networks", "params": networks, "lr": network_rate},
        ]

    def density(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n"]:
        """Extinction at world points, per world unit. Points outside the box get that of its border."""
        return self._density(self._encoded(points))

    def trace(
        self,
        origins: Float[Tensor, "r 3"],
        directions: Float[Tensor, "r 3"],
        *,
        jitter: Literal["none", "ray", "sample"] = "none",
        generator: torch.Generator | None = None,
    ) -> RaySamples:
        """Follow rays through the box.

        Features are summed before the heads, which is exact, since these are linear: W sum(w u) + b sum(w) is the sum
        of w (W u + b); so the wide products are made once for a ray, not once for a sample.

        Args:
            origins: world frame.
            directions: unit, from the camera on.
            jitter: see :func:`scene.volume_rendering.stratified_fractions`.
            generator: of the jitter.
        """
        near, far = ray_box_span(origins, directions, self.low, self.high)
        count = self.settings.samples
        spacing = (far - near).clamp(min=0) / count
        fractions = stratified_fractions(len(origins), count, jitter=jitter, generator=generator, device=origins.device)
        hit = spacing > 0
        distances = torch.where(hit, near, 0)[:, None] + fractions * (spacing * count)[:, None]
        # Rays that miss the box have nothing to look up.
        points = origins[hit][:, None] + directions[hit][:, None] * distances[hit][..., None]
        encoded = self._encoded(points)
        found = render_weights(alpha_from_density(self._density(encoded), spacing[hit][:, None].expand(-1, count)))
        # Behind a surface weights fall to numbers so small that a CPU is slower with them, and that no sum notices.
        found = torch.where(found > _LEAST, found, 0)
        # composite() as a product of matrices, which makes no copy as large as the features.
        summed = torch.bmm(found[:, None], self._features(encoded))[:, 0]
        if bool(hit.all()):
            return RaySamples(summed, found, distances, spacing)
        weights = found.new_zeros(len(origins), count).index_put((hit,), found)
        features = summed.new_zeros(len(origins), self.settings.hidden).index_put((hit,), summed)
        return RaySamples(features, weights, distances, spacing)

    def queries(self, samples: RaySamples, layer: QueryLayer) -> Float[Tensor, "r c"]:
        """Standardised queries of one layer of rays that were followed by :meth:`trace`."""
        index = self.layers.index(layer)
        head: Any = self.heads[index]
        opacity = samples.opacity[:, None]
        out: Tensor = F.linear(samples.features, head.weight) + head.bias * opacity
        if self.settings.background:
            out = out + self.backgrounds[index] * (1 - opacity)
        return out

    @torch.no_grad()
    def rendered(
        self, origins: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"], layers: Sequence[QueryLayer]
    ) -> dict[QueryLayer, Float[Tensor, "r c"]]:
        """Standardised queries of rays, without gradients and in parts, so that memory does not grow with the rays.

        Args:
            origins: world frame, on any device.
            directions: unit, from the camera on.
            layers: which.

        Returns:
            Queries of each layer, on the CPU.
        """
        out: dict[QueryLayer, list[Tensor]] = {layer: [] for layer in layers}
        for start, towards in zip(origins.split(_CHUNK), directions.split(_CHUNK), strict=True):
            samples = self.trace(start.to(self.low.device), towards.to(self.low.device))
            for layer in layers:
                out[layer].append(self.queries(samples, layer).cpu())
        return {layer: torch.cat(parts) for layer, parts in out.items()}

    def _encoded(self, points: Tensor) -> Tensor:
        place = (points - self.low) / self.extent
        middle = (self.high - self.low) / (2 * self.extent)
        return F.relu_(self.trunk(torch.cat([2 * (place - middle), self.grid(place)], -1)))

    def _density(self, encoded: Tensor) -> Tensor:
        return truncated_exp(self.density_out(encoded)[..., 0]) / self.extent

    def _features(self, encoded: Tensor) -> Tensor:
        return F.relu_(self.hidden(F.relu_(self.geometry(encoded))))


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, exponent: Tensor) -> Tensor:
        out = torch.exp(exponent.clamp(max=_STEEPEST))
        ctx.save_for_backward(exponent)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (exponent,) = ctx.saved_tensors
        out: Tensor = grad * torch.exp(exponent.clamp(-_STEEPEST, _STEEPEST))
        return out


def truncated_exp(exponent: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """The exponential up to e^15, with a slope that neither vanishes nor runs over.

    Args:
        exponent: any numbers. Below -15 the slope is that at -15, above 15 that at 15, so that no point is lost.

    Source: Instant NGP (Mueller et al. 2022), as in its code.
    """
    out: Tensor = _TruncatedExp.apply(exponent)
    return out
