"""Views drawn from noise by ViewFusion's network, with a loop of its own: its noise levels are continuous.

Source: Spiegl et al. 2024 (arXiv 2402.02906), section 3.3, which samples by DDPM's ancestral steps (Ho et al. 2020,
arXiv 2006.11239); these are DDIM's (Song et al. 2021, arXiv 2010.02502, equation 12) with an eta of 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.denoising.loop import RowNoise, view_seeds
from pipeline.diffusion.settings import FusionSampling
from pipeline.diffusion.viewfusion.model import Streams, ViewFusionModel


@dataclass(frozen=True, eq=False)
class FusedViews:
    """Views of one object.

    Args:
        views: as the network draws them: pixels about [0, 1], or normalised latents.
        weights: what each picture counted, the mean over channels, in the steps that were kept.
        levels: shares of signal at these steps.
    """

    views: Float[Tensor, "v c h w"]
    weights: Float[Tensor, "k v n h w"]
    levels: Float[Tensor, "k"]


@torch.no_grad()
def sample_fused(
    model: ViewFusionModel,
    pictures: Float[Tensor, "n c h w"],
    azimuths: Float[Tensor, "v"],
    settings: FusionSampling = FusionSampling(),
    *,
    gammas: Float[Tensor, "g"] | None = None,
    seeds: Sequence[int] | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> FusedViews:
    """Draw views of one object from pictures of it.

    Args:
        model: the network.
        pictures: of the object, as the network takes them; for a relative network the first is the reference.
        azimuths: of the views, radians: from the reference, or in the heading of the training data.
        settings: how.
        gammas: other noise levels than those of the training, the most signal first.
        seeds: one for each view; by default those of the settings' seed.
        on_step: told the number of steps done, and of all.
    """
    device, count = model.device, len(azimuths)
    levels = (model.gammas if gammas is None else gammas).tolist()
    streams = Streams.of(pictures.to(device), count)
    noise = RowNoise.of(view_seeds(settings.seed, count) if seeds is None else seeds)
    shape, angles = pictures.shape[1:], azimuths.to(device).float()
    chosen = spread(len(levels), settings.steps)
    kept = {chosen[k] for k in spread(len(chosen), settings.keep_weights)}
    view, maps = noise.draw(shape, device), []
    for number, k in enumerate(chosen):
        gamma = levels[k]
        after = levels[chosen[number + 1]] if number + 1 < len(chosen) else 1.0
        signal, amount = math.sqrt(gamma), math.sqrt(1 - gamma)
        found, weights = model.predict(streams, view, view.new_full((count,), gamma), angles, settings.rows)
        clean = (view - amount * found) / signal
        if model.codec is None:
            # Twice the range that pictures have: so it is published.
            clean = clean.clamp(-1, 1)
        found = (view - signal * clean) / amount
        deviation = settings.eta * math.sqrt((1 - after) / (1 - gamma) * (1 - gamma / after))
        view = math.sqrt(after) * clean + math.sqrt(max(0.0, 1 - after - deviation**2)) * found
        if deviation > 0:
            view = view + deviation * noise.draw(shape, device)
        if k in kept:
            maps.append(weights.mean(1).unflatten(0, (count, len(pictures))))
        if on_step is not None:
            on_step(number + 1, len(chosen))
    nothing = view.new_zeros(0, count, len(pictures), *shape[1:])
    shares = torch.tensor([levels[k] for k in chosen if k in kept])
    return FusedViews(view, torch.stack(maps) if maps else nothing, shares)


def spread(count: int, steps: int) -> list[int]:
    """So many of the numbers below ``count``, evenly spread and falling, the largest first; at most all."""
    steps = min(steps, count)
    return [round(count - 1 - k * count / steps) for k in range(steps)]
