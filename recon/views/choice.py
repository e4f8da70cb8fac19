"""Which views of a large capture are used: those that stand evenly around, the sharp before the blurred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from scene.camera import Camera
from scene.viewset import ViewSet

_DISTANCE = 0.5
"""Radians between lines of sight that count like a factor of e in distance."""
_TURN = 0.5
"""Radians between lines of sight that count like one between optical axes."""
_LEAST_SHARP = 0.05
"""Sharpness that a view counts with at least, so that one that stands alone is taken in the end."""


def evenly_chosen(views: ViewSet, most: int | None) -> ViewSet:
    """At most so many of a capture's views, in their order, evenly spread around the origin.

    Sets with views that are no photos are left as they are: what a model drew is not redundant.

    Args:
        views: of a normalised world.
        most: views; None for all.
    """
    if most is None or len(views) <= most or any(view.origin != "photo" for view in views):
        return views
    sharpness = np.array([view.sharpness * view.weight for view in views])
    chosen = spread([view.camera for view in views], sharpness, most)
    return replace(views, views=tuple(views.views[k] for k in chosen))


def spread(cameras: Sequence[Camera], sharpness: Float[np.ndarray, "n"], most: int) -> Int[np.ndarray, "m"]:
    """Numbers of cameras, ascending, each as far from those taken before it as can be (farthest-point sampling).

    A view of half the usual sharpness is taken where nothing sharp stands within twice its distance.

    Args:
        cameras: how far apart they are is told by the direction and distance that they see the origin from, and by
            where they look.
        sharpness: relative; what exceeds 1 makes no difference.
        most: how many are taken, 1 at least.
    """
    centres = np.stack([camera.centre for camera in cameras])
    distance = np.maximum(np.linalg.norm(centres, axis=1), 1e-9)
    towards, axes = centres / distance[:, None], np.stack([camera.forward for camera in cameras])
    size, worth = np.log(distance), np.clip(sharpness, _LEAST_SHARP, 1)
    taken = [int(worth.argmax())]
    nearest = np.full(len(cameras), np.inf)
    while len(taken) < min(most, len(cameras)):
        last = taken[-1]
        apart = np.arccos(np.clip(towards @ towards[last], -1, 1)) + _DISTANCE * np.abs(size - size[last])
        apart += _TURN * np.arccos(np.clip(axes @ axes[last], -1, 1))
        nearest = np.minimum(nearest, apart)
        score = nearest * worth
        score[taken] = -1
        taken.append(int(score.argmax()))
    return np.array(sorted(taken))
