"""Captures that say that they are normalised: what is believed, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recon.views.claim import normalised_doubt, normalised_remark
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


@pytest.mark.parametrize("masked", [True, False])
def test_a_world_that_may_be_too_large_is_told(ball_views: ViewSet, masked: bool) -> None:
    """Without masks nothing shows that these are five times too large: a large scene looks alike."""
    views = replace(normalise_capture(ball_views).views, has_masks=masked)
    assert normalised_remark(views) is None
    large = views.transformed(similarity(5.0))
    remark = normalised_remark(large)
    if masked:
        assert remark is None  # it is not believed at all
        assert normalised_doubt(large) is not None
    else:
        assert normalised_doubt(large) is None
        assert remark is not None
        assert "times the size of a normalised object" in remark


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
