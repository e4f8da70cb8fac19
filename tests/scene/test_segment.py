"""GrabCut on pictures whose object is known."""

from __future__ import annotations

import numpy as np
import pytest

from scene.errors import InputError
from scene.metrics import mask_iou
from scene.segment import has_useful_alpha, segment_object


def disc(height: int, width: int, radius: float, centre: tuple[float, float] = (0.5, 0.5)) -> np.ndarray:
    """Pixels within a radius, given as a share of the shorter side."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.hypot(y - centre[0] * height, x - centre[1] * width) < radius * min(height, width)


def painted(
    mask: np.ndarray, front: tuple[int, int, int], back: np.ndarray | tuple[int, int, int], noise: float = 0.0
) -> np.ndarray:
    """An object on a background, with noise over both."""
    picture = np.where(mask[..., None], front, back) + np.random.default_rng(0).normal(0, noise, (*mask.shape, 3))
    return np.clip(np.round(picture), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("front", "back"),
    [
        ((200, 40, 30), (235, 235, 235)),
        ((240, 240, 235), (30, 35, 60)),
        ((60, 60, 60), (250, 250, 250)),
        ((30, 120, 40), (140, 110, 80)),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 4.0, 14.0])
def test_disc_on_a_plain_or_noisy_background(
    front: tuple[int, int, int], back: tuple[int, int, int], noise: float
) -> None:
    truth = disc(150, 200, 0.3)
    assert mask_iou(segment_object(painted(truth, front, back, noise)) >= 128, truth) > 0.95


@pytest.mark.parametrize("dark", [150, 195, 225])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_disc_on_a_backdrop_that_fades(dark: int, noise: float) -> None:
    """Studio light: the backdrop's shades next to each other are all background."""
    truth = disc(160, 160, 0.28, (0.55, 0.45))
    ramp = np.broadcast_to(np.linspace(dark, 240, 160)[:, None, None], (160, 160, 3))
    assert mask_iou(segment_object(painted(truth, (170, 30, 30), ramp, noise)) >= 128, truth) > 0.95


def test_an_object_that_reaches_the_border_is_found() -> None:
    truth = np.zeros((160, 160), bool)
    truth[60:, 50:110] = True
    assert mask_iou(segment_object(painted(truth, (30, 60, 180), (230, 225, 220), 2.0)) >= 128, truth) > 0.9


@pytest.mark.parametrize("size", [(90, 1100), (1100, 120), (1200, 900)])
def test_large_pictures_keep_a_sharp_outline(size: tuple[int, int]) -> None:
    """The work is done at 400 pixels; the mask is at the photo's size and its soft rim a few pixels wide."""
    truth = disc(*size, 0.35)
    mask = segment_object(painted(truth, (20, 90, 160), (245, 245, 245)))
    assert mask.shape == size
    assert mask_iou(mask >= 128, truth) > 0.9
    outline = 2 * np.pi * 0.35 * min(size)
    assert ((mask > 10) & (mask < 245)).sum() < 2 * outline


def test_letterbox_bars_are_no_object_and_no_background() -> None:
    truth = disc(120, 200, 0.3)
    rng = np.random.default_rng(1)
    backdrop = rng.integers(90, 200, (120, 200, 1)) + np.array([0, 10, 30])
    picture = np.zeros((180, 200, 3), np.uint8)
    picture[30:150] = painted(truth, (250, 40, 40), backdrop)
    mask = segment_object(picture) >= 128
    assert not mask[:30].any()
    assert not mask[150:].any()
    assert mask_iou(mask[30:150], truth) > 0.85


@pytest.mark.parametrize("hole", [0.06, 0.2])
def test_a_ring_keeps_its_hole_and_loses_specks(hole: float) -> None:
    """An opening as small as a cup handle's stays open."""
    truth = disc(200, 200, 0.4) & ~disc(200, 200, hole)
    specks = disc(200, 200, 0.008, (0.05, 0.9))
    picture = painted(truth | specks, (150, 30, 120), (240, 240, 240))
    mask = segment_object(picture) >= 128
    assert mask_iou(mask, truth) > 0.95
    assert not mask[disc(200, 200, 0.7 * hole)].any()
    assert not mask[specks].any()


def test_the_same_photo_gives_the_same_mask() -> None:
    picture = painted(disc(120, 120, 0.3), (120, 100, 90), (180, 170, 150), 20.0)
    first = segment_object(picture)
    segment_object(painted(disc(90, 90, 0.2), (0, 0, 0), (255, 255, 255)))  # draws from the same generator between
    assert np.array_equal(segment_object(picture), first)


@pytest.mark.parametrize(
    "picture",
    [
        np.full((100, 120, 3), 127, np.uint8),
        np.full((1, 1, 3), 9, np.uint8),
        np.full((300, 4, 3), 200, np.uint8),
        np.clip(np.random.default_rng(0).normal(128, 2, (100, 100, 3)), 0, 255).astype(np.uint8),
    ],
    ids=["plain", "one pixel", "strip", "faint noise"],
)
def test_a_picture_of_nothing_is_refused(picture: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"no object stands out from the background.*--mask"):
        segment_object(picture)


@pytest.mark.parametrize(("covered", "useful"), [(0, False), (2, True), (60, True), (99, True), (100, False)])
def test_alpha_is_useful_if_it_tells_object_from_background(covered: int, useful: bool) -> None:
    rgba = np.zeros((10, 10, 4), np.uint8)
    rgba.reshape(-1, 4)[:covered, 3] = 255
    assert has_useful_alpha(rgba) is useful
