"""Scores of pictures against pictures; every score says which pixels it counts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float
from skimage.metrics import structural_similarity

from scene.errors import InputError

Image = Float[np.ndarray, "h w 3"]


def psnr(image: Image, truth: Image, mask: Bool[np.ndarray, "h w"] | None = None) -> float:
    """Peak signal-to-noise ratio in dB for values in [0, 1].

    Args:
        image, truth: pictures of the same size.
        mask: pixels that count; all by default.

    Raises:
        InputError: sizes differ or the mask is empty.
    """
    if image.shape != truth.shape:
        raise InputError(f"pictures of different sizes cannot be compared: {image.shape} and {truth.shape}")
    error = np.square(np.asarray(image, np.float64) - truth).mean(axis=-1)
    if mask is not None:
        if not mask.any():
            raise InputError("the mask of a comparison is empty")
        error = error[mask]
    return float(-10 * np.log10(max(float(error.mean()), 1e-10)))


def ssim(image: Image, truth: Image) -> float:
    """Structural similarity over the whole picture (scikit-image, Gaussian window of sigma 1.5)."""
    return float(
        structural_similarity(
            image, truth, channel_axis=-1, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
    )


def mask_iou(mask: Bool[np.ndarray, "*s"], truth: Bool[np.ndarray, "*s"]) -> float:
    """Intersection over union; 1 if both are empty."""
    either = int((mask | truth).sum())
    return 1.0 if either == 0 else float((mask & truth).sum() / either)


def view_scores(rgba: Float[np.ndarray, "h w 4"], truth: Float[np.ndarray, "h w 4"]) -> dict[str, float]:
    """Scores of one generated view against the true one.

    ``foreground_psnr`` counts the pixels of the **true** mask, both pictures composited on white, so that a missing
    part costs as much as a wrong colour; ``psnr`` and ``ssim`` count the whole frame; ``iou`` compares alpha >= 0.5.
    """
    image, reference = (x[..., :3] * x[..., 3:] + 1 - x[..., 3:] for x in (rgba, truth))
    mask = truth[..., 3] >= 0.5
    return {
        "psnr": psnr(image, reference),
        "foreground_psnr": psnr(image, reference, mask),
        "ssim": ssim(image, reference),
        "iou": mask_iou(rgba[..., 3] >= 0.5, mask),
    }
