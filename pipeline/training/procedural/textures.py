"""Solid textures made from a seed: a second colour laid over the first, and changes of colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Rng = np.random.Generator
Colour = tuple[float, float, float]


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
