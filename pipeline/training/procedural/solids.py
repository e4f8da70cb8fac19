"""Solids as signed distances, positive outside: exact zero sets, combined by union, difference and intersection.

Distances are exact for balls, boxes, lathes, extrusions and tori. For superquadrics, tapered tubes, stretched and
blended solids only the zero set is; the values near it are close enough to tell how far the surface is.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural.primitives import rotation
from scene.errors import InputError

# Whole numbers are as good as others wherever a length or an angle is asked for.
Real = float | int
Triple = tuple[Real, Real, Real]
Bounds = tuple[Triple, Triple]


class Solid(ABC):
    """A region of space. Points are given as rows x, y, z, so that each coordinate lies together in memory."""

    @property
    @abstractmethod
    def bounds(self) -> Bounds:
        """A box that holds the solid: its low and its high corner."""

    @abstractmethod
    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Signed distances of points, positive outside."""

    def moved(self, x: Real = 0.0, y: Real = 0.0, z: Real = 0.0) -> Solid:
        """The solid, shifted."""
        return Placed(self, np.eye(3), (float(x), float(y), float(z)))

    def turned(self, axis: Literal["x", "y", "z"], angle: Real) -> Solid:
        """The solid, turned about a coordinate axis (radians, right-handed)."""
        return Placed(self, rotation(axis, angle), (0.0, 0.0, 0.0))

    def stretched(self, x: Real = 1.0, y: Real = 1.0, z: Real = 1.0) -> Solid:
        """The solid, scaled along the coordinate axes."""
        return Stretched(self, (float(x), float(y), float(z)))

    def mirrored(self, axis: Literal["x", "y", "z"]) -> Solid:
        """The half of the solid at positive coordinates and its mirror image."""
        return Mirrored(self, "xyz".index(axis))

    def around(self, count: int) -> Solid:
        """``count`` copies about the z axis, of a solid that lies in the sector about +x."""
        return Around(self, count)

    def __or__(self, other: Solid) -> Union:
        return Union((*parts_of(self), *parts_of(other)))

    def __and__(self, other: Solid) -> Solid:
        return Intersection(self, other)

    def __sub__(self, other: Solid) -> Solid:
        return Difference(self, other)


def parts_of(solid: Solid) -> tuple[Solid, ...]:
    """The members of a union; any other solid alone."""
    return solid.parts if isinstance(solid, Union) else (solid,)


# --- combinations ------------------------------------------------------------------------------------------------


def _hull(bounds: Sequence[Bounds]) -> Bounds:
    low = np.min([low for low, _ in bounds], axis=0)
    high = np.max([high for _, high in bounds], axis=0)
    return tuple(map(float, low)), tuple(map(float, high))  # type: ignore[return-value]


@dataclass(frozen=True)
class Union(Solid):
    """All points of any of the parts."""

    parts: tuple[Solid, ...]

    @property
    def bounds(self) -> Bounds:
        """The box about all parts."""
        return _hull([part.bounds for part in self.parts])

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """The least of the parts' distances."""
        best = self.parts[0].distance(points)
        for part in self.parts[1:]:
            best = np.minimum(best, part.distance(points))
        return best


@dataclass(frozen=True)
class Intersection(Solid):
    """Points of both solids."""

    first: Solid
    second: Solid

    @property
    def bounds(self) -> Bounds:
        """The box that both boxes share."""
        (a, b), (c, d) = self.first.bounds, self.second.bounds
        low, high = np.maximum(a, c), np.minimum(b, d)
        return tuple(map(float, low)), tuple(map(float, high))  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """The greater of the two distances."""
        return np.maximum(self.first.distance(points), self.second.distance(points))


@dataclass(frozen=True)
class Difference(Solid):
    """Points of the first solid that are not in the second."""

    first: Solid
    second: Solid

    @property
    def bounds(self) -> Bounds:
        """The first solid's box."""
        return self.first.bounds

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """The greater of the first distance and the second's opposite."""
        return np.maximum(self.first.distance(points), -self.second.distance(points))


@dataclass(frozen=True)
class Blend(Solid):
    """A union whose seams are filled: the quadratic smooth minimum of the parts' distances.

    Args:
        parts: the solids.
        width: how far from a seam the filling begins.
    """

    parts: tuple[Solid, ...]
    width: Real

    @property
    def bounds(self) -> Bounds:
        """The box about all parts and the filling."""
        low, high = _hull([part.bounds for part in self.parts])
        # Each of the later parts can fill by a quarter of the width at most.
        grow = self.width / 4 * (len(self.parts) - 1)
        return tuple(v - grow for v in low), tuple(v + grow for v in high)  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """The smooth minimum, at most the minimum."""
        best = self.parts[0].distance(points)
        for part in self.parts[1:]:
            other = part.distance(points)
            near = np.maximum(self.width - np.abs(best - other), 0) / np.float32(self.width)
            best = np.minimum(best, other) - near * near * np.float32(self.width / 4)
        return best


