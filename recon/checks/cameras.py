"""Where the cameras of a capture stand around the object, and what they leave unseen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scene.camera import Camera

_STEEP = math.radians(75)


@dataclass(frozen=True)
class Coverage:
    """How the cameras surround the object; angles in degrees, as seen from the object.

    Args:
        gap_deg: largest gap between neighbouring cameras around the vertical axis.
        gap_between: numbers of the views at its ends, counter-clockwise seen from above.
        elevation_deg: lowest and highest camera above the horizon.
        spread_deg: largest angle between any two cameras.
        outward: fraction of the cameras that have the object behind them.
    """

    gap_deg: float
    gap_between: tuple[int, int]
    elevation_deg: tuple[float, float]
    spread_deg: float
    outward: float


def coverage_of(cameras: Sequence[Camera], centre: Float[np.ndarray, "3"]) -> Coverage:
    """Measure how cameras surround a point of a world that is z up."""
    offsets = np.stack([camera.centre - centre for camera in cameras])
    towards = offsets / np.maximum(np.linalg.norm(offsets, axis=1, keepdims=True), 1e-12)
    elevation = np.arcsin(np.clip(towards[:, 2], -1, 1))
    azimuth = np.arctan2(towards[:, 1], towards[:, 0])
    # A camera overhead sees all sides alike, and none of them well.
    around = np.flatnonzero(np.abs(elevation) < _STEEP)
    gap, ends = 2 * math.pi, (0, 0)
    if len(around):
        order = around[np.argsort(azimuth[around], kind="stable")]
        steps = np.diff(azimuth[order], append=azimuth[order[0]] + 2 * math.pi)
        k = int(np.argmax(steps))
        gap, ends = float(steps[k]), (int(order[k]), int(order[(k + 1) % len(order)]))
    spread = math.acos(float(np.clip((towards @ towards.T).min(), -1, 1)))
    ahead = np.array([camera.forward for camera in cameras])
    return Coverage(
        math.degrees(gap),
        ends,
        (math.degrees(elevation.min()), math.degrees(elevation.max())),
        math.degrees(spread),
        float(((ahead * offsets).sum(axis=1) > 0).mean()),
    )
