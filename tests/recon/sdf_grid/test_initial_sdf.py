"""What a fit starts from: distances to the hull on grids of any size, about all that the masks hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pipeline.training.procedural import box
from recon.sdf_grid.initial_sdf import InitialSDF
from recon.settings import FitSettings
from recon.views.ray_set import RaySet
from recon.views.visual_hull import visual_hull
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

SETTINGS = FitSettings(levels=(16, 32), iterations=(1, 1), image_side=64, hull_resolution=32)


def start_of(views: ViewSet, prior: torch.Tensor | None = None) -> InitialSDF:
    rays = RaySet.of(views, SETTINGS.image_side)
    hull = visual_hull(rays, SETTINGS.hull_resolution, SETTINGS.half_extent, prior=prior, prior_weight=2.5)
    return InitialSDF(rays, hull, SETTINGS, prior)


@pytest.mark.parametrize("level", [16, 32])
def test_distances_are_those_to_the_ball(ball_views: ViewSet, level: int) -> None:
    start = start_of(ball_views)
    grid = start.box(level)
    where = np.stack(np.meshgrid(*grid.centres(), indexing="ij"), -1)
    true = (np.linalg.norm(where, axis=-1) - 0.5) / grid.voxel
    found = start.distances(grid)
    near = np.abs(true) < 2
    assert found[near] == pytest.approx(true[near], abs=1.5)
    assert ((found < 0) == (true < 0))[np.abs(true) > 1.2].all()


@pytest.mark.parametrize("level", [8, 16, 40])
def test_boxes_enclose_the_object_with_a_margin(ball_views: ViewSet, level: int) -> None:
    grid = start_of(ball_views).box(level, margin=3.0)
    assert (grid.low < -0.5 - 2 * grid.voxel).all()
    assert (grid.high > 0.5 + 2 * grid.voxel).all()
    # Of the size that was asked for, but for the margin.
    assert grid.voxel == pytest.approx(1.0 / level, rel=0.25)


def test_a_rod_thinner_than_a_voxel_is_not_lost(shoot: Callable[..., ViewSet]) -> None:
    start = start_of(shoot(box((0.03, 0.03, 0.5)), sphere_cameras(16, 64, 1.5)))
    assert (start.distances(start.box(8)) < 0).any()


def test_a_prior_adds_what_the_photo_shows_of_thin_parts(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    """A prior that knows of the middle only: the box still holds all that is in the first mask."""
    views = shoot(box((0.05, 0.5, 0.05)), sphere_cameras(12, 64, 1.5))
    middle = torch.zeros(16, 16, 16)
    middle[6:10, 6:10, 6:10] = 1.0
    with_prior = start_of(views, middle).box(24)
    row, column = np.nonzero(views.views[0].rgba()[..., 3] >= 128)
    camera = views.views[0].camera
    shown = camera.unproject(np.stack([column + 0.5, row + 0.5], -1), np.full(len(row), 1.5))
    assert (with_prior.low <= shown.min(axis=0) + 1e-6).all()
    assert (with_prior.high >= shown.max(axis=0) - 1e-6).all()
