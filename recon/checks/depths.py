"""Depth maps against the cameras: whether they are in the cameras' unit, and by what factor they are not.

Maps of the right scale show the same points: what one map shows lies where the others have theirs. Points of maps that
are too small or too large move along their own lines of sight, and meet nowhere. So every factor can be tried, without
knowing anything of the object.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from recon.views.normalise import look_at_point
from scene.camera import Camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

_SIDE = 96
"""Longest side of the maps that are looked at."""
_POINTS = 150
"""Points of each map that are looked up in the others."""
_NEIGHBOURS = 6
"""Views in which they are."""
_TOLERANCE = 0.02
"""Relative difference of depths that agree, where the factor is found."""
_ROUGH = 0.03
"""Step between factors that are tried first, relative."""
_ENOUGH = 0.15
"""Fraction of points that must agree, of those that fall on other maps, for a factor to be believed."""
_BETTER = 1.5
"""How many times more of them than for the maps as they are."""
_RIGHT = 0.02
"""Relative difference from 1 of a factor that is none: sensors are no better."""
_KNOWN = (
    (1000.0, "metres were taken for millimetres"),
    (0.001, "millimetres were taken for metres"),
    (100.0, "metres were taken for centimetres"),
    (0.01, "centimetres were taken for metres"),
    (10.0, "centimetres were taken for millimetres"),
    (0.1, "millimetres were taken for centimetres"),
)
"""Factors that are likelier than those next to them."""


@dataclass(frozen=True)
class DepthScale:
    """What was found out about depth maps.

    Args:
        factor: that fits them to the cameras; None if none does.
        agreeing: fraction of points that agree with it.
        as_given: the same without.
    """

    factor: float | None
    agreeing: float
    as_given: float


@dataclass(frozen=True, eq=False)
class _Map:
    """A small depth map with points drawn from it.

    Args:
        camera: at the map's size.
        depth: along the optical axis, world units as given; 0 where unknown.
        pixels: of the points.
        values: their depths.
    """

    camera: Camera
    depth: Float[np.ndarray, "h w"]
    pixels: Float[np.ndarray, "n 2"]
    values: Float[np.ndarray, "n"]


def with_fitting_depths(views: ViewSet) -> tuple[ViewSet, list[str]]:
    """The views with depth maps that fit the cameras, and sentences on what was done for that.

    Maps that cannot be read are left out; so are all, where no factor makes them agree.
    """
    views, notes = _with_readable(views)
    if sum(view.depth_source is not None for view in views) < 2:
        return views, notes
    found = depth_scale(views)
    if found is None or found.factor == 1:
        return views, notes
    if found.factor is None:
        notes.append(
            f"The depth maps do not fit the cameras at any scale ({found.agreeing:.0%} of their points agree): they "
            "were left out. Depth is measured along the optical axis, in units of the poses."
        )
        return _scaled(views, None), notes
    known = next((f" ({text})" for value, text in _KNOWN if found.factor == value), "")
    notes.append(
        f"The depth maps fit the cameras if they are multiplied by {found.factor:.4g}{known}: that was done. "
        f"{found.agreeing:.0%} of their points agree then, {found.as_given:.0%} as they are; "
        "depth_unit_scale_factor says it in the capture file."
    )
    return _scaled(views, found.factor), notes


def depth_scale(views: ViewSet) -> DepthScale | None:
    """By what the depth maps of views must be multiplied to fit the cameras.

    Returns:
        None if that cannot be told: cameras side by side, or maps that do not show the same.
    """
    maps = [small for k, view in enumerate(views) if (small := _small(view, k)) is not None]
    if len(maps) < 3:
        return None
    try:
        centre = look_at_point([item.camera for item in maps])
    except InputError:
        return None
    typical = float(np.median([_distance(item, centre) / np.median(item.values) for item in maps]))
    if not (math.isfinite(typical) and typical > 0):
        return None
    pairs = _pairs(maps)
    as_given = _agreement(maps, pairs, 1.0, _TOLERANCE)
    # About what brings the depths to the place that the cameras look at: that may be well behind or before a surface.
    tried = typical * np.exp(np.arange(math.log(0.2), math.log(4.0), _ROUGH))
    scores = np.array([_agreement(maps, pairs, factor, 2 * _TOLERANCE) for factor in tried])
    best = float(tried[int(scores.argmax())])
    for step, tolerance in ((0.01, _TOLERANCE), (0.0025, _TOLERANCE / 4)):
        near = best * np.exp(np.arange(-8, 9) * step)
        finer = np.array([_agreement(maps, pairs, factor, tolerance) for factor in near])
        weight = np.maximum(finer - 0.8 * finer.max(), 0)  # several do equally well: the middle of them
        best = float((near * weight).sum() / weight.sum()) if finer.max() > 0 else best
    agreeing = _agreement(maps, pairs, best, _TOLERANCE)
    # What fits as it is stays as it is, to the byte.
    better = any(
        _agreement(maps, pairs, best, tolerance) > max(_BETTER * _agreement(maps, pairs, 1.0, tolerance), _ENOUGH)
        for tolerance in (_TOLERANCE, _TOLERANCE / 2)
    )
    if abs(best - 1) < _RIGHT or (as_given >= _ENOUGH and not better):
        return DepthScale(1.0, as_given, as_given)
    if agreeing < _ENOUGH:
        plausible = 0.5 < typical < 2  # maps of few points, or of what no two views see, in about the right place
        return DepthScale(1.0 if plausible else None, agreeing, as_given)
    snapped = next((value for value, _ in _KNOWN if abs(best / value - 1) < _RIGHT / 2), best)
    return DepthScale(float(f"{snapped:.4g}"), agreeing, as_given)


def _agreement(maps: Sequence[_Map], pairs: Sequence[tuple[int, int]], factor: float, tolerance: float) -> float:
    """Fraction of points, of those that fall on another map's known pixels or beyond the picture, that agree."""
    agreeing = total = 0
    for k, other in pairs:
        mine, theirs = maps[k], maps[other]
        points = mine.camera.unproject(mine.pixels, mine.values * factor)
        pixels, ahead = theirs.camera.project(points)
        inside = theirs.camera.shows(pixels, ahead)
        u, v = pixels[inside].astype(int).T
        found, ahead = theirs.depth[v, u] * factor, ahead[inside]
        known = found > 0
        agreeing += int((known & (np.abs(found - ahead) < tolerance * ahead)).sum())
        # Points that are hidden behind what the other sees are no contradiction; those before it are.
        total += int((known & (ahead < found * (1 + 2 * tolerance))).sum()) + int((~inside).sum())
    return agreeing / total if total else 0.0


