"""Analytic objects and pictures of them: what the surface stages take, with answers that are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.training.procedural import Part
from recon.fit import fit_surface
from recon.settings import FitSettings
from scene.camera import Camera
from scene.mesh import ColouredMesh
from scene.render import Light, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

ORANGE = (200, 60, 20)


@pytest.fixture(scope="session")
def ball() -> Callable[..., Part]:
    """Vertices and faces of a sphere about a centre."""

    def build(radius: float, centre: Sequence[float] = (0, 0, 0), subdivisions: int = 4) -> Part:
        sphere = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
        return np.asarray(sphere.vertices) + np.asarray(centre), np.asarray(sphere.faces)

    return build


@pytest.fixture(scope="session")
def shoot() -> Callable[..., ViewSet]:
    """Masked pictures of a part in its own colours, without light and shade."""

    def pictures(part: Part, cameras: Sequence[Camera], solid: tuple = (), colour: Sequence[int] = ORANGE) -> ViewSet:
        vertices, faces = part
        colours = np.broadcast_to(np.array(colour, np.uint8), vertices.shape).copy()
        mesh = ColouredMesh(vertices.astype(np.float32), faces.astype(np.int32), colours, solid=solid)
        renderer = MeshRenderer(mesh, Light(ambient=1.0, diffuse=0.0))
        views = []
        for k, camera in enumerate(cameras):
            rgba = np.round(renderer.render(camera).rgba * 255).astype(np.uint8)
            views.append(View(f"{k:02d}", camera, pixels=rgba))
        return ViewSet(tuple(views), has_masks=True)

    return pictures


@pytest.fixture(scope="session")
def stopped() -> Callable[..., None]:
    """A fit with a checkpoint that is killed after a step."""

    def run(views: ViewSet, settings: FitSettings, path: Path, step: int) -> None:
        def kill(done: int, total: int) -> None:
            if done == step:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            fit_surface(views, settings, checkpoint=path, on_step=kill)

    return run


@pytest.fixture(scope="session")
def ball_views(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> ViewSet:
    """Sixteen pictures of a ball of radius 0.5, from all around."""
    return shoot(ball(0.5), sphere_cameras(16, 64, 1.5))
