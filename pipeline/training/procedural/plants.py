"""Plants in pots, and trees."""

from __future__ import annotations

import math

import numpy as np

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, add, cut, paint
from pipeline.training.procedural.furniture import block
from pipeline.training.procedural.outlines import Lathe, curved, cylinder, rod
from pipeline.training.procedural.palette import bark, between, chance, glaze, leaf, mostly, pick, plain, vivid
from pipeline.training.procedural.solids import Ball, Blend, Real, Solid, Superquadric
from pipeline.training.procedural.textures import Rng


def _blade(length: Real, wide: Real, rise: Real, droop: Real) -> Solid:
    """A pointed leaf that leaves the axis towards +x, rises and droops."""
    path = [(0.01, 0, 0), (0.45 * length, 0, 0.75 * rise), (0.8 * length, 0, rise), (length, 0, rise - droop)]
    thin = 0.022
    ratio = wide / thin
    return curved(path, [0.5 * thin, thin, 0.95 * thin, 0.5 * thin], 8).stretched(y=ratio)


def _pot(rng: Rng, radius: Real, tall: Real) -> list[CsgStep]:
    """A pot with earth in it."""
    clay = mostly(rng, glaze(rng))
    low = between(rng, 0.6, 1.0) * radius
    body = Lathe(((0, 0), (low, 0), (radius, tall), (0, tall)))
    steps = [add(body, clay)]
    if chance(rng, 0.5):
        steps.append(add(cylinder(radius + 0.025, 0.25 * tall, rounding=0.01).moved(z=0.76 * tall), clay))
    steps.append(cut(cylinder(radius - 0.04, 1).moved(z=0.86 * tall), Material((0.2, 0.13, 0.09))))
    return steps


def plant(rng: Rng) -> CsgModel:
    """A plant in a pot: leaves, a bush, a cactus or flowers."""
    radius, tall = between(rng, 0.14, 0.24), between(rng, 0.16, 0.35)
    steps = _pot(rng, radius, tall)
    green, base = mostly(rng, leaf(rng)), 0.8 * tall
    kind = pick(rng, ["leaves", "leaves", "bush", "cactus", "flower", "fan"])
    if kind == "leaves":
        layers = int(rng.integers(2, 4))
        for k in range(layers):
            count = int(rng.integers(4, 8))
            length, rise = between(rng, 0.2, 0.45), between(rng, 0.1, 0.55) * (0.5 + k / layers)
            one = _blade(length, between(rng, 0.03, 0.07), rise, between(rng, 0.0, 0.25))
            ring = one.moved(z=base).around(count).turned("z", between(rng, 0, math.pi))
            steps.append(add(ring, green))
        steps.append(add(rod((0, 0, base - 0.05), (0, 0, base + 0.1), 0.05, 0.03), green))
    elif kind == "bush":
        stem = between(rng, 0.05, 0.35)
        steps.append(add(rod((0, 0, base - 0.05), (0, 0, base + stem), 0.035), bark(rng)))
        size = between(rng, 0.1, 0.2)
        balls: Solid = Ball(size * 1.2).moved(z=base + stem + 0.5 * size)
        for _ in range(int(rng.integers(5, 12))):
            way = rng.normal(size=3)
            way *= size * 1.15 / np.linalg.norm(way)
            balls = balls | Ball(size * between(rng, 0.45, 0.85)).moved(
                way[0], way[1], base + stem + size * 0.8 + abs(way[2])
            )
        steps.append(add(balls, green))
        if chance(rng, 0.4):
            berry = Material(vivid(rng))
            for _ in range(9):
                way = rng.normal(size=3)
                way *= size * between(rng, 1.25, 1.7) / np.linalg.norm(way)
                steps.append(paint(Ball(0.05).moved(way[0], way[1], base + stem + size * 0.8 + abs(way[2])), berry))
    elif kind == "cactus":
        steps += _cactus(rng, base, green)
    elif kind == "flower":
        for _ in range(int(rng.integers(1, 5))):
            angle, lean, high = between(rng, 0, 2 * math.pi), between(rng, 0.03, 0.3), base + between(rng, 0.3, 0.6)
            end = (lean * math.cos(angle), lean * math.sin(angle), high)
            steps.append(
                add(curved([(0, 0, base - 0.04), (0.3 * end[0], 0.3 * end[1], base + 0.2), end], [0.024], 6), green)
            )
            petals, size = int(rng.integers(5, 9)), between(rng, 0.07, 0.12)
            petal = (
                Superquadric((0.62 * size, 0.3 * size + 0.012, 0.022))
                .moved(0.75 * size, 0, 0)
                .turned("y", -between(rng, 0, 0.6))
            )
            colour = Material(vivid(rng))
            steps.append(add(petal.around(petals).turned("y", lean).turned("z", angle).moved(*end), colour))
            steps.append(add(Ball(0.4 * size).moved(*end), plain(rng)))
        steps.append(add(_blade(0.22, 0.045, 0.12, 0.05).moved(z=base).around(int(rng.integers(3, 6))), green))
    else:
        count = int(rng.integers(3, 7))
        for k in range(count):
            bend = (k / (count - 1) - 0.5) * between(rng, 0.7, 1.3)
            blade = _blade(between(rng, 0.35, 0.65), between(rng, 0.04, 0.07), 0.04, 0.0).turned(
                "y", -math.pi / 2 + 0.12
            )
            steps.append(add(blade.turned("x", bend).turned("z", between(rng, 0, math.pi)).moved(z=base - 0.02), green))
        steps.append(add(Ball(0.06).moved(z=base), green))
    return CsgModel(tuple(steps))


