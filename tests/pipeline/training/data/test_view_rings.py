"""Rings of views around a front, and how their depth is spoiled."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffusion.epipolar import Pixels, masked_lookup, projected, surface_points
from pipeline.diffusion.modules.poses import Poses
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import heldout_mesh
from pipeline.training.data.view_rings import (
    DepthNoise,
    RingSettings,
    RingStream,
    ViewRing,
    drafted,
    heldout_ring,
    render_ring,
    resized_mask,
)
from scene.camera import OBJECT_RADIUS, orbit_camera, orbit_of
from scene.render import WORLD_LIGHT, MeshRenderer

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


def test_drafts_are_off_as_one_thing(pool_folder: Path) -> None:
    """One draft for all views: where two views see a point of it, both see it at the same place."""
    mesh = heldout_mesh(ObjectPool(pool_folder, "val"), 0)
    settings = RingSettings(size=48, views=(3, 3), drafts=1.0)
    off = []
    for seed in range(8):
        ring = render_ring(mesh, WORLD_LIGHT, settings, np.random.default_rng(seed))
        assert ring.draft_depths is not None
        assert ring.draft_front_depth is not None
        both = (ring.depths > 0) & (ring.draft_depths > 0)
        off.append(np.abs(ring.depths - ring.draft_depths)[both].mean() / OBJECT_RADIUS)
        poses, depth = Poses.of(ring.cameras), torch.from_numpy(ring.draft_depths)
        points = surface_points(poses[0], Pixels.of(depth[0]))
        places, there, inside = projected(poses[1:], points)
        surface, share = masked_lookup(depth[1:, None], (depth[1:] > 0).float(), places)
        # Hidden by what lies before them, or at the place that the other view sees; hardly ever before that.
        before = (inside & (share > 0.99) & (there < surface[..., 0] - 0.05)).float().sum()
        assert before <= 0.05 * (inside & (share > 0.99)).float().sum()
    # Hardly in one set, by far in another.
    assert min(off) < 0.02
    assert max(off) > 2 * min(off)


def test_hollows_of_a_hull_are_filled(pool_folder: Path) -> None:
    mesh = heldout_mesh(ObjectPool(pool_folder, "val"), 0)
    hull = drafted(mesh, np.random.default_rng(0), hull=1.0)
    assert np.array_equal(hull.vertices, mesh.vertices.astype(np.float32))
    camera = orbit_camera(0.4, 0.3, 1.5, size=48)
    own, filled = (MeshRenderer(one).render(camera).depth for one in (mesh, hull))
    assert (filled[own > 0] > 0).mean() > 0.98
    both = (own > 0) & (filled > 0)
    assert (filled - own)[both].max() < 0.02


def test_held_out_rings_have_no_drafts(pool_folder: Path) -> None:
    assert heldout_ring(ObjectPool(pool_folder, "val"), 0, SMALL).draft_depths is None
