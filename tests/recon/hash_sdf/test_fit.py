"""The fit for devices without compiled kernels, on the CPU: a wrong start is put right, the same way every time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.training.procedural import Part
from recon.hash_sdf.fit import fit_hash_grid, trimmed_mean
from recon.mesh.marching_cubes import extract_mesh
from recon.settings import FitSettings
from recon.surface import Surface
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull, visual_hull
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

RADIUS = 0.45
SETTINGS = FitSettings(levels=(16, 32), iterations=(15, 15), rays=256, image_side=48, hull_resolution=32)
SHORT = replace(SETTINGS, iterations=(1, 1))
VOXEL = 2 * SETTINGS.half_extent / SETTINGS.hull_resolution


class RedAndBlue:
    """Red where x is positive, blue where it is not."""

    def __call__(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        return np.where(points[:, :1] > 0, [[0.9, 0.1, 0.1]], [[0.1, 0.1, 0.9]]).astype(np.float32)


@pytest.fixture(scope="module")
def rays(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> RaySet:
    return RaySet.of(shoot(ball(RADIUS), sphere_cameras(12, 48, 1.5), solid=(RedAndBlue(),)), 48)


@pytest.fixture(scope="module")
def hull(rays: RaySet) -> Hull:
    return visual_hull(rays, SETTINGS.hull_resolution, SETTINGS.half_extent)


def fit(rays: RaySet, hull: Hull, settings: FitSettings = SETTINGS) -> Surface:
    return fit_hash_grid(rays, hull, settings, torch.device("cpu"))


def off(surface: Surface) -> np.ndarray:
    """How far the surface is from the ball's, voxels."""
    return (np.linalg.norm(extract_mesh(surface)[0], axis=1) - RADIUS) / VOXEL


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.05, -0.05])
def test_a_ball_is_found_from_a_wrong_start(rays: RaySet, hull: Hull, wrong: float) -> None:
    start = replace(hull, sdf=hull.sdf - np.float32(wrong))
    first, last = fit(rays, start, SHORT), fit(rays, start)
    assert np.abs(off(first).mean()) > 1
    assert np.abs(off(last).mean()) < 0.3
    assert np.abs(off(last)).max() < 2
    for loss, factor in (("mask", 0.5), ("colour", 1.0)):
        assert last.report.losses[loss] < factor * first.report.losses[loss]
    vertices, _ = extract_mesh(last)
    colours, side = last.colours_at(vertices), vertices[:, 0]
    red, blue = (np.median(colours[chosen], axis=0) for chosen in (side > 0.1, side < -0.1))
    assert red[0] > blue[0] + 0.005
    assert blue[2] > red[2] + 0.005


def test_the_surface_has_the_box_and_the_resolution_of_the_settings(rays: RaySet, hull: Hull) -> None:
    surface = fit(rays, hull, SHORT)
    assert surface.sdf.shape == (32, 32, 32)
    assert surface.box.low == pytest.approx([-SETTINGS.half_extent] * 3)
    assert surface.box.high == pytest.approx([SETTINGS.half_extent] * 3)
    assert np.abs(off(surface).mean()) < 0.5  # it begins with the hull
    finer = fit(rays, hull, replace(SHORT, levels=(16, 40)))
    assert finer.sdf.shape == (40, 40, 40)


def test_the_same_seed_gives_the_same_surface_and_leaves_other_draws_alone(rays: RaySet, hull: Hull) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first = fit(rays, hull, SHORT)
    assert torch.rand(1) == expected
    again, other = fit(rays, hull, SHORT), fit(rays, hull, replace(SHORT, seed=1))
    assert (first.sdf.tobytes(), first.colour.tobytes()) == (again.sdf.tobytes(), again.colour.tobytes())
    assert first.report == again.report
    assert (first.sdf != other.sdf).any()


def test_progress_is_told_at_every_step(rays: RaySet, hull: Hull) -> None:
    reported: list[tuple[int, int]] = []
    fit_hash_grid(rays, hull, SHORT, torch.device("cpu"), lambda done, total: reported.append((done, total)))
    assert reported == [(1, 2), (2, 2)]


@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(0, 1, width=32)), st.floats(0.05, 1.0))
def test_the_trimmed_mean_is_that_of_the_smallest_errors(error: np.ndarray, keep: float) -> None:
    kept = np.sort(error)[: max(1, round(keep * len(error)))]
    assert float(trimmed_mean(torch.from_numpy(error), keep)) == pytest.approx(float(kept.mean()), abs=1e-6)


def test_confidence_weighs_the_errors_it_belongs_to() -> None:
    error, weight = torch.tensor([0.9, 0.1, 0.3, 0.2]), torch.tensor([5.0, 1.0, 3.0, 0.0])
    assert float(trimmed_mean(error, 0.75, weight)) == pytest.approx((0.1 * 1 + 0.3 * 3) / 4)


def test_no_errors_at_all_cost_nothing() -> None:
    assert float(trimmed_mean(torch.zeros(0), 0.8)) == 0
