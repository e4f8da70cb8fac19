"""The one denoising loop: every sampler of the project is a set of arguments to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.denoising.schedule import NoiseSchedule
from pipeline.diffusion.modules.attention import AttentionHook, Step

Latents = Float[Tensor, "rows c h w"]
Predict = Callable[[Latents, int], Latents]
Guide = Callable[[Latents, Latents, int], Latents]
Before = Callable[[Latents, Step], Latents]
SEEDS = 2**63 - 1
"""How many seeds there are; rows' seeds go around in them."""
SEED_STRIDE = 7919
"""From the seed of a view to that of the next one of its object."""


@dataclass(frozen=True, eq=False)
class RowNoise:
    """Noise with a generator of its own for every row: a row's draws do not depend on the rows beside it or the device.

    Args:
        seeds: one per row.
    """

    generators: tuple[torch.Generator, ...]

    @classmethod
    def of(cls, seeds: Iterable[int]) -> RowNoise:
        """Generators with these seeds."""
        return cls(tuple(torch.Generator("cpu").manual_seed(seed) for seed in seeds))

    def draw(self, shape: Sequence[int], device: torch.device) -> Float[Tensor, "rows *s"]:
        """Standard normal noise ``[rows, *shape]``; the next draw continues every generator."""
        return torch.stack([torch.randn(tuple(shape), generator=g) for g in self.generators]).to(device)

    def first(self, count: int) -> RowNoise:
        """The same generators, of the first rows only."""
        return RowNoise(self.generators[:count])


def view_seeds(seed: int, count: int) -> list[int]:
    """Seeds of the views of one object: view ``k`` has the same seed whatever the number of views."""
    generator_stride = 1_000_003
    return [(seed * generator_stride + SEED_STRIDE * k) % SEEDS for k in range(count)]


def denoise(
    predict: Predict,
    latents: Latents,
    schedule: NoiseSchedule,
    pairs: Sequence[tuple[int, int]],
    *,
    noise: RowNoise,
    eta: float = 0.0,
    passes: Callable[[int], int] = lambda t: 1,
    renoise: RowNoise | None = None,
    rows: Callable[[int], int] | None = None,
    hooks: Sequence[AttentionHook] = (),
    guide: Guide | None = None,
    before: Before | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Float[Tensor, "left c h w"]:
    """Denoise latents along explicit timestep pairs with DDIM.

    Args:
        predict: the network's prediction for latents at a timestep, guidance included.
        latents: noise at the first timestep, or noised latents to continue from.
        schedule: the diffusion process.
        pairs: falling ``(t, t_next)``, from :func:`pipeline.diffusion.denoising.schedule.timestep_pairs`; any spacing.
        noise: where fresh noise comes from (only drawn from when eta > 0 or a step has several passes).
        eta: 0 for deterministic DDIM, 1 for ancestral sampling.
        passes: U-Net passes at a timestep. Between two passes the latents are noised up from ``t_next`` to ``t`` again
            (resampling).
        renoise: where the noise between passes comes from; ``noise`` if None.
        rows: how many rows, from the first on, are denoised from a timestep on; the others are dropped for good.
        hooks: notified of steps and passes; installing them on the U-Net is up to the caller.
        guide: optional change ``(latents, clean estimate, t) -> clean estimate`` before the update.
        before: optional change of the latents before every pass, once hooks know of it; it may take gradients inside.
        on_step: called after every step, for progress bars.

    Returns:
        Latents at the last ``t_next``, of the rows that were not dropped.
    """
    z, renoise = latents, renoise or noise
    for index, (t, t_next) in enumerate(pairs):
        if rows is not None:
            left = rows(t)
            z, noise, renoise = z[:left], noise.first(left), renoise.first(left)
        count = passes(t)
        for pass_index in range(count):
            step = Step(index, len(pairs), t, pass_index, count)
            for hook in hooks:
                hook.begin_pass(step)
            if before is not None:
                z = before(z, step)
            clean, eps = schedule.predict_x0_eps(predict(z, t), z, t)
            if guide is not None:
                clean = guide(z, clean, t)
                eps = schedule.eps_from_x0(z, clean, t)
            fresh = noise.draw(z.shape[1:], z.device) if eta > 0 else None
            lower = schedule.ddim(clean, eps, t, t_next, eta, fresh)
            if pass_index < count - 1:
                z = schedule.renoise(lower, t_next, t, renoise.draw(z.shape[1:], z.device))
        z = lower
        for hook in hooks:
            hook.end_step(step)
        if on_step is not None:
            on_step(step)
    return z
