"""Simple objects: a few closed primitives each, side by side, that may overlap in space."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from pipeline.training.procedural.primitives import (
    assemble,
    box,
    cylinder,
    lathe,
    moved,
    rotation,
    superellipsoid,
    torus,
)
from pipeline.training.procedural.textures import Rng, random_colour, random_pattern
from scene.mesh import ColouredMesh, SolidTexture


def _blob(rng: Rng) -> ColouredMesh:
    e1, e2 = np.exp(rng.uniform(-1.6, 0.7, 2))
    return assemble([(superellipsoid(e1, e2, tuple(rng.uniform(0.25, 1, 3))), random_colour(rng))])


def _vessel(rng: Rng) -> ColouredMesh:
    heights = np.linspace(0, rng.uniform(0.7, 2.2), 9)
    radii = np.clip(0.5 + 0.25 * np.cumsum(rng.normal(size=9) * 0.5), 0.12, 0.9)
    wall = np.stack([radii, heights], 1)
    if rng.random() < 0.6:
        # Hollow: come back down inside, so that the vessel has a wall.
        inside = np.stack([np.maximum(radii - 0.07, 0.04), np.maximum(heights, 0.08)], 1)[::-1]
        profile = np.concatenate([[[0, 0]], wall, inside, [[0, 0.08]]])
    else:
        profile = np.concatenate([[[0, 0]], wall, [[0, heights[-1]]]])
    parts = [(lathe(profile), random_colour(rng))]
    if rng.random() < 0.5:
        size = rng.uniform(0.2, 0.35)
        parts.append(
            (
                moved(torus(size, 0.06), (float(radii[4]), 0.0, float(heights[4])), rotation("x", math.pi / 2)),
                random_colour(rng),
            )
        )
    return assemble(parts)


def _stack(rng: Rng) -> ColouredMesh:
    parts, level = [], 0.0
    for _ in range(rng.integers(1, 5)):
        size = tuple(rng.uniform(0.15, 0.6, 3))
        e = float(np.exp(rng.uniform(-2.5, 0)))
        part = box(size) if rng.random() < 0.5 else superellipsoid(e, e, size)
        offset = (*rng.uniform(-0.15, 0.15, 2), level + size[2])
        parts.append((moved(part, offset, rotation("z", rng.uniform(-0.4, 0.4))), random_colour(rng)))
        level += 2 * size[2]
    return assemble(parts)


def _furniture(rng: Rng) -> ColouredMesh:
    wood, cloth = random_colour(rng), random_colour(rng)
    wide, deep, height, thick = (
        rng.uniform(0.3, 0.8),
        rng.uniform(0.3, 0.6),
        rng.uniform(0.3, 0.7),
        rng.uniform(0.03, 0.1),
    )
    leg = rng.uniform(0.03, 0.07)
    parts = [(moved(box((wide, deep, thick)), (0.0, 0.0, height)), cloth)]
    for sx in (-1, 1):
        for sy in (-1, 1):
            part = box((leg, leg, height / 2)) if rng.random() < 0.5 else cylinder(leg, height)
            parts.append((moved(part, (sx * (wide - leg), sy * (deep - leg), height / 2)), wood))
    if rng.random() < 0.6:
        back = rng.uniform(0.25, 0.6)
        parts.append((moved(box((thick, deep, back)), (thick - wide, 0.0, height + back)), cloth))
        if rng.random() < 0.4:
            for sy in (-1, 1):
                parts.append((moved(box((wide, thick, back / 3)), (0.0, sy * deep, height + back / 3)), wood))
    return assemble(parts)


def _lamp(rng: Rng) -> ColouredMesh:
    height = rng.uniform(0.8, 1.8)
    low, top = rng.uniform(0.3, 0.55), rng.uniform(0.12, 0.35)
    return assemble(
        [
            (cylinder(rng.uniform(0.2, 0.4), 0.08), random_colour(rng)),
            (moved(cylinder(0.045, height), (0.0, 0.0, height / 2)), random_colour(rng)),
            (moved(cylinder(low, 0.5, top), (0.0, 0.0, height)), random_colour(rng)),
        ]
    )


def _creature(rng: Rng) -> ColouredMesh:
    skin, belly = random_colour(rng), random_colour(rng)
    length, girth = rng.uniform(0.35, 0.7), rng.uniform(0.2, 0.4)
    head, leg = rng.uniform(0.16, 0.32), rng.uniform(0.2, 0.45)
    parts = [
        (moved(superellipsoid(1.0, 1.0, (length, girth, girth)), (0.0, 0.0, leg + girth * 0.6)), skin),
        (
            moved(
                superellipsoid(1.0, 1.0, (head * rng.uniform(0.9, 1.3), head, head)),
                (length, 0.0, leg + girth + head * 0.6),
            ),
            belly if rng.random() < 0.4 else skin,
        ),
    ]
    for sy in (-1, 1):
        for x in (-0.6, 0.6):
            parts.append((moved(cylinder(0.08, leg * 1.3), (x * length, sy * girth * 0.55, leg * 0.6)), skin))
        parts.append(
            (
                moved(
                    superellipsoid(1.0, 1.0, (0.06, 0.03, head * 0.8)),
                    (length, sy * head * 0.6, leg + girth + head * 1.4),
                ),
                belly,
            )
        )
        parts.append(
            (
                moved(
                    superellipsoid(1.0, 1.0, (0.04, 0.04, 0.04)),
                    (length + head * 0.9, sy * head * 0.4, leg + girth + head * 0.75),
                ),
                (0.05, 0.05, 0.05),
            )
        )
    parts.append((moved(superellipsoid(1.0, 1.0, (0.25, 0.05, 0.05)), (-length - 0.1, 0.0, leg + girth)), belly))
    return assemble(parts)


def _vehicle(rng: Rng) -> ColouredMesh:
    paint, glass, tyre = random_colour(rng), random_colour(rng), (0.08, 0.08, 0.09)
    length, width, height = rng.uniform(0.7, 1.0), rng.uniform(0.3, 0.45), rng.uniform(0.12, 0.25)
    wheel = rng.uniform(0.14, 0.24)
    e = float(np.exp(rng.uniform(-2.2, -0.8)))
    cabin = (length * rng.uniform(0.3, 0.6), width * 0.9, rng.uniform(0.12, 0.3))
    parts = [
        (moved(superellipsoid(e, e, (length, width, height)), (0.0, 0.0, wheel + height)), paint),
        (
            moved(
                superellipsoid(e, e, cabin), (rng.uniform(-0.3, 0.2) * length, 0.0, wheel + 2 * height + cabin[2] * 0.7)
            ),
            glass,
        ),
    ]
    for sx in (-1, 1):
        for sy in (-1, 1):
            parts.append(
                (
                    moved(cylinder(wheel, 0.14), (sx * length * 0.62, sy * width, wheel), rotation("x", math.pi / 2)),
                    tyre,
                )
            )
    return assemble(parts)


def _plant(rng: Rng) -> ColouredMesh:
    trunk = rng.uniform(0.3, 1.0)
    parts = [(moved(cylinder(rng.uniform(0.06, 0.14), trunk), (0.0, 0.0, trunk / 2)), random_colour(rng))]
    leaf = random_colour(rng)
    for _ in range(rng.integers(1, 6)):
        size = rng.uniform(0.2, 0.45)
        part = (
            cylinder(size, size * 2, 0.0) if rng.random() < 0.3 else superellipsoid(1.0, 1.0, (size, size, size * 0.9))
        )
        parts.append((moved(part, (*rng.uniform(-0.3, 0.3, 2), trunk + rng.uniform(0, 0.5))), leaf))
    if rng.random() < 0.5:
        parts.append((cylinder(rng.uniform(0.2, 0.35), 0.4, rng.uniform(0.25, 0.45)), random_colour(rng)))
    return assemble(parts)


def _ring(rng: Rng) -> ColouredMesh:
    major = rng.uniform(0.4, 0.8)
    part = torus(major, rng.uniform(0.08, 0.38) * major, 32, 16)
    return assemble([(moved(part, (0.0, 0.0, 0.0), rotation("x", rng.choice([0.0, math.pi / 2]))), random_colour(rng))])


FAMILIES: dict[str, Callable[[Rng], ColouredMesh]] = {
    "blob": _blob,
    "vessel": _vessel,
    "stack": _stack,
    "furniture": _furniture,
    "lamp": _lamp,
    "creature": _creature,
    "vehicle": _vehicle,
    "plant": _plant,
    "ring": _ring,
}


def random_object(seed: int, family: str | None = None) -> ColouredMesh:
    """A random object of the simple families, the same for the same seed.

    The families of :func:`pipeline.training.procedural.generate` are not among them: whoever wants those asks for them.

    Args:
        seed: any non-negative integer.
        family: a key of :data:`FAMILIES`; by default the seed chooses.

    Returns:
        A normalised mesh (bounding sphere 0.6, z up) with patterns laid over it two times out of three.
    """
    rng = np.random.default_rng(seed)
    name = sorted(FAMILIES)[rng.integers(len(FAMILIES))] if family is None else family
    mesh = FAMILIES[name](rng)
    patterns: list[SolidTexture] = [random_pattern(rng) for _ in range(int(rng.integers(0, 3)))]
    mesh = ColouredMesh(mesh.vertices, mesh.faces, mesh.vertex_colours, solid=tuple(patterns))
    return mesh.normalised()