def _pairs(maps: Sequence[_Map]) -> list[tuple[int, int]]:
    """Each map with those whose cameras look in the most similar directions, but stand apart."""
    forward = np.stack([item.camera.forward for item in maps])
    centres = np.stack([item.camera.centre for item in maps])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    usual = float(np.median(apart[apart > 0])) if (apart > 0).any() else 1.0
    likeness = np.where(apart > 0.05 * usual, forward @ forward.T, -2.0)
    np.fill_diagonal(likeness, -2.0)
    nearest = np.argsort(-likeness, axis=1, kind="stable")[:, :_NEIGHBOURS]
    return [(k, int(n)) for k, row in enumerate(nearest) for n in row if likeness[k, n] > 0.3]


def _small(view: View, seed: int) -> _Map | None:
    """The view's map; None if it has none, or its picture cannot be read, which is for others to say."""
    depth = view.depth()
    if depth is None:
        return None
    try:
        solid = view.rgba()[..., 3] >= 128
    except InputError:
        return None
    scale = min(1.0, _SIDE / max(depth.shape))
    height, width = (max(1, round(scale * n)) for n in depth.shape)
    rows = ((np.arange(height) + 0.5) * depth.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * depth.shape[1] / width).astype(int)
    small = np.where(solid, depth, 0)[rows[:, None], columns]
    row, column = np.nonzero(small > 0)
    if len(row) < 16:
        return None
    chosen = np.random.default_rng(seed).permutation(len(row))[:_POINTS]
    pixels = np.stack([column[chosen] + 0.5, row[chosen] + 0.5], axis=-1)
    return _Map(
        view.camera.resized(width, height), small, pixels, small[row[chosen], column[chosen]].astype(np.float64)
    )


def _distance(item: _Map, centre: Float[np.ndarray, "3"]) -> float:
    return float((centre - item.camera.centre) @ item.camera.forward)


def _with_readable(views: ViewSet) -> tuple[ViewSet, list[str]]:
    """The views with maps that say nothing in place of those that cannot be read."""
    kept, lost = [], list[tuple[str, str]]()
    for view in views:
        try:
            view.depth()
        except InputError as error:
            lost.append((view.name, error.what))
            view = replace(view, depth_source=np.zeros((view.camera.height, view.camera.width), np.float32))
        kept.append(view)
    if not lost:
        return views, []
    name, what = lost[0]
    which = "is" if len(lost) == 1 else "are"
    text = f"{len(lost)} of {len(views)} depth maps {which} of no use and left out; that of {name}: {what}."
    return replace(views, views=tuple(kept)), [text]


def _scaled(views: ViewSet, factor: float | None) -> ViewSet:
    """The views with their depths multiplied; without, for no factor."""
    if factor is None:
        return replace(views, views=tuple(replace(view, depth_source=None) for view in views))
    return replace(views, views=tuple(replace(view, depth_scale=view.depth_scale * factor) for view in views))
