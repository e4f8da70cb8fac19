"""Quality of single pictures of a capture: sharpness, exposure, and how the mask lies in the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from scene.camera import Camera

_NEAREST = 4
"""Views that a view is compared with: those that look in the most similar directions."""
_FLAT = 1.0
"""Variance of the Laplacian (grey levels squared) below which a picture has nothing that could be sharp."""


@dataclass(frozen=True)
class ImageQuality:
    """Measurements of one picture, on the object if there is a mask.

    Args:
        laplacian: variance of the Laplacian, grey levels squared; NaN where there is too little to measure.
        laplacian_ratio: the same over that at half the size: falls with blur, whatever the texture.
        brightness: median, grey levels.
        overexposed: fraction of pixels with a channel at its upper end.
        mask_fraction: fraction of the picture that is mask.
        truncated: fraction of the mask's contour that lies on the picture's border.
    """

    laplacian: float
    laplacian_ratio: float
    brightness: float
    overexposed: float
    mask_fraction: float
    truncated: float


def reduced(rgba: UInt8[np.ndarray, "h w 4"], width: int, height: int) -> UInt8[np.ndarray, "_ _ 4"]:
    """The picture at a smaller size, by averaging; colour does not bleed in from where alpha is 0."""
    if (rgba.shape[1], rgba.shape[0]) == (width, height):
        return rgba
    small = cv2.resize(rgba, (width, height), interpolation=cv2.INTER_AREA)
    if rgba[..., 3].min() == 255:
        return small
    cover = rgba[..., 3:].astype(np.float32) / 255
    solid = cv2.resize(rgba[..., :3] * cover, (width, height), interpolation=cv2.INTER_AREA)
    fraction = cv2.resize(cover, (width, height), interpolation=cv2.INTER_AREA)
    small[..., :3] = np.clip(np.round(solid / np.maximum(fraction, 1e-3)[..., None]), 0, 255)
    return small


def image_quality(rgba: UInt8[np.ndarray, "h w 4"], has_mask: bool) -> ImageQuality:
    """Measure a picture."""
    solid = rgba[..., 3] >= 128 if has_mask else np.ones(rgba.shape[:2], bool)
    mask_fraction, count = float(solid.mean()), int(solid.sum())
    if count < 16:
        return ImageQuality(np.nan, np.nan, np.nan, np.nan, mask_fraction, 0.0)
    # In floats: rounding to grey levels would pass for sharpness in smooth pictures.
    grey = rgba[..., :3].astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    inner = cv2.erode(solid.astype(np.uint8), np.ones((7, 7)), borderValue=0) > 0
    half = (max(1, grey.shape[1] // 2), max(1, grey.shape[0] // 2))
    laplacian = _laplacian_variance(grey, inner)
    inner_half = cv2.resize(inner.astype(np.uint8), half, interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(grey, half, interpolation=cv2.INTER_AREA)
    at_half = _laplacian_variance(small, cv2.erode(inner_half, np.ones((3, 3))) > 0)
    overexposed = float((rgba[..., :3].max(axis=-1)[solid] >= 253).mean())
    contour = count - int((cv2.erode(solid.astype(np.uint8), np.ones((3, 3)), borderValue=0) > 0).sum())
    border = int(solid[[0, -1]].sum() + solid[1:-1, [0, -1]].sum())
    return ImageQuality(
        laplacian,
        laplacian / max(at_half, 1e-3),
        float(np.median(grey[solid])),
        overexposed,
        mask_fraction,
        border / max(contour, 1),
    )


def similar_views(cameras: Sequence[Camera]) -> list[np.ndarray]:
    """For each view the numbers of those that look in the most similar directions."""
    forward = np.stack([camera.forward for camera in cameras])
    cosine = forward @ forward.T
    np.fill_diagonal(cosine, -np.inf)
    return [row[: min(_NEAREST, len(cameras) - 1)] for row in np.argsort(-cosine, axis=1, kind="stable")]


def deviations(values: Float[np.ndarray, "v"], similar: Sequence[np.ndarray]) -> Float[np.ndarray, "v"]:
    """How far each value is from the median of all, or from that of similar views if that is nearer.

    Objects have dark and plain sides: only what neither the set nor the neighbourhood explains counts. NaN stays NaN.
    """
    known = np.where(np.isfinite(values), values, np.nan)
    if not np.isfinite(known).any():
        return known
    from_all = known - np.nanmedian(known)
    from_near = np.array([_minus_median(known[k], known[near]) for k, near in enumerate(similar)])
    return np.where(np.abs(from_near) < np.abs(from_all), from_near, from_all)


def sharpness_of(
    qualities: Sequence[ImageQuality], similar: Sequence[np.ndarray]
) -> tuple[Float[np.ndarray, "v"], Bool[np.ndarray, "v"]]:
    """Sharpness of each picture relative to the others (1 is usual, NaN unknown), and which are blurred."""
    laplacian = np.array([q.laplacian for q in qualities])
    if not np.isfinite(laplacian).any() or np.nanmedian(laplacian) < _FLAT:
        return np.full(len(qualities), np.nan), np.zeros(len(qualities), bool)
    detail = deviations(np.log(np.maximum(laplacian, 0.01)), similar)
    ratio = deviations(np.log(np.maximum([q.laplacian_ratio for q in qualities], 1e-4)), similar)
    with np.errstate(invalid="ignore"):
        # Where hardly anything is left, that is the rounding to grey levels, and its ratio tells nothing.
        return np.exp(detail / 2), (detail < -1.6) & ((ratio < -0.4) | (detail < -3))


def exposure_of(
    qualities: Sequence[ImageQuality], similar: Sequence[np.ndarray]
) -> tuple[Float[np.ndarray, "v"], Bool[np.ndarray, "v"], Bool[np.ndarray, "v"]]:
    """Brightness of each picture relative to the others (powers of two), which are overexposed, and which too dark."""
    # The floor keeps black objects, whose noise would be powers of two, from standing out.
    stops = deviations(np.log2(np.array([q.brightness for q in qualities]) + 4), similar)
    overexposed = deviations(np.array([q.overexposed for q in qualities]), similar)
    with np.errstate(invalid="ignore"):
        return stops, (overexposed > 0.14) | (stops > 1.2), stops < -1.0


def _laplacian_variance(grey: Float[np.ndarray, "h w"], where: Bool[np.ndarray, "h w"]) -> float:
    """Variance of the Laplacian over some pixels; NaN for fewer than 64."""
    if where.sum() < 64:
        return float("nan")
    return float(cv2.Laplacian(grey, cv2.CV_32F, ksize=1)[where].var())


def _minus_median(value: float, others: Float[np.ndarray, "n"]) -> float:
    known = others[np.isfinite(others)]
    return float(value - np.median(known)) if len(known) else float("inf")
