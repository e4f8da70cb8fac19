"""Whether a capture that says that it is normalised can be: its cameras and masks tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recon.views.normalise import WORKING_SIDE, look_at_point
from scene.camera import OBJECT_RADIUS, Camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

_REACH = (0.3, 1.6)
"""Of the masks' outlines from the origin, in radii of the bounding sphere, in the median of all views."""
_SHOWN = (0.25, 7.0)
"""What pictures without masks show at the origin, in the same unit; a region of interest may be a small part."""
_MUCH = 2.5
"""Of the same, from which on it is worth a sentence."""


def normalised_remark(views: ViewSet) -> str | None:
    """What is to be said of a claim that cannot be told from a wrong one: pictures without masks that show much.

    A region of interest may be a small part of what pictures show; a world that is several times too large looks alike.
    """
    if views.has_masks or len(views) < 2:
        return None
    shown = _shown([view.camera for view in views])
    if shown <= _MUCH:
        return None
    return (
        f"This capture says that it is normalised, and its pictures show {shown:.2g} times the size of a normalised "
        "object. If the object fills them, its world is too large: take `normalised` out of its transforms.json."
    )


def normalised_doubt(views: ViewSet) -> str | None:
    """What speaks against a capture's being normalised, or None.

    With masks, what they show has to lie about the origin and to be as large as a normalised object. Without, the
    cameras have to look at the bounding sphere from outside, and to show some of what is around it; how large a scene
    is then follows from its cameras alone, so that only gross claims are told.

    Args:
        views: the capture.
    """
    if len(views) < 2:
        return None  # nothing to compare; the fit says what it needs
    if views.has_masks:
        reach = float(np.median([_reach(view) for view in views]) / OBJECT_RADIUS)
        low, high = _REACH
        if low <= reach <= high:
            return None
        return f"its masks reach {reach:.2g} times as far from the origin as a normalised object does"
    cameras = [view.camera for view in views]
    shown = _shown(cameras)
    low, high = _SHOWN
    if not low <= shown <= high:
        return f"its pictures show {shown:.2g} times the size of a normalised object"
    try:
        off = float(np.linalg.norm(look_at_point(cameras))) / OBJECT_RADIUS
    except InputError:
        return None
    around = float(np.median([np.linalg.norm(c.centre) for c in cameras])) / OBJECT_RADIUS
    return None if off <= max(1.0, 0.5 * around) else f"its cameras look {off:.2g} radii past the origin"


def _shown(cameras: Sequence[Camera]) -> float:
    """What the pictures show at the origin, in radii of the bounding sphere, in the median."""
    halves = [float(np.linalg.norm(c.centre)) * min(c.width / c.fx, c.height / c.fy) / 2 for c in cameras]
    return float(np.median(halves)) / OBJECT_RADIUS


def _reach(view: View) -> float:
    """How far a mask's outline is from the origin, at the origin's depth; infinite where that is behind the camera."""
    alpha = view.rgba()[..., 3]
    step = max(1, max(alpha.shape) // WORKING_SIDE)
    rows, columns = np.nonzero(alpha[::step, ::step] >= 128)
    pixels, depth = view.camera.project(np.zeros(3))
    if not len(rows) or not float(depth) > 0:
        return float("inf")
    x = ((columns + 0.5) * step - pixels[0]) / view.camera.fx
    y = ((rows + 0.5) * step - pixels[1]) / view.camera.fy
    return float(np.quantile(np.hypot(x, y), 0.98) * depth)
