"""Zero-to-Hero: its schedule, its ranges on any latents, the source row, and the whole way on tiny models."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.diffusion.denoising.loop import RowNoise, denoise, view_seeds
from pipeline.diffusion.denoising.schedule import (
    NoiseSchedule,
    Span,
    equivalent_timestep,
    hourglass,
    leading_timesteps,
    reference_schedule,
    timestep_pairs,
    trailing_timesteps,
)
from pipeline.diffusion.methods.mutual_self_attention import MutualSelfAttention
from pipeline.diffusion.methods.zero_to_hero import (
    ZeroToHero,
    method_timesteps,
    plan_zero_to_hero,
    source_seeds,
    with_source_view,
)
from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer, SharedViews, Step, hooked
from pipeline.diffusion.modules.conditioning import Conditioning, Conditions
from pipeline.diffusion.sample import coarse_volume, sample_latents, sample_views, view_conditions
from pipeline.diffusion.settings import SamplingSettings, ZeroToHeroSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion, sample_six_views
from scene.errors import InputError, SettingsError

Make = Callable[..., ViewDiffusion]
FULL = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(4, 2))
UNITED = Conditioning(joint=(4,))
NANO = NoiseSchedule.of_config(
    {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
    }
)
PAPER = [*range(981, 800, -20), *range(701, 200, -100), *range(181, 0, -20)]
SOURCE = torch.tensor([[0.3, 1.1, 0.5, 0.5]])
ORBITS = torch.tensor([[0.6, 0.2, 1.5], [2.0, 0.4, 1.5], [4.0, 0.0, 1.7]])
SHORT = ZeroToHeroSettings(counts=(2, 1, 3), passes=2)
EVERYWHERE = (0, 1000)


def make_conditions(model: ViewDiffusion, orbits: torch.Tensor = ORBITS, objects: int = 1) -> Conditions:
    """Conditions of views of a disc."""
    rng = np.random.default_rng(0)
    rgba = torch.from_numpy(rng.integers(0, 256, (1, 16, 16, 4), dtype=np.uint8)).expand(objects, -1, -1, -1)
    source = SOURCE.expand(objects, 4)
    return view_conditions(model, rgba, source, orbits.expand(objects, -1, 3), coarse_volume(model, rgba, source))


def sampling(**changes: object) -> SamplingSettings:
    """A few steps from noise."""
    usual: dict[str, object] = {"guidance": 2.0, "strength": 1.0, "filtering": "zero-to-hero", "zero_to_hero": SHORT}
    return SamplingSettings(**{**usual, **changes})  # type: ignore[arg-type]


class Recorder(AttentionHook):
    """Writes down timesteps, rows and widths of keys."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int, Layer, int]] = []
        self.t = -1

    def begin_pass(self, step: Step) -> None:
        self.t = step.t

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        self.seen.append((self.t, len(q), layer, k.shape[2] // q.shape[2]))
        return q, k, v


# --- schedule ---------------------------------------------------------------------------------------------------------


def test_the_papers_timesteps() -> None:
    steps = hourglass()
    assert steps == PAPER
    assert len(steps) == 26
    assert [sum(t >= low for t in steps) for low in (600, 700, 800)] == [12, 11, 10]
    assert sum(5 if t >= 800 else 1 for t in steps) == 66


@given(st.data())
def test_hourglasses_fall_and_keep_their_counts(data: st.DataObject) -> None:
    bounds = sorted(data.draw(st.sets(st.integers(0, 1000), min_size=2, max_size=5)))
    counts = [data.draw(st.integers(0, min(12, b - a))) for a, b in itertools.pairwise(bounds)]
    trailing = data.draw(st.booleans())
    if not sum(counts):
        return
    steps = hourglass(bounds, counts, 0, trailing=trailing)
    timestep_pairs(steps)
    assert [sum(a <= t < b for t in steps) for a, b in itertools.pairwise(bounds)] == counts
    if trailing and counts[-1]:
        assert steps[0] == bounds[-1] - 1


@pytest.mark.parametrize(
    ("bounds", "counts"), [((0, 10), (1, 2)), ((5, 5), (1,)), ((0, 3), (4,)), ((0, 9), (0,)), ((0, 3), (3,))]
)
def test_impossible_hourglasses(bounds: tuple[int, ...], counts: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"bounds|offset"):
        hourglass(bounds, counts)


# --- the same meaning on other latents --------------------------------------------------------------------------------


@given(st.integers(0, 1000))
def test_the_reference_translates_to_itself(t: int) -> None:
    assert equivalent_timestep(reference_schedule(), t, 32) == t


def test_known_translations() -> None:
    assert equivalent_timestep(reference_schedule(), 600, 16) == pytest.approx(400, abs=10)
    assert equivalent_timestep(reference_schedule(), 800, 16) == pytest.approx(625, abs=10)
    for schedule in (reference_schedule(), NANO):
        for t in (100, 600, 800):
            sizes = [equivalent_timestep(schedule, t, side) for side in (16, 32, 64)]
            assert sizes == sorted(set(sizes))
            # Signal over noise per picture area is equal, to within a timestep.
            for side, found in zip((16, 32, 64), sizes, strict=True):
                wanted = reference_schedule().log_snr(torch.tensor(t)) + 2 * math.log(32 / side)
                assert schedule.log_snr(torch.tensor(found)) <= wanted <= schedule.log_snr(torch.tensor(found - 1))


@given(st.integers(0, 1000), st.integers(0, 1000), st.sampled_from([8, 16, 32, 64]))
def test_translation_keeps_order_and_ends(a: int, b: int, side: int) -> None:
    low, high = (equivalent_timestep(NANO, t, side) for t in sorted((a, b)))
    assert 0 <= low <= high <= 1000
    assert (equivalent_timestep(NANO, 0, side), equivalent_timestep(NANO, 1000, side)) == (0, 1000)


def test_schedules_of_both_kinds_of_models() -> None:
    assert method_timesteps(reference_schedule(), ZeroToHeroSettings(), 32) == PAPER
    for side in (8, 16, 64):
        steps = method_timesteps(NANO, ZeroToHeroSettings(), side)
        assert steps is not None
        assert steps[0] == 999
        early = equivalent_timestep(NANO, 800, side)
        assert sum(t >= early for t in steps) == 10
    assert method_timesteps(NANO, ZeroToHeroSettings(timesteps=(5, 3)), 16) == [5, 3]
    assert method_timesteps(NANO, ZeroToHeroSettings(hourglass=False), 16) is None


# --- noising up again -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "root", "deviation"),
    [(961, 981, 0.89059, 0.45481), (801, 821, 0.91428, 0.40509), (701, 801, 0.66794, 0.74422)],
)
def test_noise_between_passes(low: int, high: int, root: float, deviation: float) -> None:
    schedule = reference_schedule()
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    assert schedule.renoise(one, low, high, zero).item() == pytest.approx(root, abs=2e-5)
    assert schedule.renoise(zero, low, high, one).item() == pytest.approx(deviation, abs=2e-5)


@given(st.integers(0, 998), st.integers(1, 999), st.booleans())
def test_noising_up_keeps_the_marginal(low: int, more: int, nano: bool) -> None:
    """Mean and variance of what the forward process makes at the higher timestep."""
    schedule, high = NANO if nano else reference_schedule(), min(999, low + more)
    at_low = schedule.at(low)
    mean = schedule.renoise(torch.full((1, 1), math.sqrt(at_low)), low, high, torch.zeros(1, 1)).item()
    assert mean == pytest.approx(math.sqrt(schedule.at(high)), abs=1e-5)
    old = schedule.renoise(torch.full((1, 1), math.sqrt(1 - at_low)), low, high, torch.zeros(1, 1)).item()
    new = schedule.renoise(torch.zeros(1, 1), low, high, torch.ones(1, 1)).item()
    assert old**2 + new**2 == pytest.approx(1 - schedule.at(high), abs=1e-5)


def test_rows_are_dropped_with_their_noise() -> None:
    seen: list[int] = []

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        seen.append(len(z))
        return torch.tanh(z)

    def run(rows: Callable[[int], int] | None, seeds: list[int]) -> torch.Tensor:
        noise = RowNoise.of(seeds)
        start, pairs = noise.draw((2, 3, 3), torch.device("cpu")), timestep_pairs([900, 500, 100])
        return denoise(predict, start, reference_schedule(), pairs, noise=noise, eta=1.0, passes=lambda t: 2, rows=rows)

    out = run(lambda t: 3 if t > 600 else 2, [1, 2, 3])
    assert seen == [3, 3, 2, 2, 2, 2]
    assert torch.allclose(out, run(None, [1, 2]), atol=1e-5)


# --- mutual self-attention --------------------------------------------------------------------------------------------


def test_views_read_the_source_in_place_of_themselves() -> None:
    """Rows of two objects, counted; alone, and behind the sharing of models with a source row."""
    layer = Layer("decoder", 8, 0)
    k = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 3, 5)
    for before in (None, SharedViews(3), SharedViews(3, joint=(8,))):
        hook = MutualSelfAttention(3, Span(600, 1000), (8,))
        q, wide_k, wide_v = (k, k, k + 100) if before is None else before.project(layer, k, k, k + 100)
        hook.begin_pass(Step(0, 1, 700))
        same_q, new_k, new_v = hook.project(layer, q, wide_k, wide_v)
        read = torch.tensor([0.0, 0, 0, 3, 3, 3]).view(6, 1, 1, 1).expand(6, 2, 3, 5)
        assert torch.equal(same_q, q)
        assert torch.equal(new_k, read)
        assert torch.equal(new_v, read + 100)
        for elsewhere in (Layer("encoder", 8, 0), Layer("decoder", 4, 0)):
            assert hook.project(elsewhere, q, wide_k, wide_v)[1] is wide_k
        hook.begin_pass(Step(0, 1, 599))
        assert hook.project(layer, q, wide_k, wide_v)[1] is wide_k


