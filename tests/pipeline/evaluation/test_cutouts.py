"""Scores of cut-outs: boundaries, pairs of photos and masks, and what counts as nothing found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.cutouts import CutoutScores, MaskedPhoto, boundary_f, photo_pairs, sheet_row
from scene.errors import InputError


def disc(size: int = 128, radius: float = 40, shift: int = 0) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - size / 2
    return np.hypot(y, x - shift) < radius


def test_boundaries_within_the_tolerance_count() -> None:
    # 0.75 % of the diagonal are 1.36 pixels.
    assert boundary_f(disc(), disc()) == 1
    assert boundary_f(disc(shift=1), disc()) == 1
    assert 0 < boundary_f(disc(shift=4), disc()) < 0.9
    assert boundary_f(np.zeros_like(disc()), disc()) == 0
    assert boundary_f(np.zeros_like(disc()), np.zeros_like(disc())) == 1


def test_pairs_need_a_photo_and_a_mask_of_its_size(tmp_path: Path) -> None:
    rgb, mask = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    mask[2:5] = 255
    Image.fromarray(rgb).save(tmp_path / "cat.png")
    Image.fromarray(mask).save(tmp_path / "cat_mask.png")
    Image.fromarray(rgb).save(tmp_path / "dog.png")
    Image.fromarray(np.dstack([rgb, mask])).save(tmp_path / "dog_rgba.png")
    Image.fromarray(rgb).save(tmp_path / "alone.png")
    Image.fromarray(rgb).save(tmp_path / "small.png")
    Image.fromarray(mask[:4]).save(tmp_path / "small_mask.png")
    photos = photo_pairs(tmp_path)
    assert [photo.name for photo in photos] == ["cat", "dog"]
    assert all((photo.truth == (mask > 0)).all() for photo in photos)
    with pytest.raises(InputError, match="no photos with masks"):
        photo_pairs(tmp_path / "none")


def test_scores_are_means_and_nothing_found_is_an_empty_mask() -> None:
    def nothing(rgb: np.ndarray) -> np.ndarray:
        raise InputError("nothing there")

    truth = disc()
    scores = CutoutScores({"perfect": lambda rgb: truth * np.uint8(255), "blind": nothing})
    photo = MaskedPhoto("disc", np.full((*truth.shape, 3), 90, np.uint8), truth)
    masks = scores.add(photo)
    assert scores.last() == ["1.000, 1.000", "0.000, 0.000"]
    scores.add(photo)
    assert "| 2 photos | IoU | median |" in scores.table()
    assert "| perfect | 1.000 | 1.000 | 0% | 1.000 |" in scores.table()
    assert "| blind | 0.000 | 0.000 | 100% | 0.000 |" in scores.table()
    assert sheet_row(photo, masks, side=32).shape == (32, 4 * 32, 3)
