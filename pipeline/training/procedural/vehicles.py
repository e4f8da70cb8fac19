"""Cars, trucks and buses. They head for +x and stand on z = 0."""

from __future__ import annotations

import math

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, add, cut, paint
from pipeline.training.procedural.furniture import block
from pipeline.training.procedural.outlines import Extrusion, Outline, cylinder, rod
from pipeline.training.procedural.palette import (
    between,
    chance,
    cloth,
    contrast,
    dark,
    glass,
    lacquer,
    metal,
    mostly,
    pick,
    plain,
    wild,
)
from pipeline.training.procedural.solids import Ball, Box, HalfSpace, Real, Solid, Superquadric
from pipeline.training.procedural.textures import Rng


def _wheel(
    rng: Rng, x: Real, y: Real, radius: Real, wide: Real, tyre: Material, hub: Material, ceiling: Real = 1.0
) -> list[CsgStep]:
    """A wheel on z = 0 at the side of positive y: a well cut below ``ceiling``, a tyre, a hub."""
    well: Solid = cylinder(1.3 * radius, 2 * wide).turned("x", -math.pi / 2).moved(x, y - 1.2 * wide, radius)
    well = well & HalfSpace((0.0, 0.0, 1.0), ceiling)
    disc = cylinder(radius, wide, rounding=0.15 * wide).turned("x", -math.pi / 2).moved(x, y - wide, radius)
    axle = rod((x, y - 2 * wide, radius), (x, y - 0.5 * wide, radius), 0.4 * radius)
    cap = cylinder(between(rng, 0.4, 0.7) * radius, 0.05).turned("x", -math.pi / 2).moved(x, y - 0.035, radius)
    return [cut(well, tyre), add(axle, tyre), add(disc, tyre), add(cap, hub)]


def car(rng: Rng) -> CsgModel:
    """A car: sedan, hatchback, estate, van, pickup or open sports car."""
    colour, pane, tyre, hub = mostly(rng, lacquer(rng)), glass(rng), dark(rng), metal(rng)
    kind = pick(rng, ["sedan", "hatch", "van", "pickup", "sports", "bubble"])
    half = between(rng, 0.48, 0.58)
    y, radius = between(rng, 0.2, 0.25), between(rng, 0.085, 0.12)
    ground = 0.75 * radius
    belt = ground + between(rng, 0.16, 0.23)
    if kind == "sports":
        belt -= 0.04
    roof = belt + {"sedan": 0.15, "hatch": 0.17, "van": 0.24, "pickup": 0.17, "sports": 0.11, "bubble": 0.22}[
        kind
    ] * between(rng, 0.9, 1.15)
    # Corners of the glass house, front to back, as shares of half the length.
    a, b, c, d = {
        "sedan": (0.42, 0.15, -0.45, -0.7),
        "hatch": (0.45, 0.18, -0.8, -0.92),
        "van": (0.82, 0.55, -0.93, -0.95),
        "pickup": (0.42, 0.2, -0.15, -0.2),
        "sports": (0.25, 0.0, -0.3, -0.7),
        "bubble": (0.7, 0.3, -0.4, -0.8),
    }[kind]
    shift = between(rng, -0.06, 0.06)
    house: Outline = tuple(
        (half * (s + shift), z) for s, z in ((a, belt - 0.02), (b, roof), (c, roof), (d, belt - 0.02))
    )
    nose, tail = belt - between(rng, 0.0, 0.07), belt - between(rng, 0.0, 0.03)
    body: Outline = (
        (-half, ground),
        (half, ground),
        (half, nose - 0.03),
        (half * (a + shift), belt),
        (half * (d + shift), belt),
        (-half, tail),
    )
    soft = between(rng, 0.015, 0.05)
    inner: Outline = tuple((u - soft * (1 if u > 0 else -1), v + (soft if v == ground else -soft)) for u, v in body)
    steps = [add(Extrusion(inner, y, "xz", soft), colour)]
    top = colour if chance(rng, 0.75) else plain(rng)
    cabin_half = y - between(rng, 0.015, 0.05)
    if kind == "sports" and chance(rng, 0.5):
        steps.append(cut(block((-0.45 * half, -0.75 * y, belt - 0.1), (0.15 * half, 0.75 * y, 1)), plain(rng)))
        steps.append(
            add(block((-0.42 * half, 0.15 * y, belt - 0.12), (-0.25 * half, 0.65 * y, belt + 0.06), 0.02), cloth(rng))
        )
        screen: Outline = (
            (0.2 * half, belt - 0.02),
            (0.28 * half, belt - 0.02),
            (0.16 * half, roof),
            (0.1 * half, roof),
        )
        steps.append(add(Extrusion(screen, 0.85 * y, "xz"), pane))
    else:
        rounded: Outline = tuple(
            (u - 0.02 * (1 if k < 2 else -1), v - 0.02 * (1 if k in (1, 2) else 0)) for k, (u, v) in enumerate(house)
        )
        steps.append(add(Extrusion(rounded, cabin_half, "xz", 0.02), top))
        steps += _windows(house, belt, roof, cabin_half, pane, split=kind in ("sedan", "hatch", "van", "bubble"))
    if kind == "pickup":
        steps.append(
            cut(block((-0.93 * half, -0.8 * y, belt - 0.1), ((c + shift) * half - 0.03, 0.8 * y, 1)), dark(rng))
        )
    if chance(rng, 0.3):
        stripe = Material(contrast(rng, colour.colour))
        low = ground + between(rng, 0.04, 0.1)
        steps.append(
            paint(
                block((-1, -1, low), (1, 1, low + between(rng, 0.02, 0.06)))
                if chance(rng, 0.5)
                else block((-1, -0.07, ground), (1, 0.07, 1)),
                stripe,
            )
        )
        steps += _windows(house, belt, roof, cabin_half, pane, split=True) if kind != "sports" else []
    steps += [
        paint(Ball(0.045).moved(half, 0.7 * y, 0.5 * (ground + nose)), Material((0.98, 0.95, 0.8))),
        paint(Box((0.03, 0.05, 0.03)).moved(-half, 0.75 * y, 0.6 * (ground + tail)), Material((0.8, 0.05, 0.05))),
        paint(Box((0.02, 0.4 * y, 0.03)).moved(half, 0, ground + 0.05), dark(rng)),
    ]
    base = between(rng, 0.56, 0.66) * half
    wide = between(rng, 0.06, 0.085)
    for x in (-base, base):
        steps += _wheel(rng, x, y + 0.005, radius, wide, tyre, hub, nose - 0.05)
    return CsgModel(tuple(steps), mirror=True)


