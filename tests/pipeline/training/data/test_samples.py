"""Rendered samples: every part of one in the same frame, and streams that do not depend on who renders them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pipeline.diffusion.modules.poses import Poses
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import (
    Sample,
    SampleSettings,
    SampleStream,
    claimed_camera,
    heldout_mesh,
    heldout_sample,
    random_targets,
    render_sample,
    source_view,
    to_bytes,
)
from pipeline.training.procedural import assemble, box, moved
from scene.camera import DEFAULT_RADIUS, Camera, orbit_camera
from scene.framing import DEFAULT_FILL
from scene.mesh import ColouredMesh
from scene.metrics import mask_iou
from scene.render import WORLD_LIGHT, render_mesh
from scene.voxels import voxel_centres

EXACT = SampleSettings(size=64, targets=4, volume=24, fill_jitter=0.0, shift_jitter=0.0)


def lopsided() -> ColouredMesh:
    """Three boxes of different colours: no turn or mirror image of it is itself."""
    return assemble(
        [
            (box((0.5, 0.2, 0.1)), (1.0, 0.0, 0.0)),
            (moved(box((0.12, 0.12, 0.4)), (0.4, 0.1, 0.4)), (0.0, 1.0, 0.0)),
            (moved(box((0.1, 0.3, 0.1)), (-0.4, 0.4, 0.0)), (0.0, 0.0, 1.0)),
        ]
    ).normalised()


def equal(one: Sample, other: Sample) -> bool:
    """Whether two samples are the same bit for bit."""
    return all(np.array_equal(value, getattr(other, name)) for name, value in vars(one).items())


# --- the source -------------------------------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    elevation=st.floats(-0.2, 0.9),
    radius=st.floats(1.4, 2.6),
    fill=st.floats(0.5, 0.9),
    x=st.floats(-0.05, 0.05),
    y=st.floats(-0.05, 0.05),
)
def test_the_source_is_framed_as_a_prepared_photo(
    elevation: float, radius: float, fill: float, x: float, y: float
) -> None:
    mesh = lopsided()
    camera, description = source_view(mesh, elevation, radius, 100, fill, (x, y))
    pixels, _ = camera.project(mesh.vertices)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    assert (low + high) / 2 == pytest.approx(100 * (0.5 + np.array([x, y])), abs=1e-3)
    assert (high - low).max() == pytest.approx(100 * fill, rel=1e-6)
    # Its description stands for a camera at the default radius that sees the object's middle as large and as placed.
    claimed = claimed_camera(description, 100)
    assert np.linalg.norm(claimed.centre) == pytest.approx(DEFAULT_RADIUS)
    near = np.array([[0.0, 0.0, 0.0], [0.0, 0.001, 0.0], [0.0, 0.0, 0.001]])
    assert claimed.project(near)[0] == pytest.approx(camera.project(near)[0], abs=1e-3)


def test_descriptions_mean_the_same_as_tensors() -> None:
    description = np.array([0.3, 1.2, 0.47, 0.55])
    import torch

    poses, camera = Poses.of_sources(torch.from_numpy(description).float()[None]), claimed_camera(description, 10)
    points = np.array([[[0.1, 0.2, -0.3], [-0.2, 0.1, 0.4]]], np.float32)
    pixels, depth = poses.project(torch.from_numpy(points))
    expected, expected_depth = camera.project(points[0])
    assert pixels[0].numpy() * 10 == pytest.approx(expected, abs=1e-4)
    assert depth[0].numpy() == pytest.approx(expected_depth, abs=1e-5)


# --- one frame for all ------------------------------------------------------------------------------------------------


def agrees(points: np.ndarray, camera: Camera, rgba: np.ndarray) -> tuple[float, float]:
    """Share of points that fall on a picture's object, and share of its pixels near some point."""
    pixels = np.floor(camera.project(points)[0]).astype(int)
    mask = rgba[..., 3] >= 128
    near = ndimage.binary_dilation(mask, iterations=2)
    splat = np.zeros_like(mask)
    splat[pixels[:, 1], pixels[:, 0]] = True
    covered = ndimage.binary_dilation(splat, iterations=3)[mask]
    return float(near[pixels[:, 1], pixels[:, 0]].mean()), float(covered.mean())


