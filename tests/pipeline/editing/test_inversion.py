"""Trajectories of the original: round trips through denoising, and the forward process's own numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffusion.denoising.loop import RowNoise, denoise
from pipeline.diffusion.denoising.schedule import FINAL, NoiseSchedule, leading_timesteps, timestep_pairs
from pipeline.editing.inversion import inverted, noised
from scene.errors import InputError

CONFIG: dict[str, object] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V: dict[str, object] = {**CONFIG, "prediction_type": "v_prediction"}
SCHEDULES = {
    "epsilon": NoiseSchedule.of_config(CONFIG),
    "v": NoiseSchedule.of_config(V),
    "final alpha below one": NoiseSchedule.of_config({**CONFIG, "set_alpha_to_one": False}),
}
MEAN, DEVIATION = 0.3, 0.7
Predict = Callable[[torch.Tensor, int], torch.Tensor]


def gaussian(schedule: NoiseSchedule) -> Predict:
    """The best network for data of one normal distribution; it is linear in the latents."""

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        a = schedule.at(t)
        gain = math.sqrt(a) * DEVIATION**2 / (a * DEVIATION**2 + 1 - a)
        clean = MEAN + gain * (z - math.sqrt(a) * MEAN)
        return schedule.target(clean, schedule.eps_from_x0(z, clean, t), torch.full((len(z),), t))

    return predict


def clean_latents() -> torch.Tensor:
    return MEAN + DEVIATION * torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))


@settings(max_examples=30)
@given(timesteps=st.sets(st.integers(0, 998), min_size=1, max_size=12), kind=st.sampled_from(sorted(SCHEDULES)))
def test_a_round_trip_is_exact_where_the_noise_does_not_depend_on_the_latents(timesteps: set[int], kind: str) -> None:
    schedule, clean = SCHEDULES[kind], clean_latents()
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(5))

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        a = schedule.at(t)
        return noise if schedule.prediction == "epsilon" else (noise - math.sqrt(1 - a) * z) / math.sqrt(a)

    falling = sorted(timesteps)[::-1]
    levels = inverted(predict, clean, schedule, falling)
    assert levels.shape == (len(falling) + 1, *clean.shape)
    assert torch.equal(levels[-1], clean)
    for start, level in enumerate(levels[:-1]):
        pairs = timestep_pairs(falling)[start:]
        out = denoise(predict, level, schedule, pairs, noise=RowNoise.of([0] * len(clean)))
        assert torch.allclose(out, clean, atol=2e-4)


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
def test_a_round_trip_errs_by_the_length_of_the_steps(kind: str) -> None:
    schedule, clean = SCHEDULES[kind], clean_latents()
    predict = gaussian(schedule)

    def error(steps: int) -> float:
        timesteps = leading_timesteps(steps)
        start = inverted(predict, clean, schedule, timesteps)[0]
        out = denoise(predict, start, schedule, timestep_pairs(timesteps), noise=RowNoise.of([0] * len(clean)))
        return float((out - clean).abs().max())

    few, many = error(50), error(200)
    assert many < 0.02
    assert 3 < few / many < 5.5


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
def test_the_noisiest_level_is_that_of_the_exact_flow(kind: str) -> None:
    """Along the probability flow a normal distribution is only shifted and scaled."""
    schedule, clean = SCHEDULES[kind], clean_latents()
    timesteps = leading_timesteps(500)
    levels = inverted(gaussian(schedule), clean, schedule, timesteps)
    clean_spread = math.sqrt(schedule.at(FINAL) * DEVIATION**2 + 1 - schedule.at(FINAL))
    own = (clean - math.sqrt(schedule.at(FINAL)) * MEAN) / clean_spread
    for index in (0, 250):
        a = schedule.at(timesteps[index])
        exact = math.sqrt(a) * MEAN + math.sqrt(a * DEVIATION**2 + 1 - a) * own
        assert torch.allclose(levels[index], exact, atol=0.03)


def test_noised_latents_have_the_mean_and_the_deviation_of_their_level_and_one_noise() -> None:
    schedule, timesteps = SCHEDULES["epsilon"], [900, 500, 20]
    clean = torch.full((1, 1, 200, 200), 2.0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    levels = noised(clean, schedule, timesteps, noise)
    assert torch.equal(levels[-1], clean)
    for t, level in zip(timesteps, levels, strict=False):
        a = schedule.at(t)
        assert float(level.mean()) == pytest.approx(math.sqrt(a) * 2, abs=0.02)
        assert float(level.std()) == pytest.approx(math.sqrt(1 - a), abs=0.02)
        assert torch.allclose(schedule.eps_from_x0(level, clean, t), noise, atol=1e-4)


def test_a_perfect_network_goes_down_a_noised_trajectory_level_by_level() -> None:
    schedule, timesteps, clean = SCHEDULES["v"], [900, 500, 20], clean_latents()
    levels = noised(clean, schedule, timesteps, torch.randn(clean.shape))

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        return schedule.target(clean, schedule.eps_from_x0(z, clean, t), torch.full((len(z),), t))

    met: list[torch.Tensor] = []
    denoise(
        lambda z, t: (met.append(z), predict(z, t))[1],
        levels[0],
        schedule,
        timestep_pairs(timesteps),
        noise=RowNoise.of([0] * len(clean)),
    )
    assert all(torch.allclose(z, level, atol=1e-4) for z, level in zip(met, levels, strict=False))


def test_a_process_without_signal_at_its_end_is_refused() -> None:
    schedule = NoiseSchedule.of_config({**V, "rescale_betas_zero_snr": True})
    clean = clean_latents()
    with pytest.raises(InputError, match="cannot be inverted"):
        inverted(gaussian(SCHEDULES["v"]), clean, schedule, [500, 20])
    with pytest.raises(InputError, match="cannot be inverted"):
        noised(clean, schedule, [500, 20], clean)


def test_rising_timesteps_are_refused() -> None:
    clean = clean_latents()
    with pytest.raises(InputError, match="fall"):
        inverted(gaussian(SCHEDULES["v"]), clean, SCHEDULES["v"], [20, 500])
    with pytest.raises(InputError, match="fall"):
        noised(clean, SCHEDULES["v"], [20, 500], clean)