def test_the_source_can_be_left_alone_in_guidances_second_call() -> None:
    layer, k = Layer("decoder", 8, 0), torch.arange(4.0).view(4, 1, 1, 1)
    for calls, changed in ((None, [True, True]), ((0,), [True, False])):
        hook = MutualSelfAttention(2, Span(600, 1000), (8,), calls)
        for index in range(2):
            hook.begin_pass(Step(index, 2, 700))
            found = []
            for call in range(2):
                hook.begin_call(call)
                found.append(not torch.equal(hook.project(layer, k, k, k)[1], k))
            assert found == changed


def test_rows_must_be_a_source_and_its_views() -> None:
    hook = MutualSelfAttention(3, Span(0, 1000), (8,))
    hook.begin_pass(Step(0, 1, 0))
    with pytest.raises(InputError, match="4 rows are not whole groups of 3"):
        hook.project(Layer("decoder", 8, 0), *[torch.zeros(4, 1, 1, 1)] * 3)


def test_views_that_equal_the_source_stay_as_they_are(make_model: Make) -> None:
    """Equal latents, the pose that leads nowhere: reading the source is reading oneself."""
    model = make_model()
    conditions = make_conditions(model)
    still = replace(conditions, tokens=conditions.source_token[:, None].expand(-1, 2, -1))
    numbers = replace(SHORT, amf=False, share_init_noise=True, share_renoise=True, msa_range=EVERYWHERE)
    with_source = sample_latents(model, still, sampling(zero_to_hero=numbers))
    without = sample_latents(model, still, sampling(zero_to_hero=replace(numbers, msa=False)))
    assert torch.allclose(with_source, without, atol=1e-4)
    apart = replace(numbers, share_init_noise=False)
    assert not torch.allclose(
        sample_latents(model, still, sampling(zero_to_hero=apart)),
        sample_latents(model, still, sampling(zero_to_hero=replace(apart, msa=False))),
        atol=1e-3,
    )


