"""Attention map filtering: the arithmetic by hand, ranges, and maps that are let go."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.diffusion.denoising.schedule import Span
from pipeline.diffusion.methods.attention_map_filtering import MapFilter
from pipeline.diffusion.modules.attention import AttentionHook, Layer, Scores, Step, hooked
from scene.errors import InputError

ALL = Span(0, 1000)
NEVER = Span(0, 0)
LAYER = Layer("mid", 4, 0)
MakeUnet = Callable[[int], torch.nn.Module]


def passes(hook: MapFilter, values: list[float], t: int = 900) -> list[float]:
    """The maps that a step makes of scalar scores, one per pass."""
    out = []
    for k, value in enumerate(values):
        step = Step(0, 1, t, k, len(values))
        hook.begin_pass(step)
        out.append(layer_map(hook, torch.full((1, 1, 1, 1), value)).item())
    hook.end_step(step)
    return out


def layer_map(hook: MapFilter, scores: Scores, layer: Layer = LAYER) -> Scores:
    """What a layer's softmax gets."""
    hook.project(layer, scores, scores, scores)
    return hook.scores(layer, scores.clone()) if hook.wants_scores(layer) else scores


def history(hook: MapFilter) -> list[float]:
    """All that is kept from earlier steps."""
    return [x for held in hook._history.values() for x in held.flatten().tolist()]


# --- arithmetic -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("blended", "maps", "kept"), [(True, [1.2, 0.9, 0.98], 0.99), (False, [1.2, 0.9, 0.9], 0.95)])
def test_three_passes_by_hand(blended: bool, maps: list[float], kept: float) -> None:
    hook = MapFilter(ALL, ALL, blended=blended)
    assert passes(hook, [1.0]) == [1.0]
    assert passes(hook, [2.0, 0.5, 3.0]) == pytest.approx(maps)
    assert history(hook) == pytest.approx([kept])


@given(
    values=st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=5),
    first=st.one_of(st.none(), st.floats(-5, 5, width=32)),
    pool=st.sampled_from(["min", "mean", "ema", "none"]),
    blended=st.booleans(),
    alphas=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_every_pool_follows_its_formula(
    values: list[float], first: float | None, pool: str, blended: bool, alphas: tuple[float, float, float]
) -> None:
    """Against the formulas as the paper writes them, over all passes before."""
    current, kept, own = alphas
    hook = MapFilter(ALL, ALL, pool, blended, current, kept, own)  # type: ignore[arg-type]
    if first is not None:
        passes(hook, [first])
    pooled: list[float] = []
    maps: list[float] = []
    for score in values:
        earlier = maps if blended else pooled
        f = score
        if earlier and pool == "min":
            f = min(score, *earlier)
        elif earlier and pool == "mean":
            f = (score + sum(maps if blended else values[: len(maps)])) / (len(maps) + 1)
        elif earlier and pool == "ema":
            f = own * score + (1 - own) * earlier[-1]
        pooled.append(f)
        maps.append(f if first is None else current * f + (1 - current) * first)
    assert passes(hook, values) == pytest.approx(maps, abs=1e-4)
    after = maps[-1] if first is None else kept * maps[-1] + (1 - kept) * first
    assert history(hook) == pytest.approx([after], abs=1e-4)


def test_history_fades_by_nine_tenths_a_step() -> None:
    hook = MapFilter(ALL, ALL)
    passes(hook, [1.0])
    for k in range(1, 12):
        passes(hook, [0.0])
        assert history(hook) == pytest.approx([0.9**k])


def test_one_pass_without_history_is_no_change(make_unet: MakeUnet) -> None:
    hook = MapFilter(ALL, ALL)
    unet, rows, tokens = make_unet(4), torch.randn(2, 4, 8, 8), torch.randn(2, 1, 16)
    with torch.no_grad():
        plain = unet(rows, 900, tokens).sample
        with hooked(unet, [hook]):
            hook.begin_pass(Step(0, 2, 900))
            filtered = unet(rows, 900, tokens).sample
            assert len(hook._history) == 16
            hook.begin_pass(Step(1, 2, 880))
            second = unet(rows + 0.5, 880, tokens).sample
        after = unet(rows + 0.5, 880, tokens).sample
    assert (filtered - plain).abs().max() <= 1e-5
    assert (second - after).abs().max() > 1e-4


