"""Assets before and after aligning: true views score best, and closed gates change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.diffusion.aligned_decoder import AlignedLayers, LayerPlace
from pipeline.diffusion.epipolar_attention import EpipolarSettings
from pipeline.diffusion.settings import AlignSettings, SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.aligned_assets import (
    AlignedAssetSettings,
    AlignedCase,
    asset_scores,
    assets_table,
    depth_errors_line,
    gained,
)
from pipeline.evaluation.subjects import Subject
from pipeline.jobs.settings import MeshSettings, RingSettings, ViewsSettings
from pipeline.training.data.view_rings import DepthNoise
from pipeline.training.procedural.primitives import box
from recon.settings import FitSettings
from scene.mesh import ColouredMesh

SETTINGS = AlignedAssetSettings(
    views=ViewsSettings(rings=RingSettings((3,), (10.0,), (45.0,)), sampling=SamplingSettings(steps=1)),
    aligning=AlignSettings(colours=False),
    fit=FitSettings(levels=(8, 16), iterations=(4, 4), rays=256, image_side=32, hull_resolution=16),
    mesh=MeshSettings(max_faces=400, texture=64),
    photo=64,
    held_out=48,
)


@pytest.fixture(scope="module")
def subject() -> Subject:
    vertices, faces = box((0.5, 0.2, 0.35))
    colours = np.round(255 * (0.5 + vertices / 1.2)).astype(np.uint8)
    mesh = ColouredMesh(vertices.astype(np.float32), faces.astype(np.int32), vertex_colours=colours)
    return Subject("box", mesh.normalised(), 0)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ViewDiffusion:
    found = ViewDiffusion.from_pretrained(tiny_checkpoint)
    torch.manual_seed(0)
    place = LayerPlace.of(found.vae, None, 1, EpipolarSettings(width=8, samples=2, nearest=2))
    return replace(found, aligned=AlignedLayers.fresh(found.vae, [place]).eval())


def test_closed_gates_change_nothing_and_true_views_are_the_bound(
    model: ViewDiffusion, subject: Subject, tmp_path: Path
) -> None:
    heard: list[str] = []
    table = assets_table(model, [subject], SETTINGS, heard.append, encoded=True, sheet=tmp_path / "sheet.png")
    assert [line.split(" | ")[0] for line in table.splitlines()[4:8]] == [
        "| plain",
        "| aligned",
        "| true views",
        "| aligned less plain",
    ]
    assert len(heard) == 1
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.width > picture.height
    case = AlignedCase.encoded(model, subject, SETTINGS)
    draft = case.fitted(case.plain, SETTINGS.fit)
    assert np.abs(case.aligned(model, draft, SETTINGS).astype(int) - case.plain).max() <= 1
    found = asset_scores(case, {"plain": case.plain, "true views": case.true}, case.true_depths, SETTINGS)
    # The decoder is random, so that plain views are far off.
    assert found["true views"]["foreground PSNR"] == 100
    assert found["true views"]["excess alignment error"] == 0
    assert found["true views"]["held-out PSNR of the asset"] > found["plain"]["held-out PSNR of the asset"] + 0.5


def test_gains_are_paired() -> None:
    rows = [{"plain": {"a": 1.0}, "aligned": {"a": 2.0}}, {"plain": {"a": 5.0}, "aligned": {"a": 5.5}}]
    assert gained(rows)["aligned less plain"]["a"].tolist() == [1.0, 0.5]


def test_generated_views_come_with_latents_and_the_coarse_volume(model: ViewDiffusion, subject: Subject) -> None:
    case = AlignedCase.generated(model, subject, SETTINGS)
    assert case.latents.shape[0] == len(case.plain) == len(case.cameras) == 3
    assert case.coarse is not None
    assert case.photo.camera.width == case.photo.rgba().shape[0] == 64


def test_depth_errors_are_told_as_the_noise_that_makes_them() -> None:
    """Noise of known amplitudes on one plate in each view comes back, each grid by itself."""
    depth = torch.full((40, 128, 128), 1.5)
    depth[:, :, :40] = 0
    for place, alone in enumerate(((0.1, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1))):
        spoiled = DepthNoise(amplitudes=alone).spoiled(depth, 1.0, 0, place)
        error = torch.where(depth > 0, spoiled - depth, torch.nan).numpy()
        line = depth_errors_line([error])
        found = [float(x) for x in line.split("finer: ")[1].split(", ")]
        assert found[place] == pytest.approx(0.1, rel=0.35)
        assert max(x for k, x in enumerate(found) if k != place) < 0.07
