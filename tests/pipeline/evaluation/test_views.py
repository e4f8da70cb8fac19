"""Scores of generated views: the methods make views of the right size, and the table counts leads right."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffusion.modules.conditioning import CoarseMap
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.subjects import Subject, subjects
from pipeline.evaluation.views import (
    coarse_only,
    copied_photo,
    generated,
    mapped,
    mean_scores,
    score_views,
    through_vae,
    told_the_truth,
    true_samples,
    views_table,
)


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ViewDiffusion:
    return ViewDiffusion.from_pretrained(tiny_checkpoint)


@pytest.fixture(scope="module")
def chosen(pool_folder: Path) -> list[Subject]:
    return list(subjects(pool_folder, [], 1))


def test_every_method_makes_a_view_for_every_target(model: ViewDiffusion, chosen: list[Subject]) -> None:
    batch = true_samples(chosen, model.image_size)
    sampling = SamplingSettings(steps=2)
    methods = {
        "true camera": lambda k: generated(model, batch, k, sampling, predict=False),
        "predicted camera": lambda k: generated(model, batch, k, sampling, predict=True),
        "mean": lambda k: generated(model, batch, k, sampling, predict=False, mean_of=2),
        "coarse": lambda k: coarse_only(model, batch, k),
        "vae": lambda k: through_vae(model, batch, k),
        "copy": lambda k: copied_photo(batch, k),
        "told": lambda k: told_the_truth(model, batch, k, sampling),
    }
    for name, method in methods.items():
        views = method(0)
        assert views.shape == batch.targets[0].shape, name
        assert views.min() >= 0, name
        assert views.max() <= 1, name
        assert not np.isnan(list(score_views(method, name, batch)[0].values())).any(), name
    assert not np.allclose(methods["mean"](0), methods["true camera"](0))


def test_a_model_that_copies_what_it_is_told_draws_the_true_views(model: ViewDiffusion, chosen: list[Subject]) -> None:
    """Untrained over a map that passes its middle on, it draws what it is told; the map alone, the coarse render."""
    copying = copy.deepcopy(model)
    copying.conditioning = replace(model.conditioning, normalised=True, residual=True)
    copying.coarse_map = CoarseMap(latents=model.codec.latents)
    with torch.no_grad():
        copying.unet.conv_out.weight.zero_()
        copying.unet.conv_out.bias.zero_()
        copying.coarse_map.map.weight.zero_()
        copying.coarse_map.map.bias.zero_()
        for channel in range(model.codec.latents):
            copying.coarse_map.map.weight[channel, channel, 1, 1] = 1
    batch = true_samples(chosen, model.image_size)
    told = told_the_truth(copying, batch, 0, SamplingSettings(steps=1, guidance=1.0))
    assert np.allclose(told, through_vae(copying, batch, 0), atol=2e-3)
    assert not np.allclose(mapped(copying, batch, 0), told, atol=1e-2)


def test_distances_are_of_pictures_on_white() -> None:
    truth = np.full((1, 16, 16, 4), 255, np.uint8)
    views = np.zeros((1, 16, 16, 4), np.float32)
    views[..., 0] = 1  # red, and nowhere to be seen

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        assert one.shape == other.shape == (16, 16, 3)
        return float(np.abs(one - other).max()) + 0.5

    first = mean_scores(views, truth, distance)
    assert first["perceptual"] == 0.5
    table = views_table({"a": [first] * 2, "b": [{**first, "perceptual": 0.75}] * 2}, np.ones(2, bool))
    assert "perceptual distance" in table
    assert "-0.250" in table.splitlines()[-1]


def test_true_views_score_best() -> None:
    truths = np.zeros((2, 16, 16, 4), np.uint8)
    truths[:, 4:12, 4:12] = (200, 100, 50, 255)
    perfect = mean_scores(truths.astype(np.float32) / 255, truths)
    assert perfect["iou"] == 1
    assert perfect["foreground_psnr"] > mean_scores(np.zeros((2, 16, 16, 4), np.float32), truths)["foreground_psnr"]


def test_leads_are_those_of_the_first_row_over_the_objects_used() -> None:
    def row(*ious: float) -> list[dict[str, float]]:
        return [{"foreground_psnr": 10 * iou, "iou": iou, "ssim": iou, "psnr": 10 * iou} for iou in ious]

    rows = {"ours": row(0.8, 0.8, 0.1), "base": row(0.5, 0.5, 0.9)}
    lines = views_table(rows, np.array([True, True, False])).splitlines()
    assert lines[2].endswith("| – | – |")
    assert lines[3].startswith("| base | 5.00 (5.00 to 5.00) | 0.500 (0.500 to 0.500) |")
    assert lines[3].endswith("| 3.00 (3.00 to 3.00) | 0.300 (0.300 to 0.300) |")
