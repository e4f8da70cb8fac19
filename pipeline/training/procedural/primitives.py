"""Triangle meshes of primitives: closed, outward-facing, about the origin, z up."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from jaxtyping import Float

from pipeline.training.procedural.textures import Colour
from scene.mesh import ColouredMesh

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
