"""What a given alpha or mask says of the object: evidence that is weighed, not an order for each pixel."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

Alpha = UInt8[np.ndarray, "h w"]
Solid = Bool[np.ndarray, "h w"]

FAINTEST = 8
"""An alpha that is nowhere more than this, of 255, shows nothing."""
_FAINT = 0.8 * 255
"""An alpha that is nowhere more than this is of a layer that was made fainter as a whole."""
_HALF = (0.2 * 255, 0.8 * 255)
"""From here to there a pixel is half transparent."""
_FLAT = 64
"""Alpha changes by less than this around pixels inside glass; along an outline, soft or not, it changes more."""
_WORTH_TELLING = 0.03
"""Share of the object's pixels."""
_BLACK = 24
_CORE, _WITHIN, _AROUND = 0.3, 0.1, 0.7
"""A halo: at least so much of the silhouette is solid, so much of the halo at most lies within that, and it goes around
so much of the outline."""
_WIDE, _SLIM = 0.15, 4
"""A halo is at most so wide, relative to the side of a square as large as what is solid, or so many pixels."""
_FADES = 0.75
"""What is wider is one only if its outer third has less alpha than that, relative to its inner third."""
_SPECK = 0.01
"""A piece that covers less than this share of the largest is a speck."""
_PIECE = 0.1
"""One that covers less than this share of the largest is a small piece."""
_FAR = 0.05
"""Of the object's longest side: specks that are farther from it do not belong to it."""
_MOST_SPECKS = 0.05
"""Of what is solid: where specks are more than this, the object is made of them."""
_LOOKED_AT = 1024


def weighed(alpha: Alpha, rgb: UInt8[np.ndarray, "h w 3"], *, is_mask: bool = False) -> tuple[Alpha, tuple[str, ...]]:
    """The coverage that an alpha channel or a mask means, and what was changed; itself if nothing was.

    Layers that are faint everywhere are brought to their own scale. What is half transparent over an area, as glass is,
    becomes solid; a black shadow does not. Specks far from the object go.

    Args:
        alpha: the channel, or the mask.
        rgb: colours under it.
        is_mask: whether it is a mask: faint ones may be of values 0 and 1, and they have no shadows.
    """
    notes: list[str] = []
    least = 0 if is_mask else FAINTEST
    most = int(alpha.max())
    if least < most <= _FAINT:
        alpha = np.round(alpha * (255 / most)).astype(np.uint8)
        what = (
            f"The mask's brightest value is {most} of 255"
            if is_mask
            else f"The photo's alpha is {_percent(most)} at most"
        )
        notes.append(f"{what}: it is used at its own scale.")
    alpha, note = _glass_made_solid(alpha, None if is_mask else rgb)
    notes += [] if note is None else [note]
    alpha, said = _without_specks(alpha)
    return alpha, (*notes, *said)


def _percent(value: int) -> str:
    return f"{100 * value / 255:.0f} %"


