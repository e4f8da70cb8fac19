"""What people wear and carry: hair, hats, capes, backpacks, skirts, things in hands; for a body that faces +x.

Every maker returns closed parts in the coordinates of the rest pose; arms hang down there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural.csg import Material
from pipeline.training.procedural.furniture import block
from pipeline.training.procedural.palette import (
    any_colour,
    between,
    chance,
    cloth,
    dark,
    metal,
    mostly,
    pick,
    plain,
    shade,
    vivid,
    wood,
)
from pipeline.training.procedural.primitives import Part, box, lathe, moved, rotation, superellipsoid, torus
from pipeline.training.procedural.rigged import Coat
from pipeline.training.procedural.solids import Ball, Real, Solid
from pipeline.training.procedural.textures import Rng

Worn = tuple[Part, Coat]
"""A closed surface and its colours."""
Sections = Sequence[tuple[Real, Real, Real, Real]]
"""Height, half width along x, half width along y, and middle along x of cross sections, from the bottom up."""


# --- shapes ------------------------------------------------------------------------------------------------------


def loft(sections: Sections, segments: int = 24, exponent: float = 1.0) -> Part:
    """A closed surface through superelliptic cross sections; exponent 1 gives ellipses, small ones rectangles."""
    values = np.asarray(sections, float)
    profile = [(0.0, values[0, 0]), *((1.0, z) for z in values[:, 0]), (0.0, values[-1, 0])]
    vertices, faces = lathe(np.asarray(profile), segments)
    vertices = vertices.copy()
    rings = vertices[:-2].reshape(len(values), segments, 3)
    rings[..., :2] = np.sign(rings[..., :2]) * np.abs(rings[..., :2]) ** exponent
    rings[..., 0] = rings[..., 0] * values[:, None, 1] + values[:, None, 3]
    rings[..., 1] *= values[:, None, 2]
    vertices[-2, 0], vertices[-1, 0] = values[0, 3], values[-1, 3]
    return vertices, faces


def limb(top: Real, bottom: Real, radii: Sequence[Real], segments: int = 14) -> Part:
    """A vertical tube about the z axis with round ends; its radius runs through ``radii`` from top to bottom.

    The ends are half balls about the two heights, so that two limbs that share one stay joined at any angle.
    """
    angle = np.linspace(0, math.pi / 2, 5)[1:]
    low, high = radii[-1], radii[0]
    rings = [(low * math.sin(a), bottom - low * math.cos(a)) for a in angle]
    heights = np.linspace(bottom, top, 9)[1:-1]
    given = np.linspace(bottom, top, len(radii))
    rings += [(float(np.interp(z, given, radii[::-1])), float(z)) for z in heights]
    rings += [(high * math.sin(a), top + high * math.cos(a)) for a in angle[::-1]]
    return lathe(np.asarray([(0.0, bottom - low), *rings, (0.0, top + high)]), segments)


def sheet(front: Float[np.ndarray, "r c 3"], thickness: Float[np.ndarray, "3"]) -> Part:
    """A closed slab: a grid of points and the same grid, shifted. Its columns run to the left of its rows' normal."""
    rows, columns = front.shape[:2]
    vertices = np.concatenate([front.reshape(-1, 3), (front + thickness).reshape(-1, 3)])
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    one = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    other = one[:, ::-1] + rows * columns
    border = np.concatenate([index[0, :-1], index[:-1, -1], index[-1, :0:-1], index[:0:-1, 0]])
    after, far = np.roll(border, -1), rows * columns
    walls = np.concatenate(
        [np.stack([border, after, border + far], 1), np.stack([after, after + far, border + far], 1)]
    )
    return vertices, np.concatenate([one, other, walls])


def _disc(points: Sequence[tuple[Real, Real]], segments: int = 24) -> Part:
    return lathe(np.asarray(points, float), segments)