# --- the whole way ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conditioning", [Conditioning(), FULL, UNITED], ids=["plain", "full", "united"])
@pytest.mark.parametrize("changes", [{}, {"strength": 0.6}, {"eta": 0.7, "guidance": 1.0}])
def test_nothing_asked_for_is_nothing_done(
    make_model: Make, conditioning: Conditioning, changes: dict[str, object]
) -> None:
    """Without filtering, and with all parts of it off, bytes are those of the plain loop, written out here."""
    model = make_model(conditioning)
    conditions = make_conditions(model)
    plain = SamplingSettings(**{"steps": 3, "strength": 1.0, **changes})  # type: ignore[arg-type]
    assert plan_zero_to_hero(model, plain, 1, 3) is None
    guidance = plain.plan().guidance

    def predict(z: torch.Tensor, t: int) -> torch.Tensor:
        rows, times = z[None], torch.full((1, 3), t)
        cond = model.predict(rows, times, conditions)[0]
        if guidance == 1:
            return cond
        blank = model.predict(rows, times, conditions.null())[0]
        return blank + guidance * (cond - blank)

    sharing, noise = model.shared_views(3, joint=True), RowNoise.of(view_seeds(0, 3))
    start = noise.draw((4, 8, 8), torch.device("cpu"))
    from_coarse = conditioning.coarse and plain.plan().strength < 1
    timesteps = (trailing_timesteps if model.schedule.zero_terminal_snr else leading_timesteps)(
        3, 600 if from_coarse else 1000
    )
    if from_coarse:
        assert conditions.coarse is not None
        start = model.schedule.add_noise(
            model.codec.normalise(conditions.coarse[0]), start, torch.tensor(timesteps[:1] * 3)
        )
    with hooked(model.unet, [] if sharing is None else [sharing]), torch.no_grad():
        by_hand = denoise(predict, start, model.schedule, timestep_pairs(timesteps), noise=noise, eta=plain.eta)[None]
    assert torch.equal(sample_latents(model, conditions, plain), by_hand)
    # Numbers that are not asked for do not count.
    unused = replace(plain, zero_to_hero=ZeroToHeroSettings(passes=3))
    assert torch.equal(sample_latents(model, conditions, unused), by_hand)
    numbers = ZeroToHeroSettings(hourglass=False, passes=1, amf=False, msa=False)
    idle = sample_latents(model, conditions, replace(plain, filtering="zero-to-hero", zero_to_hero=numbers))
    if sharing is not None:
        assert torch.equal(idle, by_hand)
    # Where nothing is hooked without it, the hook's attention takes the place of diffusers' own.
    assert torch.allclose(idle, by_hand, atol=1e-5)


