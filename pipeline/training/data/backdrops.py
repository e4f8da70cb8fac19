"""Painted surroundings for composed photos: textures, studio sweeps, rooms, greenery, lights out of focus, clutter.

All pictures are sRGB in [0, 1], square, and follow from the generator alone. They are made of small random arrays that
OpenCV enlarges, so that one costs a millisecond or two at 128 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from pipeline.training.data.objects import ObjectPool
from pipeline.training.procedural import Rng

Picture = Float[np.ndarray, "s s 3"]
Field = Float[np.ndarray, "s s"]
Paint = Callable[[Rng, int], Picture]


def random_tint(rng: Rng, saturation: float = 0.5) -> Float[np.ndarray, "3"]:
    """A colour as surroundings have them: mostly greyish, any brightness."""
    hue, grey = float(rng.uniform(0, 6)), float(rng.beta(1.3, 1.1))
    strength = float(rng.beta(1, 3)) * saturation * 2
    wheel = np.clip(np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return np.clip(grey * (1 - strength) + strength * wheel * (0.4 + 0.6 * grey), 0, 1).astype(np.float32)


def noise(rng: Rng, size: int, cells: float, stretch: float = 1.0) -> Field:
    """Smooth noise in about [-1, 1] with ``cells`` bumps along the height and ``cells / stretch`` along the width."""
    rows, columns = max(2, round(cells)) + 1, max(2, round(cells / stretch)) + 1
    small = rng.uniform(-1, 1, (min(rows, size), min(columns, size))).astype(np.float32)
    return cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)


def fractal(rng: Rng, size: int, first: float = 2.0, fall: float = 0.55, stretch: float = 1.0) -> Field:
    """Noise of octaves, each twice as fine and ``fall`` times as strong."""
    total, strength, cells = np.zeros((size, size), np.float32), 1.0, first
    while cells < size:
        total += strength * noise(rng, size, cells, stretch)
        strength, cells = strength * fall, cells * 2
    return total / (float(np.abs(total).max()) + 1e-6)


def ramp(field: Field, colours: Sequence[np.ndarray]) -> Picture:
    """Colours along a field of [-1, 1]."""
    place = np.clip((field + 1) / 2, 0, 1)
    stops = np.linspace(0, 1, len(colours))
    table = np.stack(colours)
    return np.stack([np.interp(place, stops, table[:, k]) for k in range(3)], axis=-1).astype(np.float32)


def _near(rng: Rng, colour: np.ndarray, spread: float) -> np.ndarray:
    light = float(rng.normal(0, spread))
    return np.clip(colour + light + rng.normal(0, spread / 3, 3), 0, 1).astype(np.float32)


def _shades(rng: Rng, spread: float, count: int = 3) -> list[np.ndarray]:
    base = random_tint(rng)
    return [_near(rng, base, spread) for _ in range(count)]


def flat(rng: Rng, size: int) -> Picture:
    """One colour."""
    colour = random_tint(rng) if rng.random() < 0.6 else np.full(3, rng.uniform(0.75, 1.0), np.float32)
    return np.broadcast_to(colour, (size, size, 3)).astype(np.float32)


def stone(rng: Rng, size: int) -> Picture:
    """Concrete, plaster, marble, carpet: noise of many scales."""
    field = fractal(rng, size, float(rng.uniform(2, 12)), float(rng.uniform(0.4, 0.95)))
    return ramp(field, _shades(rng, float(rng.uniform(0.03, 0.2))))


def wood(rng: Rng, size: int) -> Picture:
    """Grain along one axis, often in planks."""
    field = fractal(rng, size, float(rng.uniform(8, 40)), 0.7, stretch=float(rng.uniform(8, 25)))
    warp = noise(rng, size, 3.0)
    rows = np.arange(size, dtype=np.float32)[:, None]
    rings = np.sin(rows / size * rng.uniform(20, 90) + 4 * warp)
    base = np.array([rng.uniform(0.3, 0.85), 0, 0], np.float32)
    base[1] = base[0] * rng.uniform(0.6, 0.85)
    base[2] = base[1] * rng.uniform(0.45, 0.85)
    contrast = float(rng.uniform(0.05, 0.2))
    picture = ramp(0.6 * field + 0.4 * rings, [base - contrast, base, base + contrast])
    if rng.random() < 0.6:
        planks = int(rng.integers(2, 9))
        index = np.minimum((np.arange(size) * planks) // size, planks - 1)
        picture = picture * (1 + rng.normal(0, 0.08, planks)[index])[:, None, None]
        picture[np.diff(index, prepend=0) > 0] *= rng.uniform(0.4, 0.8)
    return np.clip(_turned(rng, picture.astype(np.float32)), 0, 1)


def cloth(rng: Rng, size: int) -> Picture:
    """A weave with folds, sometimes chequered."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    threads = float(rng.uniform(20, 60))
    weave = np.sin(x * threads * 6.28) * np.sin(y * threads * 6.28) * rng.uniform(0, 0.6)
    folds = fractal(rng, size, float(rng.uniform(1, 4)), 0.4, stretch=float(rng.uniform(0.3, 3)))
    picture = ramp(np.clip(folds * 0.8 + weave, -1, 1), _shades(rng, float(rng.uniform(0.04, 0.15))))
    if rng.random() < 0.3:
        count = float(rng.uniform(3, 12))
        check = ((np.sin(x * count * 6.28) > 0).astype(np.float32) + (np.sin(y * count * 6.28) > 0)) / 2
        picture = picture * (1 - check[..., None] * rng.uniform(0.1, 0.6)) + check[..., None] * 0.1 * random_tint(rng)
    return np.clip(picture, 0, 1)


