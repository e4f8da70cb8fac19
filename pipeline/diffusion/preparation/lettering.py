"""Lettering in photos: found by its strokes, and wiped to its broad colours where it would read backwards."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

_CONTRAST = 36
"""Least difference in brightness (of 255) between a stroke and what is beside it."""
_LEAST, _MOST = 0.007, 0.12
"""Heights of letters, as fractions of the picture's side."""
_IN_A_ROW = 5
"""Least number of letters beside each other."""
_BLUR = 0.03
"""Standard deviation of what is left of lettering, as a fraction of the picture's side."""


def lettering(rgba: UInt8[np.ndarray, "h w 4"]) -> Bool[np.ndarray, "h w"]:
    """Where a picture has marks in a row like letters: of like height, each compact, in strong contrast.

    Args:
        rgba: straight alpha; what is transparent does not count.
    """
    height, width = rgba.shape[:2]
    side = max(height, width)
    solid = (rgba[..., 3] >= 128).astype(np.uint8)
    inside = cv2.erode(solid, np.ones((3, 3), np.uint8), iterations=max(1, side // 128))
    grey = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2GRAY)
    grey = np.where(inside > 0, grey, np.uint8(np.median(grey[inside > 0])) if inside.any() else grey)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(5, side // 40) | 1,) * 2)
    found = np.zeros((height, width), bool)
    for way in (cv2.MORPH_BLACKHAT, cv2.MORPH_TOPHAT):
        strokes = ((cv2.morphologyEx(grey, way, kernel) >= _CONTRAST) & (inside > 0)).astype(np.uint8)
        _, _, stats, centres = cv2.connectedComponentsWithStats(strokes, connectivity=8)
        for left, top, right, bottom in _rows(stats[1:], centres[1:], side):
            found[max(top, 0) : bottom, max(left, 0) : right] = True
    return found & (rgba[..., 3] > 0)


def without_lettering(rgba: UInt8[np.ndarray, "h w 4"], where: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 4"]:
    """The picture with its broad colours only, there."""
    sigma = _BLUR * max(where.shape)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    held = cv2.GaussianBlur(np.concatenate([rgba[..., :3] * alpha, alpha], -1), (0, 0), sigma)
    broad = held[..., :3] / np.maximum(held[..., 3:], 1e-3)
    soft = cv2.GaussianBlur(where.astype(np.float32), (0, 0), sigma / 3)[..., None]
    # Inside the marked region nothing sharp may stay.
    soft = np.maximum(soft, where[..., None])
    colours = soft * broad + (1 - soft) * rgba[..., :3]
    return np.concatenate([np.round(np.clip(colours, 0, 255)).astype(np.uint8), rgba[..., 3:]], -1)


def _rows(stats: np.ndarray, centres: np.ndarray, side: int) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) around rows of marks that may be letters."""
    wide, high, area = stats[:, cv2.CC_STAT_WIDTH], stats[:, cv2.CC_STAT_HEIGHT], stats[:, cv2.CC_STAT_AREA]
    good = (high >= _LEAST * side) & (high <= _MOST * side) & (wide <= 2.5 * high) & (high <= 8 * wide)
    good &= area >= 0.15 * wide * high
    index = np.nonzero(good)[0]
    if not _IN_A_ROW <= len(index) <= 2000:
        return []
    x, y, h, w = centres[index, 0], centres[index, 1], high[index].astype(float), wide[index].astype(float)
    near = np.abs(y[:, None] - y) < 0.5 * np.minimum(h[:, None], h)
    near &= np.maximum(h[:, None], h) < 1.8 * np.minimum(h[:, None], h)
    near &= np.abs(x[:, None] - x) - (w[:, None] + w) / 2 < np.minimum(h[:, None], h)
    boxes, open_marks = [], set(range(len(index)))
    while open_marks:
        row, front = set(), [open_marks.pop()]
        while front:
            one = front.pop()
            row.add(one)
            more = [k for k in np.nonzero(near[one])[0].tolist() if k in open_marks]
            open_marks.difference_update(more)
            front += more
        marks = index[sorted(row)]
        if not _like_letters(centres[marks], wide[marks].astype(float), high[marks].astype(float)):
            continue
        pad = round(0.5 * float(high[marks].max()))
        left, top = stats[marks, cv2.CC_STAT_LEFT], stats[marks, cv2.CC_STAT_TOP]
        right, bottom = left + wide[marks], top + high[marks]
        boxes.append((int(left.min()) - pad, int(top.min()) - pad, int(right.max()) + pad, int(bottom.max()) + pad))
    return boxes


def _like_letters(
    centres: Float[np.ndarray, "m 2"], wide: Float[np.ndarray, "m"], high: Float[np.ndarray, "m"]
) -> bool:
    """Whether marks stand on a line, as tall as each other, but not all as wide as stripes are."""
    if len(centres) < _IN_A_ROW:
        return False
    height = float(np.mean(high))
    x, y = (centres - centres.mean(axis=0)).T
    slope = float((x @ y) / max(x @ x, 1e-9))
    off_the_line = float(np.sqrt(np.mean((y - slope * x) ** 2)))
    long = float(np.ptp(x)) >= 2.5 * height
    return long and off_the_line < 0.22 * height and np.std(high) < 0.3 * height and bool(np.std(wide / high) > 0.08)
