"""Scores with known values."""

from __future__ import annotations

import numpy as np
import pytest

from scene.errors import InputError
from scene.metrics import mask_iou, psnr, ssim, view_scores

GREY = np.full((16, 16, 3), 0.5, np.float32)


@pytest.mark.parametrize(("error", "decibels"), [(0.1, 20), (0.01, 40), (0.5, 6.0206)])
def test_psnr_of_a_constant_error(error: float, decibels: float) -> None:
    assert psnr(GREY, GREY - np.float32(error)) == pytest.approx(decibels, abs=1e-3)


def test_psnr_of_equal_pictures_is_finite() -> None:
    assert psnr(GREY, GREY) == pytest.approx(100)


def test_psnr_counts_the_mask_only() -> None:
    other = GREY.copy()
    other[:, 8:] += 0.1
    other[:, :8] -= 0.4
    right = np.zeros((16, 16), bool)
    right[:, 8:] = True
    assert psnr(other, GREY, right) == pytest.approx(20, abs=1e-3)
    assert psnr(other, GREY) == pytest.approx(-10 * np.log10((0.01 + 0.16) / 2), abs=1e-3)


def test_psnr_refuses_other_sizes_and_empty_masks() -> None:
    with pytest.raises(InputError, match="mask of a comparison is empty"):
        psnr(GREY, GREY, np.zeros((16, 16), bool))


@pytest.mark.usefixtures("shapes_unchecked")
def test_psnr_refuses_pictures_of_other_sizes() -> None:
    with pytest.raises(InputError, match="different sizes"):
        psnr(GREY, GREY[:8])


def test_iou() -> None:
    a, b = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    a[0, :3] = b[0, 1:] = True
    assert mask_iou(a, b) == pytest.approx(2 / 4)
    assert mask_iou(a, ~a) == 0
    assert mask_iou(a & ~a, b & ~b) == 1


def test_ssim_is_one_for_equals_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    picture = rng.random((32, 32, 3)).astype(np.float32)
    little, much = (np.clip(picture + rng.normal(0, s, picture.shape), 0, 1).astype(np.float32) for s in (0.02, 0.3))
    assert ssim(picture, picture) == pytest.approx(1)
    assert 1 > ssim(little, picture) > ssim(much, picture)


def test_a_missing_part_costs_as_much_as_a_wrong_colour() -> None:
    """Foreground PSNR counts the true mask over white: leaving out a black object is as bad as painting it white."""
    truth = np.zeros((16, 16, 4), np.float32)
    truth[4:12, 4:12, 3] = 1
    missing = np.zeros_like(truth)
    white = truth.copy()
    white[..., :3] = 1
    scores, painted = view_scores(missing, truth), view_scores(white, truth)
    assert scores["foreground_psnr"] == painted["foreground_psnr"] == pytest.approx(0, abs=1e-6)
    assert scores["psnr"] == pytest.approx(-10 * np.log10(64 / 256), abs=1e-3)
    assert (scores["iou"], painted["iou"]) == (0, 1)
    assert view_scores(truth, truth) == pytest.approx({"psnr": 100, "foreground_psnr": 100, "ssim": 1, "iou": 1})


def test_colour_under_transparent_pixels_does_not_count() -> None:
    truth = np.zeros((16, 16, 4), np.float32)
    truth[2:9, 2:9] = 1
    hidden = truth.copy()
    hidden[truth[..., 3] == 0, :3] = 0.7
    assert view_scores(hidden, truth) == view_scores(truth, truth)
