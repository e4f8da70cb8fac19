"""Hammers, axes, spanners and other tools, standing or lying."""

from __future__ import annotations

import math

from pipeline.training.procedural.csg import CsgModel, CsgStep, add, cut, paint
from pipeline.training.procedural.furniture import block
from pipeline.training.procedural.outlines import (
    Extrusion,
    Lathe,
    Outline,
    curved,
    cylinder,
    oval,
    regular,
    rod,
    smooth_profile,
)
from pipeline.training.procedural.palette import between, chance, dark, metal, mostly, pick, plain, wild, wood
from pipeline.training.procedural.solids import Ball, Box, Solid, Superquadric, Torus
from pipeline.training.procedural.textures import Rng


def hammer(rng: Rng) -> CsgModel:
    """A hammer, mallet, axe or pickaxe, standing on its head or lying."""
    shaft, head = mostly(rng, pick(rng, [wood, wood, plain])(rng)), mostly(rng, metal(rng))
    long, thick = between(rng, 0.55, 0.95), between(rng, 0.026, 0.045)
    flat = between(rng, 1.0, 1.5)
    bend = between(rng, -0.03, 0.03)
    handle = curved([(0, 0, 0), (bend, 0, 0.5 * long), (0, 0, long)], [1.25 * thick, 0.85 * thick, thick], 8).stretched(
        x=flat
    )
    steps: list[CsgStep] = [add(handle, shaft)]
    if chance(rng, 0.5):
        steps.append(paint(block((-1, -1, -1), (1, 1, between(rng, 0.25, 0.5) * long)), plain(rng)))
    kind = pick(rng, ["claw", "mallet", "axe", "pick", "ball"])
    z, size = long - 0.01, between(rng, 0.05, 0.08)
    if kind == "mallet":
        big = between(rng, 0.09, 0.15)
        block_head: Solid = cylinder(big, 3 * big, rounding=0.015).turned("y", math.pi / 2).moved(-1.5 * big, 0, z)
        if chance(rng, 0.5):
            block_head = block((-1.6 * big, -big, z - big), (1.6 * big, big, z + big), 0.02)
        steps.append(add(block_head, pick(rng, [wood, dark, plain, metal])(rng)))
    elif kind == "axe":
        blade: Outline = (
            (-0.06, z - 0.05),
            (0.05, z - 0.05),
            (0.22, z - between(rng, 0.12, 0.2)),
            (0.26, z),
            (0.22, z + 0.1),
            (0.05, z + 0.05),
            (-0.06, z + 0.05),
        )
        wedge = Extrusion(((-0.1, 0.045), (-0.1, -0.045), (0.3, -0.016), (0.3, 0.016)), 2, "xy")
        axe: Solid = Extrusion(blade, 1, "xz") & wedge
        steps.append(add(axe.mirrored("x") if chance(rng, 0.25) else axe, head))
    elif kind == "pick":
        tips = curved([(-0.34, 0, z - 0.1), (0, 0, z + 0.02), (0.34, 0, z - 0.1)], [0.02, 0.055, 0.02], 10)
        steps.append(add(tips, head))
    else:
        face = cylinder(size, 0.07, rounding=0.01).turned("y", math.pi / 2).moved(0.12, 0, z)
        neck = rod((-0.03, 0, z), (0.14, 0, z), 0.72 * size)
        steps += [add(Box((0.05, 1.05 * size, 0.8 * size), 0.01).moved(0, 0, z), head), add(neck | face, head)]
        if kind == "ball":
            steps.append(add(Ball(0.85 * size).moved(-0.12, 0, z) | rod((0, 0, z), (-0.12, 0, z), 0.6 * size), head))
        else:
            claw = curved(
                [(0, 0.35 * size, z), (-0.12, 0.45 * size, z + 0.02), (-0.24, 0.62 * size, z - 0.08)],
                [0.5 * size, 0.4 * size, 0.02],
                8,
            )
            steps.append(add(claw, head))
    return _laid(rng, steps)


def _laid(rng: Rng, steps: list[CsgStep]) -> CsgModel:
    """A tool with its handle along z, upside down, as it is, or lying along y."""
    way = pick(rng, ["up", "down", "lying"])

    def placed(solid: Solid) -> Solid:
        if way == "lying":
            return solid.mirrored("y").turned("y", math.pi / 2)
        return solid.mirrored("y").turned("y", math.pi if way == "down" else 0.0)

    return CsgModel(tuple(CsgStep(step.action, placed(step.solid), step.material) for step in steps))


