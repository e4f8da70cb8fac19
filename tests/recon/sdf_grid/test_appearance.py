"""Gloss and exposures are told apart from an object's own colour."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.training.procedural import Part
from recon.fit import fit_surface
from recon.mesh.marching_cubes import extract_mesh
from recon.sdf_grid.appearance import solve_appearance
from recon.settings import FitSettings
from recon.specular import TERMS, SpecularSH
from recon.surface import Surface
from recon.texture.bake import bake
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

RADIUS = 0.5
OWN = np.array([150, 90, 60])
SHINY = FitSettings(
    levels=(16, 28),
    iterations=(100, 500),
    rays=1024,
    image_side=64,
    hull_resolution=32,
    inv_s=(3.0, 6.0),
    view_dependence=True,
)


def on_sphere(count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal((count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def specular() -> SpecularSH:
    """A window above, of all degrees."""
    terms = np.zeros((TERMS, 3))
    terms[2], terms[6], terms[11], terms[0] = 0.05, 0.03, 0.02, (0.02, 0, -0.02)
    return SpecularSH(terms)


@pytest.fixture(scope="module")
def shiny_ball(ball: Callable[..., Part], shoot: Callable[..., ViewSet], specular: SpecularSH) -> ViewSet:
    """A ball of one colour that mirrors a window; every third picture is a tenth brighter."""
    views = shoot(ball(RADIUS), sphere_cameras(16, 64, 1.5), colour=OWN)
    vertices, faces = ball(RADIUS)
    renderer = MeshRenderer(ColouredMesh(vertices.astype(np.float32), faces.astype(np.int32)))
    out = []
    for k, view in enumerate(views):
        seen, rgba = renderer.render(view.camera, samples=1), view.rgba().astype(np.float64)
        row, column = np.nonzero(seen.depth > 0)
        points = view.camera.unproject(np.stack([column, row], -1) + 0.5, seen.depth[row, column].astype(np.float64))
        rgba[row, column, :3] += 255 * specular.seen_from(view.camera, points, points / RADIUS)
        rgba[..., :3] *= 1.1 if k % 3 == 0 else 1.0
        out.append(replace(view, pixels=np.clip(np.round(rgba), 0, 255).astype(np.uint8)))
    return replace(views, views=tuple(out))


@pytest.fixture(scope="module")
def fitted(shiny_ball: ViewSet) -> Surface:
    return fit_surface(shiny_ball, SHINY)


def test_gloss_and_gains_are_found_among_outliers(specular: SpecularSH) -> None:
    rng = np.random.default_rng(1)
    direction, view = on_sphere(6000, 2), rng.integers(0, 5, 6000)
    own = np.broadcast_to(rng.uniform(0.3, 0.7, (6000, 1)), (6000, 3))
    gain = np.exp(np.linspace(-0.1, 0.1, 5))[:, None] * np.ones(3)
    shown = gain[view] * (own + specular.at(direction)) + rng.normal(0, 0.005, (6000, 3))
    shown[:300] = rng.random((300, 3))
    found = solve_appearance(shown, own, direction, view, 6)
    assert found.exposure[:5] == pytest.approx(gain, abs=0.01)
    assert found.exposure[5] == pytest.approx(1.0, abs=1e-3)  # a view that shows nothing
    assert found.specular.coefficients == pytest.approx(specular.coefficients, abs=0.004)


def test_dull_pictures_have_no_gloss() -> None:
    rng = np.random.default_rng(3)
    own = rng.random((3000, 3))
    found = solve_appearance(own, own, on_sphere(3000), rng.integers(0, 4, 3000), 4)
    assert found.specular.coefficients == pytest.approx(0, abs=1e-9)
    assert found.exposure == pytest.approx(1)


def test_a_shiny_ball_has_one_colour(fitted: Surface, shiny_ball: ViewSet, specular: SpecularSH) -> None:
    dull = fit_surface(shiny_ball, replace(SHINY, view_dependence=False))
    assert dull.report.specular is None
    assert dull.specular is None
    points = RADIUS * on_sphere(1000)
    uneven = [(surface.colours_at(points) - OWN / 255).std(axis=0).mean() for surface in (fitted, dull)]
    assert uneven[0] < 0.7 * uneven[1]
    off = [np.abs(np.linalg.norm(extract_mesh(s)[0], axis=1) - RADIUS).mean() for s in (fitted, dull)]
    assert off[0] < 1.05 * off[1]
    low, high = fitted.report.exposures
    assert 1.08 < high / low < 1.25  # it comes to 1.1 slowly
    assert fitted.specular is not None
    assert fitted.specular.coefficients == pytest.approx(specular.coefficients, abs=0.02)
    assert fitted.report.specular == pytest.approx(0.07, abs=0.03)


def test_textures_leave_the_gloss_out(
    ball: Callable[..., Part], shiny_ball: ViewSet, specular: SpecularSH, fitted: Surface
) -> None:
    plain, clean = (
        bake(*ball(RADIUS, subdivisions=3), shiny_ball, fitted, 128, specular=s).texture.reshape(-1, 3) / 255.0
        for s in (None, specular)
    )
    assert clean.std(axis=0).mean() < 0.6 * plain.std(axis=0).mean()


def test_surfaces_with_gloss_come_back(fitted: Surface, tmp_path: Path) -> None:
    fitted.save(tmp_path / "a.npz")
    again = Surface.load(tmp_path / "a.npz")
    assert again.specular is not None
    assert fitted.specular is not None
    assert again.specular.coefficients == pytest.approx(fitted.specular.coefficients, abs=1e-6)
    replace(fitted, specular=None).save(tmp_path / "b.npz")
    assert Surface.load(tmp_path / "b.npz").specular is None


def test_a_stopped_fit_with_gloss_goes_on_to_the_same_bytes(
    shiny_ball: ViewSet, tmp_path: Path, stopped: Callable[..., None]
) -> None:
    settings = replace(SHINY, levels=(8, 12), iterations=(10, 120), rays=256, image_side=32, hull_resolution=24)
    path = tmp_path / "fit.npz"
    stopped(shiny_ball, settings, path, 115)
    reported: list[int] = []
    again = fit_surface(shiny_ball, settings, checkpoint=path, on_step=lambda done, total: reported.append(done))
    assert reported[0] == 111
    whole = fit_surface(shiny_ball, settings)
    assert again.sdf.tobytes() == whole.sdf.tobytes()
    assert again.colour.tobytes() == whole.colour.tobytes()
