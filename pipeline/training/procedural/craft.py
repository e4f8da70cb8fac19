"""Planes, boats and rockets. They head for +x and stand on z = 0."""

from __future__ import annotations

import math

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, add, cut, paint
from pipeline.training.procedural.furniture import block
from pipeline.training.procedural.outlines import Extrusion, Lathe, Outline, curved, cylinder, rod, smooth_profile
from pipeline.training.procedural.palette import (
    between,
    chance,
    cloth,
    dark,
    glass,
    lacquer,
    metal,
    mostly,
    pick,
    plain,
    vivid,
    wild,
    wood,
)
from pipeline.training.procedural.solids import Ball, Box, Superquadric, Union
from pipeline.training.procedural.textures import Rng


def plane(rng: Rng) -> CsgModel:
    """An airliner, propeller plane, jet or glider, on its belly or its wheels."""
    colour, wing_paint = mostly(rng, lacquer(rng)), lacquer(rng)
    wing_paint = colour if chance(rng, 0.5) else wing_paint
    half, fat = between(rng, 0.45, 0.6), between(rng, 0.06, 0.11)
    lift = fat + (0.1 if chance(rng, 0.5) else 0.0)
    body = curved(
        [
            (-half, 0, lift + 0.45 * fat),
            (-0.45 * half, 0, lift + 0.08 * fat),
            (0.2 * half, 0, lift),
            (0.7 * half, 0, lift),
            (half, 0, lift - 0.2 * fat),
        ],
        [0.3 * fat, 0.75 * fat, fat, fat, 0.95 * fat, between(rng, 0.2, 0.7) * fat],
        16,
    )
    steps: list[CsgStep] = [add(body, colour)]
    span, chord, sweep = between(rng, 0.4, 0.7), between(rng, 0.15, 0.3), between(rng, -0.02, 0.35)
    tip, root = between(rng, 0.3, 1.0) * chord, between(rng, -0.05, 0.25) * half
    level = lift + pick(rng, [-0.6, 0.0, 0.75]) * fat
    wing: Outline = (
        (root + 0.5 * chord, 0),
        (root + 0.5 * chord - sweep, span),
        (root + 0.5 * chord - sweep - tip, span),
        (root - 0.5 * chord, 0),
    )
    rise = between(rng, -0.05, 0.15)
    flat = Extrusion(wing, 0.02, "xy", 0.012)
    steps.append(add(flat.turned("x", rise).moved(z=level), wing_paint))
    if chance(rng, 0.15):
        steps.append(add(flat.moved(z=level + 0.2), wing_paint))
        for k in (0.4, 0.8):
            x = root - sweep * k
            steps.append(
                add(rod((x, k * span, level + rise * k * span), (x, k * span, level + 0.2), 0.018), metal(rng))
            )
    tall, back = between(rng, 0.13, 0.24), -half + 0.5 * fat
    fin: Outline = ((back + 0.16, lift), (back + 0.02, lift + tall), (back - 0.08, lift + tall), (back - 0.03, lift))
    livery = Material(vivid(rng))
    steps.append(add(Extrusion(fin, 0.02, "xz", 0.01), livery))
    small: Outline = ((back + 0.12, 0), (back + 0.02, 0.4 * span), (back - 0.06, 0.4 * span), (back - 0.02, 0))
    high = lift + (tall - 0.015 if chance(rng, 0.25) else 0.4 * fat)
    steps.append(add(Extrusion(small, 0.02, "xy", 0.01).moved(z=high), wing_paint))
    engine = pick(rng, ["nose", "under", "under", "tail", "none"])
    if engine == "nose":
        blade = Box((0.018, between(rng, 0.14, 0.22), 0.026), 0.01)
        blades = blade | Box((0.018, 0.026, blade.half[1]), 0.01) if chance(rng, 0.5) else blade
        steps += [
            add(blades.moved(half + 0.3 * fat, 0, lift - 0.2 * fat), dark(rng)),
            add(rod((half, 0, lift - 0.2 * fat), (half + 0.6 * fat, 0, lift - 0.2 * fat), 0.04, 0.02), metal(rng)),
        ]
    elif engine != "none":
        at = [0.35] if chance(rng, 0.6) else [0.3, 0.6]
        for k in at:
            x, where = (
                (root + 0.55 * chord - k * sweep, (k * span, level + math.sin(rise) * k * span - 0.05))
                if engine == "under"
                else (-0.55 * half, (fat + 0.02, lift + 0.4 * fat))
            )
            pod = cylinder(0.05, 0.2, rounding=0.015).turned("y", math.pi / 2).moved(x - 0.15, *where)
            mouth = cylinder(0.035, 0.1).turned("y", math.pi / 2).moved(x + 0.02, *where)
            steps += [add(pod, wing_paint if chance(rng, 0.5) else metal(rng)), cut(mouth, dark(rng))]
    pane = glass(rng)
    steps.append(paint(Superquadric((0.12 * half, 0.8 * fat, 0.5 * fat)).moved(0.9 * half, 0, lift + 0.55 * fat), pane))
    if chance(rng, 0.6):
        row = Union(
            tuple(
                Ball(0.016).moved(x * half, fat, lift + 0.25 * fat).stretched(1, 1, 1)
                for x in [-0.3 + 0.14 * k for k in range(8)]
            )
        )
        steps.append(paint(row, pane))
    elif chance(rng, 0.6):
        steps.append(add(Superquadric((0.16, 0.6 * fat, 0.7 * fat)).moved(0.35 * half, 0, lift + 0.75 * fat), pane))
    if chance(rng, 0.4):
        steps.insert(1, paint(block((-2, -0.5 * span, lift - 0.3 * fat), (2, 0.5 * span, lift + 0.1 * fat)), livery))
    if lift > fat:
        for x, side in ((0.6 * half, 0.0), (root - 0.1, 1.6 * fat)):
            steps.append(add(rod((x, side, 0.05), (x, 0.4 * side, lift), 0.02), metal(rng)))
            steps.append(add(cylinder(0.05, 0.05).turned("x", math.pi / 2).moved(x, side + 0.025, 0.05), dark(rng)))
    return CsgModel(tuple(steps), mirror=True)


