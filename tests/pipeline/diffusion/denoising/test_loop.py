"""The denoising loop: exact with a perfect network, independent of the batch, honest in what it counts and tells."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffusion.denoising.loop import RowNoise, denoise, view_seeds
from pipeline.diffusion.denoising.schedule import NoiseSchedule, timestep_pairs, trailing_timesteps
from pipeline.diffusion.modules.attention import AttentionHook, Step

CONFIG: dict[str, object] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
V: dict[str, object] = {**CONFIG, "prediction_type": "v_prediction"}
SCHEDULES = {
    "epsilon": NoiseSchedule.of_config(CONFIG),
    "v": NoiseSchedule.of_config(V),
    "zero terminal": NoiseSchedule.of_config({**V, "rescale_betas_zero_snr": True}),
}
SHAPE = (2, 3, 3)
CPU = torch.device("cpu")


class Recorder(AttentionHook):
    """Writes down the steps and passes that it is notified of."""

    def __init__(self) -> None:
        self.passes: list[Step] = []
        self.ends: list[Step] = []

    def begin_pass(self, step: Step) -> None:
        self.passes.append(step)

    def end_step(self, step: Step) -> None:
        self.ends.append(step)


def perfect(schedule: NoiseSchedule, clean: torch.Tensor) -> object:
    """The network that knows the answer."""

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        return schedule.target(clean, schedule.eps_from_x0(z, clean, t), torch.full((len(z),), t))

    return predict


def network(z: torch.Tensor, t: int) -> torch.Tensor:
    """Some function that treats rows alike and apart."""
    return torch.tanh(z + t / 500) * 0.5


@settings(max_examples=40)
@given(
    timesteps=st.sets(st.integers(1, 998), min_size=1, max_size=12),
    kind=st.sampled_from(sorted(SCHEDULES)),
    eta=st.sampled_from([0.0, 0.4, 1.0]),
    passes=st.integers(1, 3),
)
def test_a_perfect_network_recovers_the_clean_latents_on_any_path(
    timesteps: set[int], kind: str, eta: float, passes: int
) -> None:
    schedule = SCHEDULES[kind]
    clean = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(3))
    noise = RowNoise.of([1, 2])
    out = denoise(
        perfect(schedule, clean),
        noise.draw(SHAPE, CPU),
        schedule,
        timestep_pairs(sorted(timesteps)[::-1]),
        noise=noise,
        eta=eta,
        passes=lambda t: passes,
    )  # type: ignore[arg-type]
    assert torch.allclose(out, clean, atol=2e-3)


def test_from_pure_noise_at_zero_signal() -> None:
    schedule = SCHEDULES["zero terminal"]
    clean = torch.randn(1, *SHAPE)
    out = denoise(
        perfect(schedule, clean),
        torch.randn(1, *SHAPE),
        schedule,
        timestep_pairs(trailing_timesteps(20)),
        noise=RowNoise.of([0]),
        eta=1.0,
    )  # type: ignore[arg-type]
    assert torch.allclose(out, clean, atol=1e-4)


def test_ending_above_the_clean_end_leaves_its_noise() -> None:
    """The last pair decides where the loop stops."""
    schedule = SCHEDULES["epsilon"]
    clean, z = torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    out = denoise(perfect(schedule, clean), z, schedule, [(900, 300)], noise=RowNoise.of([0]))  # type: ignore[arg-type]
    assert torch.allclose(schedule.eps_from_x0(out, clean, 300), schedule.eps_from_x0(z, clean, 900), atol=1e-4)


def test_rows_do_not_depend_on_the_rows_beside_them() -> None:
    schedule, pairs = SCHEDULES["v"], timestep_pairs([900, 500, 100])

    def run(seeds: list[int]) -> torch.Tensor:
        noise = RowNoise.of(seeds)
        return denoise(network, noise.draw(SHAPE, CPU), schedule, pairs, noise=noise, eta=1.0, passes=lambda t: 2)

    together = run([11, 22, 33])
    assert torch.allclose(run([22])[0], together[1], atol=1e-6)
    assert torch.allclose(run([33, 11]), together[[2, 0]], atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_noise_continues_and_differs_between_draws() -> None:
    noise = RowNoise.of([7, 7])
    first, second = noise.draw((1000,), CPU), noise.draw((1000,), CPU)
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert abs(float(first.mean())) < 0.15
    assert float(first.std()) == pytest.approx(1, abs=0.1)


def test_deterministic_sampling_draws_no_noise() -> None:
    """The first draw after the loop is the second of the generator, so that eta = 0 runs repeat whatever the steps."""
    noise, twin = RowNoise.of([5]), RowNoise.of([5])
    denoise(network, noise.draw(SHAPE, CPU), SCHEDULES["v"], timestep_pairs([800, 200]), noise=noise)
    twin.draw(SHAPE, CPU)
    assert torch.equal(noise.draw(SHAPE, CPU), twin.draw(SHAPE, CPU))


@pytest.mark.parametrize("kind", sorted(SCHEDULES))
def test_a_pass_begins_with_what_the_one_before_left_noised_up_again(kind: str) -> None:
    schedule, met = SCHEDULES[kind], list[torch.Tensor]()

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        met.append(z)
        return network(z, t)

    start = torch.randn(1, *SHAPE, generator=torch.Generator().manual_seed(4))
    denoise(predict, start, schedule, [(900, 700), (700, 100)], noise=RowNoise.of([8]), passes=lambda t: 2)
    clean, eps = schedule.predict_x0_eps(network(start, 900), start, 900)
    again = schedule.renoise(schedule.ddim(clean, eps, 900, 700), 700, 900, RowNoise.of([8]).draw(SHAPE, CPU))
    assert len(met) == 4
    assert torch.equal(met[1], again)
    clean, eps = schedule.predict_x0_eps(network(again, 900), again, 900)
    assert torch.equal(met[2], schedule.ddim(clean, eps, 900, 700))


def test_passes_are_counted_and_hooks_notified() -> None:
    calls: list[int] = []
    hook, ends = Recorder(), []

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        calls.append(t)
        return network(z, t)

    denoise(
        predict,
        torch.randn(1, *SHAPE),
        SCHEDULES["v"],
        timestep_pairs([900, 600, 300]),
        noise=RowNoise.of([0]),
        passes=lambda t: 3 if t > 500 else 1,
        hooks=[hook],
        on_step=ends.append,
    )
    assert calls == [900, 900, 900, 600, 600, 600, 300]
    assert [(s.index, s.t, s.pass_index, s.passes) for s in hook.passes] == [
        (0, 900, 0, 3),
        (0, 900, 1, 3),
        (0, 900, 2, 3),
        (1, 600, 0, 3),
        (1, 600, 1, 3),
        (1, 600, 2, 3),
        (2, 300, 0, 1),
    ]
    assert [(s.index, s.count) for s in hook.ends] == [(0, 3), (1, 3), (2, 3)]
    assert ends == hook.ends


def test_resampling_passes_change_the_result_and_end_at_the_same_level() -> None:
    schedule, pairs, start = SCHEDULES["v"], timestep_pairs([900, 400]), torch.randn(1, *SHAPE)
    once = denoise(network, start, schedule, pairs, noise=RowNoise.of([1]))
    twice = denoise(network, start, schedule, pairs, noise=RowNoise.of([1]), passes=lambda t: 2)
    assert not torch.allclose(once, twice)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_guidance_replaces_the_clean_estimate(kind: str) -> None:
    """Whatever the network says, a guide that knows the answer gets it."""
    schedule, clean = SCHEDULES[kind], torch.randn(2, *SHAPE)
    out = denoise(
        network,
        torch.randn(2, *SHAPE),
        schedule,
        timestep_pairs([900, 500, 20]),
        noise=RowNoise.of([0, 1]),
        guide=lambda z, estimate, t: clean,
    )
    assert torch.allclose(out, clean, atol=1e-4)


def test_guidance_keeps_the_latents_and_moves_the_noise() -> None:
    """Half way down: the guided clean estimate with the noise that explains the latents it was made from."""
    schedule, clean, z = SCHEDULES["v"], torch.randn(1, *SHAPE), torch.randn(1, *SHAPE)
    out = denoise(network, z, schedule, [(800, 300)], noise=RowNoise.of([0]), guide=lambda z, estimate, t: clean)
    assert torch.allclose(out, schedule.ddim(clean, schedule.eps_from_x0(z, clean, 800), 800, 300), atol=1e-5)
    assert not torch.allclose(
        schedule.predict_x0_eps(network(z, 800), z, 800)[1], schedule.eps_from_x0(z, clean, 800), atol=0.1
    )


def test_an_idle_guide_changes_nothing() -> None:
    start, pairs = torch.randn(1, *SHAPE), timestep_pairs([900, 500, 20])
    for schedule in SCHEDULES.values():
        free = denoise(network, start, schedule, pairs, noise=RowNoise.of([0]))
        idle = denoise(network, start, schedule, pairs, noise=RowNoise.of([0]), guide=lambda z, clean, t: clean)
        assert torch.allclose(free, idle, atol=1e-4)


def test_latents_change_before_every_pass_once_hooks_know_of_it() -> None:
    """What a change brings about is what the network meets and what the update starts from."""
    schedule, told, hook = SCHEDULES["v"], list[tuple[int, int]](), Recorder()

    def before(z: torch.Tensor, step: Step) -> torch.Tensor:
        assert hook.passes[-1] == step
        told.append((step.index, step.pass_index))
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (slope,) = torch.autograd.grad((leaf**2).sum(), leaf)
        return z - slope / 4

    start = torch.randn(1, *SHAPE)
    with torch.no_grad():
        out = denoise(
            network,
            start,
            schedule,
            [(900, 700), (700, 100)],
            noise=RowNoise.of([0]),
            passes=lambda t: 2 if t == 900 else 1,
            hooks=[hook],
            before=before,
        )
        last = denoise(network, start, schedule, [(900, 700)], noise=RowNoise.of([0]), before=lambda z, step: z / 2)
        plain = denoise(network, start / 2, schedule, [(900, 700)], noise=RowNoise.of([0]))
    assert told == [(0, 0), (0, 1), (1, 0)]
    assert torch.equal(last, plain)
    assert torch.isfinite(out).all()


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30))
def test_a_view_keeps_its_seed_whatever_the_number_of_views(seed: int, few: int, many: int) -> None:
    few, many = min(few, many), max(few, many)
    assert view_seeds(seed, many)[:few] == view_seeds(seed, few)
    assert len(set(view_seeds(seed, many)) | set(view_seeds(seed + 1, many))) == 2 * many
    assert all(0 <= s < 2**63 for s in view_seeds(seed, many))
