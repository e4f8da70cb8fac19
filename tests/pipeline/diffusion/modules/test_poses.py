"""Cameras as tensors: the same numbers as scene.camera, and the axioms of Pluecker coordinates."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.diffusion.modules.poses import Poses, orbit_c2w, pluecker_maps, pose_tokens
from scene.camera import DEFAULT_RADIUS, ZERO123_FOV, Camera, orbit_camera, zero123_pose

orbits = st.tuples(st.floats(-3.1, 3.1), st.floats(-1.5, 1.5), st.floats(0.8, 3))
descriptions = st.tuples(st.floats(-0.5, 1.2), st.floats(0.5, 2.5), st.floats(0.3, 0.7), st.floats(0.3, 0.7))


def described(description: tuple[float, float, float, float], size: int) -> Camera:
    """The camera a source description stands for."""
    elevation, focal, cx, cy = description
    return Camera(
        orbit_camera(0.0, elevation, DEFAULT_RADIUS).c2w, focal * size, focal * size, cx * size, cy * size, size, size
    )


@given(st.lists(orbits, min_size=1, max_size=4))
def test_orbit_poses_are_those_of_orbit_camera(values: list[tuple[float, float, float]]) -> None:
    found = orbit_c2w(torch.tensor(values))
    expected = np.stack([orbit_camera(*orbit).c2w for orbit in values])
    assert found.numpy() == pytest.approx(expected, abs=2e-6)
    poses = Poses.of_orbits(torch.tensor(values))
    assert poses.focal.numpy() == pytest.approx(0.5 / math.tan(ZERO123_FOV / 2))
    assert torch.equal(poses.centre, torch.full((len(values), 2), 0.5))


@pytest.mark.parametrize("elevation", [-math.pi / 2, math.pi / 2])
def test_orbit_poses_at_the_poles(elevation: float) -> None:
    """Single precision rounds past the pole: the heading must not flip there."""
    orbit = torch.tensor([0.7, elevation, 1.5])
    for exact in (elevation, float(orbit[1])):
        assert orbit_c2w(orbit).numpy() == pytest.approx(orbit_camera(0.7, exact, 1.5).c2w, abs=1e-6)


@given(st.lists(descriptions, min_size=1, max_size=3))
def test_rays_and_projections_are_those_of_cameras(values: list[tuple[float, float, float, float]]) -> None:
    size = 6
    cameras = [described(v, size) for v in values]
    for poses in (Poses.of(cameras), Poses.of_sources(torch.tensor(values))):
        centre, directions = poses.rays(size)
        points = torch.tensor([[0.1, -0.2, 0.3], [-0.4, 0.1, 0.0]]).expand(len(values), 2, 3)
        pixels, depth = poses.project(points)
        for k, camera in enumerate(cameras):
            assert centre[k].numpy() == pytest.approx(camera.centre, abs=1e-5)
            assert directions[k].numpy() == pytest.approx(camera.rays()[1], abs=1e-5)
            expected, expected_depth = camera.project(points[k].double().numpy())
            assert pixels[k].numpy() * size == pytest.approx(expected, abs=1e-4)
            assert depth[k].numpy() == pytest.approx(expected_depth, abs=1e-5)


@given(st.floats(-0.5, 1.2), orbits)
def test_pose_tokens_are_zero123s(elevation: float, orbit: tuple[float, float, float]) -> None:
    source = torch.tensor([elevation, 1.1, 0.5, 0.5])
    expected = zero123_pose(orbit_camera(0.0, elevation, DEFAULT_RADIUS), orbit_camera(*orbit))
    assert pose_tokens(source, torch.tensor(orbit)).numpy() == pytest.approx(expected, abs=1e-5)


def test_pose_token_vectors() -> None:
    sources = torch.tensor([[0.1, 1, 0.5, 0.5]]).expand(3, 4)
    targets = torch.tensor(
        [
            [math.pi / 2, 0.1 + math.radians(30), DEFAULT_RADIUS],
            [math.pi, 0.1, DEFAULT_RADIUS],
            [0.0, 0.1, DEFAULT_RADIUS],
        ]
    )
    expected = torch.tensor([[-0.523599, 1, 0, 0], [0, 0, -1, 0], [0, 0, 1, 0]])
    assert torch.allclose(pose_tokens(sources, targets), expected, atol=1e-6)


@given(orbits)
def test_pluecker_moments_are_perpendicular_and_measure_the_distance_from_the_origin(
    orbit: tuple[float, float, float],
) -> None:
    camera = orbit_camera(*orbit, size=5)
    maps = pluecker_maps(Poses.of([camera]), 5)[0]
    moment, direction = maps[:3], maps[3:]
    assert torch.allclose((moment * direction).sum(0), torch.zeros(5, 5), atol=1e-5)
    assert torch.allclose(direction.norm(dim=0), torch.ones(5, 5), atol=1e-5)
    origins, directions = camera.rays()
    nearest = origins - (origins * directions).sum(-1, keepdims=True) * directions
    assert moment.norm(dim=0).numpy() * DEFAULT_RADIUS == pytest.approx(np.linalg.norm(nearest, axis=-1), abs=1e-5)
    # The right-handed moment: any point of the ray crossed with its direction.
    point = origins + 0.8 * directions
    assert moment.permute(1, 2, 0).numpy() * DEFAULT_RADIUS == pytest.approx(np.cross(point, directions), abs=1e-5)
    assert torch.allclose(moment[:, 2, 2], torch.zeros(3), atol=1e-5)  # the middle ray meets the origin


def test_batches_are_indexed_and_reshaped_together() -> None:
    poses = Poses.of_orbits(torch.randn(2, 3, 3))
    assert torch.equal(poses.reshape(6)[4].c2w, poses[1].c2w[1])
    assert torch.equal(pluecker_maps(poses, 4).flatten(0, 1), pluecker_maps(poses.reshape(6), 4))
    assert pluecker_maps(poses, 4).shape == (2, 3, 6, 4, 4)
    assert len(poses) == 2
    assert poses.to(torch.device("cpu")).focal.shape == (2, 3)


def test_mixed_precision_leaves_coordinates_alone() -> None:
    """Under bf16 a coordinate of 1.5 would be off by 0.004, which is half a pixel."""
    poses, points = Poses.of_orbits(torch.randn(4, 3)), torch.randn(4, 50, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = (*poses.project(points), *poses.rays(8), pluecker_maps(poses, 8))
    for low, full in zip(mixed, (*poses.project(points), *poses.rays(8), pluecker_maps(poses, 8)), strict=True):
        assert low.dtype == torch.float32
        assert torch.allclose(low, full, atol=1e-5, rtol=1e-5)