def tiles(rng: Rng, size: int) -> Picture:
    """A grid of tiles with joints, each a little different."""
    count = int(rng.integers(3, 14))
    shades = np.stack([_shades(rng, 0.05, 1)[0] + rng.normal(0, 0.04, 3) * (k > 0) for k in range(4)])
    picture = shades[rng.integers(0, 4 if rng.random() < 0.5 else 2, (count, count))].astype(np.float32)
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_NEAREST)
    place = np.arange(size) * count / size
    joint = (np.abs(place - np.round(place)) * size / count) < rng.uniform(0.4, 1.5)
    picture[joint] = picture[:, joint] = random_tint(rng)
    return np.clip(_turned(rng, picture) * (1 + 0.1 * fractal(rng, size)[..., None]), 0, 1)


def greenery(rng: Rng, size: int) -> Picture:
    """Grass, leaves, gravel, sand: fine noise, in blades or in grains."""
    base = np.array([rng.uniform(0.1, 0.6), rng.uniform(0.25, 0.7), rng.uniform(0.02, 0.3)], np.float32)
    if rng.random() < 0.4:
        base = random_tint(rng)
    fine = fractal(rng, size, float(rng.uniform(8, 32)), float(rng.uniform(0.8, 1.1)), float(rng.uniform(0.25, 1.2)))
    broad = fractal(rng, size, 2.0, 0.5)
    return ramp(np.clip(fine + 0.5 * broad, -1, 1), [base * 0.25, base * 0.8, np.clip(base * 1.5 + 0.05, 0, 1)])


def lights(rng: Rng, size: int) -> Picture:
    """Discs of lights out of focus over a dim gradient."""
    picture = ramp(fractal(rng, size, 1.5, 0.4), _shades(rng, 0.12)) * rng.uniform(0.4, 1)
    picture = np.ascontiguousarray(picture, np.float32)
    for _ in range(int(rng.integers(5, 30))):
        disc = np.zeros((size, size), np.float32)
        x, y = (int(v) for v in rng.integers(0, size, 2))
        cv2.circle(disc, (x, y), int(rng.uniform(0.015, 0.09) * size) + 1, 1.0, -1, cv2.LINE_AA)
        picture += disc[..., None] * (random_tint(rng, 0.9) * rng.uniform(0.1, 0.6))
    return np.clip(cv2.GaussianBlur(picture, (0, 0), max(0.4, size / 160)), 0, 1)


def blocks(rng: Rng, size: int) -> Picture:
    """Rooms out of focus: furniture, frames, windows and shelves as blurred boxes and discs."""
    picture = np.ascontiguousarray(ramp(fractal(rng, size, 2.0, 0.4), _shades(rng, 0.1)))
    for _ in range(int(rng.integers(4, 22))):
        x, y = rng.uniform(-0.2, 1, 2) * size
        w, h = rng.uniform(0.05, 0.6, 2) * size
        colour = tuple(float(c) for c in random_tint(rng, 0.8))
        corners = cv2.boxPoints(((x + w / 2, y + h / 2), (w, h), float(rng.normal(0, 6))))
        if rng.random() < 0.75:
            cv2.fillPoly(picture, [np.round(corners).astype(np.int32)], colour, cv2.LINE_AA)
        else:
            cv2.ellipse(picture, (int(x), int(y)), (int(w / 2), int(h / 2)), 0, 0, 360, colour, -1, cv2.LINE_AA)
    picture *= 1 + 0.15 * fractal(rng, size)[..., None]
    return np.clip(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 4)) * size / 128), 0, 1)


