"""Coloured meshes: lookups with known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from pipeline.training.procedural import Pattern, Recolour, box, moved
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError
from scene.mesh import ColouredMesh, area_normals, face_normals, sample_image, signed_volume, vertex_normals

TRIANGLE = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
FACE = np.array([[0, 1, 2]], np.int32)
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
AT = np.zeros(4, np.int64)
BARY = np.array([[0, 0], [1, 0], [0, 1], [0.25, 0.5]])
STRIPES = Pattern("stripes", (0.0, 0.0, 0.0), 2.0, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.3, 0.0, 0.0))


def test_barycentric_weights_belong_to_the_corners_in_order() -> None:
    mesh = ColouredMesh(TRIANGLE, FACE, vertex_colours=RGB)
    assert mesh.colours_at(AT, BARY) == pytest.approx(np.array([*(RGB / 255), [0.25, 0.25, 0.5]]))


def test_a_mesh_without_colours_is_grey() -> None:
    assert ColouredMesh(TRIANGLE, FACE).colours_at(AT, BARY) == pytest.approx(0.7)


def test_face_normals_follow_the_winding_and_are_zero_without_area() -> None:
    faces = np.array([[0, 1, 2], [0, 2, 1], [0, 1, 1]], np.int32)
    assert ColouredMesh(TRIANGLE, faces).face_normals() == pytest.approx(np.array([[0, 0, 1], [0, 0, -1], [0, 0, 0]]))


@given(arrays(np.uint8, (4, 6, 3)), st.integers(0, 3), st.integers(0, 5), st.integers(-2, 2), st.integers(-2, 2))
def test_texel_centres_give_texels_and_textures_repeat(
    image: np.ndarray, row: int, column: int, right: int, down: int
) -> None:
    uv = np.array([[(column + 0.5) / 6 + right, (row + 0.5) / 4 + down]])
    assert sample_image(image, uv)[0] == pytest.approx(image[row, column] / 255, abs=1e-5)


def test_texture_lookup_is_bilinear_with_v_downwards() -> None:
    image = np.array([[[0, 0, 0], [200, 0, 0]], [[0, 100, 0], [200, 100, 0]]], np.uint8)
    between = sample_image(image, np.array([[0.5, 0.25], [0.25, 0.5], [0.25, 0.625]])) * 255
    assert between == pytest.approx(np.array([[100, 0, 0], [0, 50, 0], [0, 75, 0]]), abs=1e-3)


@pytest.mark.parametrize("texture", [STRIPES, Recolour(((0.0, 1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)))])
def test_solid_textures_move_with_the_mesh(texture: Pattern | Recolour) -> None:
    mesh = ColouredMesh(TRIANGLE, FACE, vertex_colours=RGB, solid=(texture,))
    rng = np.random.default_rng(0)
    bary = rng.dirichlet((1, 1, 1), 50)[:, 1:]
    face = np.zeros(50, np.int64)
    before = mesh.colours_at(face, bary)
    turn = np.eye(4)
    turn[:3, :3] = 3 * np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])
    turn[:3, 3] = [5, 6, 7]
    moved = mesh.transformed(turn).normalised()
    assert not np.allclose(moved.vertices, mesh.vertices)
    assert moved.colours_at(face, bary) == pytest.approx(before)
    assert np.ptp(before, axis=0).max() > 0.3  # the texture shows at all


def test_solid_textures_apply_in_order_over_the_base_colour() -> None:
    swap = Recolour(((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0)))
    halve = Recolour(((0.5, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)))
    first = ColouredMesh(TRIANGLE, FACE, vertex_colours=RGB, solid=(swap, halve)).colours_at(AT[:1], BARY[:1])
    other = ColouredMesh(TRIANGLE, FACE, vertex_colours=RGB, solid=(halve, swap)).colours_at(AT[:1], BARY[:1])
    assert first[0] == pytest.approx([0, 0, 1])
    assert other[0] == pytest.approx([0, 0, 0.5])


def test_normalised_fits_the_sphere_and_keeps_single_precision() -> None:
    mesh = ColouredMesh(TRIANGLE * 40 + 7, FACE).normalised()
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(OBJECT_RADIUS, rel=1e-5)
    assert mesh.vertices.dtype == np.float32


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"faces": np.array([[0, 1, 3]])}, r"outside 0\.\.2"),
        ({"faces": np.array([[0, 1, -1]])}, r"outside 0\.\.2"),
        ({"vertices": np.full((3, 3), math.nan)}, "not finite"),
        ({"uv": np.zeros((3, 2))}, "both texture coordinates and a texture"),
        ({"texture": np.zeros((2, 2, 3), np.uint8)}, "both texture coordinates and a texture"),
    ],
)
def test_inconsistent_meshes_are_refused(changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ColouredMesh(**{"vertices": TRIANGLE, "faces": FACE, **changes})


@given(arrays(np.float64, (3, 3), elements=st.floats(-2, 2)))
def test_area_normals_are_square_to_the_sides_and_as_long_as_twice_the_area(corners: np.ndarray) -> None:
    (normal,) = area_normals(corners, FACE)
    sides = corners - np.roll(corners, 1, axis=0)
    assert sides @ normal == pytest.approx(0, abs=1e-9)
    lengths = np.sort(np.linalg.norm(sides, axis=1))
    # Heron's formula.
    half = lengths.sum() / 2
    area = math.sqrt(max(0.0, half * np.prod(half - lengths)))
    assert np.linalg.norm(normal) == pytest.approx(2 * area, abs=1e-6)


def test_normals_of_a_ball_point_away_from_its_middle() -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces)
    assert face_normals(vertices, faces) == pytest.approx(vertices[faces].mean(axis=1) / 0.5, abs=0.02)
    assert vertex_normals(vertices, faces) == pytest.approx(vertices / 0.5, abs=0.01)


def test_normals_are_weighted_by_area_and_never_zero() -> None:
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 1], [9, 9, 9.0]])
    normals = vertex_normals(vertices, np.array([[0, 1, 2], [0, 2, 3]]))
    assert normals[0] == pytest.approx(np.array([3, 0, 9]) / math.hypot(3, 9))
    assert normals[1] == pytest.approx([0, 0, 1])
    assert normals[4].tolist() == [0, 0, 1]
    assert np.linalg.norm(vertex_normals(vertices * 1e-4, np.array([[0, 1, 2]])), axis=1) == pytest.approx(1)


@given(st.tuples(*[st.floats(0.1, 2)] * 3), st.tuples(*[st.floats(-3, 3)] * 3), st.tuples(*[st.floats(-3, 3)] * 3))
def test_volume_does_not_depend_on_place_and_heading(
    size: tuple[float, float, float], turn: tuple[float, float, float], offset: tuple[float, float, float]
) -> None:
    vertices, faces = moved(box(size), offset, Rotation.from_rotvec(turn).as_matrix())
    assert signed_volume(vertices, faces) == pytest.approx(8 * math.prod(size))
    assert signed_volume(vertices, faces[:, ::-1]) == pytest.approx(-8 * math.prod(size))
