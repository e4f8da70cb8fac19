"""Openings of a cut-out that was found by colour: real ones show the surroundings, others are labels and the like."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

Solid = Bool[np.ndarray, "h w"]

_WORKING_SIDE = 384
_LEAST = 0.0005
"""Openings below this share of the picture are pinholes, which others close."""
_SHADES = 8
"""Colours that surroundings are described by."""
_ALIKE = 10.0
"""Distance in Lab up to which colours are the same to the eye, in pictures with some noise; lightness counts half."""
_LARGE = 0.1
"""Share of the object from which openings are told."""
_WORTH_TELLING = 0.01
_DOUBTFUL = 0.25
"""Between this and its complement, the share of an opening that looks like the surroundings says little."""


def closed_openings(solid: Solid, rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[Solid, tuple[str, ...]]:
    """Which pixels belong to the object though they are left out of it, and what the user should know.

    An enclosed region of another colour belongs to the object that surrounds it, unless it looks like the surroundings.

    Args:
        solid: the object as found.
        rgb: the photo, of the same size.
    """
    nothing = np.zeros_like(solid)
    outside = _outside(solid)
    openings = ~solid & ~outside
    if openings.mean() < _LEAST or outside.mean() < 0.01:
        return nothing, ()
    label, count = ndimage.label(openings, np.ones((3, 3)))
    size = np.bincount(label.reshape(-1), minlength=count + 1)
    scale = min(1.0, _WORKING_SIDE / max(solid.shape))
    shape = (max(1, round(solid.shape[1] * scale)), max(1, round(solid.shape[0] * scale)))
    lab = cv2.cvtColor(cv2.resize(rgb, shape, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] /= 2
    small_label = cv2.resize(label.astype(np.int32), shape, interpolation=cv2.INTER_NEAREST)
    # Pixels of the rim are mixed with the object's colour.
    surroundings = _inner(cv2.resize(outside.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST) > 0, 2)
    if not surroundings.any():
        return nothing, ()
    shades = _shades_of(lab[surroundings])
    spread = float(np.percentile(_distance(lab[surroundings], shades), 90))
    closed, doubtful, open_ = [], 0, 0
    for k in range(1, count + 1):
        if size[k] < _LEAST * solid.size:
            continue
        region = small_label == k
        core = _inner(region, 2)
        core = core if core.any() else region
        if not core.any():
            continue
        alike = float((_distance(lab[core], shades) < max(_ALIKE, 1.2 * spread)).mean())
        if alike < 0.5:
            closed.append(k)
        else:
            open_ += int(size[k])
        if _DOUBTFUL < alike < 1 - _DOUBTFUL:
            doubtful += int(size[k])
    notes: list[str] = []
    whole = solid.sum() + size[closed].sum()
    if closed:
        notes.append(
            f"{100 * size[closed].sum() / whole:.2g} % of the object is a region that it encloses, of another colour "
            "than the object and its surroundings: it is taken as a part of the object."
        )
    if doubtful > _WORTH_TELLING * whole:
        notes.append(
            f"Whether an opening of {100 * doubtful / whole:.2g} % of the object is a hole is uncertain. "
            "Look at cutout.png, and give a mask with --mask if it is wrong."
        )
    elif open_ > _LARGE * whole:
        notes.append(
            f"Openings of {100 * open_ / whole:.2g} % of the object look like its surroundings: "
            "they are taken for holes."
        )
    return np.isin(label, closed) & openings, tuple(notes)


def _outside(solid: Solid) -> Solid:
    """What is not of the object and reaches the picture's border by ways wider than a few pixels."""
    reach = max(1, round(max(solid.shape) / 250))
    thick = cv2.morphologyEx(
        np.pad(solid, reach).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    )[reach:-reach, reach:-reach]
    free = np.pad(thick == 0, 1, constant_values=True)
    label, _ = ndimage.label(free)
    reached = (label == label[0, 0])[1:-1, 1:-1]
    # What the closing covered belongs to whichever side it is on.
    near = cv2.dilate(reached.astype(np.uint8), np.ones((2 * reach + 3, 2 * reach + 3), np.uint8)) > 0
    return reached | (near & ~solid)


def _inner(region: Solid, rim: int) -> Solid:
    return cv2.erode(region.astype(np.uint8), np.ones((2 * rim + 1, 2 * rim + 1), np.uint8)) > 0


def _shades_of(colours: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "k 3"]:
    """Typical colours; those of few pixels count as well."""
    samples = np.ascontiguousarray(colours[:: max(1, len(colours) // 20000)], np.float32)
    count = min(_SHADES, len(samples))
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    cv2.setRNGSeed(1)  # its clustering draws from a shared generator
    _, label, centres = cv2.kmeans(samples, count, None, criteria, 2, cv2.KMEANS_PP_CENTERS)
    share = np.bincount(label[:, 0], minlength=count) / len(samples)
    return centres[share > 0.005]


def _distance(colours: Float[np.ndarray, "n 3"], shades: Float[np.ndarray, "k 3"]) -> Float[np.ndarray, "n"]:
    return np.linalg.norm(colours[:, None] - shades, axis=-1).min(axis=1)
