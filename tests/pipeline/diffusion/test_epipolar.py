"""Geometry between views, on a sphere whose every pixel is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.diffusion.epipolar import (
    NEAR,
    Pixels,
    lookup,
    masked_lookup,
    nearest_views,
    points_on_rays,
    pooled_depth,
    projected,
    ray_pluecker,
    stratified_offsets,
)
from pipeline.diffusion.modules.poses import Poses
from scene.camera import OBJECT_RADIUS, Camera, orbit_camera

CPU = torch.device("cpu")


def texture(points: np.ndarray) -> np.ndarray:
    """A smooth pattern of unit amplitude on the sphere."""
    x, y, z = np.moveaxis(points / OBJECT_RADIUS, -1, 0)
    return np.sin(3 * x + 1) * np.cos(2 * y) + 0.5 * np.sin(4 * z)


def sphere(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Pattern and z-depth of the sphere as a camera sees it, exact at pixel centres; 0 beside it."""
    origins, directions = camera.rays()
    half = (origins * directions).sum(-1)
    root = half**2 - (origins**2).sum(-1) + OBJECT_RADIUS**2
    distance = -half - np.sqrt(np.maximum(root, 0))
    points = origins + distance[..., None] * directions
    hit = root > 0
    return np.where(hit, texture(points), 0), np.where(hit, distance * (directions @ camera.forward), 0)


def warped(source: Camera, target: Camera) -> tuple[Tensor, Tensor]:
    """The target's pattern read in the source by depth, and the true pattern, where the source sees the surface."""
    pattern, depth = (torch.from_numpy(x).float() for x in sphere(source))
    true, own = (torch.from_numpy(x).float() for x in sphere(target))
    pixels = Pixels.of(own)
    points = points_on_rays(Poses.of([target])[0], pixels, torch.zeros(len(pixels), 1), 1.0)[:, 0]
    places, there, seen = projected(Poses.of([source]), points)
    values, _ = masked_lookup(pattern[None, None], (depth > 0).float()[None], places)
    surface, share = masked_lookup(depth[None, None], (depth > 0).float()[None], places)
    plain = seen[0] & (share[0] > 0.999) & ((there - surface[..., 0]).abs()[0] < 0.02)
    return values[0, :, 0][plain], true.flatten()[pixels.index][plain]


def test_a_sphere_is_found_in_another_view() -> None:
    source, target = orbit_camera(0.0, 0.2, 1.5, size=64), orbit_camera(0.6, 0.35, 1.7, size=64)
    found, true = warped(source, target)
    assert len(found) > 500
    assert (found - true).abs().mean() < 0.005


