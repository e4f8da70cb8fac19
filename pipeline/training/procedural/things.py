"""Shoes, houses, blobs, and random compositions."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, add, cut, paint
from pipeline.training.procedural.furniture import block
from pipeline.training.procedural.outlines import (
    Extrusion,
    Lathe,
    Outline,
    Plane,
    curve,
    curved,
    cylinder,
    regular,
    rod,
    smooth_profile,
)
from pipeline.training.procedural.palette import (
    between,
    chance,
    cloth,
    contrast,
    dark,
    glass,
    lacquer,
    mostly,
    neutral,
    pick,
    plain,
    stone,
    vivid,
    wild,
    wood,
)
from pipeline.training.procedural.solids import Ball, Blend, Box, HalfSpace, Real, Solid, Superquadric, Torus
from pipeline.training.procedural.textures import Rng


def shoe(rng: Rng) -> CsgModel:
    """A sneaker, boot, pump or clog, its toe towards +x."""
    upper = mostly(rng, pick(rng, [cloth, plain, dark])(rng))
    rubber = Material(neutral(rng)) if chance(rng, 0.6) else plain(rng)
    half, wide = between(rng, 0.42, 0.5), between(rng, 0.14, 0.185)
    kind = pick(rng, ["sneaker", "sneaker", "boot", "pump", "clog"])
    sole = between(rng, 0.03, 0.08)
    heel = between(rng, 0.1, 0.3) if kind == "pump" else (between(rng, 0.0, 0.08) if chance(rng, 0.4) else 0.0)
    half_plan = curve(
        np.array(
            [
                (-half, 0.0),
                (-0.8 * half, 0.78 * wide),
                (-0.1 * half, 0.8 * wide),
                (0.5 * half, wide),
                (half * 0.93, 0.55 * wide),
                (half, 0.0),
            ]
        ),
        16,
    )
    plan: Outline = (
        *((float(x), float(y)) for x, y in half_plan),
        *((float(x), -float(y)) for x, y in half_plan[-2:0:-1]),
    )

    def tipped(x: Real) -> float:
        """The height of the sole's underside: the heel is raised, the ball of the foot is on the ground."""
        return heel * float(np.clip((0.25 * half - x) / (1.1 * half), 0, 1) ** 1.2)

    xs = np.linspace(-half - 0.02, half + 0.02, 12)
    under = [(float(x), tipped(float(x))) for x in xs]
    over = [(x, z + sole + (0.03 if x > 0.8 * half else 0.0)) for x, z in under]
    sheet = Extrusion(plan, 1, "xy") & Extrusion((*under, *over[::-1]), 1, "xz")
    tall = between(rng, 0.16, 0.24)
    toe, instep, top = sole + between(rng, 0.1, 0.14), sole + 0.75 * tall, sole + heel + tall
    shaft = top + (between(rng, 0.15, 0.5) if kind == "boot" else 0.0)
    foot = Blend(
        (
            Superquadric((0.5 * half, 0.92 * wide, toe), 0.8, 0.9).moved(0.48 * half, 0, 0.3 * sole),
            Superquadric((0.55 * half, 0.8 * wide, instep), 0.8, 0.8).moved(0.1 * half, 0, 0.3 * sole + 0.4 * heel),
            Superquadric((0.42 * half, 0.76 * wide, tall + 0.02), 0.6, 0.8).moved(-0.56 * half, 0, sole + heel),
        ),
        0.09,
    )
    lowest: Outline = (*((x, z + 0.5 * sole) for x, z in under), (half + 0.1, 1.5), (-half - 0.1, 1.5))
    steps: list[CsgStep] = [add(sheet, rubber)]
    steps.append(add(foot & Extrusion(lowest, 1, "xz"), upper))
    if kind == "boot":
        leg = Lathe(((0, 0), (0.72 * wide, 0), (between(rng, 0.75, 0.95) * wide, shaft), (0, shaft))).stretched(
            1.15, 1, 1
        )
        steps.append(add((leg & block((-1, -1, sole + heel), (1, 1, 2))).moved(-0.52 * half), upper))
    if heel > 0.02:
        size = between(rng, 0.35, 0.7) * wide if kind == "pump" else 0.7 * wide
        post = cylinder(0.6 * size, heel + 0.4 * sole, size)
        keep = block((-half - 0.1, -1, 0), (-0.3 * half, 1, heel + sole))
        steps.append(add((post.moved(-0.72 * half) if kind == "pump" else Extrusion(plan, 1, "xy")) & keep, rubber))
    collar = Superquadric((0.33 * half, 0.58 * wide, 0.8 * tall + (shaft - top)), 0.7).moved(
        -0.5 * half, 0, shaft + 0.06
    )
    if kind == "boot":
        collar = cylinder(0.58 * wide, 1).stretched(1.15, 1, 1).moved(-0.52 * half, 0, sole + heel + 0.06)
    elif kind in ("pump", "clog"):
        collar = Superquadric((0.75 * half, 0.62 * wide, 0.9 * tall), 0.8, 0.8).moved(-0.1 * half, 0, top + 0.02)
        if kind == "clog":
            steps.append(cut(block((-half - 0.1, -1, sole + heel + 0.06), (-0.62 * half, 1, 2)), upper))
    # The upper swells over the sole here and there.
    lower = [(x - 0.05 if x < 0 else x + 0.05, z - 0.05) for x, z in under]
    upper_edge = [(x - 0.05 if x < 0 else x + 0.05, z) for x, z in over]
    steps.append(paint(Extrusion((*lower, *upper_edge[::-1]), 1, "xz"), rubber))
    steps.append(cut(collar, plain(rng)))
    if kind in ("sneaker", "boot"):
        lace, trim = Material(neutral(rng)), plain(rng)
        slope = math.atan2(instep - toe, 0.45 * half)
        for k in range(4):
            x = (0.42 - 0.12 * k) * half
            z = sole + 0.55 * tall + math.tan(slope) * (0.42 * half - x)
            tie = Torus(0.5 * wide, 0.016).stretched(0.35, 1, 1).turned("y", math.pi / 2 - 0.5)
            steps.append(
                paint(
                    tie.moved(x, 0, z).stretched(1, 1, 1)
                    | Box((0.016, 0.45 * wide, 0.2)).turned("y", -0.5).moved(x, 0, z),
                    lace,
                )
            )
        style = pick(rng, ["toe", "stripe", "heel", "none"])
        if style == "toe":
            steps.insert(2, paint(block((0.6 * half, -1, 0), (1, 1, 1)), trim))
        elif style == "heel":
            steps.insert(2, paint(block((-1, -1, 0), (-0.7 * half, 1, 2)), trim))
        elif style == "stripe":
            for k in range(int(rng.integers(1, 4))):
                band = (
                    block((-0.025, 0, 0), (0.025, 1, 1)).turned("y", -0.5).moved((0.1 - 0.14 * k) * half, 0.4 * wide, 0)
                )
                steps.insert(2, paint(band, trim))
    return CsgModel(tuple(steps), mirror=True)


