"""Scores of meshes with known distances between them."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.training.procedural import Part, box
from recon.mesh.metrics import (
    MeshScores,
    chamfer,
    compare_meshes,
    distance_to_mesh,
    point_triangle_distance,
    sample_surface,
    unit_box,
)
from scene.errors import InputError

CORNERS = arrays(np.float64, (3, 3), elements=st.floats(-1, 1))


@given(arrays(np.float64, 3, elements=st.floats(-2, 2)), CORNERS)
def test_distance_to_a_triangle_is_that_of_its_nearest_point(point: np.ndarray, triangle: np.ndarray) -> None:
    a, b, c = triangle
    assume(np.linalg.norm(np.cross(b - a, c - a)) > 1e-3)
    steps = np.linspace(0, 1, 61)
    u, v = (x[steps[:, None] + steps <= 1 + 1e-9] for x in np.meshgrid(steps, steps, indexing="ij"))
    points = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    brute = np.linalg.norm(points - point, axis=1).min()
    distance = point_triangle_distance(point[None], triangle[None])[0]
    coarse = max(np.linalg.norm(b - a), np.linalg.norm(c - a)) / 60
    assert brute - coarse <= distance <= brute + 1e-9


@given(st.floats(0, 1), st.floats(0, 1), CORNERS)
def test_points_of_the_triangle_have_no_distance(u: float, v: float, triangle: np.ndarray) -> None:
    if u + v > 1:
        u, v = 1 - u, 1 - v
    point = triangle[0] + u * (triangle[1] - triangle[0]) + v * (triangle[2] - triangle[0])
    assume(np.linalg.norm(np.cross(triangle[1] - triangle[0], triangle[2] - triangle[0])) > 1e-3)
    assert point_triangle_distance(point[None], triangle[None])[0] < 1e-9


def test_a_triangle_without_area_is_measured_as_its_edges() -> None:
    line = np.array([[[0, 0, 0], [1, 0, 0], [2, 0, 0.0]], [[1, 1, 1], [1, 1, 1], [1, 1, 1.0]]])
    assert point_triangle_distance(np.array([[3, 0, 0], [1, 1, 3.0]]), line) == pytest.approx([1, 2])


def test_distances_to_a_ball(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, (1, 2, 3), subdivisions=4)
    directions = ball(1.0, subdivisions=2)[0]
    for radius in (0.2, 0.5, 0.9):
        points = np.array([1, 2, 3]) + radius * directions
        assert distance_to_mesh(points, vertices, faces, density=20_000) == pytest.approx(abs(radius - 0.5), abs=2e-3)


def test_triangles_too_small_to_be_sampled_are_still_measured() -> None:
    """A large triangle and a far tiny one, nearer to the point."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5], [5 + 1e-6, 5, 5], [5, 5 + 1e-6, 5]])
    distance = distance_to_mesh(np.array([[5, 5, 5.5]]), vertices, np.array([[0, 1, 2], [3, 4, 5]]), density=1000)
    assert distance == pytest.approx([0.5], abs=1e-5)


def test_samples_are_spread_by_area_over_whole_triangles() -> None:
    """A triangle of area 1/2 and one of area 3/2, in a plane of their own each."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2], [3, 0, 2], [0, 1, 2.0]])
    points, face = sample_surface(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 8000)
    assert (face == 1).mean() == pytest.approx(0.75, abs=0.02)
    assert points[face == 0].mean(axis=0) == pytest.approx([1 / 3, 1 / 3, 0], abs=0.02)
    assert points[face == 1].mean(axis=0) == pytest.approx([1, 1 / 3, 2], abs=0.05)
    on = points[face == 0]
    assert on.min() >= 0
    assert (on[:, 0] + on[:, 1]).max() <= 1
    assert np.cov(on[:, 0], on[:, 1])[0, 1] == pytest.approx(-1 / 36, abs=0.003)  # of even spread in a triangle


def test_samples_depend_on_the_seed_alone(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    first, again, other = (sample_surface(vertices, faces, 50, seed)[0] for seed in (3, 3, 4))
    assert (first == again).all()
    assert (first != other).any()


def test_a_mesh_without_area_cannot_be_measured() -> None:
    with pytest.raises(InputError, match="without area cannot be measured"):
        sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 10)


def test_the_unit_box_keeps_the_proportions() -> None:
    vertices = unit_box(box((2.0, 4.0, 1.0))[0] + [7, 8, 9])
    assert vertices.max(axis=0) == pytest.approx([0.25, 0.5, 0.125])
    assert vertices.min(axis=0) == pytest.approx([-0.25, -0.5, -0.125])


def test_a_mesh_agrees_with_itself_at_any_scale_and_place(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=3)
    scores = compare_meshes(vertices * 7 + [1, 2, 3], faces[:, [1, 2, 0]], vertices, faces, samples=500)
    assert scores.chamfer < 1e-7
    assert (scores.f_score_1, scores.f_score_5) == (1, 1)
    assert scores.iou == pytest.approx(1, abs=0.01)


def sphere_in_cube() -> tuple[float, float, float]:
    """Chamfer distance and both F-scores of a sphere of diameter 1 and the cube around it, by fine quadrature."""
    axis = (np.arange(400) + 0.5) / 400 - 0.5
    y, z = np.meshgrid(axis, axis)
    away = np.sqrt(0.25 + y**2 + z**2) - 0.5  # from a face of the cube to the sphere
    # The directions of face points, weighted by solid angle, are even on the sphere; the cube is nearest along an axis.
    solid_angle = (away + 0.5) ** -3
    gap = 0.5 - 0.5 * 0.5 / (away + 0.5)
    weight = solid_angle / solid_angle.sum()
    scores = []
    for threshold in (0.01, 0.05):
        precision, recall = (away < threshold).mean(), (weight * (gap < threshold)).sum()
        scores.append(2 * precision * recall / (precision + recall))
    return (away.mean() + (gap * weight).sum()) / 2, scores[0], scores[1]


def test_a_sphere_and_the_cube_around_it_have_their_analytic_scores(ball: Callable[..., Part]) -> None:
    scores = compare_meshes(*ball(0.5, subdivisions=5), *box((0.5, 0.5, 0.5)), samples=8000)
    assert chamfer(*ball(0.5, subdivisions=5), *box((0.5, 0.5, 0.5))) == pytest.approx(scores.chamfer, rel=0.02)
    distance, f_1, f_5 = sphere_in_cube()
    assert scores.chamfer == pytest.approx(distance, rel=0.02)
    assert scores.f_score_1 == pytest.approx(f_1, abs=0.01)
    assert scores.f_score_5 == pytest.approx(f_5, abs=0.015)
    assert scores.iou == pytest.approx(math.pi / 6, abs=0.02)


def test_scores_of_meshes_far_apart_in_shape_are_low() -> None:
    upright, lying = box((0.02, 0.02, 0.5)), box((0.5, 0.02, 0.02))
    scores = compare_meshes(*upright, *lying, samples=1000)
    assert isinstance(scores, MeshScores)
    assert scores.f_score_1 < 0.1
    assert scores.iou < 0.1
    assert scores.chamfer > 0.2
