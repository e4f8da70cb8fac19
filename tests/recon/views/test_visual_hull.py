"""Hulls of analytic solids, votes, and distances with known values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.procedural import Part, box, moved
from recon.views.ray_set import RaySet
from recon.views.visual_hull import signed_distance, silhouette_iou, visual_hull, vote_inside
from scene.camera import orbit_camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet
from scene.voxel_grid import VoxelGrid
from scene.voxels import sphere_cameras, voxel_centres

HALF = 0.648
RESOLUTION = 32
VOXEL = 2 * HALF / RESOLUTION
POINTS = voxel_centres(RESOLUTION, HALF)
RADIUS = np.linalg.norm(POINTS, axis=-1)


def with_mask(view: View, alpha: int) -> View:
    """The view with the same mask value everywhere."""
    rgba = view.rgba().copy()
    rgba[..., 3] = alpha
    return replace(view, pixels=rgba)


def with_weights(views: ViewSet, weights: list[float]) -> ViewSet:
    """The same views with other confidences."""
    return replace(views, views=tuple(replace(v, weight=w) for v, w in zip(views, weights, strict=True)))


def test_the_hull_of_a_ball_encloses_it_closely(ball_views: ViewSet) -> None:
    hull = visual_hull(RaySet.of(ball_views, 64), RESOLUTION, HALF)
    assert (hull.sdf[RADIUS < 0.5 - 0.5 * VOXEL] < 0).all()
    assert (hull.sdf[RADIUS > 0.5 + 1.5 * VOXEL] > 0).all()
    near = np.abs(RADIUS - 0.5) < 2 * VOXEL
    assert np.abs(hull.sdf - (RADIUS - 0.5))[near].mean() < 0.4 * VOXEL
    assert hull.silhouette_iou > 0.95
    assert hull.threshold >= 0.9


def test_the_axes_of_the_grid_are_x_y_z(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    centre = np.array([0.25, -0.15, 0.05])
    inside = visual_hull(RaySet.of(shoot(ball(0.2, centre), sphere_cameras(16, 64)), 64), RESOLUTION, HALF).sdf < 0
    assert POINTS[inside].mean(axis=0) == pytest.approx(centre, abs=0.3 * VOXEL)
    assert inside.sum() * VOXEL**3 == pytest.approx(4 / 3 * math.pi * 0.2**3, rel=0.25)


def test_a_few_masks_leave_what_they_cannot_rule_out(shoot: Callable[..., ViewSet]) -> None:
    """From straight above, a low box may be as tall as the pyramid of rays through its outline."""
    views = shoot(box((0.2, 0.2, 0.05)), [orbit_camera(0.0, math.pi / 2, 8.0, size=64, fov=0.15)])
    inside = vote_inside(RaySet.of(views, 64), RESOLUTION, HALF) > 0.5
    column = np.abs(POINTS[..., :2]).max(axis=-1)
    assert inside[column < 0.2 - VOXEL].all()
    assert not inside[column > 0.2 + VOXEL].any()


def test_what_lies_beside_pictures_of_the_whole_object_is_outside() -> None:
    """Close to a camera only few others see; its own mask alone must not make an object there."""
    cameras = [orbit_camera(k * math.pi / 2, 0.0, size=32) for k in range(4)]
    size = 32
    disc = np.hypot(*(np.mgrid[:size, :size] + 0.5 - size / 2)) < 12
    rgba = np.repeat((disc * 255).astype(np.uint8)[..., None], 4, axis=-1)
    views = ViewSet(tuple(View(f"{k}", c, pixels=rgba) for k, c in enumerate(cameras)), has_masks=True)
    inside = vote_inside(RaySet.of(views, size), 48, 1.2)
    points = voxel_centres(48, 1.2)
    assert inside[24, 24, 24] == 1
    assert (inside[np.linalg.norm(points, axis=-1) > 0.8] <= 0.5).all()


def test_a_picture_that_cuts_the_object_off_does_not_vote_on_the_rest(
    ball_views: ViewSet, ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    close = shoot(ball(0.5), [orbit_camera(0.4, 0.1, 1.5, size=64, fov=0.2)]).views[0]
    views = ViewSet((*ball_views.views, replace(close, name="close")), has_masks=True)
    inside = vote_inside(RaySet.of(views, 64), RESOLUTION, HALF)
    assert (inside[RADIUS < 0.5 - VOXEL] > 0.99).all()


def test_votes_count_by_confidence(ball_views: ViewSet) -> None:
    empty = replace(with_mask(ball_views.views[0], 0), name="empty")
    views = ViewSet((*ball_views.views, empty), has_masks=True)
    weights = [1.0] * 16
    for weight in (0.0, 4.0):
        rays = RaySet.of(with_weights(views, [*weights, weight]), 64)
        centre = vote_inside(rays, 9, HALF)[4, 4, 4]
        assert centre == pytest.approx(16 / (16 + weight))


def test_a_missing_mask_lowers_the_vote_instead_of_losing_the_object(ball_views: ViewSet) -> None:
    views = ViewSet((*ball_views.views, replace(with_mask(ball_views.views[0], 0), name="empty")), has_masks=True)
    rays = RaySet.of(views, 64)
    hull = visual_hull(rays, RESOLUTION, HALF)
    assert hull.threshold < 0.95
    assert (hull.sdf[RADIUS < 0.5 - VOXEL] < 0).all()
    assert (hull.sdf[RADIUS > 0.5 + 2 * VOXEL] > 0).all()
    with pytest.raises(InputError, match=r"no common inside\. Check that the cameras look at the same object"):
        visual_hull(rays, RESOLUTION, HALF, threshold=0.99)


def test_masks_that_cover_everything_are_refused(ball_views: ViewSet) -> None:
    views = ViewSet(tuple(with_mask(view, 255) for view in ball_views), has_masks=True)
    with pytest.raises(InputError, match=r"cover all there is\. Check the masks: black must be what is not the object"):
        visual_hull(RaySet.of(views, 64), 16, HALF)


def test_a_prior_settles_what_the_masks_leave_open(shoot: Callable[..., ViewSet]) -> None:
    views = shoot(box((0.2, 0.2, 0.05)), [orbit_camera(0.0, math.pi / 2, 8.0, size=64, fov=0.15)])
    prior = torch.from_numpy((np.abs(POINTS[..., 2]) < 0.1).astype(np.float32))
    rays = RaySet.of(views, 64)
    hull = visual_hull(rays, RESOLUTION, HALF, threshold=0.9, prior=prior, prior_weight=0.5)
    inside = hull.sdf < 0
    assert np.abs(POINTS[inside]).max(axis=0) == pytest.approx([0.2, 0.2, 0.1], abs=VOXEL)
    votes = vote_inside(rays, RESOLUTION, HALF, prior, 0.5)
    assert votes[16, 16, 31] == pytest.approx(1 / 1.5, abs=1e-3)  # inside the mask, outside the prior
    assert votes[31, 31, 16] == pytest.approx(0.5 / 1.5, abs=1e-3)  # outside the mask, inside the prior


def test_a_prior_is_read_over_the_whole_cube_whatever_its_resolution() -> None:
    rays = RaySet.of(
        ViewSet((View("a", orbit_camera(0.0, 0.0, size=8), pixels=np.full((8, 8, 4), 255, np.uint8)),), True), 8
    )
    prior = torch.zeros(4, 4, 4)
    prior[3, 0, :] = 1.0  # x high, y low
    votes = vote_inside(rays, 16, HALF, prior, 1e6)
    assert votes[14, 1, 8] > 0.9
    assert votes[1, 14, 8] < 0.1


def test_distances_to_a_half_space_are_exact_away_from_the_borders() -> None:
    inside = (POINTS[..., 0] < 0).astype(np.float32)
    sdf = signed_distance(inside, 0.5, HALF)
    assert sdf[3:-3] == pytest.approx(POINTS[3:-3, ..., 0], abs=0.02 * VOXEL)


@given(st.floats(0.05, 0.95))
def test_the_level_decides_what_is_inside(level: float) -> None:
    inside = np.clip(1 - RADIUS, 0, 1).astype(np.float32)
    sdf = signed_distance(inside, level, HALF)
    clear = np.abs(RADIUS - (1 - level)) > VOXEL
    assert ((sdf < 0) == (1 - level > RADIUS))[clear].all()


@pytest.mark.parametrize(("value", "message"), [(0.0, "no common inside"), (1.0, "cover all there is")])
def test_distances_need_an_inside_and_an_outside(value: float, message: str) -> None:
    with pytest.raises(InputError, match=message):
        signed_distance(np.full((4, 4, 4), value, np.float32), 0.5, HALF)


def test_distances_in_a_box_are_in_its_voxels() -> None:
    """A slab in a box of different sides; ``half`` is that of x."""
    inside = np.zeros((8, 12, 20), np.float32)
    inside[:, :, 5:15] = 1
    sdf = signed_distance(inside, 0.5, 0.4)
    assert sdf.shape == inside.shape
    assert sdf[4, 6, [1, 3, 16, 18]] == pytest.approx([0.35, 0.15, 0.15, 0.35], abs=0.005)
    assert sdf[4, 6, [6, 8]] == pytest.approx([-0.15, -0.35], abs=0.005)


def test_smoothing_keeps_rods_and_gaps_of_one_voxel() -> None:
    inside = np.zeros((16, 16, 16), np.float32)
    inside[8, 8, 2:14] = 1
    inside[2:5, 2:13, 2:13] = 1
    inside[3, 6, 2:13] = 0
    assert np.array_equal(signed_distance(inside, 0.5, 1.0) < 0, inside > 0.5)


def test_agreement_is_the_overlap_of_outlines(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """A cube seen square from far away: half of its width makes half of its outline."""
    cameras = [orbit_camera(k * math.pi, 0.0, 20.0, size=64, fov=0.08) for k in range(2)]
    rays = RaySet.of(shoot(box((0.4, 0.4, 0.4)), cameras), 64)
    y = POINTS[..., 1]
    cube = (np.abs(POINTS).max(axis=-1) < 0.4).astype(np.float32)
    whole = silhouette_iou(rays, torch.from_numpy(cube), 0.5, HALF)
    half = silhouette_iou(rays, torch.from_numpy(cube * (y > 0)), 0.5, HALF)
    assert whole > 0.93
    assert half == pytest.approx(0.5, abs=0.05)
    assert silhouette_iou(rays, torch.zeros(8, 8, 8), 0.5, HALF) == 0


def test_agreement_is_the_same_in_any_box_that_holds_the_object(ball_views: ViewSet) -> None:
    """The ball in a box of different sides, off the middle; and the same numbers at another place."""
    rays = RaySet.of(ball_views, 64)
    box = VoxelGrid.of_voxel(np.array([-0.55, -0.6, -0.9]), np.array([0.9, 0.55, 0.52]), 0.03)
    points = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1)
    solid = torch.from_numpy((np.linalg.norm(points, axis=-1) < 0.5).astype(np.float32))
    cube = silhouette_iou(rays, torch.from_numpy((RADIUS < 0.5).astype(np.float32)), 0.5, HALF)
    assert silhouette_iou(rays, solid, 0.5, box) == pytest.approx(cube, abs=0.03)
    assert cube > 0.93
    aside = replace(box, low=box.low + np.array([0.2, 0, 0]))
    assert silhouette_iou(rays, solid, 0.5, aside) < 0.85


def test_a_cubes_half_side_and_its_box_are_the_same_extent(ball_views: ViewSet) -> None:
    rays = RaySet.of(ball_views, 64)
    solid = torch.from_numpy((RADIUS < 0.4).astype(np.float32))
    cube = VoxelGrid(np.full(3, -HALF), VOXEL, (RESOLUTION,) * 3)
    assert silhouette_iou(rays, solid, 0.5, HALF) == pytest.approx(silhouette_iou(rays, solid, 0.5, cube))


def test_agreement_weighs_views_by_confidence(ball_views: ViewSet) -> None:
    views = ViewSet((ball_views.views[0], replace(with_mask(ball_views.views[1], 0), name="no")), has_masks=True)
    solid = torch.from_numpy((RADIUS < 0.5).astype(np.float32))
    good, bad = (
        silhouette_iou(RaySet.of(with_weights(views, w), 64), solid, 0.5, HALF) for w in ([3.0, 1.0], [1.0, 3.0])
    )
    assert good == pytest.approx(3 * bad)
    assert good == pytest.approx(0.75, abs=0.05)


def test_parts_off_the_middle_stay_where_they_are(shoot: Callable[..., ViewSet]) -> None:
    rod = moved(box((0.03, 0.03, 0.5)), (0.3, -0.2, 0.0))
    sdf = visual_hull(RaySet.of(shoot(rod, sphere_cameras(16, 64)), 64), 48, HALF).sdf
    low, high = (f(voxel_centres(48, HALF)[sdf < 0], axis=0) for f in (np.min, np.max))
    assert (low + high) / 2 == pytest.approx([0.3, -0.2, 0.0], abs=0.027)
    assert high[2] - low[2] == pytest.approx(1.0, abs=0.1)
