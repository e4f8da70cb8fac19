"""The hint that several photos look like one object from several sides."""

from __future__ import annotations

import numpy as np

from pipeline.diffusion.preparation.prepare import PreparedPhoto
from pipeline.jobs.same_object import SameObject
from scene.framing import framing_of_mask

RED, BLUE, GREEN = (200, 40, 30), (30, 60, 200), (40, 180, 60)


def cut_out(left: tuple[int, int, int], right: tuple[int, int, int], size: int = 96, start: int = 20) -> PreparedPhoto:
    """A square of two colours, somewhere in the picture; what is transparent has colours of its own."""
    rgba = np.random.default_rng(start).integers(0, 255, (size, size, 4), dtype=np.uint8)
    rgba[..., 3] = 0
    rgba[start : start + 40, start : start + 20] = (*left, 255)
    rgba[start : start + 40, start + 20 : start + 40] = (*right, 255)
    return PreparedPhoto(rgba, rgba, framing_of_mask(rgba[..., 3] >= 128, 64, 0.9), ())


def hints(*photos: PreparedPhoto) -> list[bool]:
    compared = SameObject()
    return [compared.hint(photo) is not None for photo in photos]


def test_three_alike_in_a_row_are_said_once() -> None:
    sides = [cut_out(RED, BLUE, start=start) for start in (10, 20, 30, 40, 50)]
    assert hints(*sides) == [False, False, True, False, False]


def test_the_hint_says_how_many_and_what_to_run() -> None:
    compared = SameObject()
    told = [compared.hint(cut_out(RED, BLUE, start=start)) for start in (10, 20, 30)]
    assert told[2] is not None
    assert told[2].startswith("The last 3 photos look like one object")
    assert "viewloom pose" in told[2]
    assert "viewloom reconstruct" in told[2]


def test_the_row_begins_anew_with_another_object() -> None:
    red, green = cut_out(RED, BLUE), cut_out(GREEN, GREEN)
    assert hints(red, red, green, red, red) == [False] * 5
    assert hints(red, red, green, green, green) == [False, False, False, False, True]


def test_different_objects_and_one_photo_are_no_row() -> None:
    assert hints(cut_out(RED, RED), cut_out(BLUE, BLUE), cut_out(GREEN, GREEN), cut_out(RED, BLUE)) == [False] * 4
    assert hints(cut_out(RED, BLUE)) == [False]


def shaded(light: float) -> PreparedPhoto:
    """A ball of one colour under a lamp, as bright as its light."""
    row, column = np.mgrid[:96, :96] / 47.5 - 1
    inside = row**2 + column**2 < 0.8
    height = np.sqrt(np.clip(0.8 - row**2 - column**2, 0, None))
    shade = np.clip(0.15 + 0.8 * (0.5 * height - 0.4 * row + 0.4 * column), 0.05, 1)[..., None]
    colour = np.clip(light * shade * (210, 140, 60), 0, 255)
    rgba = np.concatenate([colour, 255.0 * inside[..., None]], -1).astype(np.uint8)
    return PreparedPhoto(rgba, rgba, framing_of_mask(inside, 64, 0.9), ())


def test_a_little_more_light_is_the_same_object_and_much_more_is_not() -> None:
    assert hints(*map(shaded, (1.0, 1.1, 1.0))) == [False, False, True]
    assert hints(*map(shaded, (0.5, 1.2, 0.5))) == [False, False, False]
