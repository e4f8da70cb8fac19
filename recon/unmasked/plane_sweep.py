"""Depth maps from posed pictures alone: plane-sweep stereo with normalised cross-correlation.

Each picture is compared with a few neighbours on planes parallel to its image plane; depths that other depth maps do
not confirm are dropped. What is left is sparse on plain surfaces and reliable on textured ones.

Source: Collins 1996 (plane sweep); Goesele et al. 2006 (mean of the best neighbours, confirmation).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
from jaxtyping import Bool, Float

from recon.views.ray_set import RaySet
from scene.camera import Camera

_NEIGHBOURS = 5
_USUAL, _WIDEST = math.radians(15), math.radians(55)
"""Angles between lines of sight: the best, and the widest that still shows the same."""
_PATCH = 9
"""Side of the compared surroundings, pixels."""
_TRUST = 0.5
"""Correlation from which on a depth is believed, if others confirm it."""
_OUTSIDE = -10.0
"""Grey of what no picture shows."""
_AGREE = 0.012
"""Relative difference of depths that confirm each other."""


def stereo_depths(
    rays: RaySet, radius: float, *, planes: int = 128, on_step: Callable[[int, int], None] | None = None
) -> list[Float[np.ndarray, "_ _"]]:
    """Depths along the optical axis of what lies within ``radius`` of the origin, 0 where unknown.

    Args:
        rays: the views; depths are unknown where alpha is 0, and what is there is compared with nothing.
        radius: of the region of interest, world units.
        planes: depths tried, evenly spaced in inverse depth.
        on_step: called with (view, views).

    Returns:
        One map for each view, at the working size.
    """
    grey = [np.ascontiguousarray(c.numpy() @ np.array([0.299, 0.587, 0.114], np.float32)) for c in rays.colour]
    cameras = rays.cameras
    seen = [alpha.numpy() > 0.5 for alpha in rays.alpha]
    # What is not to be looked at counts as outside of the other pictures.
    others = [g if s.all() else np.where(s, g, np.float32(_OUTSIDE)) for g, s in zip(grey, seen, strict=True)]
    chosen = [neighbours(cameras, k) for k in range(len(cameras))]
    depths: list[np.ndarray] = []
    # OpenCV lets go of the interpreter's lock; the order of the results does not depend on who is first.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        swept = pool.map(lambda k: _sweep(cameras, grey[k], others, k, chosen[k], radius, planes), range(len(cameras)))
        for depth, mine in zip(swept, seen, strict=True):
            depths.append(depth if mine.all() else np.where(_well_within(mine), depth, np.float32(0)))
            if on_step is not None:
                on_step(len(depths), len(cameras))
    return [_confirmed(cameras, depths, k, chosen[k]) for k in range(len(cameras))]


def neighbours(cameras: Sequence[Camera], k: int) -> list[int]:
    """Views that see the origin's surroundings from nearly, but not quite, the same side; the best first."""
    mine = cameras[k].centre / np.linalg.norm(cameras[k].centre)
    scores = []
    for n, camera in enumerate(cameras):
        if n == k:
            continue
        angle = math.acos(float(np.clip(mine @ camera.centre / np.linalg.norm(camera.centre), -1, 1)))
        if not math.radians(1) < angle < _WIDEST:
            continue
        spread = math.radians(8) if angle < _USUAL else math.radians(20)
        scores.append((-math.exp(-(((angle - _USUAL) / spread) ** 2) / 2), n))
    return [n for _, n in sorted(scores)[:_NEIGHBOURS]]