def test_ray_lengths_or_other_corners_would_be_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = orbit_camera(0.0, 0.2, 1.5, size=64), orbit_camera(0.6, 0.35, 1.7, size=64)
    plain = torch.nn.functional.grid_sample

    def corners(*args: object, align_corners: bool, **more: object) -> Tensor:
        return plain(*args, align_corners=True, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(torch.nn.functional, "grid_sample", corners)
    found, true = warped(source, target)
    assert (found - true).abs().mean() > 0.01


def test_a_view_sees_itself_where_it_is() -> None:
    """Zero baseline: whatever the depth, a pixel lies at its own centre."""
    camera = orbit_camera(0.4, 0.3, size=16)
    pixels = Pixels.of(torch.rand(16, 16) + 1)
    offsets = stratified_offsets(len(pixels), 3, CPU)
    points = points_on_rays(Poses.of([camera])[0], pixels, offsets, 0.2)
    places, depth, seen = projected(Poses.of([camera]), points.flatten(0, 1))
    assert seen.all()
    assert places[0].unflatten(0, offsets.shape) == pytest.approx(pixels.places[:, None].expand(-1, 3, -1), abs=1e-6)
    assert depth[0].unflatten(0, offsets.shape) == pytest.approx(pixels.depth[:, None] + 0.2 * offsets, abs=1e-5)


def test_points_are_those_of_cameras() -> None:
    """OpenGL axes and z-depth, as everywhere in scene."""
    camera = orbit_camera(2.1, -0.4, 1.8, size=8)
    depth = np.linspace(1, 2, 64).reshape(8, 8)
    xs, ys = np.meshgrid(np.arange(8) + 0.5, np.arange(8) + 0.5)
    true = camera.unproject(np.stack([xs, ys], -1), depth)
    pixels = Pixels.of(torch.from_numpy(depth).float())
    points = points_on_rays(Poses.of([camera])[0], pixels, torch.zeros(64, 1), 1.0)
    assert points[:, 0].numpy() == pytest.approx(true.reshape(-1, 3), abs=1e-5)


def test_points_that_nobody_sees_are_finite() -> None:
    camera = orbit_camera(0.0, 0.0, 1.5, size=8)
    behind, within, beside = camera.centre - camera.forward, camera.centre, np.array([0.0, 5.0, 0.0])
    points = torch.tensor(np.stack([behind, within, beside, np.zeros(3)])).float()
    places, depth, seen = projected(Poses.of([camera]), points)
    assert seen[0].tolist() == [False, False, False, True]
    assert torch.isfinite(places).all()
    assert torch.isfinite(depth).all()
    assert places[0, :3].abs().max() == 0
    assert torch.isfinite(lookup(torch.ones(1, 2, 8, 8), places)).all()


def test_pooled_depth_knows_the_foreground_only() -> None:
    depth = torch.zeros(1, 4, 4)
    depth[0, 0, 0], depth[0, :2, 2:] = 1.5, torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    assert pooled_depth(depth, 2).tolist() == [[[1.5, 1.5], [0.0, 0.0]]]
    assert pooled_depth(depth, 4).equal(depth)
    assert pooled_depth(depth, 8).shape == (1, 8, 8)
    assert set(pooled_depth(depth, 8).unique().tolist()) == {0.0, 1.0, 1.5, 2.0}


def test_offsets_are_stratified() -> None:
    assert stratified_offsets(2, 4, CPU).tolist() == [[-0.75, -0.25, 0.25, 0.75]] * 2
    found = stratified_offsets(200, 4, CPU, torch.Generator().manual_seed(0), jitter=True)
    part = ((found + 1) * 2).floor().long()
    assert part.equal(torch.arange(4).expand(200, 4))
    assert found.std(0).min() > 0.1


def test_points_never_lie_behind_their_own_camera() -> None:
    pixels = Pixels(torch.zeros(1, dtype=torch.long), torch.full((1, 2), 0.5), torch.tensor([0.1]))
    pose = Poses.of([orbit_camera(0.0, 0.0, 1.5)])[0]
    points = points_on_rays(pose, pixels, torch.tensor([[-1.0, 1.0]]), 0.5)[0]
    assert points[:, 0].tolist() == pytest.approx([1.5 - NEAR, 0.9])


def test_masked_lookup_reads_no_background() -> None:
    """Half of the four pixels are background, and not even finite."""
    maps = torch.tensor([[[[2.0, math.nan], [2.0, math.inf]]]])
    masks = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    places = torch.tensor([[[0.5, 0.5], [0.25, 0.25], [0.75, 0.75]]])
    values, share = masked_lookup(maps, masks, places)
    assert values[0, :, 0].tolist() == [2.0, 2.0, 0.0]
    assert share[0].tolist() == [0.5, 1.0, 0.0]


def test_nearest_views_go_round() -> None:
    orbits = torch.tensor([[k * math.pi / 4, 0.2, 1.5] for k in range(8)])
    found = nearest_views(Poses.of_orbits(orbits), 2)
    assert [sorted(row) for row in found.tolist()] == [sorted([(k - 1) % 8, (k + 1) % 8]) for k in range(8)]
    assert nearest_views(Poses.of_orbits(orbits), 20).shape == (8, 7)
    assert nearest_views(Poses.of_orbits(orbits[:1]), 4).shape == (1, 0)


def test_pluecker_coordinates_are_of_a_line() -> None:
    """Moment and direction are perpendicular, and any point of the line gives the same moment."""
    centre, point = torch.tensor([0.3, -1.0, 0.4]), torch.tensor([[0.1, 0.2, -0.1]])
    line = ray_pluecker(centre, point, 2.0)[0]
    assert float(line[:3] @ line[3:]) == pytest.approx(0, abs=1e-6)
    assert torch.cross(point[0], line[3:], dim=0) / 2 == pytest.approx(line[:3], abs=1e-6)