# --- placement ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Placed(Solid):
    """A solid turned and then shifted."""

    solid: Solid
    turn: Float[np.ndarray, "3 3"]
    offset: Triple

    @property
    def bounds(self) -> Bounds:
        """The box about the turned box."""
        low, high = np.asarray(self.solid.bounds)
        middle = self.turn @ ((low + high) / 2) + np.asarray(self.offset)
        reach = np.abs(self.turn) @ ((high - low) / 2)
        return tuple(map(float, middle - reach)), tuple(map(float, middle + reach))  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Distances in the solid's own frame."""
        local = points - np.asarray(self.offset, points.dtype)[:, None]
        if not np.array_equal(self.turn, np.eye(3)):
            local = self.turn.T.astype(points.dtype) @ local
        return self.solid.distance(local)

    def moved(self, x: Real = 0.0, y: Real = 0.0, z: Real = 0.0) -> Solid:
        """The solid, shifted further."""
        a, b, c = self.offset
        return Placed(self.solid, self.turn, (a + float(x), b + float(y), c + float(z)))

    def turned(self, axis: Literal["x", "y", "z"], angle: Real) -> Solid:
        """The solid, turned further, about the origin."""
        turn = rotation(axis, angle)
        return Placed(self.solid, turn @ self.turn, tuple(float(v) for v in turn @ np.asarray(self.offset)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stretched(Solid):
    """A solid scaled along the coordinate axes."""

    solid: Solid
    factors: Triple

    @property
    def bounds(self) -> Bounds:
        """The scaled box."""
        low, high = np.asarray(self.solid.bounds) * np.asarray(self.factors)
        return tuple(map(float, low)), tuple(map(float, high))  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Distances of the unscaled points by the smallest factor: never more than the true ones."""
        factors = np.asarray(self.factors, points.dtype)
        return self.solid.distance(points / factors[:, None]) * factors.min()


@dataclass(frozen=True)
class Mirrored(Solid):
    """A solid and its mirror image: the part at positive coordinates counts, on both sides."""

    solid: Solid
    axis: int

    @property
    def bounds(self) -> Bounds:
        """The box about both."""
        low, high = (list(corner) for corner in self.solid.bounds)
        low[self.axis] = -high[self.axis]
        return tuple(low), tuple(high)  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """The distance of the point folded to the positive side."""
        folded = points.copy()
        np.abs(folded[self.axis], out=folded[self.axis])
        return self.solid.distance(folded)


@dataclass(frozen=True)
class Around(Solid):
    """Copies of a solid about the z axis; the solid lies in the sector of 360/count degrees about +x."""

    solid: Solid
    count: int

    @property
    def bounds(self) -> Bounds:
        """The box about the cylinder that holds all copies."""
        (x0, y0, z0), (x1, y1, z1) = self.solid.bounds
        reach = math.hypot(max(abs(x0), abs(x1)), max(abs(y0), abs(y1)))
        return (-reach, -reach, z0), (reach, reach, z1)

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """The distance of the point turned into the first sector."""
        sector = 2 * math.pi / self.count
        angle = np.arctan2(points[1], points[0])
        angle -= np.round(angle / np.float32(sector)) * np.float32(sector)
        reach = np.hypot(points[0], points[1])
        return self.solid.distance(np.stack([reach * np.cos(angle), reach * np.sin(angle), points[2]]))


# --- primitives --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ball(Solid):
    """A ball about the origin."""

    radius: Real

    @property
    def bounds(self) -> Bounds:
        """The cube about it."""
        return (-self.radius,) * 3, (self.radius,) * 3

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Exact."""
        return np.sqrt((points * points).sum(axis=0)) - points.dtype.type(self.radius)


@dataclass(frozen=True)
class Box(Solid):
    """A box with half sizes ``half``, its edges rounded off with radius ``rounding``."""

    half: Triple
    rounding: Real = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.rounding <= min(self.half):
            raise InputError(f"a box of half sizes {self.half} cannot be rounded by {self.rounding}")

    @property
    def bounds(self) -> Bounds:
        """The box itself."""
        x, y, z = self.half
        return (-x, -y, -z), (x, y, z)

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Exact."""
        reach = np.abs(points) - (np.asarray(self.half, points.dtype) - points.dtype.type(self.rounding))[:, None]
        inside = np.minimum(reach.max(axis=0), 0)
        np.maximum(reach, 0, out=reach)
        return np.sqrt((reach * reach).sum(axis=0)) + inside - points.dtype.type(self.rounding)


@dataclass(frozen=True)
class Superquadric(Solid):
    """A superellipsoid with half axes ``half``; exponents 1, 1 give an ellipsoid, small ones a box, 2 an octahedron.

    Args:
        half: half axes.
        e1: exponent of the outline seen from the side.
        e2: exponent of the outline seen from above.
    """

    half: Triple
    e1: Real = 1.0
    e2: Real = 1.0

    def __post_init__(self) -> None:
        if not (0.1 <= self.e1 <= 2 and 0.1 <= self.e2 <= 2):
            raise InputError(f"exponents of a superquadric lie in [0.1, 2], not {self.e1}, {self.e2}")

    @property
    def bounds(self) -> Bounds:
        """The box of the half axes."""
        x, y, z = self.half
        return (-x, -y, -z), (x, y, z)

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """The distance along the ray from the centre."""
        ratio = np.abs(points) / np.asarray(self.half, points.dtype)[:, None]
        # Far points, and those at the centre, must not leave the range of single precision.
        ratio = np.clip(ratio, 1e-4, 1e3)
        if self.e1 == self.e2 == 1:
            gauge = np.sqrt((ratio * ratio).sum(axis=0))
        else:
            # By the greatest ratio, so that high powers stay finite.
            top = ratio.max(axis=0)
            # In double precision: some numpy's single powers differ in the last bit with where arrays lie in memory.
            x, y, z = (ratio / top).astype(np.float64)
            flat = (x ** (2 / self.e2) + y ** (2 / self.e2)) ** (self.e2 / self.e1)
            gauge = (top * (flat + z ** (2 / self.e1)) ** (self.e1 / 2)).astype(points.dtype)
        reach = np.sqrt((points * points).sum(axis=0))
        return np.maximum(reach, 1e-4 * min(self.half)) * (1 - 1 / gauge)


@dataclass(frozen=True)
class Torus(Solid):
    """A torus about z."""

    major: Real
    minor: Real

    @property
    def bounds(self) -> Bounds:
        """The box about it."""
        reach = self.major + self.minor
        return (-reach, -reach, -self.minor), (reach, reach, self.minor)

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Exact."""
        flat = np.hypot(points[0], points[1]) - points.dtype.type(self.major)
        return np.hypot(flat, points[2]) - points.dtype.type(self.minor)


@dataclass(frozen=True)
class HalfSpace(Solid):
    """All points with ``normal . point <= offset``, to cut others with: it has no end. The normal has length 1."""

    normal: Triple
    offset: Real = 0.0

    @property
    def bounds(self) -> Bounds:
        """No bounds."""
        return (-math.inf,) * 3, (math.inf,) * 3

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Exact."""
        return np.asarray(self.normal, points.dtype) @ points - points.dtype.type(self.offset)


@dataclass(frozen=True)
class Tube(Solid):
    """Balls whose centre runs along straight sections and whose radius changes evenly along each.

    Args:
        path: two or more points.
        radii: the radius at each point.
    """

    path: tuple[Triple, ...]
    radii: tuple[Real, ...] = field(default=())

    def __post_init__(self) -> None:
        if len(self.path) < 2 or len(self.path) != len(self.radii):
            raise InputError(f"a tube needs two points or more and a radius for each, not {len(self.path)} points")

    @property
    def bounds(self) -> Bounds:
        """The box about the balls at the points."""
        path, radii = np.asarray(self.path), np.asarray(self.radii)[:, None]
        low, high = (path - radii).min(axis=0), (path + radii).max(axis=0)
        return tuple(map(float, low)), tuple(map(float, high))  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"]) -> Float[np.ndarray, "n"]:
        """Exact where the radius does not change."""
        kind = points.dtype.type
        best = np.full(points.shape[1], np.inf, points.dtype)
        for k in range(len(self.path) - 1):
            start, end = (np.asarray(self.path[j], points.dtype)[:, None] for j in (k, k + 1))
            along = end - start
            away = points - start
            length = float((along * along).sum())
            at = np.clip((along.T @ away)[0] / kind(max(length, 1e-12)), 0, 1)
            away -= along * at
            reach = np.sqrt((away * away).sum(axis=0))
            np.minimum(best, reach - (kind(self.radii[k]) + kind(self.radii[k + 1] - self.radii[k]) * at), out=best)
        return best
