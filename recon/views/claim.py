"""Whether a capture that says that it is normalised can be: its cameras and masks tell."""

from __future__ import annotations

import numpy as np

from recon.views.normalise import WORKING_SIDE, common_view, shown_at_origin
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

_REACH = (0.3, 1.6)
"""Of the masks' outlines from the origin, in radii of the bounding sphere, in the median of all views."""
_SHOWN = (0.25, 7.0)
"""What pictures without masks show at the origin, in the same unit; a region of interest may be a small part."""
_ALIKE = (0.6, 1.6)
"""Of the cameras' common view, in the same unit, if that is what was normalised: some views may have been taken out."""
_SAME = 1.2
"""Factor by which pictures may show more or less than when a given region was normalised."""


def normalised_doubt(views: ViewSet) -> str | None:
    """What speaks against a capture's being normalised, or None.

    With masks, what they show has to lie about the origin and to be as large as a normalised object. Without, the
    cameras' common view has to be about the bounding sphere. Where a region was given, which may be a small part of
    that, its file says how much the pictures showed (:func:`recon.views.normalise.normalise_scene`), and
    they still have to.

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
    shown = shown_at_origin(cameras) / OBJECT_RADIUS
    low, high = _SHOWN
    if not low <= shown <= high:
        return f"its pictures show {shown:.2g} times the size of a normalised object"
    region = views.metadata.get("region")
    then = region.get("shown") if isinstance(region, dict) else None
    if then is not None and not 1 / _SAME <= shown / then <= _SAME:
        return f"its pictures show {shown / then:.2g} times as much as when it was"
    try:
        middle, radius = common_view(cameras)
    except InputError:
        return None
    off, around = (float(np.linalg.norm(middle)), float(np.median([np.linalg.norm(c.centre) for c in cameras])))
    if off > max(OBJECT_RADIUS, 0.5 * around):
        return f"its cameras look {off / OBJECT_RADIUS:.2g} radii past the origin"
    low, high = _ALIKE
    if then is None and not low <= radius / OBJECT_RADIUS <= high:
        return f"its cameras have {radius / OBJECT_RADIUS:.2g} times the size of a normalised object in common"
    return None


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