def test_cross_attention_to_one_token_is_the_same_everywhere(make_model: Make) -> None:
    """Why self-attention is what is filtered: layout cannot come from the token of photo and pose."""
    model, outs = make_model(), []
    names = [name for name, _ in model.unet.named_modules() if name.endswith("attn2")]
    handles = [
        model.unet.get_submodule(name).register_forward_hook(lambda *call: outs.append(call[-1])) for name in names
    ]
    sample_latents(model, make_conditions(model), sampling(filtering="none", steps=1))
    for handle in handles:
        handle.remove()
    assert len(outs) == 2 * len(names) > 0
    assert all(torch.allclose(out, out[:, :1].expand_as(out), atol=1e-5) for out in outs)


@pytest.mark.parametrize("conditioning", [Conditioning(), FULL, UNITED], ids=["plain", "full", "united"])
@pytest.mark.parametrize("filtering", ["zero-to-hero", "amf"])
def test_views_of_several_objects_repeat(make_model: Make, conditioning: Conditioning, filtering: str) -> None:
    """Both filterings on all kinds of models; objects do not touch each other; runs leave nothing behind."""
    model = make_model(conditioning)
    settings = sampling(filtering=filtering, steps=4)
    two = sample_latents(model, make_conditions(model, objects=2), settings)
    assert two.shape == (2, 3, 4, 8, 8)
    assert two.isfinite().all()
    assert torch.allclose(two[0], two[1], atol=1e-4)
    one = sample_latents(model, make_conditions(model), settings)
    assert torch.allclose(one[0], two[0], atol=1e-3)
    assert torch.equal(sample_latents(model, make_conditions(model), settings), one)
    assert not torch.allclose(
        sample_latents(model, make_conditions(model), replace(settings, filtering="none")), one, atol=0.1
    )


