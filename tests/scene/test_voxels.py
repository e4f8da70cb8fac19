"""Carving: solids with known volumes, and what stays open."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from pipeline.training.procedural import box, lathe
from scene.camera import OBJECT_RADIUS, orbit_of
from scene.mesh import ColouredMesh
from scene.render import Light, MeshRenderer
from scene.voxels import carve_solid, sphere_cameras, voxel_centres

RESOLUTION = 32
VOXEL = 2 * OBJECT_RADIUS / RESOLUTION
POINTS = voxel_centres(RESOLUTION)


def mesh_of(part: tuple[np.ndarray, np.ndarray], colour: tuple[int, int, int] = (200, 60, 20)) -> ColouredMesh:
    """A part as it is, in one colour."""
    vertices, faces = part
    return ColouredMesh(
        vertices.astype(np.float32),
        faces.astype(np.int32),
        vertex_colours=np.broadcast_to(np.array(colour, np.uint8), vertices.shape).copy(),
    )


def ball(radius: float) -> tuple[np.ndarray, np.ndarray]:
    """A sphere about the origin."""
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    return np.asarray(sphere.vertices), np.asarray(sphere.faces)


def test_voxel_centres_are_x_y_z_and_fill_the_cube() -> None:
    points = voxel_centres(4, half=1.0)
    assert points[0, 0, 0] == pytest.approx([-0.75] * 3)
    assert points[3, 0, 0] == pytest.approx([0.75, -0.75, -0.75])
    assert points[0, 1, 2] == pytest.approx([-0.75, -0.25, 0.25])


def test_cameras_are_spread_evenly_over_the_sphere() -> None:
    cameras = sphere_cameras(40, 16, 2.0)
    centres = np.array([c.centre for c in cameras])
    assert np.linalg.norm(centres, axis=1) == pytest.approx(2)
    assert np.abs(centres.mean(axis=0)).max() < 0.05
    nearest = np.sort(np.linalg.norm(centres[:, None] - centres, axis=-1), axis=1)[:, 1]
    assert nearest.min() > 0.4 * nearest.max()
    assert all(orbit_of(c)[2] == pytest.approx(2) for c in cameras)


def test_a_sphere_keeps_its_volume() -> None:
    solid, colours = carve_solid(MeshRenderer(mesh_of(ball(0.5))), RESOLUTION)
    assert colours is None
    assert solid.sum() * VOXEL**3 == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.05)
    distance = np.linalg.norm(POINTS, axis=-1)
    assert solid[distance < 0.5 - VOXEL].all()
    assert not solid[distance > 0.5 + VOXEL].any()


def test_a_box_keeps_its_volume_and_its_axes() -> None:
    size = np.array([5, 8, 12]) * VOXEL  # whole voxels, so that only carving can miss
    solid, _ = carve_solid(MeshRenderer(mesh_of(box(tuple(size)))), RESOLUTION)
    inside = (np.abs(POINTS) < size - VOXEL / 2).all(axis=-1)
    outside = (np.abs(POINTS) > size + VOXEL).any(axis=-1)
    assert solid[inside].all()
    assert not solid[outside].any()
    assert solid.sum() * VOXEL**3 == pytest.approx(np.prod(2 * size), rel=0.05)


def test_a_bowl_stays_hollow() -> None:
    profile = np.array([[0, -0.3], [0.3, -0.3], [0.5, 0.3], [0.42, 0.3], [0.25, -0.2], [0, -0.2]])
    solid, _ = carve_solid(MeshRenderer(mesh_of(lathe(profile))), RESOLUTION, views=30)
    radius, height = np.linalg.norm(POINTS[..., :2], axis=-1), POINTS[..., 2]
    hollow = (radius < 0.2) & (height > -0.2 + VOXEL) & (height < 0.3)
    assert solid[hollow].mean() < 0.02
    assert solid[(radius < 0.25) & (height > -0.28) & (height < -0.22)].all()


@pytest.mark.parametrize("shift", [-0.45, 0.0, 0.45])
def test_a_plate_of_one_and_a_half_voxels_is_whole_wherever_it_lies(shift: float) -> None:
    """Its voxel centres are seen from grazing cameras too, where a pixel's depth is a rough one."""
    vertices, faces = box((0.5, 0.5, 0.75 * VOXEL))
    height = (0.5 + shift) * VOXEL
    solid, _ = carve_solid(MeshRenderer(mesh_of((vertices + np.array([0, 0, height]), faces))), RESOLUTION)
    offset = np.abs(POINTS[8:24, 8:24, :, 2] - height)
    assert solid[8:24, 8:24][offset < 0.5 * VOXEL].all()
    assert not solid[8:24, 8:24][offset > 1.3 * VOXEL].any()


