"""Depth maps from pictures alone: true where there is texture, silent where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float

from pipeline.training.procedural import Part, Pattern
from recon.mesh.marching_cubes import extract_mesh
from recon.mesh.metrics import compare_surfaces
from recon.settings import FitSettings
from recon.surface_report import MapReport
from recon.unmasked.plane_sweep import neighbours, stereo_depths
from recon.unmasked.stereo_fit import stereo_surface
from recon.unmasked.tsdf_fusion import ray_lengths
from recon.views.ray_set import RaySet
from scene.camera import Camera, orbit_camera
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

RADIUS = 0.45
BLOTCHES = Pattern(
    "noise", (0.1, 0.2, 0.7), 6.0, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.3, 0.5, 0.7), 0.8
)
CAMERAS = [orbit_camera(k * math.radians(12), math.radians(20), 1.5, size=96) for k in range(7)]


def depth_of_ball(camera: Camera, radius: float = RADIUS) -> Float[np.ndarray, "h w"]:
    """Along the optical axis, 0 beside the ball about the origin."""
    origins, directions = camera.rays()
    along = -(origins * directions).sum(-1)
    half = radius**2 - ((origins * origins).sum(-1) - along**2)
    distance = along - np.sqrt(np.maximum(half, 0))
    return np.where(half > 0, distance / ray_lengths(camera), 0)


@pytest.fixture(scope="module")
def blotched(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> ViewSet:
    """A blotched ball on white, without masks."""
    views = shoot(ball(RADIUS), CAMERAS, (BLOTCHES,))
    return ViewSet(views.views, has_masks=False)


def test_depths_of_a_blotched_ball_are_true(blotched: ViewSet) -> None:
    reported: list[tuple[int, int]] = []
    rays = RaySet.of(blotched, 96, masked=False)
    depths = stereo_depths(rays, 0.7, planes=64, on_step=lambda done, total: reported.append((done, total)))
    for camera, depth in zip(rays.cameras, depths, strict=True):
        true = depth_of_ball(camera)
        known = (depth > 0) & (true > 0)
        assert known.sum() > 0.35 * (true > 0).sum()
        assert np.median(np.abs(depth - true)[known]) < 0.01
        # Outlines spread by up to half a patch.
        assert (np.abs(depth - true)[known] > 0.05).mean() < 0.08
        assert ((depth > 0) & (true == 0)).mean() < 0.05
    assert reported == [(k + 1, 7) for k in range(7)]


def test_plain_pictures_have_no_depths(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    views = ViewSet(shoot(ball(1.2), CAMERAS).views, has_masks=False)  # fills the pictures
    assert stereo_surface(views, FitSettings(levels=(16, 24), iterations=(1, 1), image_side=64)) is None


def with_depths(views: ViewSet, factor: float = 1.0, which: tuple[int, ...] = tuple(range(7))) -> ViewSet:
    """Views some of which have the true depths of the ball, or a multiple of them."""
    changed = []
    for k, view in enumerate(views):
        depth = (factor * depth_of_ball(view.camera)).astype(np.float32)
        changed.append(replace(view, depth_source=depth) if k in which else view)
    return replace(views, views=tuple(changed))


def test_depth_maps_show_what_is_too_plain_for_stereo(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    cameras = sphere_cameras(12, 96, 1.5)
    plain = ViewSet(shoot(ball(RADIUS), cameras).views, has_masks=False)
    settings = FitSettings(levels=(24, 48), iterations=(1, 1), image_side=48)
    surface = stereo_surface(with_depths(plain, which=tuple(range(12))), settings)
    assert surface is not None
    assert surface.report.maps == MapReport(depth=12)
    scores = compare_surfaces(*extract_mesh(surface), *ball(RADIUS), samples=3000)
    assert scores.chamfer < 0.01
    assert scores.iou > 0.95


def test_depth_maps_that_stereo_contradicts_are_left_out(blotched: ViewSet) -> None:
    settings = FitSettings(levels=(16, 24), iterations=(1, 1), image_side=64)
    plain = stereo_surface(blotched, settings)
    assert plain is not None
    assert plain.report.maps is None
    assert (plain.report.kept, plain.report.fell_back) == ("stereo", False)
    off = stereo_surface(with_depths(blotched, 1.3), settings)
    assert off is not None
    assert off.report.maps == MapReport(left_out=tuple(view.name for view in blotched))
    assert off.sdf.tobytes() == plain.sdf.tobytes()
    some = stereo_surface(with_depths(blotched, which=(1, 4)), settings)
    assert some is not None
    assert some.report.maps == MapReport(depth=2)
    assert some.report.depth_fraction is not None
    assert plain.report.depth_fraction is not None
    assert some.report.depth_fraction > plain.report.depth_fraction
    ignored = stereo_surface(with_depths(blotched), replace(settings, depth_weight=0.0))
    assert ignored is not None
    assert ignored.sdf.tobytes() == plain.sdf.tobytes()


def test_neighbours_see_nearly_the_same_side() -> None:
    assert set(neighbours(CAMERAS, 3)[:4]) == {1, 2, 4, 5}
    assert 3 not in neighbours(CAMERAS, 3)
    opposite = [CAMERAS[0], orbit_camera(math.pi, 0.3, 1.5, size=96)]
    assert neighbours(opposite, 0) == []


def test_pictures_that_are_rolled_are_compared_all_the_same(blotched: ViewSet) -> None:
    turned = []
    for k, view in enumerate(blotched):
        if k % 2:
            c2w = view.camera.c2w.copy()
            c2w[:3, :3] = c2w[:3, :3] @ np.array([[-1.0, 0, 0], [0, -1, 0], [0, 0, 1]])
            camera = Camera(c2w, view.camera.fx, view.camera.fy, view.camera.cx, view.camera.cy, 96, 96)
            view = type(view)(view.name, camera, np.ascontiguousarray(view.rgba()[::-1, ::-1]))
        turned.append(view)
    straight, rolled = (
        stereo_depths(RaySet.of(views, 96, masked=False), 0.7, planes=48)
        for views in (blotched, ViewSet(tuple(turned), has_masks=False))
    )
    both = (straight[2] > 0) & (rolled[2] > 0)
    assert both.sum() > 0.8 * (straight[2] > 0).sum()
    assert np.median(np.abs(straight[2] - rolled[2])[both]) < 0.004


@pytest.mark.slow
def test_a_blotched_ball_without_masks_becomes_a_ball(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    cameras = [
        orbit_camera(k * math.pi / 9, math.radians(elevation), 1.5, size=96)
        for elevation in (-60, -20, 20, 60)
        for k in range(18)
    ]
    views = ViewSet(shoot(ball(RADIUS), cameras, (BLOTCHES,)).views, has_masks=False)
    reported: list[tuple[int, int]] = []
    settings = FitSettings(levels=(24, 48), iterations=(1, 1), image_side=64)
    surface = stereo_surface(views, settings, on_step=lambda done, total: reported.append((done, total)))
    assert surface is not None
    scores = compare_surfaces(*extract_mesh(surface), *ball(RADIUS), samples=3000)
    assert scores.chamfer < 0.01
    assert scores.iou > 0.93
    assert reported[-1] == (74, 74)
    found = surface.colours_at(ball(RADIUS)[0])
    expected = np.concatenate([v.rgba()[v.rgba()[..., 3] > 250][:, :3] for v in views]).mean(0) / 255
    assert found.mean(0) == pytest.approx(expected, abs=0.05)


def test_what_is_ignored_has_no_depth_and_spoils_none(shoot: Callable[..., ViewSet], ball: Callable[..., Part]) -> None:
    """A stripe that walks along with the cameras would be a surface of its own."""
    views = shoot(ball(RADIUS, (0.0, 0.0, 0.0)), CAMERAS, solid=(BLOTCHES,))
    walked = []
    for view in views:
        rgba = view.rgba().copy()
        rgba[..., 3] = 255
        stripe = np.random.default_rng(0).integers(0, 256, (96, 14, 3))
        rgba[:, 40:54, :3], rgba[:, 40:54, 3] = stripe, 0
        walked.append(replace(view, pixels=rgba))
    ignoring = ViewSet(tuple(walked), False, {"mask_means": "ignore"})
    depths = stereo_depths(RaySet.of(ignoring, 96, masked=False), 0.7, planes=96)
    believing = stereo_depths(RaySet.of(ViewSet(tuple(walked), False), 96, masked=False), 0.7, planes=96)
    for k in (2, 3, 4):
        assert (depths[k][:, 36:58] == 0).all()
        assert (depths[k] > 0).mean() > 0.04
        true = depth_of_ball(CAMERAS[k])
        both = (depths[k] > 0) & (true > 0)
        assert np.median(np.abs(depths[k][both] / true[both] - 1)) < 0.02
    assert any((depth[:, 42:52] > 0).any() for depth in believing)
