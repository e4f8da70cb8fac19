"""Views drawn by a network whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.diffusion.settings import FusionSampling
from pipeline.diffusion.viewfusion.model import Streams, ViewFusionModel, linear_gammas
from pipeline.diffusion.viewfusion.sample import sample_fused, spread
from pipeline.diffusion.viewfusion.unet import FusionUNet


class Known(ViewFusionModel):
    """Knows that views are the mean of the pictures, and says what noise is then in them."""

    def predict(
        self, streams: Streams, noisy: Tensor, gamma: Tensor, azimuth: Tensor, rows: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """The noise of a view that is the mean of its pictures."""
        clean = streams.pictures.unflatten(0, (len(noisy), -1)).mean(1)
        kept = gamma[:, None, None, None]
        return (noisy - kept.sqrt() * clean) / (1 - kept).sqrt(), torch.ones_like(streams.pictures) / 2


@pytest.fixture
def model() -> Known:
    return Known(FusionUNet(sample_size=4, width=8, multipliers=(1,), blocks=1, groups=4))


PICTURES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("steps", "eta"), [(1, 0.0), (5, 0.0), (5, 1.0), (50, 1.0)])
def test_a_known_view_is_found(model: Known, steps: int, eta: float) -> None:
    found = sample_fused(model, PICTURES, torch.zeros(3), FusionSampling(steps=steps, eta=eta))
    assert torch.allclose(found.views, PICTURES.mean(0).expand(3, -1, -1, -1), atol=1e-3)


def test_ancestral_steps_are_those_of_the_posterior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all levels an eta of 1 is DDPM: mean and deviation of the published formula, step by step."""
    torch.manual_seed(0)
    model = ViewFusionModel(FusionUNet(sample_size=4, width=8, multipliers=(1,), blocks=1, groups=4).eval())
    gammas = linear_gammas(6, 0.05, 0.4)
    states: list[Tensor] = []
    predict = model.predict

    def noting(streams: Streams, noisy: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
        states.append(noisy)
        return predict(streams, noisy, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "predict", noting)
    found = sample_fused(model, PICTURES, torch.zeros(1), FusionSampling(steps=6, eta=1.0), gammas=gammas).views
    draws = torch.Generator("cpu").manual_seed(0)
    drawn = [torch.randn(3, 4, 4, generator=draws) for _ in range(6)]
    assert torch.equal(states[0][0], drawn[0])
    streams = Streams.of(PICTURES, 1)
    for step, t in enumerate(range(5, -1, -1)):
        gamma, before = float(gammas[t]), float(gammas[t - 1]) if t else 1.0
        alpha, beta = gamma / before, 1 - gamma / before
        with torch.no_grad():
            noise = predict(streams, states[step], torch.tensor([gamma]), torch.zeros(1))[0]
        clean = ((states[step] - math.sqrt(1 - gamma) * noise) / math.sqrt(gamma)).clamp(-1, 1)
        mean = beta * math.sqrt(before) / (1 - gamma) * clean
        mean = mean + (1 - before) * math.sqrt(alpha) / (1 - gamma) * states[step]
        after = states[step + 1] if t else found
        known = mean + (math.sqrt(beta * (1 - before) / (1 - gamma)) * drawn[step + 1] if t else 0)
        assert torch.allclose(after, known, atol=1e-5), t


def test_views_do_not_depend_on_those_beside_them() -> None:
    torch.manual_seed(1)
    model = ViewFusionModel(FusionUNet(sample_size=4, width=8, multipliers=(1,), blocks=1, groups=4).eval())
    angles = torch.tensor([0.0, 1.0, 2.0])
    settings = FusionSampling(steps=3, eta=0.5, rows=2)
    whole = sample_fused(model, PICTURES, angles, settings)
    first = sample_fused(model, PICTURES, angles[:1], settings)
    assert torch.allclose(whole.views[:1], first.views, atol=1e-5)
    assert not torch.allclose(whole.views[0], whole.views[1], atol=1e-2)
    assert torch.equal(whole.views, sample_fused(model, PICTURES, angles, settings).views)


def test_weights_and_progress_are_told(model: Known) -> None:
    told: list[tuple[int, int]] = []
    settings = FusionSampling(steps=8, keep_weights=4)
    found = sample_fused(model, PICTURES, torch.zeros(3), settings, on_step=lambda *step: told.append(step))
    assert told == [(k, 8) for k in range(1, 9)]
    assert found.weights.shape == (4, 3, 2, 4, 4)
    assert found.levels.diff().min() > 0
    none = sample_fused(model, PICTURES, torch.zeros(3), FusionSampling(steps=2, keep_weights=0))
    assert none.weights.shape == (0, 3, 2, 4, 4)


@pytest.mark.parametrize(("count", "steps", "known"), [(4, 4, [3, 2, 1, 0]), (10, 2, [9, 4]), (3, 9, [2, 1, 0])])
def test_spread(count: int, steps: int, known: list[int]) -> None:
    assert spread(count, steps) == known
    assert spread(2000, 50)[:2] == [1999, 1959]
