"""Labels belong to what surrounds them; a handle's opening, which shows the surroundings, stays one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.diffusion.preparation import cutout
from pipeline.diffusion.preparation.cutout import cut_out, find_object, load_segmenter, segmenter_folder
from pipeline.diffusion.preparation.openings import closed_openings

SIDE = 240


def mug() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of a mug with its label, of the label, and of the opening of its handle."""
    y, x = np.mgrid[:SIDE, :SIDE] + 0.5
    body = (abs(x - 110) < 55) & (abs(y - 125) < 70)
    ring, opening = np.hypot(x - 165, y - 125) < 40, np.hypot(x - 165, y - 125) < 25
    return body | (ring & ~opening), (abs(x - 105) < 32) & (abs(y - 125) < 28), opening & ~body


def painted(label_colour: tuple[int, int, int], back: tuple[int, int, int], fade: float = 0.0) -> np.ndarray:
    """A red mug on a backdrop that may fade from top to bottom, with some noise."""
    whole, label, _ = mug()
    y = np.mgrid[:SIDE, :SIDE][0][..., None] / SIDE
    picture = np.array(back) + fade * (y - 0.5) + np.random.default_rng(0).normal(0, 3, (SIDE, SIDE, 3))
    picture[whole] += np.array((185, 45, 40)) - np.array(back)
    picture[label] += np.array(label_colour) - (185, 45, 40)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("label_colour", [(235, 225, 200), (30, 30, 34), (60, 90, 170)])
@pytest.mark.parametrize(("back", "fade"), [((150, 152, 155), 0), ((170, 170, 170), 60), ((245, 245, 245), 0)])
def test_a_label_belongs_to_the_mug_and_the_handle_stays_open(
    label_colour: tuple[int, int, int], back: tuple[int, int, int], fade: float
) -> None:
    whole, label, opening = mug()
    closed, notes = closed_openings(whole & ~label, painted(label_colour, back, fade))
    assert closed[label].all()
    assert not closed[opening].any()
    assert "a region that it encloses, of another colour" in notes[0]


def test_a_shaded_opening_stays_open() -> None:
    """What is seen through a handle is often darker than the backdrop beside it."""
    whole, label, opening = mug()
    picture = painted((235, 225, 200), (170, 168, 165))
    picture[opening] = picture[opening] * 0.9
    closed, _ = closed_openings(whole & ~label, picture)
    assert not closed[opening].any()
    assert closed[label].all()


def test_an_opening_in_the_backdrops_colour_stays_and_a_large_one_is_told() -> None:
    whole, label, _ = mug()
    closed, notes = closed_openings(whole & ~label, painted((200, 200, 200), (200, 200, 200)))
    assert not closed.any()
    assert "look like its surroundings: they are taken for holes" in notes[0]


def test_a_rim_with_gaps_encloses_and_a_bay_does_not() -> None:
    whole, label, _ = mug()
    picture = painted((60, 90, 170), (200, 200, 200))
    torn = whole & ~label
    torn[125, 50:80] = False  # a line of one pixel to the outside
    assert closed_openings(torn, picture)[0][label].mean() > 0.95
    bay = whole & ~label
    bay[100:150, 40:110] = False
    assert not closed_openings(bay, picture)[0].any()


def test_what_has_no_opening_is_left_alone() -> None:
    solid = np.zeros((SIDE, SIDE), bool)
    solid[50:190, 50:190] = True
    assert closed_openings(solid, painted((1, 1, 1), (9, 9, 9)))[1] == ()
    assert not closed_openings(np.ones((SIDE, SIDE), bool), painted((1, 1, 1), (9, 9, 9)))[0].any()


@pytest.mark.parametrize("scale", [1, 4])
def test_labels_in_cut_outs_by_colour(scale: int) -> None:
    whole, label, opening = (np.kron(one, np.ones((scale, scale), bool)) for one in mug())
    picture = cv2.resize(painted((235, 225, 200), (150, 152, 155)), (SIDE * scale, SIDE * scale))
    found = find_object(picture, "grabcut")
    solid = found.alpha >= 128
    assert solid[label].mean() > 0.97
    assert solid[opening].mean() < 0.1
    assert (solid == whole).mean() > 0.97


@pytest.mark.skipif(segmenter_folder() is None, reason="no segmenter is shipped")
def test_labels_in_cut_outs_by_the_shipped_segmenter() -> None:
    whole, label, opening = mug()
    folder = segmenter_folder()
    assert folder is not None
    found = cut_out(painted((235, 225, 200), (150, 152, 155)), load_segmenter(folder))
    solid = found.alpha >= 128
    assert solid[label].mean() > 0.97
    assert solid[opening].mean() < 0.1
    assert (solid == whole).mean() > 0.97


def test_confidence_falls_when_colours_take_away_what_the_network_was_sure_of() -> None:
    soft = np.full((40, 40), 0.02, np.float32)
    soft[5:35, 5:35] = 0.9
    sure = cutout._expected_overlap(soft)
    decided = soft > 0.5
    assert cutout._expected_overlap(soft, decided) == pytest.approx(sure)
    decided[5:35, 5:20] = False
    assert cutout._expected_overlap(soft, decided) < 0.6 * sure