# --- ranges and layers ------------------------------------------------------------------------------------------------


@given(t=st.integers(0, 999), count=st.integers(1, 3))
def test_scores_are_made_in_the_ranges_only(t: int, count: int) -> None:
    hook = MapFilter(Span(800, 1000), Span(600, 900))
    hook.begin_pass(Step(0, 1, t, 0, count))
    assert hook.wants_scores(LAYER) == (600 <= t < 900 or (t >= 800 and count > 1))


def test_outside_the_cross_range_passes_are_pooled_alone() -> None:
    hook = MapFilter(ALL, NEVER)
    assert passes(hook, [2.0, 0.5, 3.0]) == [2.0, 0.5, 0.5]
    assert hook.held_bytes == 0
    assert passes(hook, [7.0, 8.0]) == [7.0, 7.0]


def test_maps_are_let_go_outside_their_range() -> None:
    hook = MapFilter(Span(800, 1000), Span(600, 1000))
    passes(hook, [1.0, 2.0])
    assert hook.held_bytes == 4  # the history; the passes' map is gone
    passes(hook, [1.0], t=700)
    assert hook.held_bytes == 4
    passes(hook, [1.0], t=599)
    assert hook.held_bytes == 0


def test_which_layers_and_calls() -> None:
    hook = MapFilter(ALL, ALL, calls=(0,))
    hook.begin_pass(Step(0, 1, 900))
    assert hook.wants_scores(Layer("encoder", 32, 0))
    assert not hook.wants_scores(Layer("encoder", 64, 0))
    hook.begin_call(1)
    assert not hook.wants_scores(LAYER)
    chosen = MapFilter(ALL, ALL, sides=(64,))
    chosen.begin_pass(Step(0, 1, 900))
    assert chosen.wants_scores(Layer("encoder", 64, 0))
    assert not chosen.wants_scores(Layer("encoder", 32, 0))


def test_calls_and_layers_have_maps_of_their_own() -> None:
    hook = MapFilter(ALL, ALL)
    one = torch.ones(1, 1, 1, 1)
    for index in range(2):
        hook.begin_pass(Step(index, 2, 900))
        assert layer_map(hook, one).item() == 1
        assert layer_map(hook, 2 * one, Layer("decoder", 4, 0)).item() == 2
        hook.begin_call(1)
        assert layer_map(hook, 3 * one).item() == 3
    assert sorted(history(hook)) == [1, 2, 3]


# --- reset ------------------------------------------------------------------------------------------------------------


def test_a_new_image_and_new_rows_start_afresh() -> None:
    hook = MapFilter(ALL, ALL)
    passes(hook, [5.0])
    hook.reset()
    assert hook.held_bytes == 0
    assert passes(hook, [1.0]) == [1.0]
    hook.begin_pass(Step(0, 1, 900))
    rows = torch.tensor([3.0, 4.0]).view(2, 1, 1, 1)
    assert torch.equal(layer_map(hook, rows), rows)
    wider = torch.rand(2, 1, 1, 2)
    assert torch.equal(layer_map(hook, wider), wider)


def test_rows_that_stay_keep_their_history() -> None:
    hook = MapFilter(ALL, ALL)
    hook.begin_pass(Step(0, 2, 900))
    layer_map(hook, torch.tensor([10.0, 20.0, 30.0]).view(3, 1, 1, 1))
    hook.keep_rows(lambda count: torch.arange(1, count))
    hook.begin_pass(Step(1, 2, 880))
    out = layer_map(hook, torch.zeros(2, 1, 1, 1))
    assert out.flatten().tolist() == pytest.approx([16.0, 24.0])


def test_rows_left_out_pass_as_they_are() -> None:
    hook = MapFilter(ALL, ALL, rows=lambda count: torch.tensor([1]))
    for index, value in enumerate((1.0, 2.0)):
        hook.begin_pass(Step(index, 2, 900))
        out = layer_map(hook, torch.full((2, 1, 1, 1), value))
    assert out.flatten().tolist() == pytest.approx([2.0, 0.2 * 2 + 0.8])


