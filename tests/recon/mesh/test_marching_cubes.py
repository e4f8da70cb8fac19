"""Meshes of analytic surfaces: where they lie, which way they face, and that they stay closed."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.procedural import Part, box
from recon.mesh.decimate import decimate
from recon.mesh.health import mesh_health
from recon.mesh.marching_cubes import extract_mesh, taubin
from recon.mesh.topology import (
    face_components,
    part_touching_sheets,
    remove_small_components,
    remove_unreferenced_vertices,
)
from recon.surface import Surface
from scene.errors import InputError
from scene.mesh import signed_volume, vertex_normals
from scene.voxel_grid import VoxelGrid
from scene.voxels import voxel_centres

HALF = 0.648
VOXEL = 2 * HALF / 32
CENTRE = np.array([0.15, -0.1, 0.05])


def surface_of(sdf: np.ndarray, half: float = HALF) -> Surface:
    return Surface.cube(sdf.astype(np.float32), np.full((2, 2, 2, 3), 0.5, np.float32), half)


def sphere_surface(radius: float, resolution: int = 32, half: float = HALF) -> Surface:
    """Exact distances to a sphere about CENTRE."""
    return surface_of(np.linalg.norm(voxel_centres(resolution, half) - CENTRE, axis=-1) - radius, half)


def together(*parts: Part) -> Part:
    """Parts side by side in one mesh."""
    starts = np.cumsum([0] + [len(p[0]) for p in parts[:-1]])
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] + s for p, s in zip(parts, starts)])


@given(radius=st.floats(0.15, 0.45), resolution=st.integers(16, 33), half=st.floats(0.64, 0.9))
def test_vertices_lie_on_the_surface_in_the_world(radius: float, resolution: int, half: float) -> None:
    vertices, faces = extract_mesh(sphere_surface(radius, resolution, half))
    voxel = 2 * half / resolution
    distance = np.abs(np.linalg.norm(vertices - CENTRE, axis=1) - radius)
    assert distance.max() < voxel**2 / (4 * radius) + 1e-6  # linear interpolation of a curved function
    health = mesh_health(vertices, faces)
    assert health.watertight
    assert (health.components, health.euler) == (1, 2)
    assert health.volume == pytest.approx(4 / 3 * math.pi * radius**3, rel=2 * (voxel / radius) ** 2)


@given(radius=st.floats(0.15, 0.3), shape=st.tuples(*[st.integers(20, 30)] * 3), voxel=st.floats(0.04, 0.05))
def test_vertices_lie_on_the_surface_in_any_box(radius: float, shape: tuple[int, int, int], voxel: float) -> None:
    grid = VoxelGrid(CENTRE - np.array(shape) * voxel / 2 + np.array([0.02, -0.03, 0.05]), voxel, shape)
    points = np.stack(np.meshgrid(*grid.centres(), indexing="ij"), -1)
    sdf = (np.linalg.norm(points - CENTRE, axis=-1) - radius).astype(np.float32)
    vertices, faces = extract_mesh(Surface(sdf, np.full((2, 2, 2, 3), 0.5, np.float32), grid.low, voxel))
    distance = np.abs(np.linalg.norm(vertices - CENTRE, axis=1) - radius)
    assert distance.max() < voxel**2 / (4 * radius) + 1e-6
    assert mesh_health(vertices, faces).watertight


def test_faces_look_outward(ball: Callable[..., Part]) -> None:
    vertices, faces = extract_mesh(sphere_surface(0.4))
    outward = vertex_normals(vertices, faces)
    expected = (vertices - CENTRE) / np.linalg.norm(vertices - CENTRE, axis=1, keepdims=True)
    assert np.einsum("nc,nc->n", outward, expected).min() > 0.98


def test_an_object_cut_by_the_cube_is_closed_there() -> None:
    vertices, faces = extract_mesh(sphere_surface(0.6))
    health = mesh_health(vertices, faces)
    assert health.watertight
    assert health.volume > 0
    assert np.abs(vertices).max() < HALF + VOXEL / 2 + 1e-9


@pytest.mark.parametrize("value", [0.3, 0.0])
def test_nothing_inside_is_an_error(value: float) -> None:
    with pytest.raises(InputError, match=r"the surface is empty\. Check the masks, or lower the hull threshold"):
        extract_mesh(surface_of(np.full((8, 8, 8), value)))


def test_specks_go_and_parts_stay(ball: Callable[..., Part]) -> None:
    """Areas 0.16, 0.09 and 0.01 of each other: only the smallest is a speck at a tenth."""
    big, part, speck = ball(0.4), ball(0.3, (1, 0, 0)), ball(0.1, (0, 2, 0))
    vertices, faces = remove_small_components(*together(speck, big, part), fraction=0.1)
    assert len(vertices) == len(big[0]) + len(part[0])
    assert len(faces) == len(big[1]) + len(part[1])
    assert vertices[:, 1].max() < 1
    assert signed_volume(vertices, faces) == pytest.approx(4 / 3 * math.pi * (0.4**3 + 0.3**3), rel=0.01)
    everything = remove_small_components(*together(speck, big, part), fraction=0.05)
    assert mesh_health(*everything).components == 3


def test_components_are_connected_by_vertices() -> None:
    faces = np.array([[5, 6, 7], [0, 1, 2], [2, 3, 4], [7, 8, 5]])
    labels = face_components(faces, 10)
    assert labels[0] == labels[3] != labels[1] == labels[2]
    assert sorted(set(labels.tolist())) == [0, 1]


def test_compacting_drops_what_nothing_uses_and_moves_nothing() -> None:
    vertices = np.arange(21.0).reshape(7, 3)
    points, faces = remove_unreferenced_vertices(
        vertices, np.array([[6, 2, 4], [3, 3, 1], [2, 5, 5], [1, 0, 1], [4, 2, 0]])
    )
    assert points[faces].tolist() == vertices[[[6, 2, 4], [4, 2, 0]]].tolist()
    assert points.tolist() == vertices[[0, 2, 4, 6]].tolist()


@pytest.mark.parametrize("target", [100, 800, 3000])
def test_decimation_keeps_the_number_the_shape_and_the_closedness(target: int) -> None:
    vertices, faces = extract_mesh(sphere_surface(0.45))
    assert len(faces) > 3000
    points, triangles = decimate(vertices, faces, target)
    health = mesh_health(points, triangles)
    assert 0.8 * target <= health.faces <= target
    assert health.watertight
    assert (health.components, health.euler) == (1, 2)
    assert health.volume == pytest.approx(4 / 3 * math.pi * 0.45**3, rel=0.1 if target == 100 else 0.02)


def test_decimation_keeps_holes_through_the_object() -> None:
    points = voxel_centres(32, HALF)
    ring = np.hypot(np.linalg.norm(points[..., :2], axis=-1) - 0.4, points[..., 2]) - 0.15
    vertices, faces = decimate(*extract_mesh(surface_of(ring)), 600)
    assert len(faces) <= 600
    assert (mesh_health(vertices, faces).euler, mesh_health(vertices, faces).watertight) == (0, True)


def test_small_meshes_are_not_decimated(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5)
    points, triangles = decimate(vertices, faces, len(faces))
    assert points is vertices
    assert triangles is faces


def test_a_mesh_that_cannot_be_decimated_cleanly_is_decimated_all_the_same(ball: Callable[..., Part]) -> None:
    """Open meshes stay open at every target; unwrapping the dense one would take minutes."""
    vertices, faces = ball(0.5, subdivisions=3)
    points, triangles = decimate(vertices, faces[:-200], 300)
    assert len(triangles) <= 300
    assert 0 < mesh_health(points, triangles).boundary_edges < mesh_health(vertices, faces[:-200]).boundary_edges


def test_sheets_that_touch_are_parted_and_nothing_else_changes() -> None:
    """Two tetrahedra with a common edge, and a third that touches one of them in a point."""
    corners = np.array(
        [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0], [0, 0, 2], [1, 0, 2], [0, 1, 2.0]]
    )
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    faces = np.concatenate([np.array(names)[tetrahedron] for names in ([0, 1, 2, 3], [0, 1, 4, 5], [1, 6, 7, 8])])
    assert not mesh_health(corners, faces).watertight
    points, triangles = part_touching_sheets(corners, faces)
    assert np.array_equal(points[triangles], corners[faces])
    health = mesh_health(points, triangles)
    assert (health.watertight, health.components, health.vertices) == (True, 3, 12)


def test_clean_meshes_are_not_parted(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    points, triangles = part_touching_sheets(vertices, faces)
    assert len(points) == len(vertices)
    assert np.array_equal(points[triangles], vertices[faces])


def test_smoothing_takes_off_the_stairs_and_keeps_the_size() -> None:
    points = voxel_centres(32, HALF)
    stairs = np.where(np.linalg.norm(points, axis=-1) < 0.45, -0.5, 0.5) * VOXEL
    vertices, faces = extract_mesh(surface_of(stairs))
    smooth = taubin(vertices, faces)
    before, after = (np.linalg.norm(v, axis=1) for v in (vertices, smooth))
    assert after.std() < 0.6 * before.std()
    assert signed_volume(smooth, faces) == pytest.approx(signed_volume(vertices, faces), rel=0.02)


def test_smoothing_does_not_shrink(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    assert np.linalg.norm(taubin(vertices, faces), axis=1).mean() == pytest.approx(0.5, rel=0.01)


def test_smoothing_gives_every_neighbour_the_same_weight() -> None:
    """At borders, too, where an edge has one face instead of two."""
    vertices, faces = box((1.0, 1.0, 1.0))
    faces = faces[3:]
    moved_once = taubin(vertices, faces, rounds=1, shrink=1.0, inflate=0.0)
    for k in range(8):
        neighbours = sorted({int(v) for face in faces if k in face for v in face} - {k})
        assert moved_once[k] == pytest.approx(vertices[neighbours].mean(axis=0))
