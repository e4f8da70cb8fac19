"""The original's latents at every noise level: by DDIM inversion, or with one fixed noise.

Both give a trajectory ``[t + 1, r, c, h, w]``: the latents at each of the falling timesteps, and the clean ones last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.denoising.loop import Latents, Predict
from pipeline.diffusion.denoising.schedule import NoiseSchedule, timestep_pairs
from scene.errors import InputError

Trajectory = Float[Tensor, "levels r c h w"]


def inverted(predict: Predict, clean: Latents, schedule: NoiseSchedule, timesteps: Sequence[int]) -> Trajectory:
    """DDIM upwards: the latents that denoising would have come from.

    The noise of a move is predicted at the noisier of its two timesteps, from the latents of the cleaner one. Denoising
    predicts it there too, from other latents, so a round trip errs by the length of the steps, to first order; it is
    exact where the noise does not depend on the latents.

    Args:
        predict: the network's prediction for latents at a timestep.
        clean: normalised latents.
        schedule: the diffusion process.
        timesteps: falling, as denoising will go.

    Raises:
        InputError: the timesteps do not fall, or the process keeps no signal at its end.

    Source: MasaCtrl (Cao et al. 2023), as in its code; Denoising Diffusion Implicit Models, section 4.3.
    """
    _require_signal(schedule)
    levels = [clean]
    for t, cleaner in reversed(timestep_pairs(list(timesteps))):
        z = levels[-1]
        noise = schedule.predict_x0_eps(predict(z, t), z, t)[1]
        # Not through NoiseSchedule.ddim: the clean end has no noise, which that would divide by.
        a, b = schedule.at(cleaner), schedule.at(t)
        estimate = (z - math.sqrt(1 - a) * noise) / math.sqrt(a)
        levels.append(math.sqrt(b) * estimate + math.sqrt(1 - b) * noise)
    return torch.stack(levels[::-1])


def noised(clean: Latents, schedule: NoiseSchedule, timesteps: Sequence[int], noise: Latents) -> Trajectory:
    """The forward process with the same noise at every level: exact, and without a pass of the network.

    Args:
        clean: normalised latents.
        schedule: the diffusion process.
        timesteps: falling, as denoising will go.
        noise: standard normal.

    Raises:
        InputError: the timesteps do not fall, or the process keeps no signal at its end.
    """
    _require_signal(schedule)
    timestep_pairs(list(timesteps))
    return torch.stack([*(noised_at(clean, schedule, t, noise) for t in timesteps), clean])


def noised_at(clean: Latents, schedule: NoiseSchedule, t: int, noise: Latents) -> Latents:
    """One level of :func:`noised`."""
    return schedule.add_noise(clean, noise, torch.full((len(clean),), t, device=clean.device))


def _require_signal(schedule: NoiseSchedule) -> None:
    if schedule.zero_terminal_snr:
        raise InputError(
            "a process that keeps no signal at its last timestep cannot be inverted",
            fix="Use a model that was trained without rescaled betas.",
        )
