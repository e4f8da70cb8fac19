"""Making views agree: gains that were put in are found, outliers doubted, views chosen in patches, borders evened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from pipeline.training.procedural import Part
from recon.mesh.topology import edges_of
from recon.texture.blend import choose_views, detail_weights, smooth_offsets, view_gains, view_trust
from recon.texture.visibility import HIDDEN, WHOLE, Visibility

VIEWS, POINTS = 6, 400


def ring_sight(seed: int, faces: int = 10) -> Visibility:
    """Points on a ring, each seen by three of six views in turn; all views show the same."""
    rng = np.random.default_rng(seed)
    first = np.arange(POINTS) * VIEWS // POINTS
    seen = ((np.arange(VIEWS)[:, None] - first) % VIEWS) < 3
    colour = rng.uniform(0.2, 0.7, (POINTS, 3))
    weight = seen * rng.uniform(0.2, 1, (VIEWS, POINTS))
    return Visibility(
        weight.astype(np.float32),
        np.where(seen[..., None], colour, 0).astype(np.float32),
        np.full((VIEWS, faces), WHOLE, np.uint8),
    )


def joints_of(faces: np.ndarray, count: int) -> sparse.csr_array:
    ends = edges_of(faces).ends
    one, other = np.concatenate([ends, ends[:, ::-1], np.repeat(np.arange(count), 2).reshape(-1, 2)]).T
    return sparse.csr_array((np.ones(len(one), np.float32), (one, other)), shape=(count, count))


# --- gains -------------------------------------------------------------------------------------------------------


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1))
def test_gains_that_were_put_in_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gains = rng.uniform(0.85, 1.15, (VIEWS, 3))
    visibility = ring_sight(seed)
    noisy = visibility.colour * gains[:, None] + rng.normal(0, 0.003, visibility.colour.shape)
    found = view_gains(replace(visibility, colour=noisy.astype(np.float32)))
    assert found == pytest.approx(gains / gains.mean(axis=0), abs=0.015)


def test_views_that_agree_get_exactly_one() -> None:
    visibility = ring_sight(1)
    noise = np.random.default_rng(2).normal(0, 0.01, visibility.colour.shape)
    assert (view_gains(visibility) == 1).all()
    assert (view_gains(replace(visibility, colour=(visibility.colour + noise).astype(np.float32))) == 1).all()


def test_gains_stay_in_bounds_and_outliers_do_not_count() -> None:
    visibility = ring_sight(3)
    strong = np.ones((VIEWS, 1, 1))
    strong[2] = 0.45
    dark = view_gains(replace(visibility, colour=(visibility.colour * strong).astype(np.float32)))
    assert dark.min() == 0.7
    assert dark.max() <= 1.4
    spoilt = visibility.colour.copy()
    spoilt[1, ::6] = 0.95
    assert view_gains(replace(visibility, colour=spoilt)) == pytest.approx(np.ones((VIEWS, 3)), abs=0.02)


def test_a_view_without_overlap_is_left_alone() -> None:
    visibility = ring_sight(4)
    weight = visibility.weight.copy()
    weight[:, :80] = 0
    weight[5] = 0
    weight[5, :80] = 1
    colour = visibility.colour * np.array([1, 1.1, 0.9, 1, 1, 2])[:, None, None]
    found = view_gains(replace(visibility, weight=weight, colour=np.minimum(colour, 0.96).astype(np.float32)))
    assert found[5] == pytest.approx(1, abs=0.01)
    assert found[1] / found[2] == pytest.approx(1.1 / 0.9, rel=0.02)


# --- trust -------------------------------------------------------------------------------------------------------


def test_who_differs_from_the_others_is_doubted() -> None:
    visibility = ring_sight(5)
    colour = visibility.colour.copy()
    colour[0, :40] = (0, 1, 0)
    colour[3, 210:214] += 0.02
    chain = sparse.csr_array(
        sparse.diags_array([np.ones(POINTS - 1), np.ones(POINTS), np.ones(POINTS - 1)], offsets=[-1, 0, 1])
    )
    trust = view_trust(replace(visibility, colour=colour), chain)
    assert trust[0, :40].max() < 0.05
    assert trust[1, 5:35].min() > 0.9
    assert trust[3, 200:230].min() > 0.9
    assert trust[0, 40] < 0.3  # beside what is wrong
    assert trust[0, 50] > 0.95


def test_two_views_have_nobody_to_judge_between_them() -> None:
    visibility = ring_sight(6)
    colour, weight = visibility.colour[:2].copy(), visibility.weight[:2]
    colour[0] = 1
    eye = sparse.csr_array(sparse.eye_array(POINTS))
    assert (view_trust(Visibility(weight, colour, visibility.extent[:2]), eye) == 1).all()


# --- choice ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def globe(ball: Callable[..., Part]) -> Part:
    return ball(0.5, subdivisions=3)


def two_views(part: Part, seed: int = 0) -> Visibility:
    """Each of two views sees one half better, with noise in how well."""
    vertices, faces = part
    rng = np.random.default_rng(seed)
    side = np.stack([0.5 + 0.4 * vertices[:, 0], 0.5 - 0.4 * vertices[:, 0]])
    weight = side * rng.uniform(0.7, 1.3, side.shape)
    return Visibility(
        weight.astype(np.float32),
        np.full((2, len(vertices), 3), 0.5, np.float32),
        np.full((2, len(faces)), WHOLE, np.uint8),
    )


def borders(chosen: np.ndarray, pairs: np.ndarray) -> int:
    return int((chosen[pairs[:, 0]] != chosen[pairs[:, 1]]).sum())


def test_views_are_chosen_in_patches(globe: Part) -> None:
    visibility, pairs = two_views(globe), edges_of(globe[1]).pairs()
    trust = np.ones_like(visibility.weight)
    rough = choose_views(visibility, trust, globe[1], pairs, smoothness=0.0)
    smooth = choose_views(visibility, trust, globe[1], pairs)
    assert borders(smooth, pairs) < 0.5 * borders(rough, pairs)
    middle = globe[0][globe[1]].mean(axis=1)[:, 0]
    assert (smooth[middle > 0.3] == 0).mean() > 0.95
    assert (smooth[middle < -0.3] == 1).mean() > 0.95


def test_views_that_are_hidden_or_doubted_are_not_chosen(globe: Part) -> None:
    visibility, pairs = two_views(globe), edges_of(globe[1]).pairs()
    extent = visibility.extent.copy()
    extent[0] = HIDDEN
    extent[:, :7] = HIDDEN
    chosen = choose_views(replace(visibility, extent=extent), np.ones_like(visibility.weight), globe[1], pairs)
    assert (chosen[:7] == -1).all()
    assert (chosen[7:] == 1).all()
    doubt = np.ones_like(visibility.weight)
    doubt[1] = 0.001
    assert (choose_views(visibility, doubt, globe[1], pairs) == 0).all()


# --- evening out -------------------------------------------------------------------------------------------------


def test_offsets_bring_coarse_colours_together_and_keep_detail(globe: Part) -> None:
    """One view is lighter and has fine noise: the lightness goes, the noise stays."""
    vertices, faces = globe
    visibility, adjacency = two_views(globe), joints_of(faces, len(vertices))
    noise = np.random.default_rng(1).normal(0, 0.05, (len(vertices), 3)).astype(np.float32)
    colour = visibility.colour.copy()
    colour[0] += 0.1 + noise
    weight = np.full_like(visibility.weight, 0.8)
    offsets = smooth_offsets(Visibility(weight, colour, visibility.extent), np.ones_like(weight), adjacency)
    assert offsets[0] == pytest.approx(np.full(noise.shape, -0.05), abs=0.02)
    assert offsets[1] == pytest.approx(np.full(noise.shape, 0.05), abs=0.02)
    assert np.corrcoef((colour[0] + offsets[0]).reshape(-1), noise.reshape(-1))[0, 1] > 0.98


def test_views_that_agree_get_no_offsets(globe: Part) -> None:
    visibility = two_views(globe)
    offsets = smooth_offsets(visibility, np.ones_like(visibility.weight), joints_of(globe[1], len(globe[0])))
    assert np.abs(offsets).max() < 1e-6


def test_detail_is_averaged_where_views_agree_only(globe: Part) -> None:
    vertices, faces = globe
    visibility, adjacency = two_views(globe), joints_of(faces, len(vertices))
    trust, none = np.ones_like(visibility.weight), np.zeros_like(visibility.colour)
    chosen = np.zeros(len(faces), np.int64)
    same = detail_weights(visibility, trust, faces, chosen, none, adjacency)
    assert (same[1] / same[0]).min() > 0.1
    other = visibility.colour.copy()
    other[1] += 0.3
    apart = detail_weights(replace(visibility, colour=other), trust, faces, chosen, none, adjacency)
    assert (apart[1] / apart[0]).max() < 0.01
    assert apart[0] == pytest.approx(same[0])
    chosen[: len(faces) // 2] = -1
    assert np.isfinite(detail_weights(visibility, trust, faces, chosen, none, adjacency)).all()


def test_the_best_views_are_averaged_and_no_more() -> None:
    visibility = ring_sight(9, faces=4)
    weight = np.tile(np.array([0.9, 0.5, 0.4, 0.3, 0.2, 0.1], np.float32)[:, None], (1, POINTS))
    faces = np.array([[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]])
    even = Visibility(weight, np.full((VIEWS, POINTS, 3), 0.5, np.float32), visibility.extent)
    mix = detail_weights(
        even, np.ones_like(weight), faces, np.zeros(4, np.int64), np.zeros((VIEWS, POINTS, 3)), joints_of(faces, POINTS)
    )
    assert (mix[:3, :6] > 0).all()
    assert (mix[3:, :6] == 0).all()
