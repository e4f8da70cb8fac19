"""The NeuS-facto baseline: it learns, and what it writes is in the capture's world."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from pipeline.evaluation.neus_facto import SCALE, FactoSettings, Pixels, build_model, train
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras
from scripts import baseline_neus_facto

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("nerfstudio") is None,
    reason="nerfstudio is not installed: pip install viewloom[nerfstudio]",
)
TINY = (96, (16, 8), 12, 4, 32, 10, 32, 16)


@pytest.fixture(scope="module")
def ball_views() -> ViewSet:
    """Sixteen pictures of a ball of radius 0.5, from all around."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    colours = np.tile(np.array([[200, 60, 20]], np.uint8), (len(ball.vertices), 1))
    renderer = MeshRenderer(ColouredMesh(ball.vertices.astype(np.float32), ball.faces.astype(np.int32), colours), UNLIT)
    views = []
    for k, camera in enumerate(sphere_cameras(16, 64, 1.5)):
        views.append(View(f"{k:02d}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8)))
    return ViewSet(tuple(views), has_masks=True)


def test_a_short_run_writes_a_ball_where_the_ball_is(
    ball_views: ViewSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline_neus_facto, "FAIR", FactoSettings(*TINY))
    ball_views.save(tmp_path / "capture")
    threads = torch.get_num_threads()
    try:
        baseline_neus_facto.main(
            baseline_neus_facto.Arguments(
                tmp_path / "capture", tmp_path / "out", seconds=2.0, resolution=32, processor_time=True
            )
        )
    finally:
        torch.set_num_threads(threads)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["iterations"] > 2
    assert report["seconds"] >= 2
    # The field's own parameters move: s starts at exp(3).
    assert report["sharpness"] != pytest.approx(np.exp(3), rel=1e-4)
    assert report["psnr"] > 8
    mesh = np.load(tmp_path / "out" / "mesh.npz")
    written = trimesh.load(tmp_path / "out" / "mesh.ply", process=False)
    assert np.asarray(written.vertices) == pytest.approx(mesh["vertices"], abs=1e-5)
    assert (np.asarray(written.faces) == mesh["faces"]).all()
    # It starts as a sphere of radius 0.33 in this world, and grows towards 0.5.
    distance = np.linalg.norm(mesh["vertices"], axis=1)
    assert 0.25 < np.median(distance) < 0.6
    assert written.is_watertight
    assert written.volume > 0


def test_a_run_with_published_schedules(ball_views: ViewSet) -> None:
    pixels = Pixels(ball_views)
    settings = FactoSettings(64, *TINY[1:], timed=False, step=5e-4)
    model = build_model(settings, len(ball_views))
    ticks = iter(range(100))
    reached = train(model, pixels, settings, 5.0, lambda: float(next(ticks)))
    assert reached["iterations"] == 4
    # nerfstudio's own warm-up: after a step of 500 the rate is still nearly nothing.
    assert reached["sharpness"] == pytest.approx(np.exp(3), rel=1e-3)
    assert {"rgb_loss", "eikonal_loss", "fg_mask_loss", "interlevel_loss"} <= reached.keys()


def test_rays_of_the_baseline_are_those_of_the_capture(ball_views: ViewSet) -> None:
    bundle, batch = Pixels(ball_views).draw(64)
    closest = bundle.origins + bundle.directions * (-(bundle.origins * bundle.directions).sum(-1, keepdim=True))
    aside = closest.norm(dim=-1) / SCALE
    # The ball has radius 0.5: rays that pass it by are background, the others are not.
    inside = batch["fg_mask"][:, 0] > 0.5
    assert float(aside[inside].max()) < 0.52
    assert float(aside[~inside].min()) > 0.48
    assert not batch["image"][~inside].gt(0.6).any()


def test_pictures_without_masks_are_refused(ball_views: ViewSet) -> None:
    with pytest.raises(InputError, match="the baseline needs masks"):
        Pixels(ViewSet(ball_views.views, has_masks=False))