def _glass_made_solid(alpha: Alpha, rgb: UInt8[np.ndarray, "h w 3"] | None) -> tuple[Alpha, str | None]:
    """The alpha with its half transparent areas solid, if they are worth it, and a note."""
    step = max(1, max(alpha.shape) // _LOOKED_AT)
    seen = np.ascontiguousarray(alpha[::step, ::step])
    half = (seen >= _HALF[0]) & (seen <= _HALF[1])
    if half.mean() < 1e-4:
        return alpha, None
    silhouette = seen >= _HALF[0]
    rows, columns = (np.nonzero(silhouette.any(axis=k))[0] for k in (1, 0))
    side = max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
    window = np.ones((2 * max(2, round(0.025 * side)) + 1,) * 2, np.uint8)
    inside = half & (cv2.dilate(seen, window) - cv2.erode(seen, window) < _FLAT)
    if inside.sum() < _WORTH_TELLING * silhouette.sum():
        return alpha, None
    share = float(half.sum() / silhouette.sum())
    if rgb is not None and float((rgb[::step, ::step][inside].max(axis=-1) < _BLACK).mean()) > 0.9:
        around = cv2.dilate(inside.astype(np.uint8), window, iterations=3)
        near = cv2.resize(around, alpha.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        shadow = near & (alpha >= _HALF[0]) & (alpha <= _HALF[1]) & (rgb.max(axis=-1) < _BLACK)
        return np.where(shadow, 0, alpha).astype(np.uint8), (
            f"{100 * share:.0f} % of the cut-out is half transparent and black: it is taken for a shadow and left out."
        )
    core = _core_in_halo(seen, inside, window)
    if core is not None:
        known = cv2.resize(core, alpha.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        # What is left of the soft outline, which lies above the halo.
        slim = np.round(np.clip((np.arange(256) - _HALF[1]) / (255 - _HALF[1]), 0, 1) * 255).astype(np.uint8)
        return np.where(known, alpha, slim[alpha]).astype(np.uint8), (
            f"A half transparent halo as large as {100 * inside.sum() / max(int((core > 0).sum()), 1):.0f} % of the "
            "object lies around it, as programs that cut out leave it: it was left out. If it is glass, give a mask."
        )
    # A table, since large pictures take gigabytes as floats.
    level = float(np.percentile(seen[inside], 5))
    table = np.round(np.minimum(np.arange(256) * (255 / level), 255)).astype(np.uint8)
    return table[alpha], (
        f"{100 * share:.0f} % of the object is half transparent (20 to 80 % alpha): it is taken as solid, as its "
        "outline says. Transparent materials are not modelled."
    )


def _core_in_halo(seen: Alpha, inside: Solid, window: UInt8[np.ndarray, "k k"]) -> UInt8[np.ndarray, "h w"] | None:
    """What is solid, holes filled, if the half transparent areas are a halo: outside of it, around most of it, slim."""
    solid = (seen > _HALF[1]).astype(np.uint8)
    outlines, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    core = cv2.drawContours(np.zeros_like(solid), outlines, -1, 1, cv2.FILLED)
    if core.sum() < _CORE * (seen >= _HALF[0]).sum() or (inside & (core > 0)).sum() > _WITHIN * inside.sum():
        return None
    outline = core - cv2.erode(core, np.ones((3, 3), np.uint8), borderValue=0)
    # Within a window of the outline alpha is not flat, whatever lies there.
    beside = (cv2.dilate(inside.astype(np.uint8), window, iterations=2) > 0) & (outline > 0)
    return core if beside.sum() >= _AROUND * outline.sum() and not _is_shell(seen, core) else None


def _is_shell(seen: Alpha, core: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether what lies around the core is as wide as the glass around a drink, and as even up to its edge."""
    around = ((seen >= _HALF[0]) & (core == 0)).astype(np.uint8)
    silhouette = around | core
    edge = (around > 0) & (cv2.erode(silhouette, np.ones((3, 3), np.uint8), borderValue=0) == 0)
    if not edge.any():
        return False
    away = cv2.distanceTransform(1 - core, cv2.DIST_L2, 5)
    width = float(np.percentile(away[edge], 90))
    if width <= max(_SLIM, _WIDE * float(np.sqrt(core.sum()))):
        return False
    # How far through the layer a pixel lies; both edges are soft.
    to_edge = cv2.distanceTransform(silhouette, cv2.DIST_L2, 5)
    through = away / np.maximum(away + to_edge, 1e-6)
    layer = (around > 0) & (away > 2) & (to_edge > 2)
    inner, outer = seen[layer & (through < 1 / 3)], seen[layer & (through > 2 / 3)]
    return bool(inner.size and outer.size and np.median(outer) > _FADES * np.median(inner))


def _without_specks(alpha: Alpha) -> tuple[Alpha, list[str]]:
    """The alpha without small pieces far from the object; and notes on these, and on larger ones that lie apart."""
    pieces = _Pieces.of(alpha)
    largest = float(pieces.area.max(initial=0))
    if len(pieces.area) < 2 or largest < 64:
        return alpha, []
    notes: list[str] = []
    specks = pieces.far_from(pieces.area >= _SPECK * largest)
    if pieces.area[specks].sum() > _MOST_SPECKS * pieces.area.sum():
        specks[:] = False
    apart = pieces.far_from(pieces.area >= _PIECE * largest) & ~specks & (pieces.area >= _SPECK * largest)
    if apart.any():
        notes.append(
            f"A piece of the cut-out lies apart from the rest and has {100 * pieces.area[apart].max() / largest:.2g} % "
            "of its area: it is taken for a part of the object, which gets smaller in the frame by it."
        )
    if specks.any():
        many, share = int(specks.sum()), 100 * pieces.area[specks].sum() / pieces.area[~specks].sum()
        notes.append(
            f"{'A speck' if many == 1 else f'{many} specks'} of the cut-out, far from the object and {share:.2g} % of "
            f"its area, {'was' if many == 1 else 'were'} left out."
        )
        gone = cv2.dilate(pieces.mask(specks), np.ones((5, 5), np.uint8)) > 0
        alpha = np.where(gone & (pieces.mask(~specks) == 0), 0, alpha).astype(np.uint8)
    return alpha, notes


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Connected pieces of what is solid.

    Args:
        label: number of each pixel's piece, from 1; 0 is background.
        area: of each piece, pixels.
        low, high: corners of its bounding box (x, y).
    """

    label: Int[np.ndarray, "h w"]
    area: Float[np.ndarray, "n"]
    low: Int[np.ndarray, "n 2"]
    high: Int[np.ndarray, "n 2"]

    @classmethod
    def of(cls, alpha: Alpha) -> _Pieces:
        _, label, stats, _ = cv2.connectedComponentsWithStats((alpha >= 128).astype(np.uint8), connectivity=8)
        low = stats[1:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
        sides = stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
        return cls(label, stats[1:, cv2.CC_STAT_AREA].astype(float), low, low + sides)

    def mask(self, chosen: Bool[np.ndarray, "n"]) -> UInt8[np.ndarray, "h w"]:
        """Where some of the pieces are."""
        return np.concatenate([[False], chosen]).astype(np.uint8)[self.label]

    def far_from(self, main: Bool[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
        """Which pieces are far from all of the main ones."""
        far = np.zeros(len(main), bool)
        if main.all():
            return far
        side = float((self.high[main].max(axis=0) - self.low[main].min(axis=0)).max())
        # How far each place is, looked at from no closer than needed.
        step = max(1, max(self.label.shape) // _LOOKED_AT)
        away = cv2.distanceTransform(1 - self.mask(main)[::step, ::step], cv2.DIST_L2, 5) * step
        for k in np.nonzero(~main)[0]:
            (left, top), (right, bottom) = self.low[k] // step, -(-self.high[k] // step)
            around = away[top:bottom, left:right]
            far[k] = around.size > 0 and float(around.min()) > _FAR * side
        return far
