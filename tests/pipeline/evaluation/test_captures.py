"""Scores of captures: a mesh agrees with views drawn of it, and with itself in another world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from rich.console import Console

from pipeline.evaluation.captures import captures_table, held_out_scores, surface_scores
from recon.texture.bake import TexturedMesh
from scene.camera import orbit_camera
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet


@pytest.fixture(scope="module")
def ball() -> TexturedMesh:
    sphere = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    vertices = np.asarray(sphere.vertices)
    texture = np.full((8, 8, 3), (200, 90, 40), np.uint8)
    uv = np.full((len(vertices), 2), 0.5)
    return TexturedMesh(vertices, np.asarray(sphere.faces, np.int32), vertices / 0.5, uv, texture)


@pytest.fixture(scope="module")
def views(ball: TexturedMesh) -> ViewSet:
    renderer = MeshRenderer(ball.coloured(), UNLIT)
    drawn = []
    for k in range(3):
        camera = orbit_camera(2.0 * k, 0.3, size=64)
        drawn.append(View(f"{k}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8)))
    return ViewSet(tuple(drawn), has_masks=True)


def test_views_drawn_of_a_mesh_agree_with_it(ball: TexturedMesh, views: ViewSet) -> None:
    masked = held_out_scores(ball, views)
    assert set(masked) == {"PSNR", "SSIM", "mask IoU"}
    assert masked["mask IoU"] > 0.98
    assert masked["PSNR"] > 30
    plain = held_out_scores(ball, replace(views, has_masks=False))
    assert set(plain) == {"PSNR", "covered"}
    assert 0.05 < plain["covered"] < 0.5
    small = held_out_scores(replace(ball, vertices=0.8 * ball.vertices), views)
    # A ball of radius r at a distance d has a silhouette of radius proportional to tan(asin(r / d)).
    ratio = np.tan(np.arcsin(0.4 / 1.5)) / np.tan(np.arcsin(0.5 / 1.5))
    assert small["mask IoU"] == pytest.approx(ratio**2, abs=0.02)


@pytest.mark.parametrize("ending", ["glb", "ply"])
def test_a_mesh_is_compared_in_the_world_of_the_true_one(ball: TexturedMesh, tmp_path: Path, ending: str) -> None:
    matrix = np.array([[0, -2.0, 0, 3], [2.0, 0, 0, -1], [0, 0, 2.0, 2], [0, 0, 0, 1]])
    moved = ball.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    # In a GLB y is up: what is (x, y, z) here is (x, z, -y) there.
    written = moved[:, [0, 2, 1]] * (1, 1, -1) if ending == "glb" else moved
    trimesh.Trimesh(written, ball.faces, process=False).export(tmp_path / f"truth.{ending}")
    scores = surface_scores(ball, matrix, tmp_path / f"truth.{ending}")
    assert scores["chamfer"] < 1e-3
    assert scores["f_half"] == pytest.approx(1)


def test_captures_stand_side_by_side() -> None:
    console = Console(width=100, record=True)
    console.print(captures_table({"fox": {"PSNR": 20.31}, "lego": {"PSNR": 19.7, "mask IoU": 0.987}}))
    text = console.export_text()
    assert "20.31" in text
    assert "0.987" in text
    assert "-" in text.split("mask IoU")[1].splitlines()[0]
