"""Finding the object in a photo without a trained model: border colours and GrabCut. A fallback, and it says so."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from scene.errors import InputError

WORKING_SIDE = 400
"""GrabCut runs at this size: its time grows with the pixels and its colour models gain nothing from more."""


def has_useful_alpha(rgba: UInt8[np.ndarray, "h w 4"]) -> bool:
    """Whether alpha tells an object from a background: part of the picture is covered and part is not."""
    covered = float((rgba[..., 3] >= 128).mean())
    return 0.0005 < covered < 0.995


def segment_object(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    """A soft mask (0 to 255) of the main object, by GrabCut started from the border's colours.

    Assumes that the object is not cut off on all sides and that the border shows mostly background.

    Raises:
        InputError: nothing stands out from the background.
    """
    top, bottom, left, right = picture_inside_bars(rgb)
    mask = np.zeros(rgb.shape[:2], np.uint8)
    mask[top:bottom, left:right] = _segment(np.ascontiguousarray(rgb[top:bottom, left:right]))
    return mask


def _segment(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w"]:
    height, width = rgb.shape[:2]
    scale = min(1.0, WORKING_SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    solid = _grab_cut(small)
    solid = _tidy(solid)
    if not 0.002 < solid.mean() < 0.98:
        raise InputError(
            "no object stands out from the background", fix="Give a cut-out with alpha (PNG), or a mask with --mask."
        )
    soft = cv2.resize(np.where(solid, 255.0, 0.0).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    # Interpolated steps are as wide as a working pixel: steepen them to about one photo pixel.
    soft = (soft - 127.5) * max(1.0, 0.7 / scale) + 127.5
    return np.clip(np.round(soft), 0, 255).astype(np.uint8)


def _grab_cut(rgb: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    height, width = rgb.shape[:2]
    lab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    distance = _distance_from_border(lab)
    spread = float(np.median(distance[_border(height, width)]))
    # Twice the border's own spread, but never less than a visible difference.
    differs = distance > max(12.0, 2.5 * spread)
    differs = ndimage.binary_opening(differs, iterations=1)
    state = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    yy, xx = np.mgrid[0:height, 0:width]
    central = ((xx / (width - 1) - 0.5) / 0.42) ** 2 + ((yy / (height - 1) - 0.5) / 0.42) ** 2 < 1
    plain = spread < 6.0 and 0.005 < differs.mean() < 0.9
    state[differs if plain else central | (differs & ~_border(height, width))] = cv2.GC_PR_FGD
    if plain:
        state[ndimage.binary_erosion(_without_pinholes(differs), iterations=max(2, width // 60))] = cv2.GC_FGD
        state[~ndimage.binary_dilation(differs, iterations=max(3, width // 40))] = cv2.GC_BGD
    else:
        state[_border(height, width) & ~differs] = cv2.GC_BGD
    if not (state & 1).any():
        return np.zeros((height, width), bool)
    cv2.setRNGSeed(1)  # GrabCut's clustering draws from a shared generator; the same photo must give the same mask
    cv2.grabCut(rgb[..., ::-1].copy(), state, None, np.zeros((1, 65)), np.zeros((1, 65)), 5, cv2.GC_INIT_WITH_MASK)
    return (state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)


def picture_inside_bars(rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right) without letterbox bars.

    Bars are rows or columns of one colour next to a picture whose own border is mostly of other colours; a plain
    backdrop, which continues around the object, is not a bar.
    """
    height, width = rgb.shape[:2]
    values = rgb.astype(np.int16)
    corner = values[0, 0]
    bar = np.abs(values - corner).max(axis=-1) <= 6
    rows, columns = np.nonzero(~bar.all(axis=1))[0], np.nonzero(~bar.all(axis=0))[0]
    if not len(rows) or (rows[0] == 0 and columns[0] == 0 and rows[-1] == height - 1 and columns[-1] == width - 1):
        return 0, height, 0, width
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    inner = bar[top:bottom, left:right]
    if min(inner.shape) < 16 or float(inner[_border(*inner.shape)].mean()) > 0.4:
        return 0, height, 0, width
    # One more pixel on each cut side: scaled bars have soft edges.
    return top + 2 * (top > 0), bottom - 2 * (bottom < height), left + 2 * (left > 0), right - 2 * (right < width)


def _border(height: int, width: int) -> Bool[np.ndarray, "h w"]:
    """A frame of 3 % of the shorter side."""
    rim = max(2, round(0.03 * min(height, width)))
    frame = np.ones((height, width), bool)
    frame[rim:-rim, rim:-rim] = False
    return frame


def _distance_from_border(lab: np.ndarray) -> np.ndarray:
    """Colour distance of each pixel to the nearest of a few typical border colours."""
    height, width = lab.shape[:2]
    samples = lab[_border(height, width)]
    count = min(5, len(samples))
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    cv2.setRNGSeed(1)
    _, label, centres = cv2.kmeans(samples, count, None, criteria, 2, cv2.KMEANS_PP_CENTERS)
    # A small cluster on the border is more likely the object reaching it than background, unless its colour is next to
    # one of the background's: then it is a part of a backdrop that fades from one shade to another.
    fraction = np.bincount(label[:, 0], minlength=count) / len(label)
    near = np.linalg.norm(centres[:, None] - centres, axis=-1) < 24
    kept = fraction >= min(0.12, fraction.max())
    for _ in range(count):
        kept |= near[kept].any(axis=0)
    centres = centres[kept]
    return np.linalg.norm(lab[:, :, None] - centres, axis=-1).min(axis=-1)


def _tidy(solid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Keep the main piece and others of some size; close pinholes, but not real openings."""
    solid = ndimage.binary_opening(solid, iterations=1)
    label, count = ndimage.label(solid)
    if count == 0:
        return solid
    size = np.bincount(label.reshape(-1))[1:]
    solid = np.isin(label, 1 + np.nonzero(size >= 0.1 * size.max())[0])
    return _without_pinholes(solid)


def _without_pinholes(solid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Fill holes below 0.2 % of the picture, but not real openings (a ring's, a cup handle's)."""
    holes, _ = ndimage.label(~solid)
    hole_size = np.bincount(holes.reshape(-1))
    return solid | (hole_size < 0.002 * solid.size)[holes]
