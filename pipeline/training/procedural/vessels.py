"""Mugs, bottles, vases, bowls and teapots: turned on a lathe and hollow. Handles are at -x, spouts at +x."""

from __future__ import annotations

import numpy as np

from pipeline.training.procedural.csg import CsgModel, CsgStep, Material, add, cut, paint
from pipeline.training.procedural.outlines import Lathe, Outline, curve, curved, cylinder, rod, smooth_profile
from pipeline.training.procedural.palette import (
    between,
    chance,
    contrast,
    decorated,
    glass,
    glaze,
    metal,
    mostly,
    pick,
    plain,
    vivid,
    wild,
    wood,
)
from pipeline.training.procedural.solids import Ball, Box, HalfSpace, Real, Solid, Superquadric, Torus, Tube
from pipeline.training.procedural.textures import Rng


def _solid(profile: Outline) -> Lathe:
    """What a profile of the wall encloses, closed by discs."""
    return Lathe(((0, profile[0][1]), *profile, (0, profile[-1][1])))


def _inside(profile: Outline, wall: Real, floor: Real, narrowest: Real = 0.02) -> Lathe:
    """The space within a wall of about even thickness, from the floor through the open top."""
    line = np.asarray(profile)
    at = np.linspace(0, len(line) - 1, 4 * len(line))
    r, z = (np.interp(at, np.arange(len(line)), line[:, k]) for k in range(2))
    # Steep slopes need a wider horizontal step for the same wall.
    slope = np.abs(np.gradient(r) / np.maximum(np.abs(np.gradient(z)), 1e-3))
    r = np.maximum(r - wall * np.sqrt(1 + np.minimum(slope, 2.0) ** 2), narrowest)
    keep = z > line[0, 1] + floor
    start = (float(np.interp(line[0, 1] + floor, z, r)), line[0, 1] + floor)
    inner = [start, *((float(a), float(b)) for a, b in zip(r[keep], z[keep], strict=True))]
    return Lathe(((0, start[1]), *inner, (inner[-1][0], inner[-1][1] + 0.3), (0, inner[-1][1] + 0.3)))


def _bands(rng: Rng, height: Real, base: Material) -> list[CsgStep]:
    """Painted rings, now and then."""
    if not chance(rng, 0.4):
        return []
    ink = (
        Material(contrast(rng, base.colour))
        if chance(rng, 0.7)
        else decorated(rng, vivid(rng), ["stripes", "checks", "spots"], (5, 12))
    )
    middles = rng.uniform(0.15, 0.9, int(rng.integers(1, 4))) * height
    return [paint(Box((2, 2, between(rng, 0.01, 0.12) * height)).moved(z=float(z)), ink) for z in middles]


def mug(rng: Rng) -> CsgModel:
    """A mug or cup with a handle: hollow, open above."""
    ceramic = mostly(rng, glaze(rng))
    radius, height = between(rng, 0.26, 0.42), between(rng, 0.5, 1.0)
    foot, waist = between(rng, 0.6, 1.05), between(rng, 0.85, 1.12)
    profile = smooth_profile(
        [
            (radius * foot, 0.0),
            (radius * waist * (0.4 + 0.6 * foot), 0.3 * height),
            (radius * waist, 0.65 * height),
            (radius, height),
        ]
    )
    if chance(rng, 0.4):
        profile = ((radius * min(foot + 0.2, 1.0), 0.0), (radius, height))
    wall = between(rng, 0.035, 0.05)
    reach, thick = between(rng, 0.14, 0.24), between(rng, 0.035, 0.05)
    high, low = between(rng, 0.72, 0.86) * height, between(rng, 0.18, 0.34) * height
    line = np.asarray(profile)

    def at(z: Real) -> float:
        return float(np.interp(z, line[:, 1], line[:, 0])) - 0.6 * wall

    out = max(at(high), at(low), at(0.5 * (high + low))) + wall + reach
    if chance(rng, 0.25):
        path = [(at(high), high), (out, high), (out, low), (at(low), low)]
        handle: Solid = Tube(tuple((-x, 0.0, z) for x, z in path), (thick,) * 4)
    else:
        drop = between(rng, 0.0, 0.12) * height
        path = [
            (at(high), high),
            (0.5 * (at(high) + out), high + 0.03),
            (out, high - 0.25 * (high - low) - drop),
            (0.8 * out + 0.2 * at(low), low + 0.05),
            (at(low), low),
        ]
        handle = curved([(-x, 0, z) for x, z in path], [thick], 12)
    if chance(rng, 0.5):
        handle = handle.stretched(y=between(rng, 1.0, 1.5))
    steps = [add(_solid(profile), ceramic), *_bands(rng, height, ceramic)]
    steps.append(add(handle, ceramic if chance(rng, 0.7) else wild(rng)))
    inner = ceramic if chance(rng, 0.5) else plain(rng)
    steps.append(cut(_inside(profile, wall, between(rng, 0.04, 0.08)), inner))
    return CsgModel(tuple(steps), mirror=True)