def test_forgetting_some_layers() -> None:
    hook = MapFilter(ALL, ALL)
    hook.begin_pass(Step(0, 1, 900))
    layer_map(hook, torch.ones(1, 1, 1, 1))
    layer_map(hook, torch.zeros(1, 1, 1, 1), Layer("decoder", 4, 0))
    hook.forget(lambda layer: layer.place == "decoder")
    assert history(hook) == [1.0]


# --- memory -----------------------------------------------------------------------------------------------------------


def filtered_steps(make_unet: MakeUnet, hook: AttentionHook, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The tiny network's output at the third of three steps of two passes."""
    torch.manual_seed(3)
    unet = make_unet(4).to(dtype)
    tokens = torch.randn(2, 1, 16, dtype=dtype)
    with torch.no_grad(), hooked(unet, [hook]):
        for index in range(3):
            for k in range(2):
                hook.begin_pass(Step(index, 3, 900, k, 2))
                out = unet(torch.randn(2, 4, 8, 8, dtype=dtype), 900, tokens).sample
            hook.end_step(Step(index, 3, 900, k, 2))
    return out


def test_heads_one_at_a_time_are_heads_at_once(make_unet: MakeUnet) -> None:
    together = filtered_steps(make_unet, MapFilter(ALL, ALL))
    assert torch.allclose(filtered_steps(make_unet, MapFilter(ALL, ALL, heads=1)), together, atol=1e-5)
    assert (filtered_steps(make_unet, MapFilter(NEVER, NEVER)) - together).abs().max() > 1e-4


def test_half_precision_halves_memory_and_keeps_the_result(make_unet: MakeUnet) -> None:
    class Peak(MapFilter):
        peak = 0

        def end_step(self, step: Step) -> None:
            self.peak = max(self.peak, self.held_bytes)
            super().end_step(step)

    full, half = Peak(ALL, ALL), Peak(ALL, ALL, half=True)
    assert torch.allclose(filtered_steps(make_unet, full), filtered_steps(make_unet, half), atol=2e-3)
    assert half.peak * 2 == full.peak > 0
    assert filtered_steps(make_unet, MapFilter(ALL, ALL), torch.bfloat16).isfinite().all()
    huge = MapFilter(ALL, ALL, half=True)
    passes(huge, [1e6])
    assert all(math.isfinite(x) for x in history(huge))


def test_memory_is_bounded(make_unet: MakeUnet) -> None:
    with pytest.raises(InputError, match="2 rows needs more than 1e-06 GB"):
        filtered_steps(make_unet, MapFilter(ALL, ALL, buffer_gb=1e-6))


@pytest.mark.parametrize(("room", "fits"), [(2.0, True), (1.9, False)])
def test_the_first_pass_tells_what_the_last_will_need(room: float, fits: bool) -> None:
    """A history as large as the passes' maps is still to come."""
    hook = MapFilter(ALL, ALL, buffer_gb=room * 3 * 4 * 25 * 4 / 1e9)
    hook.begin_pass(Step(0, 1, 900, 0, 3))
    with contextlib.nullcontext() if fits else pytest.raises(InputError, match="3 rows needs more"):
        layer_map(hook, torch.rand(3, 4, 5, 5))


@settings(max_examples=20)
@given(rows=st.integers(1, 3), heads=st.integers(1, 4), tokens=st.integers(1, 5), half=st.booleans())
def test_held_memory_is_that_of_the_maps(rows: int, heads: int, tokens: int, half: bool) -> None:
    hook = MapFilter(ALL, ALL, half=half)
    for k in range(2):
        hook.begin_pass(Step(0, 1, 900, k, 3))
        layer_map(hook, torch.rand(rows, heads, tokens, tokens))
    one = rows * heads * tokens**2 * (2 if half else 4)
    assert hook.held_bytes == one
    hook.begin_pass(Step(0, 1, 900, 2, 3))
    layer_map(hook, torch.rand(rows, heads, tokens, tokens))
    assert hook.held_bytes == 2 * one
