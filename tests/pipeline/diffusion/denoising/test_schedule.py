"""Noise schedules against diffusers' DDIM, and the laws of the forward process."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st

from pipeline.diffusion.denoising.loop import RowNoise, denoise
from pipeline.diffusion.denoising.schedule import (
    FINAL,
    NoiseSchedule,
    leading_timesteps,
    timestep_pairs,
    trailing_timesteps,
)
from scene.errors import InputError

ZERO123: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "prediction_type": "epsilon",
}
NANO = {
    **ZERO123,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
}
LINEAR = {**ZERO123, "beta_schedule": "linear"}


def network(z: torch.Tensor, t: int) -> torch.Tensor:
    """Some smooth function of latents and timestep."""
    return torch.tanh(0.7 * z + 0.1 * z.roll(1, -1) + t / 700)


# --- against diffusers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [ZERO123, NANO, LINEAR], ids=["zero123", "nano", "linear"])
def test_signal_levels_are_those_of_diffusers(config: dict[str, Any]) -> None:
    ours, theirs = NoiseSchedule.of_config(config), DDIMScheduler(**config)
    assert len(ours) == 1000
    assert torch.allclose(ours.alphas_cumprod, theirs.alphas_cumprod, atol=1e-5)
    assert ours.at(FINAL) == pytest.approx(float(theirs.final_alpha_cumprod), abs=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [7, 25, 50])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_equals_diffusers_on_uniform_leading_spacing(prediction: str, steps: int, eta: float) -> None:
    config = {**ZERO123, "prediction_type": prediction}
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    assert leading_timesteps(steps) == scheduler.timesteps.tolist()
    start = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    draws, theirs = RowNoise.of([1, 2, 3]), start
    for t in scheduler.timesteps:
        fresh = draws.draw((4, 8, 8), torch.device("cpu")) if eta else None
        theirs = scheduler.step(network(theirs, int(t)), t, theirs, eta=eta, variance_noise=fresh).prev_sample
    ours = denoise(
        network,
        start,
        NoiseSchedule.of_config(config),
        timestep_pairs(leading_timesteps(steps)),
        noise=RowNoise.of([1, 2, 3]),
        eta=eta,
    )
    assert torch.allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("steps", [1, 7, 10, 30, 76])
def test_trailing_timesteps_are_those_of_diffusers(steps: int) -> None:
    scheduler = DDIMScheduler(**NANO)
    scheduler.set_timesteps(steps)
    assert trailing_timesteps(steps) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_ddim_equals_diffusers_with_zero_terminal_snr(steps: int) -> None:
    """diffusers steps by a fixed stride, so only numbers that divide 1000 compare."""
    scheduler = DDIMScheduler(**NANO)
    scheduler.set_timesteps(steps)
    start = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    theirs = start
    for t in scheduler.timesteps:
        theirs = scheduler.step(network(theirs, int(t)), t, theirs).prev_sample
    ours = denoise(
        network,
        start,
        NoiseSchedule.of_config(NANO),
        timestep_pairs(trailing_timesteps(steps)),
        noise=RowNoise.of([1, 2]),
    )
    assert torch.allclose(ours, theirs, atol=2e-4)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_forward_process_and_targets_equal_diffusers(prediction: str) -> None:
    config = {**ZERO123, "prediction_type": prediction}
    ours, theirs = NoiseSchedule.of_config(config), DDIMScheduler(**config)
    clean, noise, t = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2), torch.tensor([0, 10, 500, 999])
    assert torch.allclose(ours.add_noise(clean, noise, t), theirs.add_noise(clean, noise, t), atol=1e-5)
    wanted = noise if prediction == "epsilon" else theirs.get_velocity(clean, noise, t)
    assert torch.allclose(ours.target(clean, noise, t), wanted, atol=1e-5)


# --- laws -------------------------------------------------------------------------------------------------------------


def test_zero_terminal_snr_ends_in_pure_noise_and_keeps_the_first_level() -> None:
    plain, nano = NoiseSchedule.of_config(ZERO123), NoiseSchedule.of_config(NANO)
    assert float(nano.alphas_cumprod[-1]) == 0
    assert float(nano.alphas_cumprod[0]) == pytest.approx(float(plain.alphas_cumprod[0]))
    assert (nano.alphas_cumprod.diff() < 0).all()
    noise = torch.randn(1, 4)
    assert torch.equal(nano.add_noise(torch.randn(1, 4), noise, torch.tensor([999])), noise)


@pytest.mark.parametrize("config", [ZERO123, {**ZERO123, "prediction_type": "v_prediction"}, NANO])
@pytest.mark.parametrize("t", [0, 300, 998])
def test_splitting_the_target_gives_clean_and_noise_back(config: dict[str, Any], t: int) -> None:
    schedule = NoiseSchedule.of_config(config)
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    times = torch.full((2,), t)
    z = schedule.add_noise(clean, noise, times)
    got_clean, got_noise = schedule.predict_x0_eps(schedule.target(clean, noise, times), z, t)
    tolerance = 2e-4 / math.sqrt(schedule.at(t)) if schedule.prediction == "epsilon" else 1e-4
    assert torch.allclose(got_clean, clean, atol=tolerance)
    assert torch.allclose(got_noise, noise, atol=1e-4)
    assert torch.allclose(schedule.predict_x0(schedule.target(clean, noise, times), z, times), clean, atol=tolerance)
    assert torch.allclose(schedule.eps_from_x0(z, clean, t), noise, atol=2e-3)


def test_log_snr_falls_and_is_that_of_the_levels() -> None:
    schedule = NoiseSchedule.of_config(ZERO123)
    values = schedule.log_snr(torch.arange(1000))
    assert (values.diff() < 0).all()
    a = schedule.at(400)
    assert float(values[400]) == pytest.approx(math.log(a / (1 - a)), abs=1e-4)
    assert torch.isfinite(NoiseSchedule.of_config(NANO).log_snr(torch.tensor([999]))).all()


@pytest.mark.parametrize(("low", "high"), [(100, 400), (0, 999), (FINAL, 250), (500, 501)])
def test_renoising_keeps_the_marginals(low: int, high: int) -> None:
    """From the distribution at a low timestep to that at a high one, whatever the path."""
    schedule = NoiseSchedule.of_config({**ZERO123, "set_alpha_to_one": True})
    count, clean = 200_000, 1.7
    generator = torch.Generator().manual_seed(0)
    a, b = schedule.at(low), schedule.at(high)
    z = math.sqrt(a) * clean + math.sqrt(1 - a) * torch.randn(count, generator=generator)
    up = schedule.renoise(z, low, high, torch.randn(count, generator=generator))
    error = 4 * math.sqrt((1 - b) / count)
    assert float(up.mean()) == pytest.approx(math.sqrt(b) * clean, abs=error)
    assert float(up.var()) == pytest.approx(1 - b, rel=4 * math.sqrt(2 / count))


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_steps_keep_the_marginals(eta: float) -> None:
    schedule = NoiseSchedule.of_config(ZERO123)
    count, clean = 200_000, torch.tensor(0.6)
    generator = torch.Generator().manual_seed(1)
    z = schedule.add_noise(clean.expand(count), torch.randn(count, generator=generator), torch.full((count,), 800))
    noise = schedule.eps_from_x0(z, clean.expand(count), 800)
    down = schedule.ddim(clean.expand(count), noise, 800, 300, eta, torch.randn(count, generator=generator))
    b = schedule.at(300)
    assert float(down.mean()) == pytest.approx(math.sqrt(b) * 0.6, abs=4 * math.sqrt((1 - b) / count))
    assert float(down.var()) == pytest.approx(1 - b, rel=4 * math.sqrt(2 / count))
    assert not torch.allclose(down, schedule.ddim(clean.expand(count), noise, 800, 300))


# --- timestep lists ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "first"), [(50, 981), (25, 961), (100, 991), (76, 976)])
def test_leading_timesteps_of_zero123(steps: int, first: int) -> None:
    timesteps = leading_timesteps(steps)
    assert (timesteps[0], timesteps[-1], len(timesteps)) == (first, 1, steps)


@given(st.integers(1, 999))
def test_leading_timesteps_fall_within_the_schedule(steps: int) -> None:
    timesteps = leading_timesteps(steps)
    assert len(timesteps) == steps
    assert 999 >= timesteps[0] >= timesteps[-1] == 1
    timestep_pairs(timesteps)


@given(st.integers(1, 1000))
def test_trailing_timesteps_begin_at_the_noisiest(steps: int) -> None:
    timesteps = trailing_timesteps(steps)
    assert len(timesteps) == steps
    assert timesteps[0] == 999
    assert timesteps[-1] >= 0
    timestep_pairs(timesteps)
    if steps > 1:
        gaps = [a - b for a, b in pairwise(timesteps)]
        assert max(gaps) - min(gaps) <= 1


def test_pairs_end_at_the_clean_end() -> None:
    assert timestep_pairs([900, 40, 7]) == [(900, 40), (40, 7), (7, FINAL)]


@pytest.mark.parametrize("timesteps", [[], [3, 3], [1, 5], [9, 4, 6]])
def test_timesteps_must_fall(timesteps: list[int]) -> None:
    with pytest.raises(InputError, match="must fall strictly"):
        timestep_pairs(timesteps)


@pytest.mark.parametrize("spacing", [leading_timesteps, trailing_timesteps])
@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_numbers_of_steps(spacing: Any, steps: int) -> None:
    with pytest.raises(InputError, match=r"must lie in 1\.\."):
        spacing(steps)


def test_leading_spacing_has_no_room_for_every_timestep() -> None:
    """The offset would push the first one past the end of the schedule."""
    with pytest.raises(InputError, match=r"1\.\.999"):
        leading_timesteps(1000)
    assert leading_timesteps(1000, offset=0)[0] == 999


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta_schedule": "squaredcos_cap_v2"}, "beta schedule 'squaredcos_cap_v2' is not supported"),
        ({"prediction_type": "sample"}, "prediction type 'sample' is not supported"),
        ({"rescale_betas_zero_snr": True}, "zero terminal SNR.*Use v_prediction"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps is 'many', not a number"),
        ({"num_train_timesteps": None}, "num_train_timesteps is None, not a number"),
        ({"num_train_timesteps": 0}, r"num_train_timesteps is 0, not within 1 and 100000\. Copy"),
        ({"num_train_timesteps": 10**400}, "num_train_timesteps is 1000.*, not a number"),
        ({"num_train_timesteps": math.inf}, "num_train_timesteps is inf, not within"),
        ({"beta_start": -0.1}, r"beta_start is -0\.1, not within 0 and 1"),
        ({"beta_end": [0.1]}, r"beta_end is \[0\.1\], not a number"),
        ({"beta_end": math.nan}, "beta_end is nan, not within 0 and 1"),
        ({"num_train_timesteps": 1, "rescale_betas_zero_snr": True}, "betas make no noise schedule"),
    ],
)
def test_unsupported_schedules(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        NoiseSchedule.of_config({**ZERO123, **change})


def test_empty_config_is_diffusers_default() -> None:
    assert torch.allclose(NoiseSchedule.of_config({}).alphas_cumprod, DDIMScheduler().alphas_cumprod, atol=1e-5)
