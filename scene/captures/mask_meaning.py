"""What masks of a capture mean: outlines of an object, or what is not to be looked at, such as a passer-by.

nerfstudio's ``mask_path`` and COLMAP's masks are black where nothing is to be seen; the same files often hold outlines.
Which they are shows in them: an outline is black all around.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from scene.captures.worlds import with_notes
from scene.view import Mask
from scene.viewset import MASKS_IGNORE, ViewSet

_MOST = 0.6
"""Fraction of border and picture that is white, in the median picture, from which on a mask is no outline."""


class Cover(NamedTuple):
    """How a mask lies in its picture: fractions that are white of all, of the border, and of the middle."""

    whole: float
    border: float
    middle: float

    @classmethod
    def of(cls, mask: UInt8[np.ndarray, "h w"]) -> Cover:
        """Measure a mask."""
        solid = mask >= 128
        height, width = solid.shape
        rim = np.concatenate([solid[0], solid[-1], solid[:, 0], solid[:, -1]])
        middle = solid[int(0.45 * height) : int(0.55 * height) + 1, int(0.45 * width) : int(0.55 * width) + 1]
        return cls(float(solid.mean()), float(rim.mean()), float(middle.mean()))


def meant(views: ViewSet, covers: list[Cover]) -> ViewSet:
    """The set with masks that are no outlines taken for what is to be left out, which a note says.

    Args:
        views: with masks.
        covers: how they lie.
    """
    if not covers:
        return views
    whole, border, _ = np.median(np.array(covers), axis=0)
    if whole < _MOST or border < _MOST:
        return views
    if np.mean([cover.middle < 0.5 for cover in covers]) > 0.5:
        note = (
            "masks are white around and black in the middle of most pictures: they look inverted. White is the object"
        )
        return with_notes(views, [note])
    note = (
        f"masks cover most of the pictures ({whole:.0%} of the median one) up to their borders: they are taken for "
        "what is to be looked at, not for outlines of an object (--masks object takes them for outlines)"
    )
    return with_notes(ignoring(views), [note])


def ignoring(views: ViewSet) -> ViewSet:
    """The set whose masks are black where nothing is to be looked at."""
    return replace(views, has_masks=False, metadata={**views.metadata, **MASKS_IGNORE})


def unknown_ignored(views: ViewSet) -> ViewSet:
    """A set without masks, parts of whose pictures are unknown, as one in which these are not to be looked at."""
    masks: dict[int, Mask] = {}
    parts = []
    for view in views:
        unknown = view.unknown()
        if unknown is not None:
            mask = masks.setdefault(id(view.unknown_source), 255 - unknown)  # large, and often shared
            view = replace(view, mask=mask, unknown_source=None)
        parts.append(view)
    return ignoring(replace(views, views=tuple(parts)))


def outlining(views: ViewSet) -> ViewSet:
    """The set whose masks are outlines of the object."""
    metadata = {key: value for key, value in views.metadata.items() if key not in MASKS_IGNORE}
    return replace(views, has_masks=True, metadata=metadata)
