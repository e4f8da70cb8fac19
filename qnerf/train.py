"""Fitting a query field to the queries that a network had at one step of denoising.

A ray is drawn through the centre of a token of the finest layers. It is compared with these layers' own tokens, and
with coarser maps where they lie between tokens at the same point of the picture.

Source: QNeRF (Patashnik et al., arXiv 2402.14792); a depth likelihood in the manner of DS-NeRF (Deng et al. 2022).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from qnerf.field import QueryField, RaySamples
from qnerf.rays import token_rays
from qnerf.settings import FieldTrainingSettings
from qnerf.store import QueryLayer, QueryStore, Statistics, token_weights
from scene.camera import Camera
from scene.errors import InputError

_TINY = 1e-6


@dataclass(frozen=True)
class FieldReport:
    """How a fit went.

    Args:
        first, last: loss of each layer at the first step, and its mean over the last tenth of the steps. Squared errors
            of standardised queries, so 1 is what their mean would give.
        losses: sum of all terms at each step.
        distances: of each layer, root mean square of the difference between a view's own and rendered queries over
            the deviation, over the tokens of all views, weighted by the masks where there are some.
        statistics: that the queries were standardised with.
        seconds: that the fit took, with the distances.
    """

    first: Mapping[QueryLayer, float]
    last: Mapping[QueryLayer, float]
    losses: tuple[float, ...]
    distances: Mapping[QueryLayer, float]
    statistics: Mapping[QueryLayer, Statistics]
    seconds: float


def train_field(
    field: QueryField,
    store: QueryStore,
    cameras: Sequence[Camera],
    settings: FieldTrainingSettings = FieldTrainingSettings(),
    *,
    masks: Float[Tensor, "views side side"] | None = None,
    depths: Float[Tensor, "views side side"] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FieldReport:
    """Fit a field, from where it is: a second call with the same field is a warm start, with a fresh optimiser.

    The field learns standardised queries; their mean and deviation (in the report) are over all views, and over the
    masks where these are given, since queries outside count for nothing then.

    Args:
        field: is changed, on its own device.
        store: queries of all views; it may have more layers than the field.
        cameras: of the pictures, one for each view.
        settings: steps and weights.
        masks: how much each token of the finest grid counts, in [0, 1]; also what ``opacity_weight`` pulls opacity to.
        depths: z-depth at each token's centre, world units, 0 where unknown; used by ``depth_weight``.
        seed: of the rays and of the samples along them. Equal on a CPU: equal seed, equal field.
        progress: called with (step, steps) after each step. What it raises ends the fit and reaches the caller.

    Raises:
        InputError: views, cameras, masks and depths do not go together, a view lacks queries, or a picture is not
            square.
    """
    since = time.monotonic()
    side = max(layer.side for layer in field.layers)
    _require_fit(field, store, cameras, side, masks, depths)
    device = field.low.device
    rays = [token_rays(camera, side) for camera in cameras]
    origins = torch.stack([origin[0, 0] for origin, _ in rays])
    directions = torch.stack([direction.flatten(0, 1) for _, direction in rays])
    forward = torch.stack([torch.from_numpy(camera.forward).float() for camera in cameras])
    statistics = {layer: store.statistics(layer, masks) for layer in field.layers}
    optimiser = torch.optim.Adam(
        field.parameter_groups(settings.grid_rate, settings.network_rate), betas=(0.9, 0.99), eps=1e-15
    )
    base = [group["lr"] for group in optimiser.param_groups]
    generator = torch.Generator().manual_seed(seed)
    # Without an opacity to learn from, rays that count for nothing would be wasted.
    chosen = masks.cpu().flatten().nonzero()[:, 0] if masks is not None and not settings.opacity_weight else None
    total = store.views * side * side if chosen is None else len(chosen)
    by_layer: list[Tensor] = []
    losses: list[Tensor] = []
    for step in range(settings.steps):
        decay = settings.final_rate ** (step / max(1, settings.steps - 1)) if settings.final_rate else 1.0
        for group, rate in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = rate * decay
        drawn = torch.randint(total, (settings.rays,), generator=generator)
        token = drawn if chosen is None else chosen[drawn]
        view, place = token // side**2, token % side**2
        direction = directions[view, place]
        samples = field.trace(origins[view].to(device), direction.to(device), jitter="sample", generator=generator)
        weight = None if masks is None else masks.reshape(store.views, -1)[view, place].to(device)
        each = torch.stack(
            [
                _layer_loss(field, samples, layer, store, statistics[layer], view, place, side, weight, settings.robust)
                for layer in field.layers
            ]
        )
        loss = each.mean()
        if weight is not None and settings.opacity_weight:
            loss = loss + settings.opacity_weight * _opacity_loss(samples, weight)
        if depths is not None and settings.depth_weight:
            along = (direction * forward[view]).sum(-1)
            ends = (depths.reshape(store.views, -1)[view, place].cpu() / along).to(device)
            loss = loss + settings.depth_weight * _depth_loss(samples, ends, weight)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        by_layer.append(each.detach())
        losses.append(loss.detach())
        if progress is not None:
            progress(step + 1, settings.steps)
    first, last = _ends(by_layer, field.layers)
    distances = _distances(field, store, cameras, statistics, masks)
    curve = tuple(torch.stack(losses).tolist()) if losses else ()
    return FieldReport(first, last, curve, distances, statistics, time.monotonic() - since)


def _layer_loss(
    field: QueryField,
    samples: RaySamples,
    layer: QueryLayer,
    store: QueryStore,
    statistics: Statistics,
    view: Int[Tensor, "r"],
    place: Int[Tensor, "r"],
    side: int,
    weight: Float[Tensor, "r"] | None,
    robust: bool,
) -> Tensor:
    """Squared or robust error of standardised queries: mean over channels, weighted mean over rays."""
    row, column = place // side, place % side
    if layer.side == side:
        found = store.tokens(layer, view, row, column)
    else:
        found = store.sampled(layer, view, (torch.stack([column, row], -1) + 0.5) / side)
    target = ((found - statistics.mean) / statistics.deviation).to(field.low.device)
    rendered = field.queries(samples, layer)
    each = F.huber_loss(rendered, target, reduction="none") if robust else (rendered - target).square()
    return _weighted_mean(each.mean(-1), weight)


def _opacity_loss(samples: RaySamples, mask: Float[Tensor, "r"]) -> Tensor:
    """Cross-entropy of opacities against masks."""
    return F.binary_cross_entropy(samples.opacity.clamp(1e-4, 1 - 1e-4), mask)


def _depth_loss(samples: RaySamples, ends: Float[Tensor, "r"], weight: Float[Tensor, "r"] | None) -> Tensor:
    """Cross-entropy of where rays end against a bell about the known distance, as wide as the samples' spacing.

    Nothing is asked of rays whose end is unknown (0) or outside the box.
    """
    off = (samples.distances - ends[:, None]) / samples.spacing.clamp(min=_TINY)[:, None]
    bell = torch.exp(-off.square() / 2)
    mass = bell.sum(-1)
    # A ray whose end lies in the box has a sample within one spacing of it.
    known = ((ends > 0) & (samples.spacing > 0) & (mass > 0.5)).float()
    each = -(bell * torch.log(samples.weights + _TINY)).sum(-1) / mass.clamp(min=_TINY)
    return _weighted_mean(each, known if weight is None else known * weight)


def _weighted_mean(each: Float[Tensor, "r"], weight: Float[Tensor, "r"] | None) -> Tensor:
    return each.mean() if weight is None else (each * weight).sum() / weight.sum().clamp(min=_TINY)


def _ends(
    by_layer: Sequence[Tensor], layers: Sequence[QueryLayer]
) -> tuple[dict[QueryLayer, float], dict[QueryLayer, float]]:
    if not by_layer:
        return {}, {}
    tail = torch.stack(list(by_layer[-max(1, len(by_layer) // 10) :])).mean(0)
    return dict(zip(layers, by_layer[0].tolist(), strict=True)), dict(zip(layers, tail.tolist(), strict=True))


def _distances(
    field: QueryField,
    store: QueryStore,
    cameras: Sequence[Camera],
    statistics: Mapping[QueryLayer, Statistics],
    masks: Tensor | None,
) -> dict[QueryLayer, float]:
    sums = {layer: [0.0, 0.0] for layer in field.layers}
    for view, camera in enumerate(cameras):
        for side in sorted({layer.side for layer in field.layers}):
            layers = [layer for layer in field.layers if layer.side == side]
            origins, directions = token_rays(camera, side)
            rendered = field.rendered(origins.flatten(0, 1), directions.flatten(0, 1), layers)
            weight = torch.ones(side**2) if masks is None else token_weights(masks[view], side).flatten().cpu()
            for layer in layers:
                mean, deviation = statistics[layer]
                own = (store.get(layer, view).flatten(0, 1) - mean) / deviation
                sums[layer][0] += float((weight * (own - rendered[layer]).square().mean(-1)).sum())
                sums[layer][1] += float(weight.sum())
    return {layer: (error / mass) ** 0.5 for layer, (error, mass) in sums.items()}


def _require_fit(
    field: QueryField,
    store: QueryStore,
    cameras: Sequence[Camera],
    side: int,
    masks: Tensor | None,
    depths: Tensor | None,
) -> None:
    if len(cameras) != store.views:
        raise InputError(f"there are {len(cameras)} cameras for the queries of {store.views} views", where=store.folder)
    for name, maps in (("masks", masks), ("depths", depths)):
        if maps is not None and tuple(maps.shape) != (store.views, side, side):
            raise InputError(f"{name} have the shape {tuple(maps.shape)}, not {(store.views, side, side)}")
    store.require_complete()