@pytest.mark.parametrize("tilt", [0.0, 0.4, 0.8])
@pytest.mark.parametrize("shift", [-0.45, 0.0, 0.45])
def test_a_sheet_without_thickness_is_whole_and_one_voxel_thick(tilt: float, shift: float) -> None:
    normal = np.array([math.sin(tilt), 0, math.cos(tilt)])
    corners = np.array([[-0.4, -0.4], [0.4, -0.4], [0.4, 0.4], [-0.4, 0.4]])
    along = np.array([math.cos(tilt), 0, -math.sin(tilt)])
    vertices = corners[:, :1] * along + corners[:, 1:] * np.array([0.0, 1, 0]) + normal * (0.5 + shift) * VOXEL
    renderer = MeshRenderer(mesh_of((vertices, np.array([[0, 1, 2], [0, 2, 3]]))))
    solid, _ = carve_solid(renderer, RESOLUTION)
    distance = np.abs(POINTS @ normal - (0.5 + shift) * VOXEL)
    assert not solid[distance > VOXEL].any()
    # No point of the sheet lies further from a solid voxel's centre than a voxel is long.
    grid = np.stack(np.meshgrid(np.linspace(-0.37, 0.37, 60), np.linspace(-0.37, 0.37, 60)), -1).reshape(-1, 2)
    places = grid[:, :1] * along + grid[:, 1:] * np.array([0.0, 1, 0]) + normal * (0.5 + shift) * VOXEL
    gap, _ = cKDTree(POINTS[solid]).query(places)
    assert gap.max() < VOXEL
    assert solid.sum() < 2 * 0.8**2 / VOXEL**2
    carved, _ = carve_solid(renderer, RESOLUTION, sheets=False)
    assert carved.sum() < solid.sum()


def test_hidden_insides_are_filled() -> None:
    outer, inner = ball(0.5), ball(0.3)
    vertices = np.concatenate([outer[0], inner[0]])
    faces = np.concatenate([outer[1], inner[1][:, ::-1] + len(outer[0])])
    solid, _ = carve_solid(MeshRenderer(mesh_of((vertices, faces))), RESOLUTION)
    assert solid[np.linalg.norm(POINTS, axis=-1) < 0.5 - VOXEL].all()


def test_surface_voxels_have_the_colour_seen_there() -> None:
    mesh = mesh_of(ball(0.5))
    colours = np.where(mesh.vertices[:, :1] > 0, [[255, 0, 0]], [[0, 0, 255]]).astype(np.uint8)
    renderer = MeshRenderer(ColouredMesh(mesh.vertices, mesh.faces, colours), Light(ambient=1.0, diffuse=0.0))
    solid, painted = carve_solid(renderer, RESOLUTION, colours=True)
    assert painted is not None
    depth = np.linalg.norm(POINTS, axis=-1)
    surface = solid & (np.abs(depth - 0.5) < VOXEL / 2)
    front, back = surface & (POINTS[..., 0] > 0.1), surface & (POINTS[..., 0] < -0.1)
    assert painted[front] == pytest.approx(np.broadcast_to([1.0, 0, 0], (front.sum(), 3)))
    assert painted[back] == pytest.approx(np.broadcast_to([0.0, 0, 1], (back.sum(), 3)))
    assert (painted[~solid] == 0).all()
    assert (painted[depth < 0.4] == 0).all()