@pytest.mark.parametrize("part", ["hourglass", "passes", "amf", "msa"])
@pytest.mark.parametrize("conditioning", [Conditioning(), FULL], ids=["plain", "full"])
def test_every_part_counts(make_model: Make, conditioning: Conditioning, part: str) -> None:
    model = make_model(conditioning)
    conditions, off = make_conditions(model), {"hourglass": False, "passes": 1, "amf": False, "msa": False}
    without = replace(SHORT, **{part: off[part]})
    whole, less = (sample_latents(model, conditions, sampling(zero_to_hero=n, steps=6)) for n in (SHORT, without))
    assert not torch.allclose(whole, less, atol=1e-3)


@pytest.mark.parametrize(
    "numbers", [{}, {"keep_source_row": True}, {"amf_rows": "target"}, {"amf_cfg": "cond"}, {"msa_cfg": "cond"}]
)
def test_rows_and_keys_over_the_run(make_model: Make, numbers: dict[str, object]) -> None:
    """Plain Zero123: a source row for the range only, read in the two finest levels of the decoder."""
    model, recorder = make_model(), Recorder()
    sample_latents(
        model, make_conditions(model, objects=2), sampling(zero_to_hero=replace(SHORT, **numbers)), hooks=[recorder]
    )
    low = equivalent_timestep(model.schedule, 600, 8)
    rows = {t: count for t, count, _, _ in recorder.seen}
    kept = bool(numbers.get("keep_source_row"))
    assert {count for t, count in rows.items() if t >= low} == {8}
    assert {count for t, count in rows.items() if t < low} == ({8} if kept else {6})


def test_a_source_that_is_read_late_is_there_from_the_start(make_model: Make) -> None:
    model, recorder = make_model(), Recorder()
    numbers = replace(SHORT, msa_range=(600, 800))
    sample_latents(model, make_conditions(model), sampling(zero_to_hero=numbers), hooks=[recorder])
    low, high = (equivalent_timestep(model.schedule, t, 8) for t in (600, 800))
    assert {t >= high for t, _, _, _ in recorder.seen} == {True, False}
    assert all(count == (4 if t >= low else 3) for t, count, _, _ in recorder.seen)


def test_a_models_own_source_row_is_read(make_model: Make) -> None:
    model, recorder = make_model(FULL), Recorder()
    settings = sampling(joint=True)
    sample_latents(model, make_conditions(model), settings, hooks=[recorder])
    low = equivalent_timestep(model.schedule, 600, 8)
    assert {count for _, count, _, _ in recorder.seen} == {4}
    for t, _, layer, width in recorder.seen:
        shared = 4 if layer.resolution in FULL.joint else 2
        mutual = t >= low and layer.place == "decoder" and layer.resolution in (8, 4)
        assert width == (1 if mutual else shared)


def test_the_source_view_is_the_source_seen_from_where_it_is(make_model: Make) -> None:
    conditions = make_conditions(make_model(FULL))
    wide = with_source_view(conditions)
    assert wide.coarse is not None
    assert wide.rays is not None
    assert torch.equal(wide.tokens[:, 0], conditions.source_token)
    assert torch.equal(wide.coarse[:, 0], conditions.source)
    assert torch.equal(wide.rays[:, 1:], conditions.rays)