def boat(rng: Rng) -> CsgModel:
    """A rowing, sailing, motor or container boat."""
    hull_paint, deck = mostly(rng, pick(rng, [lacquer, wood])(rng)), wood(rng)
    half, beam, deep = between(rng, 0.5, 0.65), between(rng, 0.13, 0.24), between(rng, 0.13, 0.24)
    stern = between(rng, 0.4, 0.95) * beam
    plan = [(-half, -stern), (-0.3 * half, -beam), (0.3 * half, -0.93 * beam), (0.75 * half, -0.5 * beam), (half, 0.0)]
    outline: Outline = (*plan, *((x, -y) for x, y in plan[-2::-1]))
    rise = between(rng, 0.0, 0.1)
    side: Outline = (
        (-half + 0.06, 0),
        (half - between(rng, 0.1, 0.3), 0),
        (half + 0.02, deep + rise),
        (0.2 * half, deep),
        (-half, deep + 0.3 * rise),
    )
    keel = between(rng, 0.25, 0.85) * beam
    section: Outline = ((-keel, 0), (keel, 0), (beam, 0.6 * deep), (beam, 1), (-beam, 1), (-beam, 0.6 * deep))
    hull = Extrusion(outline, 1, "xy") & Extrusion(side, 1, "xz") & Extrusion(section, 1, "yz")
    steps = [add(hull, hull_paint)]
    if chance(rng, 0.6):
        steps.append(paint(block((-1, -1, -1), (1, 1, between(rng, 0.25, 0.6) * deep)), plain(rng)))
    kind = pick(rng, ["row", "sail", "motor", "ship"])
    floor = deep - (0.07 if kind != "row" else 0.7 * deep)
    inset: Outline = tuple((0.93 * x - 0.015, 0.82 * y) for x, y in outline)
    steps.append(cut(Extrusion(inset, 1, "xy").moved(z=1 + floor), deck))
    if kind == "row":
        for x in (-0.55, -0.05, 0.4):
            steps.append(
                add(
                    block((x * half - 0.05, -0.84 * beam, deep - 0.075), (x * half + 0.05, 0.84 * beam, deep - 0.035))
                    & Extrusion(outline, 1, "xy"),
                    deck,
                )
            )
        if chance(rng, 0.6):
            steps.append(
                add(
                    rod((-0.05 * half, 0.5 * beam, deep - 0.02), (-0.35 * half, beam + 0.3, deep + 0.03), 0.02),
                    wood(rng),
                )
            )
    elif kind == "sail":
        mast, foot = between(rng, 0.7, 1.05), 0.1 * half
        steps.append(add(rod((foot, 0, floor - 0.01), (foot, 0, deep + mast), 0.022, 0.018), wood(rng)))
        canvas = cloth(rng)
        main: Outline = ((foot, deep + 0.1), (foot, deep + 0.97 * mast), (-0.85 * half, deep + 0.12))
        steps.append(add(Extrusion(main, 0.018, "xz"), canvas))
        steps.append(add(rod((foot, 0, deep + 0.1), (-0.87 * half, 0, deep + 0.11), 0.02), wood(rng)))
        if chance(rng, 0.7):
            jib: Outline = (
                (foot - 0.01, deep + 0.85 * mast),
                (foot - 0.01, deep + 0.13),
                (0.97 * half, deep + rise - 0.02),
            )
            steps.append(add(Extrusion(jib, 0.018, "xz"), canvas if chance(rng, 0.6) else cloth(rng)))
        if chance(rng, 0.5):
            steps.append(
                add(
                    block((-0.5 * half, -0.5 * beam, floor - 0.01), (0.3 * half, 0.5 * beam, deep + 0.06), 0.02),
                    plain(rng),
                )
            )
    else:
        pane, upper, level = glass(rng), plain(rng), floor - 0.01
        start, end = sorted((between(rng, -0.85, -0.4), between(rng, -0.1, 0.45)))
        for tier in range(int(rng.integers(1, 4))):
            tall = between(rng, 0.09, 0.15)
            wide = 0.68 * beam * 0.85**tier
            steps.append(
                add(block((start * half, -wide, level), (end * half, wide, level + tall + 0.02), 0.008), upper)
            )
            steps.append(
                paint(
                    block((start * half + 0.03, -1, level + 0.5 * tall), (1, 1, level + 0.85 * tall))
                    & block((-1, -1.02 * wide, 0), (end * half + 0.01, 1.02 * wide, 2)),
                    pane,
                )
            )
            level += tall
            start, end = start * 0.85, end - 0.12 * (end - start) - 0.03
        if chance(rng, 0.7):
            x = 0.5 * (start + end) * half
            steps.append(add(cylinder(0.05, between(rng, 0.15, 0.3)).moved(x - 0.05, 0, level), wild(rng)))
        if kind == "ship":
            for x in (0.5, 0.68):
                steps.append(add(Box((0.075 * half, 0.4 * beam, 0.1)).moved(x * half, 0, floor + 0.08), plain(rng)))
    return CsgModel(tuple(steps), mirror=True)


