"""Depth maps against cameras: any factor is found and applied, what fits stays, what fits nowhere is left out."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from recon.checks.depths import depth_scale, with_fitting_depths
from scene.camera import Camera, orbit_camera
from scene.view import View
from scene.viewset import ViewSet

SIZE = 48


def depth_of_balls(camera: Camera) -> np.ndarray:
    """Depth along the optical axis of two balls, 0 beside them."""
    origins, directions = camera.rays()
    forward = camera.forward
    nearest = np.full(origins.shape[:2], np.inf)
    for centre, radius in (((0.1, 0.0, 0.1), 0.3), ((-0.2, 0.15, -0.15), 0.22)):
        offset = origins - np.array(centre)
        along = -(offset * directions).sum(-1)
        half = radius**2 - ((offset * offset).sum(-1) - along**2)
        hit = np.where(half > 0, along - np.sqrt(np.maximum(half, 0)), np.inf)
        nearest = np.minimum(nearest, hit)
    return np.where(np.isfinite(nearest), nearest * (directions @ forward), 0).astype(np.float32)


def ring(factor: float = 1.0, *, masked: bool = True, noise: float = 0.0) -> ViewSet:
    views, rng = [], np.random.default_rng(0)
    for k in range(12):
        camera = orbit_camera(2 * math.pi * k / 12, (0.2, 0.6)[k % 2], 1.5, size=SIZE)
        depth = depth_of_balls(camera)
        depth = (depth * (1 + rng.normal(0, noise, depth.shape)) / factor).astype(np.float32)
        rgba = np.full((SIZE, SIZE, 4), 255, np.uint8)
        rgba[..., 3] = np.where(depth > 0, 255, 0) if masked else 255
        views.append(View(f"v{k}", camera, rgba, depth_source=depth))
    return ViewSet(tuple(views), masked)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("factor", [1000.0, 0.001, 1.2, 1.06, 0.93, 0.01, 3.7])
def test_a_constant_factor_is_found_told_and_applied(factor: float, masked: bool) -> None:
    views, notes = with_fitting_depths(ring(factor, masked=masked))
    scale = views.views[0].depth_scale
    assert scale == pytest.approx(factor, rel=0.01)
    assert f"multiplied by {scale:.4g}" in notes[0]
    assert ("metres were taken for millimetres" in notes[0]) == (factor == 1000)
    depth = views.views[3].depth()
    assert depth is not None
    assert depth == pytest.approx(depth_of_balls(views.views[3].camera), rel=0.01)


@pytest.mark.parametrize(("factor", "noise"), [(1.0, 0.0), (1.0, 0.02), (1.0, 0.05), (1.01, 0.0)])
def test_maps_that_fit_are_left_as_they_are(factor: float, noise: float) -> None:
    views = ring(factor, noise=noise)
    assert with_fitting_depths(views) == (views, [])


def test_maps_that_fit_at_no_scale_are_left_out_by_name() -> None:
    """Random walls, a thousand times too near."""
    rng = np.random.default_rng(3)
    depths = [rng.uniform(2e-4, 4e-3, (SIZE, SIZE)).astype(np.float32) for _ in range(12)]
    views = ring()
    wild = replace(views, views=tuple(replace(v, depth_source=d) for v, d in zip(views, depths)))
    found, notes = with_fitting_depths(wild)
    assert not found.has_depths
    assert "do not fit the cameras at any scale" in notes[0]


def test_maps_of_which_nothing_can_be_told_are_kept() -> None:
    views = ring()
    for few in (views.views[:2], tuple(replace(view, camera=views.views[0].camera) for view in views)):
        some = ViewSet(few, True)
        assert depth_scale(some) is None
        assert with_fitting_depths(some) == (some, [])


def test_a_map_that_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    views = ring()
    (tmp_path / "d.npy").write_bytes(b"nothing")
    spoilt = replace(views, views=(replace(views.views[0], depth_source=tmp_path / "d.npy"), *views.views[1:]))
    found, notes = with_fitting_depths(spoilt)
    assert found.has_depths
    assert "1 of 12 depth maps is of no use and left out; that of v0: cannot be read" in notes[0]
