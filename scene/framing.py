"""Where the object sits in a picture: recentring and rescaling a cut-out to the frame that the models expect."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from scene.errors import InputError

DEFAULT_FILL = 200 / 256
"""Longest side of the object over the side of the frame (Zero-1-to-3, ldm/util.py)."""


@dataclass(frozen=True)
class Framing:
    """The map from photo pixels to frame pixels: ``frame = scale * photo + offset``; the frame is square."""

    scale: float
    offset: tuple[float, float]
    size: int

    def resized(self, size: int) -> Framing:
        """The same framing at another frame size."""
        k = size / self.size
        return Framing(self.scale * k, (self.offset[0] * k, self.offset[1] * k), size)


def framing_of_box(
    left: float,
    top: float,
    right: float,
    bottom: float,
    size: int,
    fill: float = DEFAULT_FILL,
    shift: tuple[float, float] = (0.0, 0.0),
) -> Framing:
    """Centre a box and scale its longest side to ``fill`` of the frame.

    Args:
        left, top, right, bottom: the box in continuous photo pixels.
        size: side of the square frame in pixels.
        fill: longest side of the box over the frame.
        shift: moves the centre, as a fraction of the frame.
    """
    side = max(right - left, bottom - top)
    if not (side > 0 and math.isfinite(side)):
        raise InputError("the object's bounding box is empty")
    scale = fill * size / side
    return Framing(
        scale,
        (size * (0.5 + shift[0]) - scale * (left + right) / 2, size * (0.5 + shift[1]) - scale * (top + bottom) / 2),
        size,
    )


def framing_of_mask(mask: Bool[np.ndarray, "h w"], size: int, fill: float = DEFAULT_FILL) -> Framing:
    """Centre the bounding box of a mask in the frame; see :func:`framing_of_box`."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    if not len(rows):
        raise InputError(
            "the mask is empty: no object was found", fix="Give a cut-out with alpha, or a mask with --mask."
        )
    left, top, right, bottom = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return framing_of_box(float(left), float(top), float(right), float(bottom), size, fill)


def apply_framing(rgba: UInt8[np.ndarray, "h w 4"], framing: Framing) -> UInt8[np.ndarray, "s s 4"]:
    """Resample a cut-out into its frame, antialiased; outside the photo is transparent.

    Colour is premultiplied while resampling, so that hidden background colours do not bleed over the edge.
    """
    left, top = -framing.offset[0] / framing.scale, -framing.offset[1] / framing.scale
    side = framing.size / framing.scale
    # Large photos take gigabytes as floats, so only what the frame shows becomes that, with a margin for the filter.
    margin = math.ceil(2 * max(1.0, 1 / framing.scale)) + 1
    spans = [
        slice(max(0, math.floor(low) - margin), max(0, min(extent, math.ceil(low + side) + margin)))
        for low, extent in ((left, rgba.shape[1]), (top, rgba.shape[0]))
    ]
    shown = rgba[spans[1], spans[0]]
    left, top = left - spans[0].start, top - spans[1].start
    height, width = shown.shape[:2]
    # Pillow resamples boxes inside the image only, so pad to hold the box (with a margin for the filter).
    pad = [max(0, math.ceil(2 - low)) if low < 0 else 0 for low in (left, top)]
    pad_high = [max(0, math.ceil(low + side - extent) + 2) for low, extent in ((left, width), (top, height))]
    box = (left + pad[0], top + pad[1], left + pad[0] + side, top + pad[1] + side)
    padded = np.zeros((pad[1] + height + pad_high[1], pad[0] + width + pad_high[0]), np.float32)
    inside = padded[pad[1] : pad[1] + height, pad[0] : pad[0] + width]
    planes = []
    for k in range(4):
        inside[:] = shown[..., k]
        if k < 3:
            inside *= shown[..., 3] / np.float32(255)
        planes.append(
            np.asarray(Image.fromarray(padded).resize((framing.size, framing.size), Image.Resampling.BICUBIC, box=box))
        )
    alpha = planes[3]
    # The unclipped alpha overshoots just as the colour does, so that their quotient does not ring along edges.
    colour = np.stack(planes[:3], axis=-1) / np.maximum(alpha[..., None] / 255, 1e-3)
    out = np.concatenate([np.where(alpha[..., None] >= 1, colour, 0), alpha[..., None]], axis=-1)
    return np.clip(np.round(out), 0, 255).astype(np.uint8)
