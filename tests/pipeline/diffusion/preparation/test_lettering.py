"""What is taken for lettering, and that it cannot be read afterwards."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.diffusion.preparation.lettering import lettering, without_lettering


def sign(
    text: str, ink: tuple[int, int, int] = (20, 20, 40), paper: tuple[int, int, int] = (230, 200, 120)
) -> np.ndarray:
    """A square card with a word on it, and nothing around."""
    rgba = np.zeros((256, 256, 4), np.uint8)
    card = np.full((200, 200, 3), paper, np.uint8)
    cv2.putText(card, text, (12, 110), cv2.FONT_HERSHEY_SIMPLEX, 1.0, ink, 2, cv2.LINE_AA)
    rgba[28:228, 28:228] = np.dstack([card, np.full((200, 200), 255, np.uint8)])
    return rgba


@pytest.mark.parametrize(
    ("ink", "paper"), [((20, 20, 40), (230, 200, 120)), ((255, 255, 255), (120, 60, 60))], ids=["dark", "bright"]
)
def test_words_are_found_and_only_they(ink: tuple[int, int, int], paper: tuple[int, int, int]) -> None:
    rgba = sign("VIEWLOOM", ink, paper)
    where = lettering(rgba)
    strokes = (rgba[..., :3] != paper).any(axis=-1) & (rgba[..., 3] > 0)
    assert where[strokes].mean() > 0.98
    assert where.mean() < 0.3
    assert not where[rgba[..., 3] == 0].any()


def test_a_plain_card_stripes_and_noise_have_none() -> None:
    plain = sign("")
    stripes = sign("")
    stripes[100:130, 40:216:16, :3] = stripes[100:130, 41:216:16, :3] = stripes[100:130, 42:216:16, :3] = 0
    noise = sign("")
    noise[28:228, 28:228, :3] = cv2.GaussianBlur(
        np.random.default_rng(0).integers(0, 256, (200, 200, 3)).astype(np.uint8), (0, 0), 6
    )
    for rgba in (plain, stripes, noise):
        assert not lettering(rgba).any()


def test_transparent_pictures_have_none() -> None:
    assert not lettering(np.zeros((32, 32, 4), np.uint8)).any()


def test_what_is_wiped_keeps_its_broad_colour_and_loses_its_strokes() -> None:
    rgba = sign("VIEWLOOM")
    where = lettering(rgba)
    wiped = without_lettering(rgba, where)
    before, after = (cv2.cvtColor(p[..., :3], cv2.COLOR_RGB2GRAY).astype(float)[where] for p in (rgba, wiped))
    assert after.std() < 0.4 * before.std()
    assert abs(after.mean() - before.mean()) < 12
    np.testing.assert_array_equal(wiped[..., 3], rgba[..., 3])
    far = cv2.dilate(where.astype(np.uint8), np.ones((31, 31))) == 0
    np.testing.assert_array_equal(wiped[far], rgba[far])