def test_the_source_starts_from_noise_of_its_own(make_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, starts = make_model(), []
    monkeypatch.setattr("pipeline.diffusion.sample.denoise", lambda network, z, *rest, **options: starts.append(z) or z)
    for shared in (False, True):
        sample_latents(
            model, make_conditions(model, objects=2), sampling(zero_to_hero=replace(SHORT, share_init_noise=shared))
        )
    sample_latents(model, make_conditions(model, objects=2), sampling(filtering="none"))
    assert [len(z) for z in starts] == [8, 8, 6]
    assert torch.equal(starts[0][:6], starts[2])
    assert torch.equal(starts[1], starts[0][[0, 0, 0, 3, 3, 3, 0, 3]])


@given(st.integers(0, 2**63 - 2), st.integers(1, 40))
def test_sources_share_noise_with_no_view(seed: int, views: int) -> None:
    seeds = view_seeds(seed, views)
    assert len({*seeds, *source_seeds(seeds, views)}) == views + 1


def test_history_of_mutual_layers_ends_with_the_sharing(make_model: Make) -> None:
    """The first Zero123: the source is read down to 700, maps are filtered down to 600."""
    model = make_model()
    numbers = replace(SHORT, counts=(1, 6, 3), msa_range=(700, 1000))
    outs = [
        sample_latents(
            model, make_conditions(model), sampling(zero_to_hero=replace(numbers, reset_history_on_msa_end=r))
        )
        for r in (True, False)
    ]
    assert not torch.allclose(*outs, atol=1e-4)
    plan = plan_zero_to_hero(model, sampling(zero_to_hero=numbers), 1, 3)
    assert plan is not None
    assert plan.filter is not None
    assert plan.mutual is not None
    low = plan.mutual.span.low
    layers = [Layer("decoder", 8, 0), Layer("decoder", 2, 0), Layer("encoder", 8, 0)]
    for t in (low, low - 1):
        for hook in plan.hooks:
            hook.begin_pass(Step(0, 2, t))
        if t == low:
            for layer in layers:
                plan.filter.project(layer, *[torch.zeros(4, 1, 1, 1)] * 3)
                plan.filter.scores(layer, torch.zeros(4, 1, 1, 1))
    assert [key[0] for key in plan.filter._history] == layers[1:]
    plan.rows(low - 1)
    assert {len(held) for held in plan.filter._history.values()} == {3}


@given(st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_rows_of_the_loop_and_of_the_network(objects: int, views: int, sources: bool) -> None:
    plan = ZeroToHero(objects, views, None, Span(0, 0), 1)
    rows = objects * views + objects * sources
    z = torch.arange(float(rows)).view(-1, 1, 1, 1)
    grouped = plan.grouped(z)
    assert grouped.shape[:2] == (objects, views + sources)
    assert torch.equal(plan.flattened(grouped), z)
    assert torch.equal(grouped[:, int(sources) :].flatten(), z[: objects * views].flatten())


def test_the_numbers_reach_the_hooks(make_model: Make) -> None:
    numbers = ZeroToHeroSettings(
        pool="ema",
        passes=4,
        resample=(700, 900),
        in_step=(750, 950),
        cross_step=(500, 1000),
        alpha_current=0.1,
        alpha_history=0.3,
        alpha_pool=0.7,
        amf_accumulate="raw",
        amf_rows="target",
        amf_cfg="cond",
        amf_sides=(8, 4),
        msa_range=(650, 980),
        msa_levels=1,
        half=True,
        heads_at_once=3,
        buffer_gb=2.5,
        reset_history_on_msa_end=False,
    )
    model = make_model()
    plan = plan_zero_to_hero(model, sampling(zero_to_hero=numbers), 2, 3)
    assert plan is not None
    assert plan.mutual is not None
    assert plan.filter is not None
    found = plan.filter
    assert (found.pool, found.blended, found.sides, found.calls) == ("ema", False, (8, 4), (0,))
    assert (found.alpha_current, found.alpha_history, found.alpha_pool) == (0.1, 0.3, 0.7)
    assert (found.half, found.heads, found.buffer_gb) == (True, 3, 2.5)
    assert found.rows is not None
    assert found.rows(8).tolist() == [1, 2, 3, 5, 6, 7]
    assert (plan.mutual.sides, plan.mutual.calls, plan.mutual.rows) == ((8,), None, 4)
    assert (plan.resample_passes, plan.forgets, plan.adds_source) == (4, False, True)
    spans = (plan.resample, found.in_step, found.cross_step, plan.mutual.span)
    assert [(s.low, s.high) for s in spans] == [
        tuple(equivalent_timestep(model.schedule, t, 8) for t in bounds)
        for bounds in (numbers.resample, numbers.in_step, numbers.cross_step, numbers.msa_range)
    ]
    alone = plan_zero_to_hero(model, sampling(zero_to_hero=replace(numbers, msa_cfg="cond", amf_cfg="both")), 2, 3)
    assert alone is not None
    assert alone.mutual is not None
    assert alone.filter is not None
    assert (alone.mutual.calls, alone.filter.calls) == ((0,), None)


def test_a_plan_filters_the_same_rows_in_its_second_run(make_model: Make) -> None:
    model = make_model()
    plan = plan_zero_to_hero(model, sampling(zero_to_hero=replace(SHORT, amf_rows="target")), 1, 3)
    assert plan is not None
    assert plan.filter is not None
    for _ in range(2):
        for hook in plan.hooks:
            hook.reset()
        assert plan.filter.rows is not None
        assert plan.rows(0) == 3
        assert plan.filter.rows is None


def test_history_of_a_call_that_never_read_the_source_stays(make_model: Make) -> None:
    plan = plan_zero_to_hero(make_model(), sampling(zero_to_hero=replace(SHORT, msa_cfg="cond")), 1, 3)
    assert plan is not None
    assert plan.filter is not None
    assert plan.mutual is not None
    layer, low = Layer("decoder", 8, 0), plan.mutual.span.low
    plan.filter._history = {(layer, call, 0): torch.zeros(4, 1, 1, 1) for call in (0, 1)}
    for t in (low, low - 1):
        plan.begin_pass(Step(0, 2, t))
    assert [call for _, call, _ in plan.filter._history] == [1]


def test_filtering_starts_from_noise_by_default(make_model: Make) -> None:
    model, steps = make_model(FULL), list[Step]()
    for settings in (sampling(strength=None), sampling(strength=None, filtering="none")):
        sample_latents(model, make_conditions(model), settings, on_step=steps.append)
    noisy, usual = (step.t for step in steps if step.index == 0)
    assert noisy >= 980
    assert usual < 350


@pytest.mark.parametrize("filtering", ["zero-to-hero", "amf"])
def test_a_start_below_all_ranges_is_refused(make_model: Make, filtering: str) -> None:
    model = make_model(FULL)
    settings = sampling(strength=0.05, filtering=filtering)
    with pytest.raises(SettingsError, match=f"--filtering {filtering}: the sampling begins at timestep"):
        sample_latents(model, make_conditions(model), settings)
    only_steps = replace(SHORT, passes=1, amf=False, msa=False)
    if filtering == "zero-to-hero":
        assert (
            sample_latents(model, make_conditions(model), replace(settings, zero_to_hero=only_steps)).isfinite().all()
        )


@pytest.mark.parametrize("timesteps", [(1000, 500), (500, -1)])
def test_timesteps_outside_of_the_process_are_refused(make_model: Make, timesteps: tuple[int, ...]) -> None:
    with pytest.raises(SettingsError, match="not all of the model's process"):
        method_timesteps(make_model().schedule, replace(SHORT, timesteps=timesteps), 8)


def test_a_start_from_the_coarse_picture_skips_what_is_noisier(make_model: Make) -> None:
    model, steps = make_model(FULL), []
    sample_latents(model, make_conditions(model), sampling(strength=0.6), on_step=lambda step: steps.append(step.t))
    plan = plan_zero_to_hero(model, sampling(), 1, 3)
    assert plan is not None
    assert plan.timesteps is not None
    assert steps == [t for t in plan.timesteps if t < 600]
    assert len(steps) < len(plan.timesteps)


def test_six_views_are_not_filtered() -> None:
    photo = torch.zeros(1, 16, 16, 4, dtype=torch.uint8)
    with pytest.raises(SettingsError, match="not for Zero123"):
        sample_six_views(object.__new__(SixViewDiffusion), photo, sampling())


@pytest.mark.parametrize(
    "wrong",
    [
        {"bounds": (0, 800, 200, 1000)},
        {"counts": (0, 0, 0)},
        {"passes": 0},
        {"alpha_current": 1.5},
        {"cross_step": (900, 600)},
        {"timesteps": (3, 5)},
        {"heads_at_once": 0},
    ],
)
def test_numbers_that_mean_nothing(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        ZeroToHeroSettings(**wrong)  # type: ignore[arg-type]


def test_views_can_be_made_with_it(make_model: Make) -> None:
    model = make_model(FULL)
    rgba = torch.zeros(1, 16, 16, 4, dtype=torch.uint8)
    pictures = sample_views(model, rgba, SOURCE, ORBITS[None], coarse_volume(model, rgba, SOURCE), sampling())
    assert pictures.shape == (1, 3, 16, 16, 4)
