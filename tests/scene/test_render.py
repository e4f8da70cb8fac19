"""Pictures of analytic scenes: a sphere, a disc, an edge, a four-colour quad."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh

from pipeline.training.procedural import Pattern, rotation
from scene.camera import Camera, orbit_camera
from scene.mesh import ColouredMesh
from scene.render import WORLD_LIGHT, Light, MeshRenderer, over_white, render_mesh

WHITE_LIGHT = Light(ambient=1.0, diffuse=0.0)


def sphere(radius: float, subdivisions: int = 4, **colours: np.ndarray) -> ColouredMesh:
    """A sphere about the origin."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    return ColouredMesh(np.asarray(ball.vertices, np.float32), np.asarray(ball.faces, np.int32), **colours)


def facing_quad(corners: list[tuple[float, float]], **colours: np.ndarray) -> ColouredMesh:
    """A quad in the plane x = 0 from (y, z) corners, counter-clockwise seen from +x."""
    vertices = np.array([[0, y, z] for y, z in corners], np.float32)
    return ColouredMesh(vertices, np.array([[0, 1, 2], [0, 2, 3]], np.int32), **colours)


def sphere_depth(camera: Camera, radius: float) -> np.ndarray:
    """Exact z-depth of a sphere about the origin; 0 where rays miss it."""
    origins, directions = camera.rays()
    along = (origins * directions).sum(-1)
    inside = along**2 - (origins**2).sum(-1) + radius**2
    distance = np.where(inside > 0, -along - np.sqrt(np.maximum(inside, 0)), 0)
    return distance * (directions @ camera.forward)


@pytest.mark.parametrize(
    "camera", [orbit_camera(0.0, 0.0), orbit_camera(2.0, 1.1, 2.2), orbit_camera(0.3, math.pi / 2)]
)
def test_depth_normals_and_outline_of_a_sphere(camera: Camera) -> None:
    picture = render_mesh(sphere(0.55), camera, smooth=True)
    truth = sphere_depth(camera, 0.55)
    both = (picture.depth > 0) & (truth > 0)
    assert both.sum() / ((picture.depth > 0) | (truth > 0)).sum() > 0.985
    inner = both & ((picture.normal * camera.rays()[1]).sum(-1) < -0.3)  # at the rim facets show
    assert np.abs(picture.depth - truth)[inner].max() < 0.003  # facets lie up to 0.0005 below the sphere
    rows, columns = np.nonzero(inner)
    points = camera.unproject(np.stack([columns, rows], 1) + 0.5, picture.depth[inner].astype(np.float64))
    assert picture.normal[inner] == pytest.approx(points / np.linalg.norm(points, axis=1, keepdims=True), abs=0.03)
    assert (picture.depth[~picture.mask & (picture.rgba[..., 3] == 0)] == 0).all()
    assert (picture.rgba[picture.rgba[..., 3] == 0] == 0).all()


def test_flat_normals_are_those_of_faces_and_look_at_the_camera() -> None:
    inside_out = facing_quad([(-0.4, -0.4), (-0.4, 0.4), (0.4, 0.4), (0.4, -0.4)])  # clockwise seen from +x
    picture = render_mesh(inside_out, orbit_camera(0.0, 0.0, size=32), samples=1)
    assert picture.mask.any()
    assert picture.normal[picture.mask] == pytest.approx(np.broadcast_to([1.0, 0, 0], (picture.mask.sum(), 3)))


@pytest.mark.parametrize("samples", [4, 16])
def test_antialiased_area_of_a_disc_is_within_one_percent(samples: int) -> None:
    angle = np.linspace(0, 2 * math.pi, 256, endpoint=False)
    rim = np.stack([np.zeros(256), 0.4 * np.cos(angle), 0.4 * np.sin(angle)], 1)
    vertices = np.concatenate([np.zeros((1, 3)), rim]).astype(np.float32)
    k = np.arange(256)
    disc = ColouredMesh(vertices, np.stack([np.zeros(256, int), 1 + k, 1 + (k + 1) % 256], 1).astype(np.int32))
    camera = orbit_camera(0.0, 0.0, size=48)
    area = math.pi * (0.4 * camera.fx / 1.5) ** 2
    assert render_mesh(disc, camera, samples=samples).rgba[..., 3].sum() == pytest.approx(area, rel=0.01)


@pytest.mark.parametrize("cover", [0.1, 0.3, 0.6, 0.9])
def test_alpha_of_an_edge_is_the_covered_share_of_its_pixel(cover: float) -> None:
    camera = orbit_camera(0.0, 0.0, size=32)
    edge = (20 + cover - camera.cx) * 1.5 / camera.fx
    picture = render_mesh(facing_quad([(-0.3, -0.4), (edge, -0.4), (edge, 0.4), (-0.3, 0.4)]), camera, samples=16)
    assert picture.rgba[16, 20, 3] == pytest.approx(cover, abs=1 / 16)
    assert picture.rgba[16, 19, 3] == 1
    assert picture.rgba[16, 21, 3] == 0