def test_source_targets_and_solid_share_one_frame() -> None:
    sample = render_sample(lopsided(), WORLD_LIGHT, EXACT, np.random.default_rng(3))
    points = voxel_centres(24)[sample.solid]
    assert len(points) > 200
    cameras = [
        claimed_camera(sample.source_camera.astype(float), 64),
        *(orbit_camera(*(float(v) for v in pose), size=64) for pose in sample.target_cameras),
    ]
    views = list(zip(cameras, [sample.source, *sample.targets], strict=True))
    for camera, rgba in views:
        inside, covered = agrees(points, camera, rgba)
        assert inside > 0.97
        assert covered > 0.97
    mirrored = points * [1, -1, 1]
    assert min(min(agrees(mirrored, camera, rgba)) for camera, rgba in views) < 0.9


def test_the_solid_has_the_colours_of_the_object() -> None:
    sample = render_sample(lopsided(), WORLD_LIGHT, EXACT, np.random.default_rng(3))
    mesh, colours = lopsided(), sample.solid_colours.astype(float)
    assert (colours[~sample.solid] == 0).all()
    points = voxel_centres(24)
    for channel, part in enumerate(np.split(mesh.vertices, 3)):
        low, high = part.min(axis=0), part.max(axis=0)
        here = sample.solid & ((points > low) & (points < high)).all(axis=-1) & (colours.sum(axis=-1) > 0)
        assert (colours[here].argmax(axis=-1) == channel).mean() > 0.8


def test_claimed_cameras_see_what_the_photo_shows() -> None:
    """All but the perspective, since a single photo does not tell its distance."""
    mesh = lopsided()
    for seed in range(4):
        sample = render_sample(mesh, WORLD_LIGHT, EXACT, np.random.default_rng(seed))
        seen = render_mesh(mesh, claimed_camera(sample.source_camera.astype(float), 64)).mask
        assert mask_iou(seen, sample.source[..., 3] >= 128) > 0.8


def test_sizes_and_kinds() -> None:
    sample = render_sample(lopsided(), WORLD_LIGHT, replace(EXACT, volume=0), np.random.default_rng(0))
    assert sample.source.shape == (64, 64, 4)
    assert sample.targets.shape == (4, 64, 64, 4)
    assert sample.solid.size == sample.solid_colours.size == 0
    assert {sample.source.dtype, sample.targets.dtype, sample.solid_colours.dtype} == {np.dtype(np.uint8)}


def test_given_target_cameras_are_used() -> None:
    poses = np.array([[0.0, 0.3, 1.5], [1.0, 0.0, 2.0], [2.0, 1.0, 1.7], [3.0, -0.2, 1.5]])
    sample = render_sample(lopsided(), WORLD_LIGHT, EXACT, np.random.default_rng(0), poses)
    assert sample.target_cameras == pytest.approx(poses, abs=1e-6)
    for rgba, pose in zip(sample.targets, poses, strict=True):
        assert np.array_equal(rgba, to_bytes(render_mesh(lopsided(), orbit_camera(*pose, size=64)).rgba))


@given(st.integers(0, 10**6), st.integers(1, 12))
def test_random_targets_surround_the_object(seed: int, count: int) -> None:
    poses = random_targets(np.random.default_rng(seed), count)
    azimuth, elevation, radius = poses.T
    assert ((azimuth >= 0) & (azimuth < 2 * math.pi)).all()
    assert ((elevation >= math.radians(-30)) & (elevation <= math.radians(85))).all()
    assert ((radius >= 1.5) & (radius <= 2.2)).all()
    gaps = np.diff(np.sort(np.append(azimuth, azimuth.min() + 2 * math.pi)))
    assert gaps.max() <= 2 * 2 * math.pi / count + 1e-9  # stratified: no gap wider than two shares


