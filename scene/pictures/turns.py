"""Pictures that their EXIF orientation turns: from the pixels as stored to upright ones and back, and masks of both."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

_LOOKED_AT = 256
"""Masks are compared with pictures at this side."""
_CLEARLY = 1.25
"""How much more contrast along a mask's outline makes one of two ways the right one."""


def upright(stored: Shaped[np.ndarray, "h w ..."], orientation: int) -> Shaped[np.ndarray, "..."]:
    """What is laid on the pixels as stored, turned as the EXIF orientation (1 to 8) asks for."""
    if orientation in (5, 6, 7, 8):
        stored = stored.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    return np.ascontiguousarray(stored)


def as_stored(turned: Shaped[np.ndarray, "h w ..."], orientation: int) -> Shaped[np.ndarray, "..."]:
    """The inverse of :func:`upright`."""
    if orientation in (3, 4, 7, 8):
        turned = turned[::-1]
    if orientation in (2, 3, 6, 7):
        turned = turned[:, ::-1]
    if orientation in (5, 6, 7, 8):
        turned = turned.swapaxes(0, 1)
    return np.ascontiguousarray(turned)


def better_laid(
    rgb: UInt8[np.ndarray, "h w 3"], first: UInt8[np.ndarray, "h w"], second: UInt8[np.ndarray, "h w"]
) -> int:
    """Which of two masks fits a picture: 0 or 1, whose outline follows its edges clearly better; -1 if neither does."""
    scale = min(1.0, _LOOKED_AT / max(rgb.shape[:2]))
    size = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
    small = cv2.GaussianBlur(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), (3, 3), 0).astype(np.float32)
    slope = np.hypot(cv2.Sobel(small, cv2.CV_32F, 1, 0), cv2.Sobel(small, cv2.CV_32F, 0, 1)).max(axis=-1)
    contrasts = []
    for mask in (first, second):
        solid = (cv2.resize(mask, size, interpolation=cv2.INTER_AREA) >= 128).astype(np.uint8)
        outline = cv2.morphologyEx(solid, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        contrasts.append(float(slope[outline].mean()) if outline.any() else 0.0)
    if max(contrasts) <= _CLEARLY * min(contrasts):
        return -1
    return int(contrasts[1] > contrasts[0])
