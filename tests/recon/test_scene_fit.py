"""Captures without masks: what stands in front of a wall is found, and the wall is left out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from recon.mesh import drop_specks, extract_mesh
from recon.metrics import compare_surfaces
from recon.normalise import normalise_scene
from recon.scene_fit import fit_scene
from recon.settings import FitSettings
from scene.camera import apply_transform, orbit_camera
from scene.mesh import ColouredMesh
from scene.procedural import Pattern, box
from scene.render import Light, MeshRenderer
from scene.viewset import View, ViewSet

SMALL = FitSettings(levels=(24, 36, 48), iterations=(80, 60, 100), rays=2048, image_side=64)

BLOTCHES = Pattern(
    "noise", (0.1, 0.2, 0.7), 1.5, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.3, 0.5, 0.7), 0.8
)


@pytest.fixture(scope="module")
def room() -> tuple[ViewSet, tuple[np.ndarray, np.ndarray]]:
    """A blotched block in the middle of a large blotched room, seen from all around, without alpha."""
    block = box((0.25, 0.2, 0.3))
    walls, inward = box((6.0, 6.0, 6.0))
    vertices = np.concatenate([block[0], walls])
    faces = np.concatenate([block[1], inward[:, ::-1] + len(block[0])])
    mesh = ColouredMesh(
        vertices.astype(np.float32), faces.astype(np.int32), np.full(vertices.shape, 200, np.uint8), solid=(BLOTCHES,)
    )
    renderer = MeshRenderer(mesh, Light(ambient=1.0, diffuse=0.0))
    views = []
    for k in range(16):
        camera = orbit_camera(k * math.pi / 8, math.radians((15, 50)[k % 2]), 1.6, size=64)
        rgba = np.round(renderer.render(camera).rgba * 255).astype(np.uint8)
        views.append(View(f"{k:02d}", camera, rgba))
    return ViewSet(tuple(views), has_masks=False), block


@pytest.mark.slow
def test_a_block_in_a_room_is_found_without_masks(room: tuple[ViewSet, tuple[np.ndarray, np.ndarray]]) -> None:
    views, block = room
    told: list[tuple[int, int]] = []
    surface = fit_scene(views, SMALL, on_step=lambda done, total: told.append((done, total)))
    vertices, faces = drop_specks(*extract_mesh(surface), 0.3)
    assert compare_surfaces(vertices, faces, *block, samples=3000).completeness < 0.04
    assert np.abs(vertices).max() < 0.66
    assert told[-1][0] == told[-1][1] == len(told)
    assert surface.facts["masks"] == "none"


def test_the_region_is_what_the_cameras_look_at(room: tuple[ViewSet, tuple[np.ndarray, np.ndarray]]) -> None:
    views, _ = room
    shift = np.eye(4) * 2.0
    shift[:3, 3], shift[3, 3] = (5.0, -3.0, 1.0), 1.0
    moved_views, matrix = normalise_scene(views.transformed(shift))
    assert apply_transform(matrix, np.array([[5.0, -3.0, 1.0]])) == pytest.approx(np.zeros((1, 3)), abs=1e-6)
    assert min(np.linalg.norm(v.camera.centre) for v in moved_views) > 0.8
    given, _ = normalise_scene(views, (np.array([0.0, 0.0, 0.1]), 1.2))
    assert given.views[0].camera.centre == pytest.approx((views.views[0].camera.centre - (0, 0, 0.1)) / 2)