def tool(rng: Rng) -> CsgModel:
    """A spanner, screwdriver, spade, brush, spoon, key or pair of tongs."""
    grip, steel = mostly(rng, pick(rng, [wood, plain, plain])(rng)), mostly(rng, metal(rng))
    kind = pick(rng, ["spanner", "screwdriver", "spade", "brush", "spoon", "key"])
    long, thick = between(rng, 0.5, 0.9), between(rng, 0.03, 0.05)
    steps: list[CsgStep]
    if kind == "spanner":
        jaw = between(rng, 0.1, 0.15)
        bar = block((-0.75 * thick, -0.028, 0), (0.75 * thick, 0.028, long), 0.01)
        mouth = Extrusion(oval(jaw, jaw), 0.034, "xz", 0.008).moved(z=long + 0.5 * jaw)
        slot = block((-0.42 * jaw, -1, long + 0.3 * jaw), (0.42 * jaw, 1, 3)).turned("y", 0.0)
        ring = Extrusion(oval(0.85 * jaw, 0.85 * jaw), 0.034, "xz", 0.008)
        hole = Extrusion(regular(6, 0.55 * jaw), 1, "xz")
        steps = [add(bar, steel), add(mouth, steel), add(ring, steel), cut(slot), cut(hole)]
    elif kind == "screwdriver":
        radius = between(rng, 0.06, 0.09)
        profile = smooth_profile(
            [(0.7 * radius, 0.0), (radius, 0.12), (0.8 * radius, 0.28), (0.95 * radius, 0.36), (0.5 * radius, 0.4)]
        )
        steps = [add(Lathe(((0, 0), *profile, (0, 0.4))), grip), add(cylinder(0.026, long).moved(z=0.38), steel)]
        groove = rod((radius + 0.012, 0, 0.03), (radius + 0.012, 0, 0.36), 0.03).around(int(rng.integers(4, 7)))
        steps.insert(1, cut(groove, plain(rng)))
        steps.append(add(block((-0.045, -0.018, long + 0.3), (0.045, 0.018, long + 0.42), 0.01), steel))
    elif kind == "spade":
        wide, deep = between(rng, 0.11, 0.18), between(rng, 0.2, 0.32)
        sheet: Outline = (
            (-wide, long),
            (wide, long),
            (0.95 * wide, long + 0.6 * deep),
            (0.0 if chance(rng, 0.6) else 0.7 * wide, long + deep),
            (-0.95 * wide, long + 0.6 * deep),
        )
        steps = [add(rod((0, 0, 0), (0, 0, long + 0.08), 0.8 * thick), grip), add(Extrusion(sheet, 0.022, "xz"), steel)]
        steps.append(add(rod((-0.1, 0, 0), (0.1, 0, 0), 0.9 * thick), grip))
    elif kind == "brush":
        wide, deep = between(rng, 0.1, 0.2), between(rng, 0.12, 0.25)
        steps = [add(curved([(0, 0, 0), (0, 0, 0.3 * long), (0, 0, 0.6 * long)], [0.03, 0.045, 0.03], 8), grip)]
        steps.append(add(block((-wide, -0.045, 0.6 * long), (wide, 0.045, 0.6 * long + 0.1), 0.01), steel))
        steps.append(
            add(block((-0.93 * wide, -0.035, 0.6 * long), (0.93 * wide, 0.035, 0.6 * long + 0.1 + deep)), wild(rng))
        )
    elif kind == "spoon":
        bowl = Superquadric((0.14, 0.06, 0.2)).moved(z=long + 0.12)
        steps = [add(rod((0, 0, 0), (0, 0, long), 0.04, 0.026), grip), add(bowl, steel if chance(rng, 0.5) else grip)]
        steps.append(
            cut(
                Superquadric((0.115, 0.06, 0.17)).moved(0, 0.05, long + 0.12)
                | Superquadric((0.115, 0.06, 0.17)).moved(0, 0.052, long + 0.12)
            )
        )
    else:
        radius = between(rng, 0.13, 0.2)
        steps = [
            add(rod((0, 0, 0), (0, 0, long), 0.035), steel),
            add(Torus(radius, 0.04).turned("x", math.pi / 2).moved(z=-radius), steel),
        ]
        for k in range(int(rng.integers(2, 4))):
            steps.append(
                add(
                    block((0, -0.028, long - 0.05 - 0.09 * k), (between(rng, 0.08, 0.15), 0.028, long - 0.09 * k)),
                    steel,
                )
            )
    return _laid(rng, steps)
