"""The oracle: maps that are recorded, and given back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import Attention

from pipeline.diffusion.methods.oracle import MapOracle, true_maps
from pipeline.diffusion.modules.attention import HookedAttention, Layer
from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.diffusion.sample import coarse_volume, sample_latents, view_conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion

LAYER = Layer("mid", 4, 0)
FULL = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(4, 2))


def test_recorded_maps_take_the_place_of_others() -> None:
    torch.manual_seed(0)
    attention = Attention(8, heads=2, dim_head=4)
    oracle = MapOracle()
    processor = HookedAttention(LAYER, [oracle])
    x, y = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    with torch.no_grad():
        recorded = processor(attention, x)
        oracle.mode = "inject"
        assert torch.allclose(processor(attention, x), recorded, atol=1e-6)
        injected = processor(attention, y)
        value = attention.to_v(y).view(2, 5, 2, -1).transpose(1, 2)
        maps = next(iter(oracle._kept.values())).softmax(-1)
        expected = attention.to_out[0]((maps @ value).transpose(1, 2).reshape(2, 5, -1))
    assert torch.allclose(injected, expected, atol=1e-5)
    oracle.reset()
    assert oracle._kept
    oracle.clear()
    assert not oracle._kept


@pytest.mark.parametrize("conditioning", [Conditioning(), FULL], ids=["plain", "full"])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_maps_of_true_views_steer_the_sampler(
    make_model: Callable[..., ViewDiffusion], conditioning: Conditioning, guidance: float
) -> None:
    """Other truths, other views; and what is recorded fits every call of a run."""
    model, rng = make_model(conditioning), np.random.default_rng(0)
    rgba = torch.from_numpy(rng.integers(0, 256, (1, 16, 16, 4), dtype=np.uint8))
    source, orbits = torch.tensor([[0.3, 1.1, 0.5, 0.5]]), torch.tensor([[[0.6, 0.2, 1.5], [2.0, 0.4, 1.5]]])
    conditions = view_conditions(model, rgba, source, orbits, coarse_volume(model, rgba, source))
    settings = SamplingSettings(steps=2, strength=1.0, guidance=guidance)
    truth = torch.randn(2, 4, 8, 8)
    outs = [sample_latents(model, conditions, settings)]
    for views in (truth, truth.flip(0), truth):
        outs.append(sample_latents(model, conditions, settings, hooks=[true_maps(model, views, conditions, settings)]))
    assert torch.equal(outs[1], outs[3])
    assert all(not torch.allclose(outs[i], outs[j], atol=1e-3) for i, j in ((0, 1), (1, 2)))