def _windows(house: Outline, belt: Real, roof: Real, side: Real, pane: Material, *, split: bool) -> list[CsgStep]:
    """Panes painted on a glass house: at the sides, in front and behind."""
    (ax, _), (bx, _), (cx, _), (dx, _) = house
    low, high = belt + 0.015, roof - 0.035

    def across(z: Real, first: Real, second: Real) -> float:
        return first + (second - first) * (z - belt) / (roof - belt)

    pillar = 0.5 * (bx + cx)
    steps = []
    outline = (
        (across(low, ax, bx) - 0.045, low),
        (across(high, ax, bx) - 0.04, high),
        (across(high, dx, cx) + 0.04, high),
        (across(low, dx, cx) + 0.045, low),
    )
    glazed: Solid = Extrusion(outline, 1.0, "xz") - block((-2, -0.9 * side, -1), (2, 0.9 * side, 2))
    if split:
        glazed = glazed - block((pillar - 0.013, -1, 0), (pillar + 0.013, 1, 2))
    steps.append(paint(glazed, pane))
    for first, second, sign in ((ax, bx, 1.0), (dx, cx, -1.0)):
        band = tuple(
            (across(z, first, second) + sign * w, z)
            for z, w in ((low, -0.03), (low, 0.08), (high, 0.08), (high, -0.03))
        )
        steps.append(paint(Extrusion(band, 0.82 * side, "xz"), pane))
    return steps


