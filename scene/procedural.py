"""Objects made from a seed: closed primitives, things built of them, and solid patterns to colour them with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from scene.mesh import ColouredMesh, SolidTexture

Rng = np.random.Generator
Colour = tuple[float, float, float]


# --- solid textures ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern:
    """A second colour laid over the first where a periodic function of the position is high.

    Args:
        kind: the function.
        colour: sRGB in [0, 1].
        frequency: repeats per unit length; the objects of this module have sizes around 1.
        axes: three orthonormal rows, the frame of the pattern.
        phase: shifts the pattern along each axis (radians).
        strength: how far the second colour covers the first, in [0, 1].
    """

    kind: Literal["stripes", "checks", "gradient", "noise", "spots"]
    colour: Colour
    frequency: float
    axes: tuple[Colour, Colour, Colour]
    phase: Colour
    strength: float = 1.0

    def __call__(self, points: Float[np.ndarray, "n 3"], base: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Colours under the pattern."""
        local = (points @ np.asarray(self.axes).T).astype(np.float32)
        angle = 2 * math.pi * self.frequency * local + np.asarray(self.phase, np.float32)
        if self.kind == "stripes":
            cover = (np.sin(angle[:, 0]) > 0).astype(np.float32)
        elif self.kind == "checks":
            cover = (np.prod(np.sin(angle), axis=1) > 0).astype(np.float32)
        elif self.kind == "gradient":
            cover = 0.5 + 0.5 * np.sin(angle[:, 0] * 0.3)
        elif self.kind == "spots":
            cover = (np.cos(angle).sum(axis=1) > 1.2).astype(np.float32)
        else:
            # Domain-warped sines: smooth blotches without a lattice's look.
            warped = angle + 1.7 * np.sin(1.9 * angle[:, [1, 2, 0]] + 0.7)
            cover = np.clip(0.5 + 0.4 * np.sin(warped).sum(axis=1), 0, 1)
        cover = (cover * self.strength)[:, None]
        return base * (1 - cover) + np.asarray(self.colour, np.float32) * cover


