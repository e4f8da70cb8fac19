"""Whether photos that are given as photos of many objects look like one object from several sides."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pipeline.diffusion.preparation.prepare import PreparedPhoto

_ALIKE = 0.72
"""Overlap of colour histograms from which two objects look the same."""
_UNLIKE = 0.05
"""Overlap below which they have nothing in common."""
_ENOUGH = 3
_BINS = 8
_HINT = (
    "The last {} photos look like one object from several sides, and each is made into a mesh of its own. "
    "viewloom pose finds their cameras, and viewloom reconstruct makes one mesh of all of them."
)


class SameObject:
    """Compares each photo's cut-out with the one before it; says so once, when several in a row look alike."""

    def __init__(self) -> None:
        self._last: Float[np.ndarray, "n"] | None = None
        self._row = 1
        self._told = False

    def hint(self, prepared: PreparedPhoto) -> str | None:
        """What to tell the user after this photo, if anything."""
        now = _histogram(prepared)
        alike = self._last is not None and float(np.minimum(now, self._last).sum()) > _ALIKE
        self._row = self._row + 1 if alike else 1
        self._last = now
        if self._told or self._row < _ENOUGH:
            return None
        self._told = True
        return _HINT.format(self._row)


def unlike(one: PreparedPhoto, other: PreparedPhoto) -> bool:
    """Whether two cut-outs have hardly a colour in common."""
    return float(np.minimum(_histogram(one), _histogram(other)).sum()) < _UNLIKE


def _histogram(prepared: PreparedPhoto) -> Float[np.ndarray, "n"]:
    """Fractions of the object's pixels in boxes of colour, spread to the boxes beside them."""
    rgba = prepared.resized(64)
    colours = rgba[rgba[..., 3] >= 128][:, :3].astype(np.float64) * (_BINS - 1) / 255
    low = np.floor(colours).astype(int)
    high = np.minimum(low + 1, _BINS - 1)
    part = colours - low
    boxes = np.zeros((_BINS,) * 3)
    for corner in np.ndindex(2, 2, 2):
        index = np.where(corner, high, low)
        weight = np.where(corner, part, 1 - part).prod(axis=1)
        np.add.at(boxes, tuple(index.T), weight)
    return boxes.ravel() / max(boxes.sum(), 1e-9)