def truck(rng: Rng) -> CsgModel:
    """A truck, bus or tractor."""
    colour, pane, tyre, hub = mostly(rng, lacquer(rng)), glass(rng), dark(rng), metal(rng)
    y, radius, half = between(rng, 0.15, 0.2), between(rng, 0.075, 0.1), between(rng, 0.48, 0.62)
    bed = 1.6 * radius
    kind = pick(rng, ["box", "tank", "dump", "logs", "bus"])
    axles = [0.68 * half, -0.62 * half]
    if kind == "bus":
        tall = between(rng, 0.28, 0.45)
        steps = [add(block((-half, -y, 0.8 * radius), (half, y, bed + tall), between(rng, 0.015, 0.05)), colour)]
        rows = pick(rng, [1, 1, 2])
        for row in range(rows):
            z = bed + tall * ((row + 0.62) / rows - 0.05)
            size, count = 0.13 * tall + 0.02, int(rng.integers(4, 8))
            for k in range(count):
                x = half * (-0.85 + 1.7 * (k + 0.5) / count)
                steps.append(paint(Box((0.72 * half / count, 0.02, size)).moved(x, y, z), pane))
            steps.append(paint(Box((0.02, 0.85 * y, size)).moved(half, 0, z), pane))
        if chance(rng, 0.5):
            steps.append(paint(block((-1, -1, 0), (1, 1, bed + 0.1 * tall)), plain(rng)))
    else:
        cab, front = between(rng, 0.24, 0.34), half - between(rng, 0.2, 0.28)
        top = bed + cab
        nose = chance(rng, 0.4)
        slope = half - (0.14 if nose else between(rng, 0.0, 0.05))
        shape: Outline = (
            (front, 0.8 * radius),
            (half, 0.8 * radius),
            (half, bed + 0.45 * cab),
            (slope, bed + 0.5 * cab),
            (slope - 0.03, top),
            (front, top),
        )
        steps = [add(Extrusion(shape, y, "xz"), colour)]
        window: Outline = (
            (front + 0.05, bed + 0.5 * cab),
            (slope - 0.035, bed + 0.5 * cab),
            (slope - 0.045, top - 0.05),
            (front + 0.05, top - 0.05),
        )
        steps.append(paint(Extrusion(window, 1, "xz") - block((-2, -0.9 * y, 0), (2, 0.9 * y, 2)), pane))
        steps.append(
            paint(block((slope - 0.06, -0.85 * y, bed + 0.54 * cab), (slope + 0.02, 0.85 * y, top - 0.03)), pane)
        )
        steps.append(paint(block((half - 0.02, -0.6 * y, radius), (half + 0.02, 0.6 * y, bed + 0.2 * cab)), dark(rng)))
        steps.append(add(block((-half, -0.7 * y, bed - 0.07), (front + 0.02, 0.7 * y, bed)), dark(rng)))
        cargo = wild(rng) if chance(rng, 0.4) else lacquer(rng)
        end = front - 0.04
        if kind == "box":
            steps.append(
                add(
                    block((-half, -1.05 * y, bed - 0.01), (end, 1.05 * y, bed + between(rng, 0.9, 1.5) * cab), 0.01),
                    cargo,
                )
            )
        elif kind == "tank":
            size = between(rng, 0.85, 1.0) * y
            tank = cylinder(size, end + half, rounding=0.4 * size).turned("y", math.pi / 2)
            steps.append(add(tank.moved(-half, 0, bed + 0.93 * size), cargo))
        elif kind == "dump":
            tub: Outline = ((-half + 0.05, bed - 0.01), (end, bed - 0.01), (end, top), (-half - 0.04, top - 0.05))
            hole: Outline = (
                (-half + 0.09, bed + 0.04),
                (end - 0.04, bed + 0.04),
                (end - 0.04, top + 0.1),
                (-half + 0.01, top + 0.1),
            )
            steps += [add(Extrusion(tub, 1.05 * y, "xz"), cargo), cut(Extrusion(hole, 0.8 * y, "xz"), dark(rng))]
            if chance(rng, 0.6):
                load = Superquadric((0.4 * (end + half), 0.8 * y, 0.5 * cab)).moved(
                    0.5 * (end - half), 0, bed + 0.5 * cab
                )
                steps.append(add(load, wild(rng)))
        else:
            for share, lift in ((1.0, 0.055), (0.0, 0.15)):
                beam: Solid = rod(
                    (-half - 0.02, 0.5 * y * share + 0.02, bed + lift),
                    (end, 0.5 * y * share + 0.02, bed + lift),
                    0.3 * y + 0.02,
                )
                steps.append(add(beam, cargo))
            steps.append(add(block((end - 0.03, -y, bed - 0.02), (end, y, bed + 0.25)), dark(rng)))
        axles = [half - 0.13, *([-0.35 * half, -0.72 * half] if chance(rng, 0.5) else [-0.62 * half])]
    for x in axles:
        steps += _wheel(rng, x, y + 0.01, radius, between(rng, 0.06, 0.08), tyre, hub)
    return CsgModel(tuple(steps), mirror=True)