TEXTURES: tuple[Paint, ...] = (flat, stone, wood, cloth, tiles, greenery, lights, blocks)
"""What training photos are painted with."""


def cells(rng: Rng, size: int) -> Picture:
    """Held out: pebbles, cobbles, cracked ground."""
    points = rng.uniform(0, size, (int(rng.integers(12, 150)), 2)).astype(np.float32)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32)
    far = np.hypot(x[..., None] - points[:, 0], y[..., None] - points[:, 1])
    near = np.partition(far, 1, axis=-1)[..., :2]
    gap = np.clip((near[..., 1] - near[..., 0]) / (0.04 * size), 0, 1)[..., None]
    base = random_tint(rng)
    shade = np.clip(base + rng.normal(0, 0.1, (len(points), 1)) + rng.normal(0, 0.03, (len(points), 3)), 0, 1)
    return (shade[far.argmin(axis=-1)] * (0.3 + 0.7 * gap)).astype(np.float32)


def stripes(rng: Rng, size: int) -> Picture:
    """Held out: wallpaper, blinds, corrugated sheet."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    angle = rng.uniform(0, 3.2)
    wave = np.sin(
        (x * np.cos(angle) + y * np.sin(angle)) * rng.uniform(20, 140) + rng.uniform(0, 3) * noise(rng, size, 2.0)
    )
    return ramp(np.tanh(wave * rng.uniform(0.5, 5)), _shades(rng, float(rng.uniform(0.05, 0.25)), 2))


def landscape(rng: Rng, size: int) -> Picture:
    """Held out: a sky with clouds above ragged hills."""
    blue = np.array([0.4, 0.6, 0.9], np.float32) * rng.uniform(0.6, 1.1)
    picture = ramp(
        fractal(rng, size, 2.0, 0.6, 0.5), [np.clip(blue, 0, 1), np.clip(blue + 0.2, 0, 1), np.ones(3, np.float32)]
    )
    rows = np.arange(size)[:, None]
    for k in range(int(rng.integers(2, 5))):
        edge = size * (0.3 + 0.15 * k) + fractal(rng, size, 2.0, 0.6)[0] * size * 0.12
        colour = random_tint(rng) * np.array([0.6, 0.9, 0.5], np.float32)
        land = ramp(fractal(rng, size, 10.0, 0.8), [colour * 0.6, colour, np.clip(colour * 1.3, 0, 1)])
        picture = np.where((rows > edge[None])[..., None], land, picture)
    return np.clip(picture, 0, 1).astype(np.float32)


HELD_OUT: tuple[Paint, ...] = (cells, stripes, landscape)
"""Never trained on: what the held-out photos are painted with."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Cuts of pictures, as textures that were once photographed.

    Args:
        pictures: the pictures to cut from.
    """

    pictures: tuple[UInt8[np.ndarray, "_ _ 3"], ...]

    @classmethod
    def of_pool(cls, pool: ObjectPool, limit: int = 200) -> Patches:
        """The textures of a pool's objects."""
        found: list[UInt8[np.ndarray, "_ _ 3"]] = []
        for k, entry in enumerate(pool.entries):
            if entry.kind == "texture" and len(found) < limit:
                texture = pool.load(k).texture
                assert texture is not None
                if min(texture.shape[:2]) >= 64:
                    found.append(texture)
        return cls(tuple(found))

    def __call__(self, rng: Rng, size: int) -> Picture:
        """A random cut, turned and enlarged, its colours pulled to another tint now and then."""
        picture = self.pictures[int(rng.integers(len(self.pictures)))]
        side = int(rng.uniform(0.2, 1.0) * min(picture.shape[:2]))
        y, x = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
        cut = np.rot90(picture[y : y + side, x : x + side], int(rng.integers(4)))
        cut = (
            cv2.resize(np.ascontiguousarray(cut), (size, size), interpolation=cv2.INTER_LINEAR).astype(np.float32) / 255
        )
        if rng.random() < 0.4:
            grey = cut.mean(axis=-1, keepdims=True)
            cut = np.clip(grey + (cut - grey) * rng.uniform(0, 0.7) + (random_tint(rng) - 0.5) * 0.4, 0, 1)
        return cut.astype(np.float32)