def _cactus(rng: Rng, base: Real, green: Material) -> list[CsgStep]:
    """A ribbed column or ball, perhaps with arms and a flower."""
    thick, high = between(rng, 0.08, 0.14), between(rng, 0.15, 0.55)
    body: Solid = rod((0, 0, base), (0, 0, base + high), thick, 0.85 * thick)
    rib = rod((thick, 0, base), (0.85 * thick, 0, base + high), 0.026)
    steps = [add(body, green), add(rib.around(int(rng.integers(6, 10))), green)]
    for side in (-1, 1):
        if high > 0.3 and chance(rng, 0.7):
            low, top = between(rng, 0.3, 0.5) * high, between(rng, 0.7, 1.1) * high
            out = thick + between(rng, 0.1, 0.17)
            arm = [(0, 0, base + low), (0, side * out, base + low + 0.03), (0, side * out, base + top)]
            steps.append(add(curved(arm, [0.5 * thick], 9), green))
    if chance(rng, 0.5):
        steps.append(add(Ball(0.06).moved(z=base + high + 0.85 * thick), Material(vivid(rng))))
    return steps


def tree(rng: Rng) -> CsgModel:
    """A broad-leaved tree, conifer, palm, poplar or a bare one."""
    wooden, green = bark(rng), mostly(rng, leaf(rng))
    trunk, thick = between(rng, 0.25, 0.6), between(rng, 0.04, 0.08)
    kind = pick(rng, ["round", "round", "conifer", "palm", "poplar", "bare"])
    steps: list[CsgStep] = []
    if kind == "conifer":
        low, tiers, radius = between(rng, 0.1, 0.3), int(rng.integers(1, 6)), between(rng, 0.25, 0.42)
        high = between(rng, 0.7, 1.1)
        steps.append(add(cylinder(thick, low + 0.3 * high), wooden))
        for k in range(tiers):
            wide, start = radius * (1 - 0.8 * k / tiers), low + high * k / (tiers + 0.6)
            tall = 1.5 * high / (tiers + 0.6) if tiers > 1 else high
            steps.append(add(Lathe(((0, start), (wide, start - 0.05), (0.02, start + tall), (0, start + tall))), green))
        return CsgModel(tuple(steps), mirror=True)
    lean = between(rng, -0.12, 0.12)
    top = (lean, between(rng, -0.1, 0.1), trunk)
    roots = rod((0, 0, 0), (0.09, 0, -0.02), 0.8 * thick, 0.02).around(int(rng.integers(3, 6)))
    steps.append(
        add(curved([(0, 0, 0), (0.2 * lean, 0, 0.5 * trunk), top], [1.25 * thick, thick, 0.8 * thick], 8), wooden)
    )
    steps.append(add(roots & block((-1, -1, -0.03), (1, 1, 1)), wooden))
    if kind == "palm":
        trunk += 0.3
        top = (lean * 2, 0.0, trunk)
        steps[0] = add(
            curved([(0, 0, 0), (0.3 * lean, 0, 0.5 * trunk), top], [1.1 * thick, 0.75 * thick, 0.7 * thick], 10), wooden
        )
        for k in range(2):
            frond = _blade(
                between(rng, 0.3, 0.45), 0.07, between(rng, 0.05, 0.25) * (k + 0.3), between(rng, 0.15, 0.35)
            )
            steps.append(add(frond.around(int(rng.integers(5, 8))).turned("z", between(rng, 0, 3)).moved(*top), green))
        steps.append(add(Ball(0.06).moved(*top), plain(rng) if chance(rng, 0.4) else wooden))
        return CsgModel(tuple(steps))
    if kind == "poplar":
        wide, high = between(rng, 0.15, 0.28), between(rng, 0.25, 0.42)
        crown = Superquadric((wide, wide, high), between(rng, 0.8, 1.3)).moved(*top).moved(z=0.85 * high)
        steps.append(add(crown, green))
        return CsgModel(tuple(steps))
    crown_size = between(rng, 0.15, 0.24)
    blobs: list[Solid] = [Ball(1.1 * crown_size).moved(top[0], top[1], trunk + 0.7 * crown_size)]
    for _ in range(int(rng.integers(4, 9))):
        angle, up = between(rng, 0, 2 * math.pi), between(rng, 0.15, 0.9)
        reach = between(rng, 0.15, 0.34)
        end = (top[0] + reach * math.cos(angle), top[1] + reach * math.sin(angle), trunk + up * 0.45)
        split = tuple(float(v) for v in np.array(top) * between(rng, 0.65, 0.98))
        steps.append(add(rod(split, end, 0.5 * thick, 0.022), wooden))
        if kind == "bare":
            for _ in range(2):
                twig = np.array(end) + rng.uniform((-0.14, -0.14, 0.04), (0.14, 0.14, 0.2))
                steps.append(add(rod(end, twig, 0.024, 0.018), wooden))
        blobs.append(Ball(crown_size * between(rng, 0.6, 1.0)).moved(*end))
    if kind == "round":
        steps.append(add(Blend(tuple(blobs), 0.08), green))
        if chance(rng, 0.3):
            fruit = Material(vivid(rng))
            for blob in blobs[1:]:
                low, high = np.asarray(blob.bounds)
                way = rng.normal(size=3)
                spot = (low + high) / 2 + way / np.linalg.norm(way) * (high[0] - low[0]) / 2
                steps.append(add(Ball(0.034).moved(*spot), fruit))
    return CsgModel(tuple(steps))
