"""Things edited by boxes: parametric sofas, lamps, boots and tables, as they are before and after some parts change.

A part is built anew for its size after the edit: a leg that becomes longer keeps its pattern and its rounding. Boxes
are affine frames that bring the cube [-1, 1]^3 to their place; they hold their parts loosely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural.csg import Material
from pipeline.training.procedural.palette import between, chance, cloth, dark, leaf, metal, mostly, pick, plain, wood
from pipeline.training.procedural.primitives import Part, superellipsoid
from pipeline.training.procedural.rigged import Coat, coated
from pipeline.training.procedural.solids import Box
from pipeline.training.procedural.textures import Rng
from pipeline.training.procedural.wardrobe import loft
from scene.camera import OBJECT_RADIUS, normalising_transform
from scene.errors import ViewloomError
from scene.mesh import ColouredMesh

Family = Literal["sofa", "lamp", "boot", "table"]
FAMILIES: tuple[Family, ...] = get_args(Family)
Triple = tuple[float, float, float]
Shape = Callable[[Triple], Part]
"""A closed surface that fills the box of some half sizes about the origin."""

_LOOSE = 1.06
"""Size of a box over that of what it holds."""
_ROOM = 1.03 * OBJECT_RADIUS
_CHANGE = 0.12
"""How far a corner of a box moves at least, world units."""


@dataclass(frozen=True)
class Place:
    """An upright box.

    Args:
        middle: its middle.
        half: its half sizes.
    """

    middle: Triple
    half: Triple

    @classmethod
    def between(cls, low: Triple, high: Triple) -> Place:
        """The box between two corners."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        middle = ((x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2)
        half = ((x1 - x0) / 2, (y1 - y0) / 2, (z1 - z0) / 2)
        return cls(middle, half)


@dataclass(frozen=True)
class Component:
    """A part of a thing.

    Args:
        box: the number of the box that holds it.
        shape: what it looks like.
        coat: its colours, about its middle.
        place: where it is.
    """

    box: int
    shape: Shape
    coat: Coat
    place: Place


@dataclass(frozen=True, eq=False)
class BoxEdit:
    """A thing before and after an edit, in the frame in which it fills the bounding sphere of an object before.

    Args:
        before, after: the meshes.
        boxes_before, boxes_after: as many frames, in the same order.
    """

    before: ColouredMesh
    after: ColouredMesh
    boxes_before: Float[np.ndarray, "b 4 4"]
    boxes_after: Float[np.ndarray, "b 4 4"]

    @property
    def reach(self) -> float:
        """Distance of the farthest point after the edit from the origin."""
        return float(np.linalg.norm(self.after.vertices, axis=1).max())


def box_edit(family: Family, seed: int) -> BoxEdit:
    """A thing edited by boxes, the same for the same seed.

    Raises:
        ViewloomError: no edit was found that stays in view and is seen.
    """
    makers = {"sofa": _sofa, "lamp": _lamp, "boot": _boot, "table": _table}
    for attempt in range(100):
        # Twice from one seed: the same materials and shapes, other sizes.
        key = [seed, *family.encode()]
        sizes = np.random.default_rng([*key, attempt])
        first, second = (makers[family](np.random.default_rng(key), size) for size in _sizes(sizes))
        edit = _edit(first, second)
        moved = np.abs(edit.boxes_after - edit.boxes_before).sum(axis=2).max()
        if edit.reach <= _ROOM and moved >= _CHANGE:
            return edit
    raise ViewloomError(f"no edit of a {family} stays in view")


def _sizes(rng: Rng) -> tuple[Triple, Triple]:
    """Three factors before the edit and after it; one or two of them change."""
    before = rng.uniform(0.0, 1.0, 3)
    after = np.where(rng.random(3) < 0.6, rng.uniform(0.0, 1.0, 3), before)
    return tuple(before.tolist()), tuple(after.tolist())


def _edit(before: Sequence[Component], after: Sequence[Component]) -> BoxEdit:
    first, second = (coated([_built(part) for part in parts]) for parts in (before, after))
    matrix = normalising_transform(first.vertices)
    frames = [matrix @ _frames(parts) for parts in (before, after)]
    return BoxEdit(first.transformed(matrix), second.transformed(matrix), frames[0], frames[1])