def rocket(rng: Rng) -> CsgModel:
    """A rocket standing on its fins, or a toy spaceship."""
    colour, accent = mostly(rng, lacquer(rng)), plain(rng)
    radius, height = between(rng, 0.12, 0.22), between(rng, 0.8, 1.2)
    waist = between(rng, 0.6, 1.0)
    profile = smooth_profile(
        [
            (radius * waist, 0.08),
            (radius, 0.4 * height),
            (0.85 * radius, 0.7 * height),
            (0.35 * radius, 0.93 * height),
            (0.02, height),
        ],
        20,
    )
    steps: list[CsgStep] = [add(Lathe(((0, 0.08), *profile, (0, height))), colour)]
    steps.append(paint(block((-1, -1, between(rng, 0.7, 0.85) * height), (1, 1, 2)), accent))
    if chance(rng, 0.5):
        steps.append(paint(block((-1, -1, 0.3 * height), (1, 1, between(rng, 0.35, 0.5) * height)), plain(rng)))
    reach = radius + between(rng, 0.12, 0.25)
    fin: Outline = (
        (0.5 * radius, 0.16),
        (reach, 0.0),
        (reach, between(rng, 0.05, 0.25)),
        (0.7 * radius, between(rng, 0.3, 0.55) * height),
    )
    steps.append(add(Extrusion(fin, 0.022, "xz").around(int(rng.integers(3, 6))), accent))
    steps.append(add(cylinder(0.8 * radius * waist, 0.1, 0.5 * radius).moved(z=0.01), dark(rng)))
    count = int(rng.integers(0, 4))
    for k in range(count):
        z = (0.65 - 0.17 * k) * height
        steps.append(add(cylinder(0.4 * radius, radius + 0.025).turned("y", math.pi / 2).moved(0, 0, z), metal(rng)))
        steps.append(paint(cylinder(0.3 * radius, 1).turned("y", math.pi / 2).moved(0, 0, z), glass(rng)))
    if chance(rng, 0.3):
        steps.append(
            add(
                Superquadric((0.5 * radius, 0.5 * radius, 0.3 * height))
                .moved(radius + 0.03, 0, 0.4 * height)
                .around(2),
                wild(rng),
            )
        )
    return CsgModel(tuple(steps), mirror=True)