def bottle(rng: Rng) -> CsgModel:
    """A closed bottle, flask or jar with a cap and perhaps a label."""
    body = mostly(rng, pick(rng, [plain, glass, glaze])(rng))
    radius, neck = between(rng, 0.14, 0.3), between(rng, 0.05, 0.09)
    height, shoulder = between(rng, 0.7, 1.1), between(rng, 0.4, 0.8)
    if chance(rng, 0.2):
        neck = 0.8 * radius
    slope = between(rng, 0.1, 0.25)
    rise = min(shoulder + slope, 0.9)
    waist = between(rng, 0.75, 1.05) if chance(rng, 0.4) else 1.0
    points = [
        (radius * 0.93, 0.0),
        (radius, 0.06),
        (radius * waist, 0.5 * shoulder * height),
        (radius, shoulder * height),
        (neck + 0.3 * (radius - neck), 0.5 * (shoulder + rise) * height),
        (neck, rise * height),
        (neck, height),
    ]
    steps: list[CsgStep] = []
    if chance(rng, 0.3):
        # A flask or jerrycan: four sides instead of a circle.
        half = (radius, radius * between(rng, 0.5, 1.0), 0.5 * shoulder * height)
        steps.append(add(Box(half, 0.4 * min(half[1], half[2], 0.2)).moved(z=half[2]), body))
        steps.append(add(cylinder(0.8 * half[1], (rise - shoulder) * height, neck).moved(z=2 * half[2] - 0.005), body))
        steps.append(add(cylinder(neck, height - shoulder * height + 0.05).moved(z=shoulder * height - 0.05), body))
    else:
        steps.append(add(_solid(smooth_profile(points, 20)), body))
    if chance(rng, 0.65):
        label = (
            decorated(rng, vivid(rng), ["stripes", "checks", "spots", "noise"], (3, 9))
            if chance(rng, 0.6)
            else plain(rng)
        )
        low, high = sorted(rng.uniform(0.08, shoulder, 2))
        around = Box((2, 2, 0.5 * max(high - low, 0.15) * height)).moved(z=0.5 * (low + high) * height)
        front = around & HalfSpace((-1.0, 0.0, 0.0), -0.3 * radius)
        steps.append(paint(around if chance(rng, 0.6) else front, label))
    cap = between(rng, 0.07, 0.14)
    lid = plain(rng)
    if chance(rng, 0.2):
        steps.append(add(rod((0, 0, height - 0.02), (0, 0, height + 0.1), 0.026), lid))
        steps.append(add(rod((0, 0, height + 0.1), (0.12, 0, height + 0.1), 0.028), lid))
        steps.append(add(cylinder(neck + 0.015, cap).moved(z=height - cap), lid))
    elif chance(rng, 0.25):
        steps.append(add(Ball(1.3 * neck).moved(z=height + neck), pick(rng, [glass, wood, metal])(rng)))
    else:
        steps.append(
            add(cylinder(neck + between(rng, 0.012, 0.03), cap, rounding=0.01).moved(z=height - 0.4 * cap), lid)
        )
    if chance(rng, 0.15):
        grip = curved(
            [
                (-neck, 0, 0.93 * height),
                (-neck - 0.15, 0, 0.9 * height),
                (-radius - 0.1, 0, 0.55 * height),
                (-0.9 * radius, 0, 0.4 * height),
            ],
            [0.032],
            9,
        )
        steps.append(add(grip, body))
    return CsgModel(tuple(steps), mirror=True)