def test_to_bytes_rounds_and_clips() -> None:
    assert to_bytes(np.array([-0.5, 0.0, 0.5, 0.999, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255, 255]


# --- held-out samples -------------------------------------------------------------------------------------------------


def test_held_out_samples_follow_from_pool_and_seed(pool_folder: Path) -> None:
    pool = ObjectPool(pool_folder, "val")
    sample = heldout_sample(pool, 0, EXACT)
    assert equal(sample, heldout_sample(pool, 0, replace(EXACT, fill_jitter=0.5, shift_jitter=0.5)))
    assert not equal(sample, heldout_sample(pool, 0, EXACT, seed=1))
    assert not equal(sample, heldout_sample(pool, 1, EXACT))
    assert (sample.target_cameras[:, 2] == DEFAULT_RADIUS).all()
    elevations = np.degrees(sample.target_cameras[:, 1])
    assert ((elevations >= -10) & (elevations <= 50)).all()
    rows, columns = (np.nonzero((sample.source[..., 3] >= 128).any(axis=k))[0] for k in (1, 0))
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(DEFAULT_FILL * 64, abs=1.5)
    assert (rows[0] + rows[-1] + 1) / 2 == pytest.approx(32, abs=1)


def test_held_out_meshes_are_turned_about_the_vertical_only(pool_folder: Path) -> None:
    pool = ObjectPool(pool_folder, "val")
    mesh, plain = heldout_mesh(pool, 0), pool.load(0).normalised()
    heights, plain_heights = mesh.vertices[:, 2], plain.vertices[:, 2]
    assert heights / np.ptp(heights) == pytest.approx(plain_heights / np.ptp(plain_heights), abs=1e-5)
    assert not np.allclose(mesh.vertices[:, :2], plain.vertices[:, :2], atol=0.01)


def test_held_out_meshes_are_normalised_as_those_of_training(pool_folder: Path) -> None:
    """Centred by the box that they have after turning."""
    vertices = heldout_mesh(ObjectPool(pool_folder, "val"), 0).vertices.astype(np.float64)
    assert vertices.min(axis=0) + vertices.max(axis=0) == pytest.approx([0, 0, 0], abs=1e-5)
    assert np.linalg.norm(vertices, axis=1).max() == pytest.approx(0.6, abs=1e-5)


# --- streams ----------------------------------------------------------------------------------------------------------

TINY = SampleSettings(size=16, targets=2, volume=8)


def test_streams_repeat_and_can_start_anywhere(pool_folder: Path) -> None:
    stream = SampleStream(pool_folder, TINY, seed=5, workers=0)
    first = list(stream.read(stop=6))
    assert len(first) == 6
    assert all(equal(a, b) for a, b in zip(first[3:], stream.read(3, 6), strict=True))
    assert not equal(first[0], first[1])
    assert not equal(first[0], next(SampleStream(pool_folder, TINY, seed=6, workers=0).read()))


@pytest.mark.parametrize("workers", [1, 2])
def test_streams_do_not_depend_on_the_number_of_workers(pool_folder: Path, workers: int) -> None:
    here = list(SampleStream(pool_folder, TINY, seed=5, workers=0).read(stop=7))
    elsewhere = list(SampleStream(pool_folder, TINY, seed=5, workers=workers, ahead=2).read(stop=7))
    assert len(here) == len(elsewhere) == 7
    assert all(equal(a, b) for a, b in zip(here, elsewhere, strict=True))


def test_streams_without_a_pool_are_procedural() -> None:
    sample = next(SampleStream(None, TINY, workers=0).read())
    assert sample.source[..., 3].max() == 255
