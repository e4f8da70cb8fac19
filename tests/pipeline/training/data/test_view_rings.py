"""Rings of views around a front, and how their depth is spoiled."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.view_rings import DepthNoise, RingSettings, RingStream, ViewRing, heldout_ring, resized_mask
from scene.camera import OBJECT_RADIUS, orbit_of

SMALL = RingSettings(size=32, views=(2, 4))


@pytest.fixture(scope="module")
def rings(pool_folder: Path) -> list[ViewRing]:
    return list(islice(RingStream(pool_folder, SMALL, seed=3).read(), 6))


def test_rings_are_what_they_say(rings: list[ViewRing]) -> None:
    assert {len(ring.views) for ring in rings} <= {2, 3, 4}
    for ring in rings:
        azimuths = np.mod([orbit_of(camera)[0] for camera in ring.cameras], 2 * np.pi)
        assert (np.diff(azimuths) > 0).all()
        assert ring.front.shape == (64, 64, 4)
        assert ring.front_camera.width == 64
        for rgba, depth in [*zip(ring.views, ring.depths, strict=True), (ring.front, ring.front_depth)]:
            assert depth.shape == rgba.shape[:2]
            assert ((depth > 0) == (rgba[..., 3] > 0)).mean() > 0.9  # but for the outline
            assert (depth > 0).any()


def test_rings_follow_from_their_seed(rings: list[ViewRing], pool_folder: Path) -> None:
    again = next(RingStream(pool_folder, SMALL, seed=3).read())
    assert np.array_equal(again.views, rings[0].views)
    assert np.array_equal(again.front, rings[0].front)
    other = next(RingStream(pool_folder, SMALL, seed=4).read())
    assert other.views.shape != again.views.shape or not np.array_equal(other.views, again.views)


def test_held_out_rings_go_round(pool_folder: Path) -> None:
    ring = heldout_ring(ObjectPool(pool_folder, "val"), 0, SMALL, views=5)
    assert np.diff([orbit_of(camera)[0] % (2 * np.pi) for camera in ring.cameras]) == pytest.approx(2 * np.pi / 5)


def test_noise_keeps_its_bound_and_the_background() -> None:
    noise, depth = DepthNoise(), torch.zeros(3, 64, 64)
    depth[:, 10:50, 10:50] = 1.5
    found = noise.spoiled(depth, 1.0, 0, 5)
    assert torch.equal(found > 0, depth > 0)
    error = (found - depth)[:, 10:50, 10:50] / OBJECT_RADIUS
    assert 0.01 < error.std() < error.abs().max() <= sum(noise.amplitudes) + 1e-6
    assert torch.equal(noise.spoiled(depth, 1.0, 0, 5), found)
    assert not torch.equal(noise.spoiled(depth, 1.0, 0, 6), found)
    assert torch.equal(noise.spoiled(depth, 0.0, 0, 5), depth)


def test_masks_grow_by_their_neighbours_depth_and_shrink() -> None:
    depth = torch.zeros(1, 9, 9)
    depth[0, 3:6, 3:6] = 2.0
    grown = resized_mask(depth, 1)
    assert int((grown > 0).sum()) == 25
    assert grown[grown > 0].tolist() == pytest.approx([2.0] * 25)
    shrunk = resized_mask(depth, -1)
    assert int((shrunk > 0).sum()) == 1
    assert shrunk[0, 4, 4] == 2.0
    assert torch.equal(resized_mask(depth, 0), depth)
    # An object that fills the frame does not shrink from the frame's edge.
    assert torch.equal(resized_mask(torch.ones(1, 4, 4), -1), torch.ones(1, 4, 4))
