"""What a given alpha or mask says of the object: evidence that is weighed, not an order for each pixel."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

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
_SPECK = 0.01
"""A piece that covers less than this share of the largest is a speck."""
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
    alpha, note = _without_specks(alpha)
    notes += [] if note is None else [note]
    return alpha, tuple(notes)


def _percent(value: int) -> str:
    return f"{100 * value / 255:.0f} %"


def _glass_made_solid(alpha: Alpha, rgb: UInt8[np.ndarray, "h w 3"] | None) -> tuple[Alpha, str | None]:
    """The alpha with its half transparent areas solid, if they are worth it, and a note."""
    half = (alpha >= _HALF[0]) & (alpha <= _HALF[1])
    if half.mean() < 1e-4:
        return alpha, None
    silhouette = alpha >= _HALF[0]
    rows, columns = (np.nonzero(silhouette.any(axis=k))[0] for k in (1, 0))
    side = max(int(np.ptp(rows)), int(np.ptp(columns))) + 1
    window = np.ones((2 * max(2, round(0.025 * side)) + 1,) * 2, np.uint8)
    inside = half & (cv2.dilate(alpha, window) - cv2.erode(alpha, window) < _FLAT)
    if inside.sum() < _WORTH_TELLING * silhouette.sum():
        return alpha, None
    share = float(half.sum() / silhouette.sum())
    black = np.zeros_like(half) if rgb is None else rgb.max(axis=-1) < _BLACK
    if black[inside].mean() > 0.9:
        around = cv2.dilate(inside.astype(np.uint8), window, iterations=3) > 0
        return np.where(around & half & black, 0, alpha).astype(np.uint8), (
            f"{100 * share:.0f} % of the cut-out is half transparent and black: it is taken for a shadow and left out."
        )
    level = float(np.percentile(alpha[inside], 5))
    solid = np.round(np.minimum(alpha * (255 / level), 255)).astype(np.uint8)
    return solid, (
        f"{100 * share:.0f} % of the object is half transparent (20 to 80 % alpha): it is taken as solid, as its "
        "outline says. Transparent materials are not modelled."
    )


def _without_specks(alpha: Alpha) -> tuple[Alpha, str | None]:
    """The alpha without small pieces far from the object, and a note if there were any."""
    solid = (alpha >= 128).astype(np.uint8)
    count, label, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
    area = stats[1:, cv2.CC_STAT_AREA].astype(float)
    if count < 3 or area.max() < 64:
        return alpha, None
    small = area < _SPECK * area.max()
    if not small.any() or area[small].sum() > _MOST_SPECKS * area.sum():
        return alpha, None
    corners = stats[1:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]].astype(int)
    ends = corners + stats[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].astype(int)
    left_top, right_bottom = corners[~small].min(axis=0), ends[~small].max(axis=0)
    side = float((right_bottom - left_top).max())
    # How far each place is from the object, looked at from no closer than needed.
    step = max(1, max(alpha.shape) // _LOOKED_AT)
    large = np.zeros(count, np.uint8)
    large[1:][~small] = 1
    away = cv2.distanceTransform(1 - large[label[::step, ::step]], cv2.DIST_L2, 5) * step
    far = np.zeros(count, bool)
    for k in np.nonzero(small)[0]:
        (x, y), (right, bottom) = corners[k], ends[k]
        around = away[y // step : max(y // step + 1, bottom // step), x // step : max(x // step + 1, right // step)]
        far[1 + k] = float(around.min()) > _FAR * side if around.size else False
    if not far.any():
        return alpha, None
    gone = (cv2.dilate(far[label].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & (large[label] == 0)
    share = area[far[1:]].sum() / area[~small].sum()
    pieces = int(far.sum())
    said = "A speck" if pieces == 1 else f"{pieces} specks"
    return np.where(gone, 0, alpha).astype(np.uint8), (
        f"{said} of the cut-out, far from the object and {100 * share:.2g} % of its area, "
        f"{'was' if pieces == 1 else 'were'} left out."
    )