def house(rng: Rng) -> CsgModel:
    """A house, barn, tower or castle keep, its door towards +x."""
    wall, tile, pane = mostly(rng, stone(rng)), mostly(rng, pick(rng, [plain, stone, wood])(rng)), glass(rng)
    door = wood(rng)
    x, y, height = between(rng, 0.25, 0.4), between(rng, 0.25, 0.5), between(rng, 0.25, 0.6)
    kind = pick(rng, ["gable", "gable", "hip", "flat", "tower"])
    if kind == "tower":
        return _tower(rng, wall, tile, pane, door)
    steps: list[CsgStep] = [add(block((-x, -y, 0), (x, y, height)), wall)]
    eaves, rise, thick = between(rng, 0.03, 0.09), between(rng, 0.15, 0.4), 0.03
    if kind == "gable":
        along_y = chance(rng, 0.5)
        run, long = (x, y) if along_y else (y, x)
        drop = rise * eaves / run
        tent: Outline = (
            (-run - eaves, height - drop),
            (0, height + rise),
            (run + eaves, height - drop),
            (run + eaves, height - drop + 1.4 * thick),
            (0, height + rise + 1.4 * thick),
            (-run - eaves, height - drop + 1.4 * thick),
        )
        gable: Outline = ((-run, height - 0.01), (run, height - 0.01), (0, height + rise))
        plane: Plane = "xz" if along_y else "yz"
        steps += [add(Extrusion(gable, long, plane), wall), add(Extrusion(tent, long + eaves, plane), tile)]
    elif kind == "hip":
        ridge = between(rng, 0.0, 0.7) * y
        roof: Solid = Extrusion(
            ((-y - eaves, height - 0.02), (y + eaves, height - 0.02), (ridge, height + rise), (-ridge, height + rise)),
            x + eaves,
            "yz",
        )
        roof = roof & Extrusion(
            (
                (-x - eaves, height - 0.02),
                (x + eaves, height - 0.02),
                (0.01, height + rise + 0.01),
                (-0.01, height + rise + 0.01),
            ),
            2,
            "xz",
        )
        steps.append(add(roof, tile))
    else:
        steps.append(cut(block((-x + 0.04, -y + 0.04, height - 0.05), (x - 0.04, y - 0.04, height + 1)), tile))
        if chance(rng, 0.6):
            steps.append(
                add(block((-x, -0.7 * y, height - 0.06), (0.3 * x, 0.5 * y, height + between(rng, 0.15, 0.3))), wall)
            )
    floors, sills = (2 if height > 0.42 else 1), chance(rng, 0.5)
    frame = plain(rng)
    columns = int(rng.integers(1, 3))
    size = min(0.1, 0.28 * y / columns)
    for floor in range(floors):
        z = height * (floor + 0.58) / floors
        tall = min(0.09, 0.24 * height / floors)
        for k in range(columns):
            side = y * (k + 0.6) / columns * 0.92
            if chance(rng, 0.85):
                steps.append(cut(block((x - 0.025, side - size, z - tall), (x + 0.1, side + size, z + tall)), pane))
                steps.append(cut(block((-x - 0.1, side - size, z - tall), (-x + 0.025, side + size, z + tall)), pane))
                if sills:
                    steps.append(
                        add(
                            block(
                                (x - 0.03, side - size - 0.02, z - tall - 0.03),
                                (x + 0.03, side + size + 0.02, z - tall),
                            ),
                            frame,
                        )
                    )
        for where in (-0.45, 0.45):
            steps.append(
                cut(block((where * x - 0.07, y - 0.025, z - tall), (where * x + 0.07, y + 0.1, z + tall)), pane)
            )
    tall = min(0.24, 0.75 * height / floors)
    steps.append(add(block((x - 0.02, -0.09, 0), (x + 0.02, 0.09, tall + 0.02)), frame))
    steps.append(paint(block((x - 0.1, -0.068, 0), (x + 0.1, 0.068, tall)), door))
    if chance(rng, 0.4):
        steps.append(add(block((x - 0.02, -0.14, 0), (x + 0.12, 0.14, 0.035)), stone(rng)))
        steps.append(add(block((x - 0.02, -0.14, tall + 0.03), (x + 0.13, 0.14, tall + 0.065)), tile))
        steps.append(add(rod((x + 0.1, 0.11, 0), (x + 0.1, 0.11, tall + 0.04), 0.02), frame))
    if chance(rng, 0.6) and kind != "flat":
        cx, cy = between(rng, -0.5, 0.5) * x, between(rng, 0.1, 0.6) * y
        steps.append(
            add(
                block((cx - 0.045, cy - 0.045, height - 0.1), (cx + 0.045, cy + 0.045, height + rise + 0.06)),
                stone(rng),
            )
        )
    mirror = chance(rng, 0.3)
    if not mirror:
        wing = between(rng, 0.12, 0.2)
        if chance(rng, 0.4):
            steps.insert(1, add(block((-x, -y - 2 * wing, 0), (0.4 * x, -y + 0.02, 0.62 * height)), wall))
            steps.insert(
                2,
                add(
                    block((-x - 0.03, -y - 2 * wing - 0.03, 0.6 * height), (0.4 * x + 0.03, -y, 0.6 * height + 0.045)),
                    tile,
                ),
            )
    return CsgModel(tuple(steps), mirror=mirror)