@dataclass(frozen=True)
class Recolour:
    """An affine change of colour, clipped to [0, 1]."""

    matrix: tuple[Colour, Colour, Colour]
    offset: Colour = (0.0, 0.0, 0.0)

    def __call__(self, points: Float[np.ndarray, "n 3"], base: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """Changed colours; the position does not matter."""
        return np.clip(base @ np.asarray(self.matrix, np.float32).T + np.asarray(self.offset, np.float32), 0, 1)


def random_colour(rng: Rng) -> Colour:
    """A colour as things have them: often muted, sometimes vivid, grey, white or black."""
    kind = rng.random()
    if kind < 0.15:
        grey = float(rng.uniform(0.05, 1.0))
        return grey, grey, grey
    hue, saturation, value = rng.random(), rng.uniform(0.25, 1.0), rng.uniform(0.25, 1.0)
    channel = [(hue + shift) % 1.0 for shift in (0.0, 1 / 3, 2 / 3)]
    red, green, blue = (float(np.clip(abs(6 * c - 3) - 1, 0, 1)) for c in channel)
    return tuple(float(value * (1 - saturation * (1 - c))) for c in (red, green, blue))  # type: ignore[return-value]


def random_axes(rng: Rng) -> tuple[Colour, Colour, Colour]:
    """A random rotation as three rows; half of the time the coordinate axes: made things have aligned patterns."""
    if rng.random() < 0.5:
        rows = np.eye(3)[rng.permutation(3)]
    else:
        rows = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return tuple(tuple(float(x) for x in row) for row in rows)  # type: ignore[return-value]


def random_pattern(rng: Rng) -> Pattern:
    """A pattern with random kind, colour, scale and direction."""
    kinds: list[Literal["stripes", "checks", "gradient", "noise", "spots"]] = [
        "stripes",
        "checks",
        "gradient",
        "noise",
        "noise",
        "spots",
    ]
    a, b, c = (float(x) for x in rng.uniform(0, 2 * math.pi, 3))
    return Pattern(
        kinds[rng.integers(len(kinds))],
        random_colour(rng),
        float(rng.uniform(1.0, 5.0)),
        random_axes(rng),
        (a, b, c),
        float(rng.uniform(0.5, 1.0)),
    )


def random_recolour(rng: Rng) -> Recolour:
    """A hue rotation with changes of brightness and saturation."""
    angle = rng.uniform(0, 2 * math.pi)
    # Rotation about the grey axis keeps greys grey; the second term scales the distance from it.
    grey = np.full((3, 3), 1 / 3)
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    turn = grey + (np.eye(3) - grey) * math.cos(angle) + cross * math.sin(angle)
    turn = (grey + (np.eye(3) - grey) * rng.uniform(0.5, 1.2)) @ turn * rng.uniform(0.75, 1.1)
    return Recolour(tuple(tuple(float(x) for x in row) for row in turn))  # type: ignore[arg-type]


# --- primitives: closed, outward-facing, about the origin, z up ---------------------------------------------------

Part = tuple[Float[np.ndarray, "_ 3"], np.ndarray]


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Triangles of a grid of ``rows`` x ``columns`` vertices that closes on itself along the columns."""
    r, c = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = r * columns + c, r * columns + (c + 1) % columns
    d, e = a + columns, b + columns
    return np.concatenate([np.stack([a, b, e], -1).reshape(-1, 3), np.stack([a, e, d], -1).reshape(-1, 3)])


def lathe(profile: Float[np.ndarray, "p 2"], segments: int = 32) -> Part:
    """A solid of revolution about z from (radius, height) points, listed from the bottom pole to the top pole.

    The first and last point must lie on the axis (radius 0); all others off it.
    """
    angle = np.arange(segments) * 2 * math.pi / segments
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inner = profile[1:-1]
    body = np.concatenate(
        [inner[:, None, :1] * ring, np.broadcast_to(inner[:, None, 1:], (len(inner), segments, 1))], -1
    )
    vertices = np.concatenate([body.reshape(-1, 3), [[0, 0, profile[0, 1]], [0, 0, profile[-1, 1]]]])
    low, high = len(vertices) - 2, len(vertices) - 1
    k = np.arange(segments)
    after = (k + 1) % segments
    last = (len(inner) - 1) * segments
    caps = [
        np.stack([np.full(segments, low), after, k], 1),
        np.stack([np.full(segments, high), last + k, last + after], 1),
    ]
    return vertices, np.concatenate([_grid_faces(len(inner), segments), *caps])


def superellipsoid(e1: float, e2: float, size: Colour, rings: int = 16, segments: int = 32) -> Part:
    """A superellipsoid with half axes ``size``: exponents 1, 1 give an ellipsoid, small ones a box."""
    latitude = np.linspace(-math.pi / 2, math.pi / 2, rings + 1)[1:-1]
    angle = np.arange(segments) * 2 * math.pi / segments

    def power(x: np.ndarray, e: float) -> np.ndarray:
        return np.sign(x) * np.abs(x) ** e

    flat = power(np.cos(latitude), e1)[:, None]
    body = np.stack(
        [
            flat * power(np.cos(angle), e2),
            flat * power(np.sin(angle), e2),
            np.broadcast_to(power(np.sin(latitude), e1)[:, None], (len(latitude), segments)),
        ],
        -1,
    )
    vertices, faces = lathe(np.concatenate([[[0, -1]], np.stack([flat[:, 0], latitude], 1), [[0, 1]]]), segments)
    vertices = vertices.copy()
    vertices[:-2] = body.reshape(-1, 3)
    return vertices * np.asarray(size), faces


def box(size: Colour) -> Part:
    """A box with half sizes ``size``."""
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], float) * np.asarray(size)
    # fmt: off
    faces = np.array([[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
                      [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]])
    # fmt: on
    return corners, faces


def cylinder(radius: float, height: float, top: float | None = None, segments: int = 24) -> Part:
    """A cylinder or truncated cone about z, centred at its middle; ``top`` is the upper radius (0 makes a cone)."""
    upper = radius if top is None else top
    h = height / 2
    profile = [(0, -h), (radius, -h), (upper, h), (0, h)] if upper > 0 else [(0, -h), (radius, -h), (0, h)]
    return lathe(np.array(profile, float), segments)


def torus(major: float, minor: float, rings: int = 24, segments: int = 12) -> Part:
    """A torus about z."""
    a = np.arange(rings + 1) % rings * 2 * math.pi / rings
    b = np.arange(segments) * 2 * math.pi / segments
    flat = major + minor * np.cos(b)
    vertices = np.stack(
        [
            np.cos(a)[:-1, None] * flat,
            np.sin(a)[:-1, None] * flat,
            np.broadcast_to(minor * np.sin(b), (rings, segments)),
        ],
        -1,
    ).reshape(-1, 3)
    return vertices, (_grid_faces(rings + 1, segments) % (rings * segments))[:, ::-1]


def moved(part: Part, offset: Colour, turn: Float[np.ndarray, "3 3"] | None = None) -> Part:
    """A part rotated by ``turn`` and then shifted."""
    vertices = part[0] if turn is None else part[0] @ turn.T
    return vertices + np.asarray(offset), part[1]


def rotation(axis: Literal["x", "y", "z"], angle: float) -> Float[np.ndarray, "3 3"]:
    """Rotation matrix about a coordinate axis (radians)."""
    c, s = math.cos(angle), math.sin(angle)
    i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = np.eye(3)
    matrix[i, i], matrix[i, j], matrix[j, i], matrix[j, j] = c, -s, s, c
    return matrix


def assemble(parts: list[tuple[Part, Colour]]) -> ColouredMesh:
    """One mesh of coloured parts, side by side in memory (parts may overlap in space)."""
    vertices = np.concatenate([part[0] for part, _ in parts]).astype(np.float32)
    starts = np.cumsum([0] + [len(part[0]) for part, _ in parts[:-1]])
    faces = np.concatenate([part[1] + start for (part, _), start in zip(parts, starts, strict=True)]).astype(np.int32)
    colours = np.concatenate([np.broadcast_to(np.round(np.asarray(c) * 255), part[0].shape) for part, c in parts])
    return ColouredMesh(vertices, faces, vertex_colours=colours.astype(np.uint8))


# --- things ------------------------------------------------------------------------------------------------------


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
    """A random object, the same for the same seed.

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
