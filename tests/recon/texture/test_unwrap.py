"""Unwrapping: charts that do not overlap, are not mirrored, have one scale, and fill the texture; rasterising."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage
from skimage import measure

from pipeline.training.procedural import Part, box
from recon.mesh.topology import face_components
from recon.texture.rasterise import covered_texels, rasterise
from recon.texture.unwrap import project_charts, unwrap
from scene.mesh import area_normals
from scene.voxels import voxel_centres

Unwrapped = tuple[np.ndarray, np.ndarray, np.ndarray]


def blob(seed: int, resolution: int) -> Part:
    """A smooth lump with hollows and overhangs."""
    rng = np.random.default_rng(seed)
    points = voxel_centres(resolution, 1.0)
    total = np.zeros(points.shape[:3])
    for _ in range(7):
        total += np.exp(-(((points - rng.uniform(-0.5, 0.5, 3)) / rng.uniform(0.12, 0.35, 3)) ** 2).sum(axis=-1))
    vertices, faces, _, _ = measure.marching_cubes(np.pad(0.5 - total, 1, constant_values=0.5), 0.0)
    return vertices * 2 / resolution - 1, faces.astype(np.int64)


def assert_flat(part: Part, unwrapped: Unwrapped, side: int) -> float:
    """No face mirrored, no texel claimed twice, all faces there; returns the share of texels that are covered."""
    source, new_faces, uv = unwrapped
    assert (source[new_faces] == part[1]).all()
    assert uv.min() >= 0
    assert uv.max() <= 1
    corners = uv[new_faces] * side
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    assert (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).max() < 1e-3  # v runs down, so unmirrored faces run clockwise
    _, x, y, _ = covered_texels(uv * side, new_faces, slack=-1e-6)
    claims = np.bincount(y * side + x, minlength=side * side)
    assert claims.max() == 1
    return float((claims > 0).mean())


def test_charts_keep_faces_lie_in_the_picture_and_do_not_overlap(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=3)
    source, new_faces, uv = unwrap(vertices, faces, 256)
    assert (source[new_faces] == faces).all()
    corners = uv[new_faces] * 256
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    areas = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / 2
    face_of, _ = rasterise(uv, new_faces, 256)
    assert (face_of >= 0).sum() == pytest.approx(areas.sum(), rel=0.02)
    assert areas.sum() > 0.3 * 256**2


def test_charts_are_not_stretched() -> None:
    """A long flat box packs into an atlas that is far from square."""
    vertices, faces = box((0.6, 0.06, 0.03))
    source, new_faces, uv = unwrap(vertices, faces, 256)
    edges = np.concatenate([new_faces[:, [k, (k + 1) % 3]] for k in range(3)])
    flat, solid = (np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1) for x in (uv, vertices[source]))
    ratio = flat / solid
    assert ratio.max() < 1.1 * ratio.min()


@given(arrays(np.float64, (3, 2), elements=st.floats(0, 1)), st.sampled_from([8, 16, 33]))
def test_rasterising_finds_the_texels_whose_centres_lie_inside(uv: np.ndarray, side: int) -> None:
    a, b, c = uv * side
    area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
    face_of, bary = rasterise(uv, np.array([[0, 1, 2]]), side)
    if abs(area) < 1e-3:
        return
    for row in range(side):
        for column in range(side):
            p = np.array([column + 0.5, row + 0.5])
            v = ((c[0] - p[0]) * (a[1] - p[1]) - (c[1] - p[1]) * (a[0] - p[0])) / area
            w = ((a[0] - p[0]) * (b[1] - p[1]) - (a[1] - p[1]) * (b[0] - p[0])) / area
            margin = min(v, w, 1 - v - w)
            if abs(margin) < 1e-5:
                continue  # rounding decides
            assert face_of[row, column] == (0 if margin > 0 else -1)
            if margin > 0:
                assert bary[row, column] == pytest.approx([v, w], abs=1e-4)


def test_faces_of_all_sizes_are_rasterised() -> None:
    """A square of two halves, one of them cut into small pieces along a fan."""
    fan = np.stack([np.linspace(0, 1, 12), np.ones(12)], axis=1)
    uv = np.concatenate([[[0.0, 0.0], [1.0, 0.0]], fan])
    faces = np.array([[0, 1, 13]] + [[0, k + 1, k] for k in range(2, 13)])
    face_of, _ = rasterise(uv, faces, 64)
    assert (face_of >= 0).all()
    assert set(face_of.reshape(-1).tolist()) == set(range(12))


@settings(max_examples=8)
@given(st.integers(0, 2**32 - 1), st.sampled_from([200, 256]))
def test_projected_charts_lie_flat_and_fill_half_of_the_texture(seed: int, side: int) -> None:
    part = blob(seed, 28)
    assert assert_flat(part, project_charts(*part, side, 2), side) > 0.4


def test_large_meshes_fill_more_than_half_of_the_texture() -> None:
    part = blob(4, 100)
    assert len(part[1]) > 20_000
    assert assert_flat(part, unwrap(*part, 1024), 1024) > 0.55


def test_charts_have_the_same_number_of_texels_for_the_same_area() -> None:
    vertices, faces = blob(5, 32)
    _, new_faces, uv = project_charts(vertices, faces, 256, 2)
    chart = face_components(new_faces, len(uv))
    corners = uv[new_faces]
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = np.bincount(chart, np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]))
    solid = np.bincount(chart, np.linalg.norm(area_normals(vertices, faces), axis=1))
    assert chart.max() > 5
    assert flat / solid == pytest.approx(np.full(len(flat), flat.sum() / solid.sum()), rel=0.01)


@pytest.mark.parametrize("padding", [2, 5])
def test_charts_keep_their_distance(padding: int) -> None:
    vertices, faces = blob(6, 24)
    _, new_faces, uv = project_charts(vertices, faces, 256, padding)
    face_of, _ = rasterise(uv, new_faces, 256)
    chart = np.where(face_of >= 0, face_components(new_faces, len(uv))[face_of], -1)
    for k in range(chart.max() + 1):
        near = ndimage.binary_dilation(chart == k, np.ones((3, 3), bool), iterations=padding)
        assert (np.isin(chart[near], [-1, k])).all()


def test_a_spiral_that_lies_over_itself_is_cut() -> None:
    """A ramp of three turns: all of it is seen from above, in one piece, three times over."""
    angle = np.linspace(0, 6 * np.pi, 91)
    rim = np.stack([np.cos(angle), np.sin(angle), 0.05 * angle], axis=1)
    vertices = np.concatenate([rim, rim * [0.4, 0.4, 1]])
    k = np.arange(90)
    faces = np.concatenate([np.stack([k, k + 1, k + 92], 1), np.stack([k, k + 92, k + 91], 1)])
    _, new_faces, uv = unwrapped = project_charts(vertices, faces, 256, 2)
    assert assert_flat((vertices, faces), unwrapped, 256) > 0.3
    assert 3 <= face_components(new_faces, len(uv)).max() + 1 < 30


def test_faces_without_area_do_no_harm() -> None:
    vertices, faces = box((1.0, 0.5, 0.25))
    flat = np.concatenate([faces, [[0, 1, 1], [2, 2, 2]]])
    source, new_faces, uv = project_charts(vertices, flat, 64, 2)
    assert (source[new_faces] == flat).all()
    assert np.isfinite(uv).all()


def test_small_meshes_are_not_mirrored_either(ball: Callable[..., Part]) -> None:
    for part in (ball(0.5, subdivisions=3), box((0.5, 0.3, 0.1)), blob(7, 20)):
        assert assert_flat(part, unwrap(*part, 256), 256) > 0.35


@pytest.mark.slow
def test_fifty_thousand_faces_take_seconds() -> None:
    part = blob(8, 152)
    assert len(part[1]) > 50_000
    start = time.process_time()
    unwrapped = unwrap(*part, 2048)
    assert time.process_time() - start < 10
    assert assert_flat(part, unwrapped, 2048) > 0.55
