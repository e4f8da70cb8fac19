"""Captures that say that they are normalised: what is believed, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.views.claim import normalised_doubt
from recon.views.normalise import normalise_capture, normalise_scene
from scene.viewset import ViewSet


def similarity(scale: float, shift: float = 0.0) -> np.ndarray:
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[0, 3] = shift
    return matrix


@pytest.mark.parametrize("masked", [True, False])
def test_normalised_captures_are_believed(ball_views: ViewSet, masked: bool) -> None:
    views = replace(ball_views, has_masks=masked)
    assert normalised_doubt((normalise_capture if masked else normalise_scene)(views).views) is None


@pytest.mark.parametrize(
    ("masked", "scale", "shift"),
    [(True, 5.0, 0.0), (True, 0.2, 0.0), (True, 1.0, 2.0), (True, 1000.0, 0.0), (False, 30.0, 0.0), (False, 0.1, 0.0)],
)
def test_other_worlds_are_not(ball_views: ViewSet, masked: bool, scale: float, shift: float) -> None:
    views = normalise_capture(ball_views).views.transformed(similarity(scale, shift))
    doubt = normalised_doubt(replace(views, has_masks=masked))
    assert doubt is not None
    assert "times" in doubt


@pytest.mark.parametrize("scale", [5.0, 2.0, 0.5, 0.2])
@pytest.mark.parametrize("given", [None, 0.2])
def test_worlds_of_another_size_are_found_without_masks(ball_views: ViewSet, scale: float, given: float | None) -> None:
    """By the cameras' common view; by what the pictures showed, where the region was given."""
    region = None if given is None else (np.zeros(3), given)
    views = normalise_scene(replace(ball_views, has_masks=False), region).views
    assert normalised_doubt(views) is None
    doubt = normalised_doubt(views.transformed(similarity(scale)))
    assert doubt is not None
    assert "times" in doubt


def test_a_capture_that_lost_some_views_is_believed(ball_views: ViewSet) -> None:
    views = normalise_scene(replace(ball_views, has_masks=False)).views
    assert normalised_doubt(replace(views, views=views.views[1::2])) is None


def test_cameras_that_look_elsewhere_are_not(ball_views: ViewSet) -> None:
    views = normalise_scene(replace(ball_views, has_masks=False)).views.transformed(similarity(1.0, 2.5))
    assert normalised_doubt(views) is not None


def test_masks_of_a_pixel_are_not(ball_views: ViewSet) -> None:
    dots = []
    for view in normalise_capture(ball_views).views:
        mask = np.zeros(view.rgba().shape[:2], np.uint8)
        mask[mask.shape[0] // 2, mask.shape[1] // 2] = 255
        dots.append(replace(view, mask=mask))
    assert "0.0" in str(normalised_doubt(ViewSet(tuple(dots), True)))
