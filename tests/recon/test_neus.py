"""NeuS: a plane is rendered where it is, whatever the angle and the sharpness."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recon.neus import neus_alpha
from scene.volume_rendering import render_weights

SECTIONS = 800
LENGTH = 2 / SECTIONS
MIDDLE = (torch.arange(SECTIONS, dtype=torch.float64) + 0.5) * LENGTH


def weights_of(sdf: torch.Tensor, sharpness: float) -> torch.Tensor:
    """Weights along a ray of length 2 whose signed distances at the section ends are given."""
    slope = sdf.diff() / LENGTH
    return render_weights(neus_alpha((sdf[1:] + sdf[:-1]) / 2, slope, torch.full_like(slope, LENGTH), sharpness))


def plane(depth: float, cosine: float) -> torch.Tensor:
    """Signed distances at section ends to a plane that the ray crosses at a depth, from outside to inside."""
    return (depth - torch.arange(SECTIONS + 1, dtype=torch.float64) * LENGTH) * cosine


@given(st.floats(0.7, 1.3), st.floats(0.3, 1.0), st.floats(60.0, 400.0))
def test_a_plane_is_opaque_and_seen_at_its_depth(depth: float, cosine: float, sharpness: float) -> None:
    weights = weights_of(plane(depth, cosine), sharpness)
    assert float(weights.min()) >= 0
    assert float(weights.sum()) == pytest.approx(1, abs=2e-3)
    assert float((weights * MIDDLE).sum() / weights.sum()) == pytest.approx(depth, abs=LENGTH)


@given(st.floats(0.5, 1.0), st.floats(40.0, 100.0))
def test_weights_have_the_spread_of_the_logistic_density(cosine: float, sharpness: float) -> None:
    weights = weights_of(plane(1.0, cosine), sharpness)
    spread = float((weights * (MIDDLE - 1.0) ** 2).sum() / weights.sum()) ** 0.5
    assert spread == pytest.approx(math.pi / math.sqrt(3) / (sharpness * cosine), rel=0.03)


def test_the_depth_of_a_slanted_plane_gets_exact_as_the_sharpness_grows() -> None:
    errors = []
    for sharpness in (4.0, 16.0, 64.0):
        weights = weights_of(plane(0.6, 0.7), sharpness)
        errors.append(abs(float((weights * MIDDLE).sum() / weights.sum()) - 0.6))
    assert errors[0] > 5 * errors[1] > 5 * errors[2]
    assert errors[2] < LENGTH


def test_the_front_of_a_slab_hides_its_back_and_what_follows() -> None:
    ends = torch.arange(SECTIONS + 1, dtype=torch.float64) * LENGTH
    slabs = torch.minimum((ends - 0.6).abs() - 0.2, (ends - 1.5).abs() - 0.2)
    weights = weights_of(slabs, 200.0)
    assert float((weights * MIDDLE).sum()) == pytest.approx(0.4, abs=3 * LENGTH)
    assert float(weights[MIDDLE > 0.6].sum()) < 1e-4


def test_rays_out_of_the_surface_and_through_empty_space_stay_clear() -> None:
    assert float(weights_of(-plane(1.0, 1.0), 100.0).abs().max()) == 0
    grazing = 0.2 + (torch.arange(SECTIONS + 1, dtype=torch.float64) * LENGTH - 1).abs()
    assert float(weights_of(grazing, 100.0).sum()) < 1e-6


def test_opacity_has_the_gradient_of_its_formula() -> None:
    sdf = torch.linspace(0.04, -0.04, 6, dtype=torch.float64, requires_grad=True)
    slope = torch.linspace(-1.0, -0.6, 6, dtype=torch.float64, requires_grad=True)
    length = torch.full((6,), 0.02, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: neus_alpha(a, b, length, 60.0), (sdf, slope))


def test_moving_the_surface_towards_the_ray_raises_its_cover() -> None:
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    ends = torch.arange(SECTIONS + 1, dtype=torch.float64) * LENGTH
    passing = (0.02**2 + (ends - 1) ** 2).sqrt() + shift  # misses a point by 0.02
    (gradient,) = torch.autograd.grad(weights_of(passing, 50.0).sum(), shift)
    assert float(gradient) < -1
