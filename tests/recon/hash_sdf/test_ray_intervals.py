"""Intervals along rays: in order, within the box, and most of them where the surface is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recon.hash_sdf.field import HashField
from recon.hash_sdf.ray_intervals import interval_ends
from scene.hashgrid import HashLayout

SMALL = HashLayout(levels=4, coarsest=4, finest=16, log2_size=8)


@pytest.fixture(scope="module")
def sphere() -> HashField:
    torch.manual_seed(0)
    return HashField(-torch.ones(3), torch.ones(3), layout=SMALL, radius=0.5)


def ends(field: HashField, aside: list[float], *, jitter: bool = False, seed: int = 0) -> Tensor:
    """Along rays towards -z from z = 2; the box is entered at 1 and left at 3."""
    count = len(aside)
    origins = torch.tensor([[x, 0.0, 2.0] for x in aside])
    directions = torch.tensor([[0.0, 0.0, -1.0]]).expand(count, 3)
    near, far = torch.ones(count), torch.full((count,), 3.0)
    generator = torch.Generator().manual_seed(seed)
    return interval_ends(
        field, origins, directions, near, far, 60.0, probes=64, count=30, jitter=jitter, generator=generator
    )


@pytest.mark.parametrize("jitter", [False, True])
def test_ends_are_in_order_within_the_box(sphere: HashField, jitter: bool) -> None:
    found = ends(sphere, [0.0, 0.2, 0.8], jitter=jitter)
    assert found.shape == (3, 31)
    assert bool((found.diff(dim=-1) >= 0).all())
    assert float(found.min()) >= 1
    assert float(found.max()) <= 3
    assert found[:, 0].tolist() == [1, 1, 1]


def test_most_ends_lie_at_the_front_of_the_surface_and_a_third_is_even(sphere: HashField) -> None:
    found = ends(sphere, [0.0])[0]
    front, back = (int(((found - depth).abs() < 0.1).sum()) for depth in (1.5, 2.5))
    assert front > 10 > back
    even = torch.linspace(1, 3, 11)
    assert float((found[:, None] - even).abs().amin(0).max()) < 1e-5


def test_rays_that_just_miss_are_refined_there(sphere: HashField) -> None:
    found = ends(sphere, [0.52])[0]
    assert int(((found - 2).abs() < 0.2).sum()) > 10  # 3 if they were even


def test_draws_repeat_with_their_generator(sphere: HashField) -> None:
    one, same, other = (ends(sphere, [0.1, 0.3], jitter=True, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