def test_edge_pixels_keep_the_colour_of_the_object() -> None:
    """Colour is not premultiplied: half-covered pixels are as bright as covered ones."""
    camera = orbit_camera(0.4, 0.3, size=32)
    picture = render_mesh(sphere(0.4), camera, WHITE_LIGHT)
    touched = picture.rgba[..., 3] > 0
    assert ((picture.rgba[..., 3] > 0) & (picture.rgba[..., 3] < 1)).any()
    assert picture.rgba[touched][:, :3] == pytest.approx(0.7)


def test_one_sample_gives_a_hard_outline() -> None:
    alpha = render_mesh(sphere(0.4), orbit_camera(0.0, 0.0, size=32), samples=1).rgba[..., 3]
    assert set(np.unique(alpha)) == {0.0, 1.0}


def test_texture_is_upright_seen_from_the_front() -> None:
    """Red, green, blue, white from top left to bottom right, with glTF's texture origin at the top left."""
    texture = np.zeros((8, 8, 3), np.uint8)
    texture[:4, :4], texture[:4, 4:], texture[4:, :4], texture[4:, 4:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    quad = facing_quad(
        [(-0.4, -0.4), (0.4, -0.4), (0.4, 0.4), (-0.4, 0.4)],
        texture=texture,
        uv=np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32),
    )
    picture = render_mesh(quad, orbit_camera(0.0, 0.0, size=64), WHITE_LIGHT)
    rows, columns = np.nonzero(picture.mask)
    near = 5
    top, bottom, left, right = rows.min() + near, rows.max() - near, columns.min() + near, columns.max() - near
    found = [picture.rgba[y, x, :3].tolist() for y, x in ((top, left), (top, right), (bottom, left), (bottom, right))]
    assert found == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_shading_range_and_direction() -> None:
    factors = WORLD_LIGHT.shade(
        np.array([WORLD_LIGHT.direction, -np.array(WORLD_LIGHT.direction)]) / np.linalg.norm(WORLD_LIGHT.direction)
    )
    assert factors == pytest.approx([WORLD_LIGHT.ambient + WORLD_LIGHT.diffuse, WORLD_LIGHT.ambient])
    white = np.full((642, 3), 255, np.uint8)
    ball = sphere(0.5, 3, vertex_colours=white)
    picture = render_mesh(ball, orbit_camera(0.5, 0.9), smooth=True)
    shade = picture.rgba[picture.mask][:, 0]
    assert WORLD_LIGHT.ambient - 1e-6 <= shade.min() < shade.max() <= 1
    brightest = np.unravel_index(np.argmax(picture.rgba[..., 0]), picture.depth.shape)
    towards = np.array(WORLD_LIGHT.direction) / np.linalg.norm(WORLD_LIGHT.direction)
    assert picture.normal[brightest] @ towards > 0.98


def test_turning_object_light_and_camera_together_changes_nothing() -> None:
    axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    pattern = Pattern("checks", (0.9, 0.1, 0.1), 3.0, axes, (0.1, 0.2, 0.3))
    ball = sphere(0.5, solid=(pattern,))
    turn = np.eye(4)
    turn[:3, :3] = rotation("z", 0.7)
    light = Light(tuple(float(v) for v in turn[:3, :3] @ WORLD_LIGHT.direction))
    still = render_mesh(ball, orbit_camera(0.1, 0.2, size=64)).rgba
    turned = render_mesh(ball.transformed(turn), orbit_camera(0.1 + 0.7, 0.2, size=64), light).rgba
    assert (np.abs(still - turned).max(axis=-1) > 0.02).mean() < 0.01  # but for pixels on colour edges
    unturned = render_mesh(ball, orbit_camera(0.1 + 0.7, 0.2, size=64), light).rgba
    assert (np.abs(still - unturned).max(axis=-1) > 0.02).mean() > 0.1


def test_a_renderer_and_single_pictures_agree() -> None:
    ball, camera = sphere(0.3, 2), orbit_camera(1.0, -0.4, size=40)
    renderer = MeshRenderer(ball)
    first, second = renderer.render(camera), renderer.render(camera)
    assert np.array_equal(first.rgba, second.rgba)
    assert np.array_equal(first.rgba, render_mesh(ball, camera).rgba)


def test_over_white() -> None:
    rgba = np.array([[[0.2, 0.4, 0.6, 1.0], [0.2, 0.4, 0.6, 0.5], [0.9, 0.9, 0.9, 0.0]]])
    assert over_white(rgba)[0] == pytest.approx(np.array([[0.2, 0.4, 0.6], [0.6, 0.7, 0.8], [1, 1, 1]]))