def _tower(rng: Rng, wall: Material, tile: Material, pane: Material, door: Material) -> CsgModel:
    """A tower with a pointed roof or battlements, perhaps with a wall of towers."""
    radius, height = between(rng, 0.16, 0.3), between(rng, 0.55, 1.0)
    square = chance(rng, 0.35)
    top = radius * between(rng, 0.75, 1.0)
    body: Solid = Lathe(((0, 0), (radius, 0), (top, height), (0, height)))
    if square:
        body, top = block((-radius, -radius, 0), (radius, radius, height)), radius
    steps: list[CsgStep] = [add(body, wall)]
    rim = top + 0.04
    head: Solid = (
        block((-rim, -rim, height - 0.02), (rim, rim, height + 0.08))
        if square
        else cylinder(rim, 0.1).moved(z=height - 0.02)
    )
    steps.append(add(head, wall if chance(rng, 0.5) else stone(rng)))
    if chance(rng, 0.5):
        reach = 1.3 * rim
        roof: Solid = Lathe(
            ((0, height + 0.07), (reach, height + 0.07), (0.02, height + between(rng, 0.3, 0.6)), (0, height + 0.62))
        )
        steps.append(add(roof, tile))
    else:
        steps.append(cut(cylinder(rim - 0.05, 1).moved(z=height + 0.03), tile))
        gap = block((0.3 * rim, -0.035, height + 0.04), (2 * rim, 0.035, height + 1))
        steps.append(cut(gap.around(int(rng.integers(5, 9))), wall))
    for k in range(int(rng.integers(1, 4))):
        slot = block((0, -0.03, 0), (2, 0.03, 0.12)) - cylinder(top - 0.035, 3)
        steps.append(cut(slot.around(pick(rng, [2, 3, 4])).moved(z=height * (0.35 + 0.2 * k)), pane))
    arch: Solid = block((0, -0.07, 0), (1, 0.07, 0.15)) | cylinder(0.07, 1).turned("y", math.pi / 2).moved(0, 0, 0.15)
    steps.append(cut(arch - cylinder(radius - 0.04, 3), door))
    if chance(rng, 0.4):
        low, out = between(rng, 0.25, 0.5) * height, radius + between(rng, 0.12, 0.3)
        steps.append(add(block((-0.06, 0, 0), (0.06, out, low)), wall))
        steps.append(add(cylinder(0.11, low + 0.12).moved(0, out, 0), wall))
        steps.append(add(cylinder(0.14, 0.2, 0.02).moved(0, out, low + 0.11), tile))
    return CsgModel(tuple(steps), mirror=True)


