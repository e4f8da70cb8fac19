"""Materials as real things have them: wood, cloth, glaze, paint, metal and more, over the whole circle of hues."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np

from pipeline.training.procedural.csg import Material
from pipeline.training.procedural.solids import Real
from pipeline.training.procedural.textures import Colour, Pattern, Rng, random_axes, random_pattern

Kind = Literal["stripes", "checks", "gradient", "noise", "spots"]
T = TypeVar("T")

_AXES: dict[Literal["x", "y", "z"], tuple[Colour, Colour, Colour]] = {
    "x": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "y": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)),
    "z": ((0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
}


def pick(rng: Rng, options: Sequence[T]) -> T:
    """One of some options."""
    return options[int(rng.integers(len(options)))]


def chance(rng: Rng, share: Real) -> bool:
    """True so often."""
    return bool(rng.random() < share)


def between(rng: Rng, low: Real, high: Real) -> float:
    """A number in a range."""
    return float(rng.uniform(low, high))


# --- colours -----------------------------------------------------------------------------------------------------


def hsv(hue: Real, saturation: Real, value: Real) -> Colour:
    """The sRGB colour of a hue in turns (0 red, 1/3 green), a saturation and a value, all in [0, 1]."""
    channels = (float(np.clip(abs(6 * ((hue + shift) % 1.0) - 3) - 1, 0, 1)) for shift in (0.0, 2 / 3, 1 / 3))
    red, green, blue = (value * (1 - saturation * (1 - c)) for c in channels)
    return red, green, blue


def vivid(rng: Rng) -> Colour:
    """A saturated colour of any hue."""
    return hsv(rng.random(), between(rng, 0.6, 1.0), between(rng, 0.55, 1.0))


def muted(rng: Rng) -> Colour:
    """A greyish colour of any hue."""
    return hsv(rng.random(), between(rng, 0.12, 0.5), between(rng, 0.3, 0.95))


def neutral(rng: Rng) -> Colour:
    """White, grey, black or beige."""
    return hsv(between(rng, 0.05, 0.15), between(rng, 0.0, 0.2), float(pick(rng, [0.1, 0.2, 0.4, 0.65, 0.85, 0.97])))


def any_colour(rng: Rng) -> Colour:
    """A vivid, muted or neutral colour."""
    return pick(rng, [vivid, vivid, muted, neutral])(rng)


def shade(colour: Colour, factor: Real) -> Colour:
    """A lighter (above 1, towards white) or darker colour."""
    if factor <= 1:
        return colour[0] * factor, colour[1] * factor, colour[2] * factor
    red, green, blue = (1 - (1 - c) / factor for c in colour)
    return red, green, blue


def contrast(rng: Rng, colour: Colour) -> Colour:
    """A colour that is seen on another: of another brightness, hue or both."""
    bright = sum(colour) / 3
    if chance(rng, 0.4):
        return hsv(rng.random(), between(rng, 0.0, 0.25), 0.12 if bright > 0.5 else 0.95)
    if chance(rng, 0.4):
        return shade(colour, 0.55 if bright > 0.4 else 2.2)
    return vivid(rng)


# --- patterns ----------------------------------------------------------------------------------------------------


def pattern(
    rng: Rng,
    kind: Kind,
    colour: Colour,
    frequency: Real,
    axis: Literal["x", "y", "z"] | None = None,
    strength: Real = 1.0,
) -> Pattern:
    """A pattern of random phase, along an axis or in a random direction."""
    a, b, c = (float(v) for v in rng.uniform(0, 2 * math.pi, 3))
    return Pattern(kind, colour, frequency, random_axes(rng) if axis is None else _AXES[axis], (a, b, c), strength)


def decorated(rng: Rng, colour: Colour, kinds: Sequence[Kind], frequency: tuple[Real, Real]) -> Material:
    """A colour under a pattern of another colour."""
    axis: Literal["x", "y", "z"] | None = pick(rng, ["x", "y", "z", "z", None])
    kind, often = pick(rng, kinds), between(rng, *frequency)
    return Material(colour, (pattern(rng, kind, contrast(rng, colour), often, axis, between(rng, 0.6, 1.0)),))


def wild(rng: Rng) -> Material:
    """Any colours and patterns: what a thing is made of must not follow from its shape alone."""
    return Material(any_colour(rng), tuple(random_pattern(rng) for _ in range(int(rng.integers(0, 3)))))


# --- materials ---------------------------------------------------------------------------------------------------


def wood(rng: Rng) -> Material:
    """Wood with grain, sometimes painted."""
    if chance(rng, 0.25):
        return plain(rng)
    colour = hsv(between(rng, 0.04, 0.115), between(rng, 0.35, 0.8), between(rng, 0.25, 0.9))
    axis: Literal["x", "y", "z"] = pick(rng, ["x", "y", "z"])
    grain = pattern(rng, "stripes", shade(colour, 0.75), between(rng, 8, 20), axis, between(rng, 0.2, 0.7))
    blotches = pattern(rng, "noise", shade(colour, 0.6), between(rng, 1.5, 4), None, between(rng, 0.2, 0.6))
    return Material(colour, pick(rng, [(), (blotches,), (grain,), (grain, blotches)]))


def cloth(rng: Rng) -> Material:
    """Plain, striped, checked or dotted cloth."""
    colour = any_colour(rng)
    if chance(rng, 0.45):
        return Material(colour)
    return decorated(rng, colour, ["stripes", "stripes", "checks", "spots", "noise"], (3, 11))


def glaze(rng: Rng) -> Material:
    """Ceramics: plain, banded, dotted, or running from one colour into another."""
    colour = pick(rng, [vivid, muted, neutral, neutral])(rng)
    if chance(rng, 0.45):
        return Material(colour)
    kind: Kind = pick(rng, ["stripes", "gradient", "spots", "noise", "checks"])
    axis: Literal["x", "y", "z"] = "z" if chance(rng, 0.7) else "x"
    return Material(colour, (pattern(rng, kind, contrast(rng, colour), between(rng, 2, 8), axis),))


def plain(rng: Rng) -> Material:
    """Paint or plastic of one colour."""
    return Material(any_colour(rng))


def lacquer(rng: Rng) -> Material:
    """The paint of vehicles and machines: vivid, white, silver or dark; rarely two colours."""
    colour = vivid(rng) if chance(rng, 0.6) else hsv(rng.random(), between(rng, 0, 0.25), between(rng, 0.15, 1.0))
    if chance(rng, 0.75):
        return Material(colour)
    return decorated(rng, colour, ["stripes", "gradient", "noise"], (1, 4))


def metal(rng: Rng) -> Material:
    """Steel, iron, brass or copper."""
    hue, saturation = pick(rng, [(0.6, 0.05), (0.6, 0.1), (0.12, 0.55), (0.06, 0.5), (0.1, 0.0)])
    return Material(hsv(hue, saturation, between(rng, 0.2, 0.85)))


def dark(rng: Rng) -> Material:
    """Rubber, iron or leather: nearly black."""
    return Material(hsv(rng.random(), between(rng, 0, 0.3), between(rng, 0.06, 0.2)))


def glass(rng: Rng) -> Material:
    """Window panes: dark or sky blue."""
    return Material(hsv(between(rng, 0.5, 0.65), between(rng, 0.1, 0.5), float(pick(rng, [0.15, 0.3, 0.75, 0.9]))))


def leaf(rng: Rng) -> Material:
    """Foliage: greens of all kinds, autumn now and then."""
    hue = between(rng, 0.2, 0.42) if chance(rng, 0.8) else between(rng, -0.03, 0.14)
    colour = hsv(hue % 1.0, between(rng, 0.35, 0.9), between(rng, 0.25, 0.8))
    patterns = (pattern(rng, "noise", shade(colour, 0.55), between(rng, 2, 6), None, between(rng, 0.3, 0.9)),)
    return Material(colour, patterns if chance(rng, 0.6) else ())


def bark(rng: Rng) -> Material:
    """Trunks and stems: brown, grey or birch."""
    colour = hsv(between(rng, 0.04, 0.12), between(rng, 0.1, 0.6), between(rng, 0.2, 0.9))
    rough = pattern(rng, "noise", shade(colour, 0.5), between(rng, 4, 9), None, between(rng, 0.3, 0.8))
    return Material(colour, (rough,) if chance(rng, 0.6) else ())


def skin(rng: Rng) -> Material:
    """Human skin."""
    return Material(hsv(between(rng, 0.04, 0.09), between(rng, 0.25, 0.6), between(rng, 0.3, 1.0)))


def fur(rng: Rng) -> Material:
    """Coats of animals: browns and greys, patched, striped or dotted, now and then of any colour."""
    colour = hsv(between(rng, 0.03, 0.13), between(rng, 0.0, 0.75), between(rng, 0.12, 0.97))
    if chance(rng, 0.15):
        colour = any_colour(rng)
    if chance(rng, 0.45):
        return Material(colour)
    kind: Kind = pick(rng, ["noise", "noise", "stripes", "spots", "gradient"])
    return Material(colour, (pattern(rng, kind, contrast(rng, colour), between(rng, 1.5, 6), None),))


def stone(rng: Rng) -> Material:
    """Plaster, brick or stone."""
    colour = pick(
        rng,
        [
            hsv(between(rng, 0.0, 0.12), between(rng, 0.05, 0.35), between(rng, 0.6, 1.0)),
            hsv(between(rng, 0.0, 0.06), between(rng, 0.45, 0.7), between(rng, 0.4, 0.75)),
            muted(rng),
        ],
    )
    if chance(rng, 0.5):
        return Material(colour)
    kind: Kind = pick(rng, ["checks", "stripes", "noise"])
    return Material(colour, (pattern(rng, kind, shade(colour, 0.75), between(rng, 4, 9), "z", between(rng, 0.3, 1)),))


def mostly(rng: Rng, material: Material) -> Material:
    """The material, now and then another one that nobody would expect."""
    other = wild(rng)
    return other if chance(rng, 0.15) else material