def _well_within(seen: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose compared surroundings are all to be looked at; what is beyond the picture does not matter."""
    return cv2.erode(seen.astype(np.uint8), np.ones((_PATCH, _PATCH), np.uint8), borderValue=1) > 0


def _sweep(
    cameras: Sequence[Camera],
    image: Float[np.ndarray, "_ _"],
    grey: Sequence[np.ndarray],
    k: int,
    others: Sequence[int],
    radius: float,
    planes: int,
) -> Float[np.ndarray, "h w"]:
    camera = cameras[k]
    if not others:
        return np.zeros(image.shape, np.float32)
    distance = float(-camera.centre @ camera.forward)
    near, far = max(distance - radius, 0.1 * distance), distance + radius
    depths = 1 / np.linspace(1 / near, 1 / far, planes)
    mean = cv2.blur(image, (_PATCH, _PATCH))
    spread = cv2.blur(image * image, (_PATCH, _PATCH)) - mean * mean
    scores = np.empty((planes, *image.shape), np.float32)
    keep = max(1, (len(others) + 1) // 2)
    for p, depth in enumerate(depths):
        stack = np.stack([_correlation(camera, cameras[n], image, grey[n], mean, spread, depth) for n in others])
        stack.sort(axis=0)
        scores[p] = stack[-keep:].mean(axis=0)
    best = scores.argmax(axis=0)
    inner = np.clip(best, 1, planes - 2)
    a, b, c = (np.take_along_axis(scores, (inner + s)[None], 0)[0] for s in (-1, 0, 1))
    shift = np.clip(0.5 * (a - c) / np.minimum(a - 2 * b + c, -1e-6), -0.5, 0.5)
    inverse = 1 / near + (best + np.where(best == inner, shift, 0)) * (1 / far - 1 / near) / (planes - 1)
    known = (scores.max(axis=0) > _TRUST) & (best == inner)
    return np.where(known, 1 / inverse, 0).astype(np.float32)


def _correlation(
    camera: Camera,
    other: Camera,
    image: np.ndarray,
    target: np.ndarray,
    mean: np.ndarray,
    spread: np.ndarray,
    depth: float,
) -> Float[np.ndarray, "h w"]:
    """Of each pixel's surroundings with what the other camera sees on the plane; -1 outside its picture."""
    # From pixels over points on the plane to the other's pixels is a homography.
    width, height = camera.width, camera.height
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64)
    seen, ahead = other.project(camera.unproject(corners, np.full(4, depth)))
    if (ahead < 1e-6).any():
        return np.full(image.shape, -1, np.float32)
    matrix = cv2.getPerspectiveTransform((corners - 0.5).astype(np.float32), (seen - 0.5).astype(np.float32))
    warped = cv2.warpPerspective(
        target,
        matrix,
        (camera.width, camera.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=_OUTSIDE,
    )
    patch = (_PATCH, _PATCH)
    other_mean = cv2.blur(warped, patch)
    other_spread = cv2.blur(warped * warped, patch) - other_mean * other_mean
    both = cv2.blur(image * warped, patch) - mean * other_mean
    # A thousandth of noise: what is plain in either picture says nothing.
    score = both / np.sqrt(np.maximum(spread, 0) * np.maximum(other_spread, 0) + 1e-7)
    score[cv2.erode(warped, np.ones(patch, np.uint8)) < 0] = -1
    return np.asarray(score, np.float32)


def _confirmed(
    cameras: Sequence[Camera], depths: Sequence[np.ndarray], k: int, others: Sequence[int]
) -> Float[np.ndarray, "h w"]:
    """The depths that at least two other views (one, if there are only two) have found too."""
    camera, depth = cameras[k], depths[k]
    row, column = np.nonzero(depth > 0)
    if not len(row):
        return depth
    points = camera.unproject(np.stack([column + 0.5, row + 0.5], -1), depth[row, column].astype(np.float64))
    votes = np.zeros(len(row), int)
    for n in others:
        other = cameras[n]
        pixels, ahead = other.project(points)
        u, v = np.floor(np.nan_to_num(pixels, nan=-1, posinf=-1, neginf=-1)).clip(-1, 1 << 20).astype(int).T
        inside: Bool[np.ndarray, "n"] = (u >= 0) & (v >= 0) & (u < other.width) & (v < other.height) & (ahead > 0)
        found = depths[n][v.clip(0, other.height - 1), u.clip(0, other.width - 1)]
        votes += inside & (found > 0) & (np.abs(found - ahead) < _AGREE * ahead)
    good = votes >= (2 if len(others) > 2 else 1)
    out = np.zeros_like(depth)
    out[row[good], column[good]] = depth[row[good], column[good]]
    return out
