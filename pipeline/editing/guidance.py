"""One gradient step on latents, towards given queries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.diffusion.denoising.loop import Latents
from pipeline.editing.queries import Queries, standardised
from qnerf.store import QueryLayer, QueryStore, Statistics, token_weights

DISTANCE_FLOOR = 1e-3
"""Root mean square of standardised differences up to which queries agree: half precision keeps no finer ones."""
_SCALE = 1024.0
"""By which the objective is multiplied before it is differentiated, so that slopes survive half precision."""

Evaluate = Callable[[Latents], tuple[Float[Tensor, "v"], Latents]]
"""Latents of some views to the objective of each, and to the network's prediction for them."""


def objective(
    queries: Queries,
    targets: Queries,
    statistics: Mapping[QueryLayer, Statistics],
    masks: Float[Tensor, "v h w"] | None = None,
    shares: Mapping[QueryLayer, Float[Tensor, "_c"]] | None = None,
) -> Float[Tensor, "v"]:
    """How far queries are from their targets: the distance ``sqrt(mean square + floor^2)`` of each layer, summed.

    Args:
        queries: of some views, in any precision; with gradients if they have some.
        targets: standardised, of the same views.
        statistics: that the queries are standardised with.
        masks: how much each token counts; a view of which none does is at the floor.
        shares: how much each channel counts against others of its layer, and by their mean each layer against others;
            all alike if None. See :func:`explained_shares`.

    Returns:
        Of each view, in single precision; :func:`least` where queries agree.

    Source: QNeRF (Patashnik et al., arXiv 2402.14792), its guidance loss; standardising and the floor are ours.
    """
    distances = []
    layers = layer_weights(shares)
    for layer, values in standardised(queries, statistics).items():
        squares = (values - targets[layer].to(values.device).float()).square()
        if shares is None:
            squares = squares.mean(-1)
        else:
            weight = shares[layer].to(squares)
            squares = (squares * weight).sum(-1) / weight.sum().clamp(min=1e-6)
        if masks is None:
            mean = squares.mean((1, 2))
        else:
            weight = token_weights(masks, layer.side).to(values.device)
            mean = (weight * squares).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1e-6)
        distances.append(layers.get(layer, 1.0) * (mean + DISTANCE_FLOOR**2).sqrt())
    return torch.stack(distances).sum(0)


def layer_weights(shares: Mapping[QueryLayer, Float[Tensor, "_c"]] | None) -> dict[QueryLayer, float]:
    """How much each layer counts, 1 on average: by the mean share of its channels."""
    if shares is None:
        return {}
    means = {layer: float(values.mean()) for layer, values in shares.items()}
    whole = sum(means.values()) / len(means)
    return {layer: mean / whole if whole > 0 else 1.0 for layer, mean in means.items()}


def explained_shares(recorded: QueryStore, rendered: QueryStore) -> dict[QueryLayer, Float[Tensor, "_c"]]:
    """How much of each channel's variance over all tokens a field explains, squared; in [0, 1].

    Much of a query belongs to its view. A channel of which the field explains little is no measure of whether views
    agree: drawn towards the field's, it would lose what is its own. Squared, since that was better than the share
    itself, and that better than none.

    Args:
        recorded: what the field was fitted to.
        rendered: what it renders for the same views, standardised.
    """
    shares = {}
    for layer in recorded.layers:
        mean, deviation = recorded.statistics(layer)
        left = torch.zeros(layer.channels)
        for view in range(recorded.views):
            own = (recorded.get(layer, view).float() - mean) / deviation
            left += (own - rendered.get(layer, view).float()).square().mean((0, 1)) / recorded.views
        shares[layer] = (1 - left).clamp(0, 1).square()
    return shares


def least(layers: int) -> float:
    """The objective up to which there is nothing to gain: where no layer is farther off than the floor, about."""
    return layers * DISTANCE_FLOOR * 2**0.5


@dataclass(frozen=True, eq=False)
class GuidedStep:
    """A gradient step of some views.

    Args:
        latents: after it.
        prediction: of the network for these latents.
        before, after: the objective of each view, and of each after the step.
        halved: which took half the step, since the whole one would not have lowered the objective.
        kept: which stayed where they were: half the step would not have, either, or there was nothing to gain.
    """

    latents: Latents
    prediction: Latents
    before: Float[Tensor, "v"]
    after: Float[Tensor, "v"]
    halved: Bool[Tensor, "v"]
    kept: Bool[Tensor, "v"]


def guided_step(evaluate: Evaluate, z: Latents, relative_step: float, floor: float) -> GuidedStep:
    """Move every view's latents down the slope of its own objective, by a fraction of their own deviation.

    The slope is brought to unit root mean square, so its size does not matter: ``z - step std(z) g / rms(g)``. No view
    ends with a higher objective than it began with.

    Args:
        evaluate: runs with gradients here; views must not depend on each other.
        z: latents.
        relative_step: length of the step over the deviation of the latents.
        floor: objective up to which a view is left alone, from :func:`least`: there its slope means nothing.

    Source: QNeRF (Patashnik et al., arXiv 2402.14792); the length of the step is not given there, this one is ours.
    """
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        values, prediction = evaluate(leaf)
        (slope,) = torch.autograd.grad(values.sum() * _SCALE, leaf)
    start, best, before = z.detach(), prediction.detach(), values.detach().float()
    flat = slope.float().flatten(1)
    # Scaled by the largest first: squares of slopes may be beyond single precision.
    flat = flat / flat.abs().amax(1, keepdim=True)
    size = flat.square().mean(1, keepdim=True).sqrt()
    spread = start.float().flatten(1).std(1, keepdim=True)
    move = (relative_step * spread * flat / size).view_as(start)
    # Where slopes vanish or run over there is no direction.
    able = torch.isfinite(move).flatten(1).all(1) & torch.isfinite(before) & (before > floor)
    latents, after = start.clone(), before.clone()
    halved, open_rows = torch.zeros_like(able), able.clone()
    with torch.no_grad():
        for factor in (1.0, 0.5):
            if not bool(open_rows.any()):
                break
            tried = torch.where(_rows(open_rows, start), start - factor * move, latents)
            values, prediction = evaluate(tried)
            better = open_rows & (values.float() < before)
            latents = torch.where(_rows(better, start), tried, latents)
            best = torch.where(_rows(better, start), prediction.float(), best)
            after = torch.where(better, values.float(), after)
            halved = halved | (better if factor < 1 else torch.zeros_like(better))
            open_rows = open_rows & ~better
    return GuidedStep(latents, best, before, after, halved, open_rows | ~able)


def _rows(chosen: Bool[Tensor, "v"], like: Tensor) -> Bool[Tensor, "v 1 1 1"]:
    return chosen.view(-1, *([1] * (like.ndim - 1)))
