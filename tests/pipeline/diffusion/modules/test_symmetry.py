"""The head that finds symmetry planes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.symmetry import SymmetryHead, peak


@pytest.fixture(scope="module")
def coarse() -> CoarseVolumeModel:
    torch.manual_seed(0)
    return CoarseVolumeModel(image_size=32, resolution=8, channels=(16, 16, 16), fine_channels=8).eval()


def test_a_head_begins_with_the_middle_of_its_coarse_volume(coarse: CoarseVolumeModel) -> None:
    head = SymmetryHead.beside(coarse)
    assert head.config["channels"] == 16
    assert head.config["side"] == 4
    for name, value in coarse.middle.state_dict().items():
        assert torch.equal(head.middle.state_dict()[name], value), name


def test_guesses_are_headings_with_a_confidence_and_the_threshold_decides(coarse: CoarseVolumeModel) -> None:
    torch.manual_seed(1)
    head, photos = SymmetryHead.beside(coarse).eval(), torch.randn(3, 4, 32, 32)
    guesses = head.guess(coarse, photos)
    chance = head.chances(coarse, photos)
    assert len(guesses) == 3
    for guess, row in zip(guesses, chance, strict=True):
        assert 0 <= guess.heading < math.pi
        assert guess.confidence == pytest.approx(row.max().item())
        assert not guess.sure
    head.register_to_config(threshold=0.0)
    assert all(guess.sure for guess in head.guess(coarse, photos))


def test_a_head_is_stored_and_loaded(coarse: CoarseVolumeModel, tmp_path: Path) -> None:
    head = SymmetryHead.beside(coarse).eval()
    head.save_pretrained(tmp_path)
    again = load_part(SymmetryHead, tmp_path)
    features = torch.randn(2, 16, 4, 4)
    torch.testing.assert_close(again(features), head(features))


@pytest.mark.parametrize(
    ("chances", "degrees"),
    [
        ({4: 0.9}, 20),
        ({4: 0.9, 5: 0.9}, 22.5),
        ({3: 0.9, 4: 0.9, 5: 0.9}, 20),
        ({0: 0.9, 35: 0.9}, -2.5),
        ({4: 0.9, 20: 0.8}, 20),
    ],
)
def test_the_heading_is_the_middle_of_the_peak(chances: dict[int, float], degrees: float) -> None:
    row = torch.full((36,), 0.05)
    for k, value in chances.items():
        row[k] = value
    assert math.degrees(peak(row, int(row.argmax()))) == pytest.approx(degrees, abs=1e-3)


def test_a_mirrored_photo_has_the_opposite_headings(coarse: CoarseVolumeModel) -> None:
    torch.manual_seed(2)
    head, photos = SymmetryHead.beside(coarse).eval(), torch.randn(2, 4, 32, 32)
    one, other = head.chances(coarse, photos), head.chances(coarse, photos.flip(-1))
    torch.testing.assert_close(one[:, 0], other[:, 0])
    torch.testing.assert_close(one[:, 1:], other[:, 1:].flip(1))
