"""Volume rendering against analytic media, brute force and quadrature; gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor

from scene.volume_rendering import (
    SH_TERMS,
    alpha_from_density,
    composite,
    ray_box_span,
    render_weights,
    sample_pdf,
    spherical_harmonics,
    stratified_fractions,
    transmittance,
)

ALPHA = arrays(np.float64, (3, 7), elements=st.floats(0, 1))
UNIT = st.floats(-1.0, 1.0)


def doubles(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# --- opacities and weights --------------------------------------------------------------------------------------------


@given(st.floats(0, 5), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_homogeneous_medium_lets_through_what_beer_and_lambert_say(density: float, lengths: list[float]) -> None:
    length = doubles(*lengths)
    alpha = alpha_from_density(torch.full_like(length, density), length)
    depth = torch.cat([doubles(0.0), length.cumsum(0)])
    # Whatever the intervals, light falls as exp(-sigma d).
    assert transmittance(alpha).numpy() == pytest.approx(np.exp(-density * depth[:-1].numpy()), abs=1e-5)
    assert float(render_weights(alpha).sum()) == pytest.approx(1 - math.exp(-density * float(depth[-1])), abs=1e-5)


def test_the_mean_depth_of_a_homogeneous_medium_is_its_free_path() -> None:
    edges = torch.linspace(0, 40, 4001, dtype=torch.float64)
    weights = render_weights(alpha_from_density(torch.full((4000,), 0.5, dtype=torch.float64), edges.diff()))
    middle = ((edges[1:] + edges[:-1]) / 2)[:, None]
    assert float(composite(weights, middle)) == pytest.approx(2.0, abs=1e-3)


@given(ALPHA)
def test_weights_are_opacity_times_transmittance_and_sum_to_at_most_one(alpha: np.ndarray) -> None:
    expected, passed = np.zeros_like(alpha), np.ones(3)
    for k in range(7):
        expected[:, k] = passed * alpha[:, k]
        passed *= 1 - alpha[:, k]
    weights = render_weights(torch.from_numpy(alpha)).numpy()
    assert weights == pytest.approx(expected, abs=1e-5)
    assert weights.min() >= 0
    assert weights.sum(axis=-1) == pytest.approx(1 - passed, abs=1e-5)
    assert weights.sum(axis=-1).max() <= 1 + 1e-5


@given(ALPHA)
def test_transmittance_starts_at_one_and_never_rises(alpha: np.ndarray) -> None:
    passed = transmittance(torch.from_numpy(alpha)).numpy()
    assert (passed[:, 0] == 1).all()
    assert np.diff(passed, axis=-1).max() <= 1e-6


def test_what_stands_behind_an_opaque_interval_is_hidden_and_still_learns() -> None:
    alpha = torch.tensor([0.0, 1.0, 0.7], requires_grad=True)
    weights = render_weights(alpha)
    assert weights.tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    weights[2].backward()
    assert alpha.grad is not None
    assert bool(torch.isfinite(alpha.grad).all())
    assert float(alpha.grad[1]) < -0.5  # less opacity in front shows it


def test_composites_are_convex_mixtures_of_what_is_seen() -> None:
    colours = torch.rand(5, 7, 3, dtype=torch.float64)
    weights = render_weights(torch.rand(5, 7, dtype=torch.float64))
    out = composite(weights, colours)
    assert out.shape == (5, 3)
    assert torch.allclose(out, torch.einsum("rn,rnc->rc", weights, colours))
    assert bool((out <= weights.sum(-1, keepdim=True) * colours.amax(1) + 1e-9).all())


def test_weights_have_the_gradients_of_their_formulas() -> None:
    density, length = torch.rand(2, 5, dtype=torch.float64) * 3, torch.rand(2, 5, dtype=torch.float64)
    density.requires_grad_(), length.requires_grad_()
    assert torch.autograd.gradcheck(lambda d, x: render_weights(alpha_from_density(d, x)), (density, length))
    values = torch.rand(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(composite, (weights, values))


# --- boxes ------------------------------------------------------------------------------------------------------------


@given(st.tuples(UNIT, UNIT, UNIT), st.tuples(UNIT, UNIT, UNIT), st.integers(0, 99))
def test_spans_are_where_points_along_the_ray_lie_in_the_box(
    origin: tuple[float, float, float], towards: tuple[float, float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(-1, 0, 3)
    high = low + rng.uniform(0.2, 1.5, 3)
    start, direction = 2 * np.array(origin), np.array(towards) - 2 * np.array(origin)
    if np.linalg.norm(direction) < 0.1 or np.abs(direction).min() < 1e-3:
        return
    direction /= np.linalg.norm(direction)
    near, far = (float(t) for t in ray_box_span(*(torch.from_numpy(x) for x in (start, direction, low, high))))
    steps = np.linspace(0, 8, 20_001)
    points = start + steps[:, None] * direction
    inside = ((points >= low) & (points <= high)).all(axis=1)
    if not inside.any():  # missed, or only a corner is touched
        assert far - near < 1e-3
        return
    assert (near, far) == pytest.approx((steps[inside][0], steps[inside][-1]), abs=1e-3)


def test_boxes_of_any_shape_and_rays_along_their_axes() -> None:
    half = torch.tensor([0.5, 1.0, 2.0])
    origin = torch.tensor([[3.0, 0, 0], [0.0, 3.0, 0], [0.0, 0, 3.0], [0.0, 3.0, 2.1]])
    direction = torch.tensor([[-1.0, 0, 0], [0.0, -1, 0], [0.0, 0, -1], [0.0, -1, 0]])
    near, far = ray_box_span(origin, direction, -half, half)
    assert near[:3].tolist() == [2.5, 2.0, 1.0]
    assert far[:3].tolist() == [3.5, 4.0, 5.0]
    assert far[3] < near[3]


def test_rays_that_miss_or_start_inside() -> None:
    origin = torch.tensor([[2.0, 0, 0], [2.0, 0, 0], [0.1, 0, 0], [2.0, 0.9, 0]])
    direction = torch.tensor([[0.0, 1, 0], [1.0, 0, 0], [-1.0, 0, 0], [-1.0, 0, 0]])
    near, far = ray_box_span(origin, direction, -0.5, 0.5)
    assert (far < near).tolist() == [True, True, False, True]
    assert (float(near[2]), float(far[2])) == (0, pytest.approx(0.6))


def test_spans_have_gradients() -> None:
    origin = doubles([-2.0, 0.1, 0.2]).requires_grad_()
    direction = doubles([1.0, 0.05, -0.1]).requires_grad_()
    low, high = doubles(-0.5, -0.6, -0.7).requires_grad_(), doubles(0.4, 0.5, 0.6).requires_grad_()
    assert torch.autograd.gradcheck(ray_box_span, (origin, direction, low, high))


# --- places along rays ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jitter", ["none", "ray", "sample"])
@given(rays=st.integers(1, 5), count=st.integers(1, 9), seed=st.integers(0, 50))
def test_every_stratum_has_one_fraction(jitter: str, rays: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    found = stratified_fractions(rays, count, jitter=jitter, generator=generator)  # type: ignore[arg-type]
    assert found.shape == (rays, count)
    assert torch.equal((found * count).floor().long(), torch.arange(count).expand(rays, count))
    if jitter != "sample":  # even along the ray
        assert found.diff(dim=-1).numpy() == pytest.approx(1 / count, abs=1e-6)


def test_draws_come_from_the_generator() -> None:
    one, same, other = (
        stratified_fractions(4, 6, jitter="sample", generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert stratified_fractions(3, 4).tolist() == [[0.125, 0.375, 0.625, 0.875]] * 3


def test_samples_follow_a_known_density() -> None:
    # The density 2 t on [0, 1] has the distribution t^2.
    edges = torch.linspace(0, 1, 401, dtype=torch.float64)[None]
    middle = (edges[:, 1:] + edges[:, :-1]) / 2
    fractions = stratified_fractions(1, 2000).double()
    samples = sample_pdf(edges, middle, fractions)
    assert samples[0].numpy() == pytest.approx(fractions[0].sqrt().numpy(), abs=2e-3)
    # So many samples in each bin as its mass says.
    counts = np.histogram(samples[0].numpy(), bins=np.linspace(0, 1, 11))[0] / 2000
    assert counts == pytest.approx(np.diff(np.linspace(0, 1, 11) ** 2), abs=2e-3)


@given(arrays(np.float64, (2, 6), elements=st.floats(0.01, 1)), st.integers(0, 50))
def test_samples_of_a_histogram_have_its_masses(weights: np.ndarray, seed: int) -> None:
    edges = torch.from_numpy(np.cumsum(np.random.default_rng(seed).uniform(0.1, 1, (2, 7)), axis=1))
    fractions = stratified_fractions(2, 5000).double()
    samples = sample_pdf(edges, torch.from_numpy(weights), fractions)
    assert bool((samples.diff(dim=-1) >= 0).all())
    for ray in range(2):
        counts = np.histogram(samples[ray].numpy(), bins=edges[ray].numpy())[0] / 5000
        assert counts == pytest.approx(weights[ray] / weights[ray].sum(), abs=1e-3)


def test_intervals_without_mass_get_no_samples() -> None:
    edges = torch.linspace(0, 1, 6, dtype=torch.float64)[None]
    samples = sample_pdf(edges, doubles([0.0, 0.0, 3.0, 0.0, 1.0]), stratified_fractions(1, 64).double())
    inner = ((samples > 0.4 - 1e-9) & (samples < 0.6 + 1e-9)).sum()
    assert int(inner) == 48
    assert int((samples > 0.8 - 1e-9).sum()) == 16


def test_samples_move_with_edges_and_weights() -> None:
    edges = doubles([0.0, 0.5, 1.1, 1.6]).requires_grad_()
    weights = doubles([0.3, 0.5, 0.2]).requires_grad_()
    fractions = doubles([0.11, 0.42, 0.63, 0.91])
    assert torch.autograd.gradcheck(lambda e, w: sample_pdf(e, w, fractions), (edges, weights))


# --- spherical harmonics ----------------------------------------------------------------------------------------------


def quadrature() -> tuple[Tensor, Tensor]:
    """Unit vectors and weights that integrate products of degree six and less exactly; weights sum to 4 pi."""
    height, weight = np.polynomial.legendre.leggauss(4)
    angle = np.arange(8) * math.pi / 4
    across = np.sqrt(1 - height**2)
    points = np.stack(
        [np.outer(across, np.cos(angle)), np.outer(across, np.sin(angle)), np.outer(height, np.ones(8))], -1
    )
    return torch.from_numpy(points.reshape(-1, 3)), torch.from_numpy(np.repeat(weight, 8) * math.pi / 4)


def test_harmonics_are_orthonormal() -> None:
    points, weight = quadrature()
    values = spherical_harmonics(points)
    assert values.shape == (32, SH_TERMS)
    assert (values.T @ (values * weight[:, None])).numpy() == pytest.approx(np.eye(SH_TERMS), abs=1e-12)


def test_harmonics_of_mean_square_one() -> None:
    points, weight = quadrature()
    values = spherical_harmonics(points, normalisation="4pi")
    assert (weight @ values.square() / (4 * math.pi)).numpy() == pytest.approx(1, abs=1e-12)
    assert values.numpy() == pytest.approx(spherical_harmonics(points).numpy() * math.sqrt(4 * math.pi))


def test_harmonics_of_a_degree_span_the_same_space_after_a_turn() -> None:
    points, weight = quadrature()
    turn = torch.linalg.qr(torch.from_numpy(np.random.default_rng(3).standard_normal((3, 3))))[0]
    mixed = spherical_harmonics(points).T @ (spherical_harmonics(points @ turn) * weight[:, None])
    degree = torch.tensor([0] + [1] * 3 + [2] * 5 + [3] * 7)
    assert (mixed.abs() * (degree[:, None] != degree)).max() < 1e-12
    assert (mixed @ mixed.T).numpy() == pytest.approx(np.eye(SH_TERMS), abs=1e-12)


def test_harmonics_stand_in_the_usual_order() -> None:
    values = spherical_harmonics(torch.eye(3, dtype=torch.float64), normalisation="4pi")
    root = math.sqrt
    assert values[:, 0].tolist() == [1, 1, 1]
    assert values[0, :4].tolist() == pytest.approx([1, 0, 0, root(3)])  # x is the third of degree one
    assert values[1, :4].tolist() == pytest.approx([1, root(3), 0, 0])
    assert values[2, [2, 6, 12]].tolist() == pytest.approx([root(3), root(5), root(7)])  # Legendre polynomials of z


def test_harmonics_have_gradients() -> None:
    points = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(spherical_harmonics, (points,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_stays(dtype: torch.dtype) -> None:
    alpha = torch.rand(2, 4, dtype=dtype)
    assert transmittance(alpha).dtype == render_weights(alpha).dtype == dtype
    assert composite(alpha, torch.rand(2, 4, 3, dtype=dtype)).dtype == dtype
    assert spherical_harmonics(torch.rand(2, 3, dtype=dtype)).dtype == dtype
    assert sample_pdf(torch.linspace(0, 1, 5, dtype=dtype)[None], alpha[:1], alpha[:1]).dtype == dtype
