"""Constructive solid geometry of coloured objects: add a solid, cut one away, paint the surface inside one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from pipeline.training.procedural.solids import Bounds, Real, Solid, parts_of
from pipeline.training.procedural.textures import Colour
from scene.errors import InputError
from scene.mesh import SolidTexture

# Distances of points that no solid's box reaches: larger than any object.
FAR = np.float32(1e3)

# Surfaces that lie this close to each other count as one, and the later step colours it.
FLUSH = 2e-3


@dataclass(frozen=True)
class Material:
    """A colour and the patterns laid over it, in order.

    Args:
        colour: sRGB in [0, 1].
        patterns: in the coordinates the object is built in.
    """

    colour: Colour
    patterns: tuple[SolidTexture, ...] = ()

    def colours(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB colours of points."""
        colours = np.broadcast_to(np.asarray(self.colour, np.float32), points.shape)
        for pattern in self.patterns:
            colours = pattern(points, colours)
        return colours.astype(np.float32)


@dataclass(frozen=True)
class CsgStep:
    """One step of building an object."""

    action: Literal["add", "cut", "paint"]
    solid: Solid
    material: Material | None


def add(solid: Solid, material: Material) -> CsgStep:
    """Union with a solid; its surface gets the material."""
    return CsgStep("add", solid, material)


def cut(solid: Solid, material: Material | None = None) -> CsgStep:
    """Difference with a solid; the cut gets the material, or keeps those of what is cut."""
    return CsgStep("cut", solid, material)


def paint(solid: Solid, material: Material) -> CsgStep:
    """Colour what there is of the surface so far inside a solid; the shape stays as it is."""
    return CsgStep("paint", solid, material)


@dataclass(frozen=True)
class CsgModel:
    """An object as steps, each working on the result of those before it.

    Args:
        steps: what is done, in order. The first one adds.
        mirror: whether what is built at y >= 0 is mirrored to the other side; patterns are not mirrored.
    """

    steps: tuple[CsgStep, ...]
    mirror: bool = False

    def __post_init__(self) -> None:
        if not self.steps or self.steps[0].action != "add":
            raise InputError("an object begins with a solid that is added")
        if not np.isfinite([step.solid.bounds for step in self.steps if step.action == "add"]).all():
            raise InputError("a solid without bounds can cut others and not be added")

    @cached_property
    def _flat(self) -> tuple[tuple[CsgStep, Bounds], ...]:
        """Steps with unions taken apart: many small boxes are faster than one large one."""
        parts = (replace(step, solid=part) for step in self.steps for part in parts_of(step.solid))
        return tuple((step, step.solid.bounds) for step in parts)

    @property
    def bounds(self) -> Bounds:
        """A box about the object."""
        boxes = np.asarray([bounds for step, bounds in self._flat if step.action == "add"])
        low, high = boxes[:, 0].min(axis=0), boxes[:, 1].max(axis=0)
        if self.mirror:
            high[1] = max(high[1], 0.0)
            low[1] = -high[1]
        return tuple(map(float, low)), tuple(map(float, high))  # type: ignore[return-value]

    def distance(self, points: Float[np.ndarray, "3 n"], near: Real = 0.05) -> Float[np.ndarray, "n"]:
        """Signed distances of points within ``near`` of the surface, positive outside; others get the right sign."""
        values = np.full(points.shape[1], FAR, np.float32)
        for step, at, distance in self._walk(points, near):
            if step.action == "add":
                values[at] = np.minimum(values[at], distance)
            elif step.action == "cut":
                values[at] = np.maximum(values[at], -distance)
        return values

    def on_grid(
        self, low: Float[np.ndarray, "3"], voxel: Real, shape: tuple[int, int, int]
    ) -> Float[np.ndarray, "x y z"]:
        """:meth:`distance` at the points of a grid; each step touches the part of the grid that its box reaches.

        The grid of a mirrored model begins at y >= 0.
        """
        values = np.full(shape, FAR, np.float32)
        axes = [(low[k] + voxel * np.arange(shape[k])).astype(np.float32) for k in range(3)]
        for step, (start, end) in self._flat:
            if step.action == "paint":
                continue
            where = tuple(
                slice(*np.searchsorted(axes[k], (start[k] - 1.5 * voxel, end[k] + 1.5 * voxel))) for k in range(3)
            )
            x, y, z = (axis[span] for axis, span in zip(axes, where, strict=True))
            if not len(x) or not len(y) or not len(z):
                continue
            points = np.empty((3, len(x), len(y), len(z)), np.float32)
            points[0], points[1], points[2] = x[:, None, None], y[:, None], z
            found = step.solid.distance(points.reshape(3, -1)).reshape(points.shape[1:])
            block = values[where]
            if step.action == "add":
                np.minimum(block, found, out=block)
            else:
                np.maximum(block, -found, out=block)
        return values

    def owners(self, points: Float[np.ndarray, "3 n"]) -> Int[np.ndarray, "n"]:
        """The step whose material each point of the surface has; -1 for points far from it."""
        owner = np.full(points.shape[1], -1, np.int64)
        values = np.full(points.shape[1], FAR, np.float32)
        index = {id(step): k for k, (step, _) in enumerate(self._flat)}
        for step, at, distance in self._walk(points, 0.05):
            if step.action == "paint":
                mine = distance < 0
            elif step.action == "add":
                mine = distance < values[at] + FLUSH
                values[at] = np.minimum(values[at], distance)
            else:
                mine = -distance > values[at] - FLUSH
                values[at] = np.maximum(values[at], -distance)
                if step.material is None:
                    continue
            owner[at[mine]] = index[id(step)]
        return owner

    def materials(self) -> tuple[Material, ...]:
        """The material of each step that :meth:`owners` names."""
        first = self.steps[0].material
        return tuple(step.material or first for step, _ in self._flat)  # type: ignore[misc]

    def _walk(
        self, points: Float[np.ndarray, "3 n"], near: Real
    ) -> Iterator[tuple[CsgStep, Int[np.ndarray, "m"], Float[np.ndarray, "m"]]]:
        """Each step with the points near its box, and its distances there."""
        points = points.astype(np.float32)
        if self.mirror:
            points[1] = np.abs(points[1])
        for step, (start, end) in self._flat:
            low, high = np.asarray(start, np.float32) - near, np.asarray(end, np.float32) + near
            inside = np.ones(points.shape[1], bool)
            for k in range(3):
                inside &= (points[k] > low[k]) & (points[k] < high[k])
            at = np.nonzero(inside)[0]
            if len(at):
                yield step, at, step.solid.distance(points[:, at])


@dataclass(frozen=True, eq=False)
class Painted:
    """The colours of a model as a solid texture: borders between materials are as sharp as the solids are."""

    model: CsgModel

    def __call__(self, points: Float[np.ndarray, "n 3"], base: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB colours; ``base`` stays where the surface is far."""
        colours = np.array(base, np.float32)
        materials = self.model.materials()
        owner = self.model.owners(np.ascontiguousarray(points.T))
        chosen = np.array([materials.index(material) for material in materials] + [-1])[owner]
        for k in np.unique(chosen[chosen >= 0]):
            at = np.nonzero(chosen == k)[0]
            colours[at] = materials[k].colours(points[at])
        return colours