def _built(part: Component) -> tuple[Part, Coat, Float[np.ndarray, "3"]]:
    vertices, faces = part.shape(part.place.half)
    middle = np.asarray(part.place.middle)
    return (vertices + middle, faces), part.coat, middle


def _frames(parts: Sequence[Component]) -> Float[np.ndarray, "b 4 4"]:
    """The loose boxes about the parts of each."""
    frames = []
    for box in range(1 + max(part.box for part in parts)):
        held = [part.place for part in parts if part.box == box]
        low = np.min([np.subtract(place.middle, place.half) for place in held], axis=0)
        high = np.max([np.add(place.middle, place.half) for place in held], axis=0)
        frame = np.diag([*(_LOOSE * (high - low) / 2), 1.0])
        frame[:3, 3] = (low + high) / 2
        frames.append(frame)
    return np.stack(frames)


# --- shapes ------------------------------------------------------------------------------------------------------


def _cushion(roundness: float) -> Shape:
    return lambda half: superellipsoid(roundness, roundness, half, 16, 32)


def _column(half: Triple) -> Part:
    x, y, z = half
    return loft([(-z, x, y, 0.0), (z, x, y, 0.0)], 16)


def _cone(top: float) -> Shape:
    """A truncated cone; ``top`` is the upper width over the lower, or, above 1, its inverse upside down."""

    def shape(half: Triple) -> Part:
        x, y, z = half
        low, high = (1.0, top) if top <= 1 else (1 / top, 1.0)
        return loft([(-z, low * x, low * y, 0.0), (z, high * x, high * y, 0.0)], 28)

    return shape


def _foot(half: Triple) -> Part:
    """A foot that is lower at its toe, which points to +x."""
    x, _, z = half
    vertices, faces = superellipsoid(0.6, 0.7, half, 14, 28)
    ahead = np.clip(vertices[:, 0] / x, 0, 1)
    vertices = vertices.copy()
    vertices[:, 2] = -z + (vertices[:, 2] + z) * (1 - 0.35 * ahead)
    return vertices, faces


def _stripe(rng: Rng, material: Material) -> Coat:
    """A material, at times with a band of another around the middle."""
    if chance(rng, 0.6):
        return Coat(material)
    return Coat(material, ((Box((9.0, 9.0, between(rng, 0.01, 0.04))), plain(rng)),))


# --- things ------------------------------------------------------------------------------------------------------


def _sofa(rng: Rng, size: Triple) -> list[Component]:
    """A sofa: width, height of the back, height of the arms."""
    fabric, frame = mostly(rng, cloth(rng)), pick(rng, [wood, metal, dark])(rng)
    cover = cloth(rng) if chance(rng, 0.5) else fabric
    count, soft = int(rng.integers(1, 4)), between(rng, 0.15, 0.4)
    depth, seat, thick = between(rng, 0.3, 0.4), between(rng, 0.3, 0.38), between(rng, 0.07, 0.13)
    y = 0.3 + 0.5 * size[0]
    top, rest = seat + 0.15 + 0.5 * size[1], seat + 0.06 + 0.3 * size[2]
    seat_coat, arm_coat, back_coat = (_stripe(rng, fabric) for _ in range(3))
    parts = [Component(0, _cushion(0.2), seat_coat, Place.between((-depth, -y, 0.1), (depth, y, seat - 0.06)))]
    wide = 2 * y / count
    for k in range(count):
        low, high = -y + k * wide, -y + (k + 1) * wide
        place = Place.between((-depth + 0.05, low, seat - 0.08), (depth + 0.03, high, seat + 0.04))
        parts.append(Component(0, _cushion(soft), Coat(cover), place))
    for side in (-1, 1):
        for end in (-1, 1):
            x, at = end * (depth - 0.06), side * (y - 0.06)
            place = Place.between((x - 0.03, at - 0.03, 0.0), (x + 0.03, at + 0.03, 0.14))
            parts.append(Component(0, _column, Coat(frame), place))
    back = Place.between((-depth - 0.06, -y, 0.1), (-depth + 0.1, y, top))
    parts.append(Component(1, _cushion(0.25), back_coat, back))
    for k, side in enumerate((-1, 1)):
        low, high = sorted((side * y, side * (y + thick)))
        arm = Place.between((-depth, low, 0.1), (depth, high, rest))
        parts.append(Component(2 + k, _cushion(0.25), arm_coat, arm))
    return parts


