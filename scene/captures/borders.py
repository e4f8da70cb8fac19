"""Black borders of pictures that were undistorted elsewhere: no camera saw anything there.

Programs that undo a lens and keep all of the picture leave black wedges at its sides. They lie alike in all pictures
of one lens, are black through and through, and end where the picture begins. A black backdrop goes on behind the object
and ends elsewhere in each picture; dark corners of a lens are not black.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from scene.captures.worlds import with_notes
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

_FEWEST = 3
"""Pictures of one size below which nothing tells a border from the scene."""
_LOOKED_AT = 1024
_BLACK, _LIT = 16, 32
"""Brightest channel up to which a pixel is black, as JPEG leaves it, and above which it certainly is not."""
_ALIKE = 0.8
"""Fraction of the pictures in which a pixel of a border is black: JPEG rings at the border's edge."""
_LEAST, _MOST = 5e-4, 0.35
"""Fractions of the picture that such a border covers."""
_DEEPEST = 0.25
"""How far it reaches into the picture, relative to the shorter side."""
_SHARP = 0.6
"""Fraction of the pixels just inside of it, of all pictures, that are lit."""
_RAMP = 1
"""Width, pixels as looked at, of the edge where border and picture are mixed."""
_CONE = 2.0
"""Distance from the mask, relative to how deep in the border a pixel lies, up to which the object may go on there."""


def with_borders_unknown(views: ViewSet) -> ViewSet:
    """The set whose black borders are unknown (:meth:`scene.view.View.unknown`), which a note says.

    With masks they are unknown where the object may go on behind them, and background elsewhere: were all of them
    unknown, nothing would bound an object that fills its pictures.

    Args:
        views: the set. Pictures whose lens is still to be undone have no such borders.
    """
    sizes: dict[tuple[int, int], list[int]] = {}
    for k, view in enumerate(views):
        if view.undistortion is None:
            sizes.setdefault((view.camera.width, view.camera.height), []).append(k)
    parts, most, count = list(views.views), 0.0, 0
    for members in sizes.values():
        border = _border([views.views[k] for k in members])
        if border is None:
            continue
        everywhere = np.where(border, np.uint8(255), np.uint8(0))  # one for all views
        for k in members:
            source = _reached(parts[k], border) if views.has_masks else everywhere
            if source is None:
                continue
            most, count = max(most, float(border.mean())), count + 1
            parts[k] = replace(parts[k], unknown_source=_joined(parts[k], source))
    if not count:
        return views
    share = f"black borders, as undoing a lens leaves them ({100 * most:.2g} % of a picture)"
    if views.has_masks:
        note = f"the object reaches {share}, in {count} of {len(parts)} pictures: whether it goes on there is unknown"
    else:
        note = f"{count} of {len(parts)} pictures have {share}: they are not looked at"
    return with_notes(replace(views, views=tuple(parts)), [note])


def _reached(view: View, border: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"] | None:
    """Where an object may go on behind the border of a picture: within a cone about where its mask ends there."""
    try:
        alpha = view.reduced(_LOOKED_AT)[..., 3]
    except InputError:
        return None  # whoever uses it says what is wrong with it
    solid = (cv2.resize(alpha, border.shape[::-1], interpolation=cv2.INTER_AREA) > 127) & ~border
    if not solid.any():
        return None
    away = cv2.distanceTransform((~solid).astype(np.uint8), cv2.DIST_L2, 5)
    deep = cv2.distanceTransform(border.astype(np.uint8), cv2.DIST_L2, 5)
    reached = border & (away <= _CONE * deep + 2)
    return np.where(reached, np.uint8(255), np.uint8(0)) if reached.any() else None


def _joined(view: View, source: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
    """What is unknown of a view, with what was before."""
    try:
        before = view.unknown(source.shape[::-1])
    except InputError:
        return source  # whoever uses it says what is wrong with it
    return source if before is None else np.maximum(before, source)


def _border(views: Sequence[View]) -> Bool[np.ndarray, "h w"] | None:
    """Where the pictures have a black border, at the size at which they are looked at."""
    if len(views) < _FEWEST:
        return None
    # Most captures have none, which three pictures tell.
    some = _black([views[k] for k in (0, len(views) // 2, len(views) - 1)])
    if some is None or _outer(some[0]) is None:
        return None
    found = _black(views)
    border = None if found is None else _outer(found[0])
    if found is None or border is None:
        return None
    solid = border.astype(np.uint8)
    within = cv2.dilate(solid, np.ones((7, 7), np.uint8)) - cv2.dilate(solid, np.ones((2 * _RAMP + 1,) * 2, np.uint8))
    if not within.any() or float(found[1][within > 0].mean()) < _SHARP:
        return None
    return cv2.dilate(solid, np.ones((2 * _RAMP + 1,) * 2, np.uint8)) > 0


def _black(views: Sequence[View]) -> tuple[Bool[np.ndarray, "h w"], Float[np.ndarray, "h w"]] | None:
    """Pixels that are black in nearly all pictures, and in what fraction they are lit; None if none can be read."""
    width, height = views[0].camera.width, views[0].camera.height
    scale = min(1.0, _LOOKED_AT / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    black, lit, count = np.zeros(size[::-1]), np.zeros(size[::-1]), 0
    for view in views:
        try:
            brightest = view.reduced(_LOOKED_AT)[..., :3].max(axis=-1)
        except InputError:
            continue  # whoever uses it says what is wrong with it
        small = cv2.resize(brightest, size, interpolation=cv2.INTER_AREA)
        black += small <= _BLACK
        lit += small > _LIT
        count += 1
    return (black >= _ALIKE * count, lit / count) if count else None


def _outer(black: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"] | None:
    """What of it lies at the picture's sides, if that may be a border."""
    _, label = cv2.connectedComponents(black.astype(np.uint8), connectivity=4)
    rim = np.unique(np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]]))
    border = np.isin(label, rim[rim > 0])
    if not _LEAST <= border.mean() <= _MOST:
        return None
    rows, columns = np.nonzero(border)
    height, width = border.shape
    deep = np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(columns, width - 1 - columns))
    return border if deep.max() <= _DEEPEST * min(height, width) else None
