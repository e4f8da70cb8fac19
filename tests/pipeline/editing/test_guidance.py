"""The gradient step: downhill by a given length, halved or left where that would not help, and never NaN."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.editing.guidance import DISTANCE_FLOOR, explained_shares, guided_step, least, objective
from qnerf.store import QueryLayer, QueryStore, Statistics

COARSE, FINE = QueryLayer(2, 3, 0), QueryLayer(4, 5, 0)


def statistics() -> dict[QueryLayer, Statistics]:
    return {
        COARSE: Statistics(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 1.0, 2.0])),
        FINE: Statistics(torch.zeros(5), torch.full((5,), 4.0)),
    }


def bowl(target: torch.Tensor) -> object:
    """Distance to a target; the prediction is the latents themselves."""

    def evaluate(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return ((z - target).square().mean((1, 2, 3)) + DISTANCE_FLOOR**2).sqrt(), z

    return evaluate


def test_the_objective_sums_the_layers_standardised_distances() -> None:
    targets = {COARSE: torch.zeros(2, 2, 2, 3), FINE: torch.zeros(2, 4, 4, 5)}
    queries = {
        # A deviation off the mean in every channel of view 1, twice that in view 0.
        COARSE: torch.tensor([1.0, 2.0, 3.0]) + torch.tensor([2.0, 1.0]).view(2, 1, 1, 1) * torch.tensor([0.5, 1, 2]),
        FINE: torch.full((2, 4, 4, 5), 8.0),
    }
    queries[COARSE] = queries[COARSE].expand(2, 2, 2, 3)
    assert torch.allclose(objective(queries, targets, statistics()), torch.tensor([4.0, 3.0]), atol=1e-5)


def test_the_objective_sees_what_the_masks_leave() -> None:
    queries = {COARSE: torch.zeros(1, 2, 2, 3), FINE: torch.zeros(1, 4, 4, 5)}
    plain = {COARSE: Statistics(torch.zeros(3), torch.ones(3)), FINE: Statistics(torch.zeros(5), torch.ones(5))}
    targets = {layer: values.clone() for layer, values in queries.items()}
    targets[COARSE][:, 0] = 5
    targets[FINE][:, :2] = 5
    below = torch.zeros(1, 8, 8)
    below[:, 4:] = 1
    assert float(objective(queries, targets, plain, below)) == pytest.approx(2 * DISTANCE_FLOOR)
    assert float(objective(queries, targets, plain, 1 - below)) == pytest.approx(10, abs=1e-3)
    assert float(objective(queries, targets, plain, 0 * below)) <= least(2)
    assert float(objective(queries, targets, plain)) == pytest.approx(2 * 5 / 2**0.5, abs=1e-3)


def test_channels_and_layers_count_by_their_shares() -> None:
    plain = {COARSE: Statistics(torch.zeros(3), torch.ones(3)), FINE: Statistics(torch.zeros(5), torch.ones(5))}
    queries = {COARSE: torch.zeros(1, 2, 2, 3), FINE: torch.zeros(1, 4, 4, 5)}
    targets = {COARSE: torch.zeros(1, 2, 2, 3), FINE: torch.zeros(1, 4, 4, 5)}
    targets[COARSE][..., 0], targets[FINE][..., 1] = 4.0, 10.0
    ones = {COARSE: torch.ones(3), FINE: torch.ones(5)}
    assert float(objective(queries, targets, plain, None, ones)) == pytest.approx(
        float(objective(queries, targets, plain)), rel=1e-6
    )
    # The fine layer's one channel that is off counts for nothing; the coarse layer counts three times the fine one.
    shares = {COARSE: torch.tensor([0.6, 0.6, 0.6]), FINE: torch.tensor([0.4, 0.0, 0.2, 0.2, 0.2])}
    assert float(objective(queries, targets, plain, None, shares)) == pytest.approx(1.5 * 4 / 3**0.5, abs=2e-3)
    none = {layer: torch.zeros_like(values) for layer, values in ones.items()}
    assert float(objective(queries, targets, plain, None, none)) <= least(2)


def test_shares_are_what_rendered_queries_explain() -> None:
    generator = torch.Generator().manual_seed(0)
    recorded, rendered = (QueryStore.create(None, (FINE,), 6) for _ in range(2))
    seen = torch.randn(6, 4, 4, 5, generator=generator)
    own = torch.randn(6, 4, 4, 5, generator=generator)
    parts = torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0])
    values = parts.sqrt() * seen + (1 - parts).sqrt() * own
    for view in range(6):
        recorded.put(view, {FINE: 3 + 2 * values[view]})
    mean, deviation = recorded.statistics(FINE)
    for view in range(6):
        rendered.put(view, {FINE: (3 + 2 * parts.sqrt() * seen[view] - mean) / deviation})
    found = explained_shares(recorded, rendered)[FINE]
    torch.testing.assert_close(found.sqrt(), parts, atol=0.12, rtol=0)


@settings(max_examples=30)
@given(
    step=st.floats(0.01, 0.5), scale=st.floats(1e-3, 1e3), far=st.lists(st.floats(2.0, 100.0), min_size=1, max_size=3)
)
def test_a_step_has_its_length_and_leads_downhill(step: float, scale: float, far: list[float]) -> None:
    z = scale * torch.randn(len(far), 2, 3, 3, generator=torch.Generator().manual_seed(1))
    away = (
        scale * torch.tensor(far).view(-1, 1, 1, 1) * torch.randn(z.shape, generator=torch.Generator().manual_seed(2))
    )
    found = guided_step(bowl(z + away), z, step, DISTANCE_FLOOR)  # type: ignore[arg-type]
    assert not found.halved.any()
    assert not found.kept.any()
    assert (found.after < found.before).all()
    moved = (found.latents - z).flatten(1)
    assert torch.allclose(moved.square().mean(1).sqrt(), step * z.flatten(1).std(1), rtol=1e-3)
    assert torch.equal(found.prediction, found.latents)


def test_steps_that_are_too_long_are_halved_or_not_taken() -> None:
    """The valley is narrower than the step in the second view, and than half of it in the third."""
    z = torch.randn(3, 1, 4, 4)
    spread = z.flatten(1).std(1).view(-1, 1, 1, 1)
    away = spread * torch.tensor([0.3, 0.08, 0.03]).view(-1, 1, 1, 1) * torch.sign(torch.randn(z.shape))
    found = guided_step(bowl(z + away), z, 0.2, DISTANCE_FLOOR)  # type: ignore[arg-type]
    assert found.halved.tolist() == [False, True, False]
    assert found.kept.tolist() == [False, False, True]
    assert torch.equal(found.latents[2], z[2])
    assert (found.after[:2] < found.before[:2]).all()
    assert float(found.after[2]) == float(found.before[2])
    assert torch.allclose(found.prediction, found.latents)


def test_a_view_does_not_depend_on_the_others() -> None:
    z, away = torch.randn(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    together = guided_step(bowl(z + away), z, 0.2, DISTANCE_FLOOR)  # type: ignore[arg-type]
    alone = guided_step(bowl((z + away)[1:2]), z[1:2], 0.2, DISTANCE_FLOOR)  # type: ignore[arg-type]
    assert torch.equal(together.latents[1:2], alone.latents)


def test_views_that_agree_already_stay() -> None:
    z = torch.randn(2, 1, 4, 4)
    target = z + torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    found = guided_step(bowl(target), z, 0.1, least(1))  # type: ignore[arg-type]
    assert found.kept.tolist() == [True, False]
    assert torch.equal(found.latents[0], z[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_slopes_that_say_nothing_move_nothing(bad: float) -> None:
    def evaluate(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        slopes = torch.tensor([bad, 1.0]).view(2, 1, 1, 1)
        return (z * slopes).sum((1, 2, 3)).nan_to_num(5, 5, 5) + 50, z

    z = torch.ones(2, 1, 4, 4) + torch.rand(2, 1, 4, 4)
    found = guided_step(evaluate, z, 0.1, 0.0)
    assert found.kept.tolist() == [True, False]
    assert torch.equal(found.latents[0], z[0])
    for values in (found.latents, found.after, found.prediction):
        assert torch.isfinite(values).all()


def test_a_step_into_nan_is_not_taken() -> None:
    def evaluate(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = z.sum((1, 2, 3)) + 100
        moved = (z.detach() - start).abs().amax((1, 2, 3)) > 0
        return torch.where(moved, out * float("nan"), out), torch.where(moved.view(-1, 1, 1, 1), z * float("nan"), z)

    start = torch.randn(2, 1, 4, 4)
    found = guided_step(evaluate, start, 0.1, 0.0)
    assert found.kept.all()
    assert torch.equal(found.latents, start)
    assert torch.isfinite(found.prediction).all()


def test_slopes_far_beyond_single_precision_squared_still_point_somewhere() -> None:
    def evaluate(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 1e-30 * z.sum((1, 2, 3)) + 1, z

    found = guided_step(evaluate, torch.randn(1, 1, 4, 4), 0.1, 0.0)
    assert torch.isfinite(found.latents).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_objectives_of_half_precision_queries_are_taken_in_single_precision(dtype: torch.dtype) -> None:
    queries = {FINE: torch.full((1, 4, 4, 5), 300.0, dtype=dtype)}
    plain = {FINE: Statistics(torch.zeros(5), torch.ones(5))}
    found = objective(queries, {FINE: torch.zeros(1, 4, 4, 5)}, plain)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(300, rel=1e-2)