def composition(rng: Rng) -> CsgModel:
    """Random solids, added to and cut from each other, often with mirror or rotational symmetry."""
    size = between(rng, 0.25, 0.45)
    steps: list[CsgStep] = [add(_random_solid(rng, size), wild(rng))]
    symmetry = pick(rng, ["none", "mirror", "mirror", "around", "both"])
    for _ in range(int(rng.integers(2, 7))):
        part = _random_solid(rng, size * between(rng, 0.3, 0.8))
        if chance(rng, 0.75):
            part = part.turned("x", between(rng, -0.8, 0.8)).turned("z", between(rng, -0.8, 0.8))
        way = rng.normal(size=3)
        way *= size * between(rng, 0.5, 0.95) / np.linalg.norm(way)
        if symmetry in ("around", "both") and chance(rng, 0.7):
            count = int(rng.integers(2, 7))
            x, _, z = _surface_point(CsgModel(tuple(steps)), np.array((2 * math.hypot(way[0], way[1]), 0, way[2])))
            part = (part & Ball(max(x, 0.5 * size) * math.sin(math.pi / count) + 0.05)).moved(x, 0, z).around(count)
        else:
            part = part.moved(*_surface_point(CsgModel(tuple(steps)), way * 2))
        if chance(rng, 0.3):
            steps.append(cut(part, wild(rng) if chance(rng, 0.6) else None))
        else:
            steps.append(add(part, wild(rng) if chance(rng, 0.7) else plain(rng)))
    if chance(rng, 0.3):
        steps.append(cut(HalfSpace((0.0, 0.0, 1.0), -between(rng, 0.3, 0.8) * size)))
    return CsgModel(tuple(steps), mirror=symmetry in ("mirror", "both"))