# --- the head ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """Where a head is.

    Args:
        size: its radius.
        z: height of its middle.
    """

    size: float
    z: float


def face(rng: Rng, head: Head, flesh: Material, hair: Material) -> Coat:
    """The colours of a head: eyes, mouth, brows, and hair where it grows close."""
    s, z = head.size, head.z
    white, iris = Material((0.95, 0.95, 0.95)), Material(shade(any_colour(rng), 0.4))
    paints: list[tuple[Solid, Material]] = []
    if chance(rng, 0.8):
        paints.append((block((-2 * s, -2 * s, z - 0.5 * s), (-0.05 * s, 2 * s, z + 2 * s)), hair))
        paints.append((block((-2 * s, -2 * s, z + between(rng, 0.45, 0.7) * s), (2 * s, 2 * s, z + 2 * s)), hair))
    if chance(rng, 0.2):
        paints.append((block((0.2 * s, -2 * s, z - 2 * s), (2 * s, 2 * s, z - between(rng, 0.2, 0.4) * s)), hair))
    paints.append((block((0, -0.3 * s, z - 0.52 * s), (2 * s, 0.3 * s, z - 0.42 * s)), Material((0.6, 0.2, 0.2))))
    for side in (-1, 1):
        eye = (0.88 * s, side * 0.36 * s, z + 0.15 * s)
        if chance(rng, 0.6):
            paints.append((Ball(0.22 * s).moved(*eye), white))
        paints.append((Ball(0.15 * s).moved(*eye), iris))
    if chance(rng, 0.15):
        paints.append((block((0.2 * s, -s, z + 0.02 * s), (2 * s, s, z + 0.3 * s)), dark(rng)))
    return Coat(flesh, tuple(paints))


def hair(rng: Rng, head: Head, colour: Material) -> list[Worn]:
    """Hair that stands out from the head; none now and then."""
    s, z = head.size, head.z
    style = pick(rng, ["none", "cap", "cap", "cap", "long", "long", "bun", "tail", "afro", "crest"])
    if style == "none":
        return []
    coat = Coat(colour)
    scalp = moved(superellipsoid(1.0, 1.0, (1.0 * s, 0.98 * s, 1.0 * s), 12, 20), (-0.22 * s, 0.0, z + 0.28 * s))
    worn: list[Worn] = [(scalp, coat)]
    if style == "long":
        length = between(rng, 1.2, 2.6) * s
        back = loft(
            [(z - length, 0.2 * s, 0.6 * s, -0.75 * s), (z - 0.4 * s, 0.4 * s, 0.95 * s, -0.55 * s),
             (z + 0.5 * s, 0.55 * s, 0.95 * s, -0.4 * s)], 16,
        )  # fmt: skip
        worn.append((back, coat))
    elif style == "bun":
        worn.append((moved(superellipsoid(1.0, 1.0, (0.42 * s,) * 3, 8, 12), (-0.7 * s, 0.0, z + 1.1 * s)), coat))
    elif style == "tail":
        end = z - between(rng, 0.8, 2.2) * s
        worn.append((moved(limb(z + 0.4 * s, end, (0.25 * s, 0.3 * s, 0.12 * s), 10), (-1.15 * s, 0.0, 0.0)), coat))
    elif style == "afro":
        puff = between(rng, 1.12, 1.4) * s
        worn[0] = (
            moved(superellipsoid(1.0, 1.0, (puff, 1.05 * puff, puff), 14, 22), (-0.55 * s, 0.0, z + 0.45 * s)),
            coat,
        )
    elif style == "crest":
        worn[0] = (
            moved(superellipsoid(1.0, 1.0, (1.1 * s, 0.22 * s, 0.9 * s), 12, 14), (-0.2 * s, 0.0, z + 0.6 * s)),
            coat,
        )
    return worn


def hat(rng: Rng, head: Head) -> list[Worn]:
    """A hat of some kind, over the hair."""
    s, z = head.size, head.z + 0.35 * head.size
    felt = mostly(rng, pick(rng, [plain, cloth, dark])(rng))
    band = ((block((-9.0, -9.0, z), (9.0, 9.0, z + 0.3 * s)), plain(rng)),) if chance(rng, 0.5) else ()
    coat, around = Coat(felt, band), 1.14 * s
    style = pick(rng, ["brim", "top", "cap", "wizard", "helmet", "beanie", "crown"])
    at = (-0.05 * s, 0.0, 0.0)
    if style in ("brim", "top"):
        wide, tall = between(rng, 1.5, 2.3) * s, between(rng, 0.7, 1.1) * s * (1.5 if style == "top" else 1.0)
        crown = [(around, z + 0.08 * s), (0.9 * around, z + tall), (0.75 * around, z + tall + 0.1 * s)]
        rim = [(0, z - 0.05 * s), (wide, z - 0.05 * s), (wide, z + 0.07 * s)]
        return [(moved(_disc([*rim, *crown, (0, z + tall + 0.1 * s)]), at), coat)]
    if style == "wizard":
        tall = between(rng, 1.8, 2.8) * s
        return [
            (
                moved(
                    _disc(
                        [
                            (0, z),
                            (1.9 * s, z),
                            (1.9 * s, z + 0.08 * s),
                            (around, z + 0.15 * s),
                            (0.5 * s, z + 0.6 * tall),
                            (0, z + tall),
                        ]
                    ),
                    at,
                ),
                coat,
            )
        ]
    if style == "crown":
        tall = between(rng, 0.4, 0.7) * s
        ring = _disc([(0, z), (around, z), (1.15 * around, z + tall), (0, z + 0.8 * tall)], 12)
        return [(moved(ring, at), Coat(metal(rng)))]
    dome = loft(
        [(z - (0.6 * s if style == "helmet" else 0.0), around, around, at[0]), (z + 0.35 * s, around, around, at[0]),
         (z + 0.75 * s, 0.75 * around, 0.75 * around, at[0]), (z + 0.95 * s, 0.3 * around, 0.3 * around, at[0])], 20,
    )  # fmt: skip
    if style == "helmet":
        open_face = (block((0.35 * s, -0.75 * s, z - 2 * s), (9.0, 0.75 * s, z + 0.05 * s)), dark(rng))
        return [(dome, Coat(metal(rng), (open_face,)))]
    if style == "beanie":
        return [
            (dome, coat),
            (moved(superellipsoid(1.0, 1.0, (0.3 * s,) * 3, 6, 10), (0.0, 0.0, z + 1.05 * s)), Coat(plain(rng))),
        ]
    peak = moved(superellipsoid(0.4, 1.0, (0.75 * s, 0.8 * s, 0.06 * s), 6, 16), (0.95 * s, 0.0, z + 0.02 * s))
    return [(dome, coat), (peak, coat)]


# --- the body ----------------------------------------------------------------------------------------------------


def skirt(rng: Rng, waist: float, hem: float, half: tuple[float, float], material: Material) -> Worn:
    """A skirt from the waist to the hem; ``half`` are the half widths at the waist along x and y."""
    flare = between(rng, 1.25, 2.0)
    steps = np.linspace(0, 1, 8)
    sections = [
        (float(hem + t * (waist - hem)), float(half[0] * (flare + (1 - flare) * t)),
         float(half[1] * (flare + (1 - flare) * t)), 0.0) for t in steps
    ]  # fmt: skip
    border = ((block((-9.0, -9.0, -9.0), (9.0, 9.0, hem + 0.03)), plain(rng)),) if chance(rng, 0.4) else ()
    return loft(sections, 28), Coat(material, border)


def cape(rng: Rng, top: float, hem: float, wide: float, back: float) -> Worn:
    """A cape from the shoulders to the hem; ``back`` is where the back is, a negative x."""
    rows, columns = 9, 11
    t, u = np.linspace(0, 1, rows)[:, None], np.linspace(-1, 1, columns)[None]
    spread = wide * (1 + between(rng, 0.1, 0.7) * t)
    wave = 0.012 * np.sin(between(rng, 2, 6) * math.pi * u) * t
    x = back - 0.035 - between(rng, 0.02, 0.12) * t + 0.05 * u**2 + wave
    front = np.stack([x + 0 * u, spread * u, top + (hem - top) * t + 0 * u], axis=-1)
    lining = cloth(rng)
    inside = (block((back, -9.0, -9.0), (9.0, 9.0, 9.0)), lining)
    return sheet(front, np.array([-0.014, 0.0, 0.0])), Coat(mostly(rng, cloth(rng)), (inside,))


def backpack(rng: Rng, back: float, low: float, high: float, wide: float) -> list[Worn]:
    """A backpack; now and then something rolled up lies on it."""
    deep, half = between(rng, 0.04, 0.075), between(rng, 0.6, 0.95) * wide
    middle = (low + high) / 2
    bag = mostly(rng, cloth(rng))
    flap = (block((-9.0, -9.0, middle + 0.04), (9.0, 9.0, 9.0)), plain(rng))
    pack = moved(superellipsoid(0.35, 0.4, (deep, half, (high - low) / 2), 12, 20), (back - 0.8 * deep, 0.0, middle))
    worn: list[Worn] = [(pack, Coat(bag, (flap,)))]
    if chance(rng, 0.4):
        roll = moved(limb(half, -half, (0.035, 0.035), 12), (back - deep, 0.0, high + 0.02), rotation("x", math.pi / 2))
        worn.append((roll, Coat(cloth(rng))))
    return worn


# --- in a hand ---------------------------------------------------------------------------------------------------


def held(rng: Rng, hand: tuple[float, float, float]) -> list[Worn]:
    """A thing in a hand that hangs down at ``hand``; the body faces +x."""
    x, y, z = hand
    kind = pick(rng, ["sword", "staff", "ball", "book", "case", "shield", "mug", "flag", "hammer"])
    ahead = rotation("y", math.pi / 2)

    def stick(length: float, back: float, radius: float, material: Material) -> Worn:
        return moved(limb(length, -back, (radius, radius), 10), hand, ahead), Coat(material)

    if kind == "sword":
        length = between(rng, 0.25, 0.42)
        blade = moved(superellipsoid(0.8, 0.6, (0.5 * length, 0.008, 0.02), 8, 14), (x + 0.05 + 0.5 * length, y, z))
        guard = moved(box((0.012, 0.015, 0.055)), (x + 0.055, y, z))
        return [(blade, Coat(metal(rng))), (guard, Coat(metal(rng))), stick(0.05, 0.06, 0.013, dark(rng))]
    if kind == "staff":
        worn = [stick(between(rng, 0.25, 0.4), between(rng, 0.2, 0.4), 0.013, wood(rng))]
        ball = moved(superellipsoid(1.0, 1.0, (0.04, 0.04, 0.04), 8, 12), (x + 0.33, y, z))
        return [*worn, (ball, Coat(Material(vivid(rng))))] if chance(rng, 0.6) else worn
    if kind == "flag":
        long = between(rng, 0.25, 0.35)
        cloth_half = (0.09, 0.006, between(rng, 0.05, 0.09))
        banner = moved(box(cloth_half), (x + long - 0.09, y, z + cloth_half[2]))
        return [stick(long, 0.08, 0.01, wood(rng)), (banner, Coat(cloth(rng)))]
    if kind == "hammer":
        head = moved(superellipsoid(0.3, 0.3, (0.035, 0.035, 0.075), 8, 12), (x + 0.22, y, z))
        return [stick(0.22, 0.06, 0.013, wood(rng)), (head, Coat(metal(rng)))]
    if kind == "ball":
        r = between(rng, 0.05, 0.085)
        return [
            (moved(superellipsoid(1.0, 1.0, (r, r, r), 12, 18), (x + 0.01, y, z - r)), Coat(mostly(rng, cloth(rng))))
        ]
    if kind == "book":
        pages = block((x - 9, y - 0.009, z - 0.14), (x + 0.053, y + 0.009, z + 9))
        return [
            (
                moved(box((0.055, 0.016, 0.075)), (x, y, z - 0.06)),
                Coat(plain(rng), ((pages, Material((0.95, 0.93, 0.85))),)),
            )
        ]
    if kind == "case":
        half = (between(rng, 0.07, 0.11), 0.025, between(rng, 0.05, 0.075))
        handle = moved(torus(0.028, 0.007, 12, 6), (x, y, z - 0.01), rotation("x", math.pi / 2))
        body = moved(superellipsoid(0.25, 0.25, half, 10, 16), (x, y, z - 0.035 - half[2]))
        return [(body, Coat(mostly(rng, pick(rng, [dark, plain, cloth])(rng)))), (handle, Coat(dark(rng)))]
    if kind == "mug":
        return [
            (
                moved(_disc([(0, -0.045), (0.032, -0.045), (0.036, 0.05), (0, 0.05)], 16), (x + 0.035, y, z)),
                Coat(plain(rng)),
            )
        ]
    side = 1.0 if y > 0 else -1.0
    r = between(rng, 0.09, 0.15)
    plate = _disc([(0, -0.012), (r, -0.012), (r, 0.0), (0.4 * r, 0.02), (0, 0.026)], 24)
    boss = (Ball(0.45 * r).moved(x, y + side * 0.045, z + 0.05), metal(rng))
    turn = rotation("x", -side * math.pi / 2)
    return [(moved(plate, (x, y + side * 0.045, z + 0.05), turn), Coat(mostly(rng, plain(rng)), (boss,)))]