def vase(rng: Rng) -> CsgModel:
    """An open vase, urn, amphora or flowerless pot."""
    ceramic = mostly(rng, glaze(rng))
    height = between(rng, 0.6, 1.1)
    radii = np.clip(0.24 + np.cumsum(rng.normal(0, 0.11, 5)), 0.09, 0.42)
    profile = smooth_profile([(float(r), height * k / 4) for k, r in enumerate(radii)], 20)
    wall = between(rng, 0.035, 0.05)
    steps = [add(_solid(profile), ceramic)]
    if chance(rng, 0.35):
        # Ribs or facets: copies about the axis.
        count, swell = int(rng.integers(5, 12)), between(rng, 0.03, 0.06)
        rib = curved([(r - 0.2 * swell, 0, z) for r, z in profile[1:-2]], [swell], 10)
        steps.append(add(rib.around(count), ceramic if chance(rng, 0.6) else plain(rng)))
    steps += _bands(rng, height, ceramic)
    if chance(rng, 0.35):
        z, r = 0.6 * height, float(np.interp(0.6 * height, [p[1] for p in profile], [p[0] for p in profile]))
        top = float(profile[-3][0])
        ear = curved(
            [
                (r - 0.03, 0, z),
                (max(r, top) + 0.14, 0, z + 0.06),
                (max(r, top) + 0.12, 0, 0.88 * height),
                (top - 0.02, 0, 0.92 * height),
            ],
            [0.034],
            10,
        )
        steps.append(add(ear.mirrored("x"), ceramic if chance(rng, 0.5) else wild(rng)))
    steps.append(cut(_inside(profile, wall, 0.06, 0.04), ceramic if chance(rng, 0.6) else plain(rng)))
    return CsgModel(tuple(steps), mirror=True)


def bowl(rng: Rng) -> CsgModel:
    """A bowl, basin, basket with a handle, or cup on a stem."""
    ceramic = mostly(rng, glaze(rng))
    radius, height = between(rng, 0.35, 0.55), between(rng, 0.2, 0.45)
    foot, belly = between(rng, 0.35, 0.8), between(rng, 0.8, 1.08)
    profile = smooth_profile(
        [
            (radius * foot, 0.0),
            (radius * 0.5 * (foot + belly) + 0.05, 0.25 * height),
            (radius * belly, 0.6 * height),
            (radius, height),
        ],
        16,
    )
    steps: list[CsgStep] = []
    lift = 0.0
    if chance(rng, 0.4):
        lift = between(rng, 0.06, 0.45)
        stem = smooth_profile(
            [
                (radius * between(rng, 0.45, 0.7), 0.0),
                (0.06, 0.3 * lift),
                (0.06, 0.7 * lift),
                (radius * foot * 0.7, lift + 0.03),
            ]
        )
        steps.append(add(_solid(stem), ceramic))
    steps.append(add(_solid(profile).moved(z=lift), ceramic))
    steps += [paint(step.solid.moved(z=lift), step.material or ceramic) for step in _bands(rng, height, ceramic)]
    steps.append(cut(_inside(profile, 0.04, 0.05).moved(z=lift), ceramic if chance(rng, 0.4) else plain(rng)))
    # What lies in it reaches into the wall and not through it.
    room = _inside(profile, 0.02, 0.03)
    filling = pick(rng, ["none", "none", "handle", "balls", "level"])
    if filling == "handle":
        arch = curved(
            [
                (0, radius - 0.02, height - 0.04),
                (0, 0.8 * radius, height + 0.3),
                (0, 0.3 * radius, height + 0.45),
                (0, -0.1, height + 0.46),
            ],
            [0.034],
            12,
        )
        steps.append(add(arch.moved(z=lift), ceramic if chance(rng, 0.5) else wild(rng)))
    elif filling == "balls":
        for _ in range(int(rng.integers(4, 9))):
            size, away, angle = between(rng, 0.1, 0.15), between(rng, 0, 0.5) * radius, between(rng, 0, np.pi)
            fruit: Solid = Superquadric((size, size, size * between(rng, 0.8, 1.2)))
            fruit = fruit.moved(away * np.cos(angle), away * np.sin(angle), 0.05 + 0.62 * height) & room
            steps.append(add(fruit.moved(z=lift), plain(rng)))
        steps.append(add((cylinder(1.1 * radius, 0.55 * height) & room).moved(z=lift), plain(rng)))
    elif filling == "level":
        steps.append(add((cylinder(1.1 * radius, between(rng, 0.4, 0.85) * height) & room).moved(z=lift), wild(rng)))
    return CsgModel(tuple(steps), mirror=True)


