"""Solids of flat outlines: lathes and extrusions, and the curves that outlines and tubes are drawn with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural.solids import Bounds, Real, Solid, Triple, Tube
from scene.errors import InputError

Outline = tuple[tuple[Real, Real], ...]
Plane = Literal["xy", "xz", "yz"]
Point = Sequence[Real] | Float[np.ndarray, "3"]


def outline_distance(
    outline: Outline, u: Float[np.ndarray, "n"], v: Float[np.ndarray, "n"], *, lathe: bool = False
) -> Float[np.ndarray, "n"]:
    """Exact signed distances to a closed polygon, positive outside.

    Args:
        outline: its corners, in either direction; the last is joined to the first.
        u: first coordinates of the points.
        v: second coordinates.
        lathe: the polygon is turned about u = 0, so that edges on that line are no border.
    """
    best = np.full(u.shape, np.inf, u.dtype)
    inside = np.zeros(u.shape, bool)
    for (au, av), (bu, bv) in zip(outline, (*outline[1:], outline[0])):
        du, dv = bu - au, bv - av
        length = du * du + dv * dv
        if length < 1e-14 or (lathe and abs(au) < 1e-9 and abs(bu) < 1e-9):
            continue
        su, sv = u - u.dtype.type(au), v - v.dtype.type(av)
        at = np.clip((su * u.dtype.type(du) + sv * u.dtype.type(dv)) * u.dtype.type(1 / length), 0, 1)
        wu, wv = su - u.dtype.type(du) * at, sv - u.dtype.type(dv) * at
        np.minimum(best, wu * wu + wv * wv, out=best)
        if dv != 0:
            # Crossings of the ray towards +u: the other side of a lathe never counts.
            inside ^= ((v < av) != (v < bv)) & (su < u.dtype.type(du / dv) * sv)
    distance = np.sqrt(best)
    return np.where(inside, -distance, distance)


@dataclass(frozen=True)
class Lathe(Solid):
    """An outline in (radius, height), turned about z. Radii are not negative; corners may lie on the axis."""

    outline: Outline
    rounding: Real = 0.0

    def __post_init__(self) -> None:
        if len(self.outline) < 3 or min(r for r, _ in self.outline) < 0:
            raise InputError("a lathe needs three corners or more, none of negative radius")

    @property
    def bounds(self) -> Bounds:
        """The box about the cylinder that holds it."""
        reach = max(r for r, _ in self.outline) + self.rounding
        low, high = min(z for _, z in self.outline), max(z for _, z in self.outline)
        return (-reach, -reach, low - self.rounding), (reach, reach, high + self.rounding)

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Exact; with rounding, the outline grown by it."""
        flat = np.hypot(points[0], points[1])
        return outline_distance(self.outline, flat, points[2], lathe=True) - points.dtype.type(self.rounding)


@dataclass(frozen=True)
class Extrusion(Solid):
    """An outline in a coordinate plane, thickened to both sides of it.

    Args:
        outline: corners in the plane's coordinates.
        half: half of the thickness, rounding included.
        plane: the coordinates of the outline, in this order.
        rounding: the outline grows by it, and all edges are rounded with this radius.
    """

    outline: Outline
    half: Real
    plane: Plane = "xy"
    rounding: Real = 0.0

    def __post_init__(self) -> None:
        if len(self.outline) < 3 or not 0 <= self.rounding <= self.half:
            raise InputError("an extrusion needs three corners or more, and a rounding of at most half its thickness")

    @property
    def bounds(self) -> Bounds:
        """The box about it."""
        corners = np.asarray(self.outline)
        low, high = np.full(3, -float(self.half)), np.full(3, float(self.half))
        axes = ["xyz".index(name) for name in self.plane]
        low[axes], high[axes] = corners.min(axis=0) - self.rounding, corners.max(axis=0) + self.rounding
        return tuple(map(float, low)), tuple(map(float, high))  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Exact."""
        kind = points.dtype.type
        i, j = ("xyz".index(name) for name in self.plane)
        flat = outline_distance(self.outline, points[i], points[j])
        thick = np.abs(points[3 - i - j]) - kind(self.half - self.rounding)
        inside = np.minimum(np.maximum(flat, thick), 0)
        return np.hypot(np.maximum(flat, 0), np.maximum(thick, 0)) + inside - kind(self.rounding)


def cylinder(radius: Real, height: Real, top: Real | None = None, *, rounding: Real = 0.0) -> Solid:
    """A cylinder or truncated cone standing on the origin, about z; ``rounding`` takes its edges off.

    Args:
        radius: at the bottom.
        height: of the whole.
        top: radius at the top; the same as at the bottom by default.
        rounding: radius of the edges.
    """
    r, t = radius - rounding, (radius if top is None else top) - rounding
    return Lathe(((0, rounding), (r, rounding), (max(t, 0.0), height - rounding), (0, height - rounding)), rounding)


def rod(start: Point, end: Point, radius: Real, top: Real | None = None) -> Tube:
    """A straight tube with round ends, tapering to ``top`` at its end."""
    ends = (_triple(start), _triple(end))
    return Tube(ends, (radius, radius if top is None else top))


def curved(points: Sequence[Point] | Float[np.ndarray, "p 3"], radii: Sequence[Real], sections: int = 12) -> Tube:
    """A tube along the smooth curve through some points; its radius changes smoothly through ``radii``."""
    path = curve(np.asarray(points, float), sections)
    at = np.linspace(0, 1, sections + 1)
    widths = np.interp(at, np.linspace(0, 1, len(radii)), radii)
    return Tube(tuple(_triple(p) for p in path), tuple(float(w) for w in widths))


def curve(points: Float[np.ndarray, "p d"], sections: int) -> Float[np.ndarray, "s d"]:
    """Points along the Catmull-Rom curve through ``points``, ends included, evenly spaced in its parameter.

    Source: https://en.wikipedia.org/wiki/Catmull%E2%80%93Rom_spline (uniform).
    """
    padded = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    at = np.linspace(0, len(points) - 1, sections + 1)
    k = np.minimum(at.astype(int), len(points) - 2)
    t = (at - k)[:, None]
    a, b, c, d = (padded[k + j] for j in range(4))
    return 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)


def smooth_profile(points: Sequence[tuple[Real, Real]], sections: int = 14) -> Outline:
    """A profile of (radius, height) drawn through a few points; radii are kept positive."""
    path = curve(np.asarray(points, float), sections)
    return tuple((float(max(r, 1e-3)), float(z)) for r, z in path)


def regular(corners: int, radius: Real, turn: Real = 0.0) -> Outline:
    """A regular polygon about the origin, its first corner at angle ``turn``."""
    return tuple(
        (radius * math.cos(turn + 2 * math.pi * k / corners), radius * math.sin(turn + 2 * math.pi * k / corners))
        for k in range(corners)
    )


def oval(a: Real, b: Real, exponent: Real = 1.0, corners: int = 24) -> Outline:
    """A superellipse with half axes ``a``, ``b``; exponent 1 is an ellipse, small ones a rectangle."""
    angle = np.arange(corners) * 2 * math.pi / corners
    c, s = np.cos(angle), np.sin(angle)
    u, v = a * np.sign(c) * np.abs(c) ** exponent, b * np.sign(s) * np.abs(s) ** exponent
    return tuple((float(x), float(y)) for x, y in zip(u, v))


def _triple(point: Point) -> Triple:
    x, y, z = (float(v) for v in point)
    return x, y, z