def _surface_point(model: CsgModel, way: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3"]:
    """The outermost point of a model on the section from the origin along ``way``, or the nearest to it."""
    at = np.linspace(0, 1, 40)[:, None] * way
    distance = model.distance(np.ascontiguousarray(at.T, np.float32), near=1.0)
    inside = np.nonzero(distance < 0)[0]
    return at[inside[-1] if len(inside) else int(distance.argmin())]


def _random_solid(rng: Rng, size: Real) -> Solid:
    """Any primitive of about a size."""
    kind = pick(rng, ["quadric", "quadric", "box", "lathe", "prism", "torus", "tube", "cone"])
    a, b, c = (size * between(rng, 0.4, 1.0) for _ in range(3))
    if kind == "quadric":
        return Superquadric((a, b, c), between(rng, 0.15, 2.0), between(rng, 0.15, 2.0))
    if kind == "box":
        return Box((a, b, c), between(rng, 0.0, 0.4) * min(a, b, c))
    if kind == "lathe":
        line = smooth_profile([(size * between(rng, 0.2, 1.0), size * (k / 2 - 1)) for k in range(5)])
        return Lathe(((0, -size), *line, (0, size)))
    if kind == "prism":
        return Extrusion(
            regular(int(rng.integers(3, 8)), a), c, pick(rng, ["xy", "xz", "yz"]), between(rng, 0.0, 0.3) * c
        )
    if kind == "torus":
        return Torus(0.75 * size, between(rng, 0.15, 0.25) * size + 0.02).turned(
            pick(rng, ["x", "y"]), pick(rng, [0.0, math.pi / 2])
        )
    if kind == "tube":
        path = np.cumsum(rng.normal(0, 0.45 * size, (4, 3)), axis=0)
        return curved(path - path.mean(axis=0), [between(rng, 0.12, 0.35) * size + 0.02 for _ in range(3)], 9)
    return cylinder(a, 1.5 * c, between(rng, 0.0, 0.8) * a).moved(z=-0.75 * c)


def blob(rng: Rng) -> CsgModel:
    """A pebble, fruit, gem or dumbbell: one superquadric or a few run into each other."""
    skin = mostly(rng, pick(rng, [plain, stone, lacquer])(rng))
    count = int(rng.integers(1, 5))
    parts: list[Solid] = []
    for _ in range(count):
        half = rng.uniform(0.16, 0.42, 3)
        e1, e2 = np.clip(np.exp(rng.uniform(-1.9, 0.6, 2)), 0.12, 1.9)
        way = rng.uniform(-0.25, 0.25, 3) if count > 1 else np.zeros(3)
        parts.append(Superquadric((float(half[0]), float(half[1]), float(half[2])), float(e1), float(e2)).moved(*way))
    solid = parts[0] if count == 1 else Blend(tuple(parts), between(rng, 0.05, 0.25))
    steps = [add(solid, skin)]
    for _ in range(int(rng.integers(0, 4))):
        spot = rng.uniform(-0.35, 0.35, 3)
        steps.append(paint(Ball(between(rng, 0.08, 0.25)).moved(*spot), Material(contrast(rng, skin.colour))))
    if chance(rng, 0.3):
        steps.append(paint(HalfSpace((0.0, 0.0, 1.0), between(rng, -0.1, 0.1)), Material(vivid(rng))))
    return CsgModel(tuple(steps))