def teapot(rng: Rng) -> CsgModel:
    """A teapot, kettle, jug or watering can: a hollow body with spout and handle."""
    ceramic = mostly(rng, pick(rng, [glaze, glaze, metal])(rng))
    radius, height = between(rng, 0.3, 0.42), between(rng, 0.4, 0.75)
    neck = between(rng, 0.45, 0.8)
    profile = smooth_profile(
        [
            (radius * between(rng, 0.6, 0.9), 0.0),
            (radius, 0.35 * height),
            (radius * between(rng, 0.85, 1.0), 0.65 * height),
            (radius * neck, height),
        ],
        16,
    )
    steps: list[CsgStep] = [add(_solid(profile), ceramic), *_bands(rng, height, ceramic)]
    reach, rise = radius + between(rng, 0.2, 0.4), between(rng, 0.85, 1.15) * height
    wide = between(rng, 0.06, 0.1)
    root, tip = (0.7 * radius, 0, between(rng, 0.25, 0.5) * height), (reach, 0, rise)
    bend = (0.5 * (root[0] + tip[0]) + 0.08, 0, root[2] + between(rng, 0.2, 0.5) * (rise - root[2]))
    steps.append(add(curved([root, bend, tip], [1.3 * wide, wide, 0.06], 9), ceramic))
    grip = ceramic if chance(rng, 0.5) else pick(rng, [wood, metal, plain])(rng)
    thick = between(rng, 0.035, 0.05)
    if chance(rng, 0.3):
        arch = [
            (-0.85 * radius, 0, 0.75 * height),
            (-0.8 * radius, 0, height + 0.25),
            (0, 0, height + 0.42),
            (0.8 * radius, 0, height + 0.25),
            (0.8 * radius, 0, 0.72 * height),
        ]
    else:
        out = radius + between(rng, 0.18, 0.3)
        arch = [
            (-0.8 * radius * max(neck, 0.75), 0, 0.85 * height),
            (-out, 0, 0.9 * height),
            (-out, 0, 0.4 * height),
            (-0.9 * radius, 0, 0.25 * height),
        ]
    steps.append(add(curved(arch, [thick], 14), grip))
    if chance(rng, 0.75):
        lid = Superquadric((radius * neck * 0.95, radius * neck * 0.95, between(rng, 0.06, 0.16))).moved(z=height)
        steps.append(add(lid, ceramic if chance(rng, 0.6) else plain(rng)))
        top = lid.bounds[1][2]
        knob = Ball(0.05) if chance(rng, 0.6) else Torus(0.05, 0.026).turned("x", np.pi / 2)
        steps.append(add(knob.moved(z=top + 0.03), grip))
        steps.append(cut(rod(np.add(tip, (-0.03, 0, -0.06)), np.add(tip, (0.08, 0, 0.12)), 0.034), plain(rng)))
    else:
        steps.append(cut(_inside(profile, 0.042, 0.06), plain(rng)))
    return CsgModel(tuple(steps), mirror=True)


def barrel(rng: Rng) -> CsgModel:
    """A barrel, bucket, drum or bin, with hoops and perhaps an arched handle."""
    body = mostly(rng, pick(rng, [wood, plain, metal])(rng))
    radius, height = between(rng, 0.25, 0.4), between(rng, 0.5, 0.9)
    belly, top = between(rng, 0.95, 1.25), between(rng, 0.85, 1.25)
    line = curve(
        np.array([(radius, 0.0), (radius * 0.5 * (1 + top) * belly, 0.5 * height), (radius * top, height)]), 10
    )
    profile = tuple((float(r), float(z)) for r, z in line)
    steps: list[CsgStep] = [add(_solid(profile), body)]
    hoop = pick(rng, [metal, plain, metal])(rng)
    for share in pick(rng, [(), (0.15, 0.85), (0.08, 0.35, 0.65, 0.92), (0.5,)]):
        r = float(np.interp(share * height, line[:, 1], line[:, 0]))
        steps.append(add(cylinder(r + 0.018, 0.06, rounding=0.008).moved(z=share * height - 0.03), hoop))
    if chance(rng, 0.6):
        steps.append(cut(_inside(profile, 0.04, 0.06 if chance(rng, 0.7) else 0.85 * height), plain(rng)))
        if chance(rng, 0.6):
            r = radius * top - 0.02
            arch = [(0, r, height - 0.06), (0, r, height + 0.15), (0, 0.5 * r, height + 0.36), (0, -0.1, height + 0.41)]
            steps.append(add(curved(arch, [0.026], 12), hoop))
    else:
        steps.append(cut(cylinder(radius * top - 0.05, 1).moved(z=height - 0.04), plain(rng)))
    return CsgModel(tuple(steps), mirror=True)