@dataclass(frozen=True, eq=False)
class Backdrop:
    """Surroundings of an object.

    Args:
        picture: what the camera would see without it.
        ground: height of the line where the ground meets the wall, as a share of the side; None where there is none.
    """

    picture: Picture
    ground: float | None


def backdrop(rng: Rng, size: int, paints: Sequence[Paint]) -> Backdrop:
    """Surroundings: a plain sheet or sweep, one texture, or a table before a wall."""
    kind = rng.random()
    if kind < 0.28:
        return _studio(rng, size)
    if kind < 0.5:
        return Backdrop(_lit(rng, _pick(rng, paints)(rng, size)), None if rng.random() < 0.6 else -1.0)
    level = float(rng.uniform(0.15, 0.75))
    wall = _lit(rng, _pick(rng, paints)(rng, size))
    if rng.random() < 0.6:
        wall = cv2.GaussianBlur(wall, (0, 0), float(rng.uniform(0.5, 5)) * size / 128)
    floor = _lit(rng, _laid(rng, _pick(rng, paints)(rng, size), level))
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    edge = y - level * size - np.tan(rng.normal(0, 0.04)) * (x - size / 2)
    soft = np.clip(edge / float(rng.uniform(0.7, 6)) + 0.5, 0, 1).astype(np.float32)[..., None]
    return Backdrop(wall * (1 - soft) + floor * soft, level)


def _pick(rng: Rng, paints: Sequence[Paint]) -> Paint:
    return paints[int(rng.integers(len(paints)))]


def _studio(rng: Rng, size: int) -> Backdrop:
    """A plain sheet, a gradient, or a sweep from wall to table without an edge."""
    first = flat(rng, size)[0, 0]
    kind = rng.random()
    if kind < 0.35:
        return Backdrop(_lit(rng, np.broadcast_to(first, (size, size, 3)).astype(np.float32), 0.05), -1.0)
    second = np.clip(first + rng.normal(0, 0.2) + rng.normal(0, 0.03, 3), 0, 1)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    level = float(rng.uniform(0.3, 0.8))
    if kind < 0.7:
        field = np.tanh((y - level) * rng.uniform(2, 20))
    elif kind < 0.85:
        field = np.hypot(x - rng.uniform(0.2, 0.8), y - rng.uniform(0.2, 0.8)) * rng.uniform(1, 2.5) - 1
    else:
        angle = rng.uniform(0, 6.3)
        field = ((x - 0.5) * np.cos(angle) + (y - 0.5) * np.sin(angle)) * 1.6
    return Backdrop(_lit(rng, ramp(field.astype(np.float32), [first, second]), 0.05), level if kind < 0.7 else -1.0)


def _lit(rng: Rng, picture: Picture, strength: float = 0.2) -> Picture:
    """Uneven light, and now and then the hard edge of a shadow or of light from a window."""
    size = len(picture)
    factor = 1 + float(rng.uniform(0, strength)) * fractal(rng, size, 1.0, 0.3)
    if rng.random() < 0.2:
        shadow = np.zeros((size, size), np.float32)
        corners = rng.uniform(-0.3, 1.3, (int(rng.integers(3, 5)), 2)) * size
        cv2.fillConvexPoly(shadow, cv2.convexHull(corners.astype(np.int32)), 1.0)
        shadow = cv2.GaussianBlur(shadow, (0, 0), float(rng.uniform(0.5, 8)) * size / 128)
        factor = factor * (1 + shadow * float(rng.choice([-1, 1])) * rng.uniform(0.05, 0.4))
    return np.clip(picture * factor[..., None], 0, 1).astype(np.float32)


def _laid(rng: Rng, picture: Picture, level: float) -> Picture:
    """A texture laid down on the ground: narrower towards the line at ``level``."""
    size = len(picture)
    top, spread = level * size, float(rng.uniform(0.2, 1.5)) * size
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]], np.float32)
    seen = np.array([[0, top], [size, top], [size + spread, size], [-spread, size]], np.float32)
    return cv2.warpPerspective(
        picture, cv2.getPerspectiveTransform(corners, seen), (size, size), borderMode=cv2.BORDER_REFLECT
    )


def _turned(rng: Rng, picture: Picture) -> Picture:
    """The picture turned by a random angle; mirrored beyond its border."""
    size = len(picture)
    angle = float(rng.choice([0, 90, rng.uniform(0, 360)]))
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), angle, 1.0)
    return cv2.warpAffine(picture, turn, (size, size), borderMode=cv2.BORDER_REFLECT)