def _lamp(rng: Rng, size: Triple) -> list[Component]:
    """A lamp: height of its pole, width of its shade, height of its shade."""
    stand, shade_coat = metal(rng) if chance(rng, 0.6) else wood(rng), _stripe(rng, mostly(rng, cloth(rng)))
    base = between(rng, 0.12, 0.2)
    pole, wide, tall = 0.3 + 0.8 * size[0], 0.14 + 0.26 * size[1], 0.08 + 0.2 * size[2]
    thick, top = between(rng, 0.015, 0.03), pick(rng, [between(rng, 0.45, 0.8), 1.0, 1.0, between(rng, 1.2, 1.6)])
    foot = _cushion(between(rng, 0.3, 1.0)) if chance(rng, 0.4) else _cone(between(rng, 0.4, 1.0))
    return [
        Component(0, foot, Coat(stand), Place.between((-base, -base, 0.0), (base, base, 0.07))),
        Component(1, _column, Coat(stand), Place.between((-thick, -thick, 0.05), (thick, thick, pole))),
        Component(2, _cone(top), shade_coat, Place((0.0, 0.0, pole + 0.3 * tall), (wide, wide, tall))),
    ]


def _boot(rng: Rng, size: Triple) -> list[Component]:
    """A boot: height of its shaft, length of its foot, height of its heel."""
    leather = mostly(rng, pick(rng, [dark, plain, leaf])(rng))
    sole, cuff = Coat(dark(rng)), Coat(plain(rng))
    shaft_coat, wide = _stripe(rng, leather), between(rng, 0.09, 0.12)
    tall, long, heel = 0.12 + 0.5 * size[0], 0.16 + 0.22 * size[1], 0.02 + 0.1 * size[2]
    back = -0.11

    def shaft(half: Triple) -> Part:
        x, y, z = half
        return loft([(-z, 0.9 * x, 0.88 * y, 0.0), (0.0, 0.92 * x, 0.92 * y, 0.0), (z, x, y, 0.0)], 26)

    top = heel + 0.12 + tall
    below = Place.between((back - 0.005, -wide, heel - 0.02), (back + 0.21 + long, wide, heel + 0.03))
    leg = Place.between((back, -0.95 * wide, heel + 0.06), (back + 0.21, 0.95 * wide, top - 0.006))
    under = Place.between((back, -0.9 * wide, 0.0), (back + 0.12, 0.9 * wide, heel + 0.02))
    return [
        Component(0, _foot, Coat(leather), Place.between((back, -wide, heel), (back + 0.2 + long, wide, heel + 0.2))),
        Component(0, _cushion(0.3), sole, below),
        Component(1, shaft, shaft_coat, leg),
        Component(1, shaft, cuff, Place.between((back - 0.012, -wide, top - 0.05), (back + 0.222, wide, top))),
        Component(2, _cushion(0.2), sole, under),
    ]


def _table(rng: Rng, size: Triple) -> list[Component]:
    """A table: length, width, height."""
    top, frame = mostly(rng, wood(rng)), pick(rng, [wood, metal, plain])(rng)
    x, y, z = 0.18 + 0.3 * size[0], 0.25 + 0.5 * size[1], 0.25 + 0.5 * size[2]
    thick, leg = between(rng, 0.03, 0.07), between(rng, 0.025, 0.05)
    board = _cushion(0.15) if chance(rng, 0.6) else _column
    # Legs of round boards stand farther in.
    inset = 1.0 if board is not _column else 0.68
    shape = _column if chance(rng, 0.5) else _cushion(0.15)
    parts = [Component(0, board, _stripe(rng, top), Place.between((-x, -y, z - thick), (x, y, z)))]
    leg_coat = Coat(frame)
    for k, (a, b) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        at = (a * inset * (x - 1.3 * leg), b * inset * (y - 1.3 * leg))
        place = Place.between((at[0] - leg, at[1] - leg, 0.0), (at[0] + leg, at[1] + leg, z - 0.5 * thick))
        parts.append(Component(1 + k, shape, leg_coat, place))
    return parts
