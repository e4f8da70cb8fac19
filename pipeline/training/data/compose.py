"""Photos composed of rendered objects and painted surroundings, with the objects' true masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from pipeline.training.data.backdrops import Backdrop, Paint, Picture, backdrop, fractal, random_tint
from pipeline.training.data.foregrounds import Foreground
from pipeline.training.procedural import Rng


@runtime_checkable
class Objects(Protocol):
    """Where the objects of composed photos come from; pictures that follow each other may be of the same object."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, index: int) -> Foreground:
        """One of them."""


@dataclass(frozen=True)
class ComposeSettings:
    """How photos are composed.

    Args:
        size: side of the photos in pixels.
        fill: range of an object's longest side over the photo's.
        none, several, cut: chances of a photo without an object, of two or three objects side by side, and of an object
            that reaches the border.
        clutter: chance of other things at the border and in the background, which are not the object.
        perch: chance of a block, pole or bough that holds the object up and is not part of it.
        alike: chance of an object in colours close to those of its surroundings.
        detail: chance of an object with a pattern of the kinds that surroundings have.
        stretch: deviation of the logarithm of width over height: photos of other shapes are squeezed into the square.
    """

    size: int = 128
    fill: tuple[float, float] = (0.15, 0.95)
    none: float = 0.03
    several: float = 0.1
    cut: float = 0.12
    clutter: float = 0.25
    perch: float = 0.1
    alike: float = 0.12
    detail: float = 0.25
    stretch: float = 0.15


@dataclass(frozen=True, eq=False)
class Photo:
    """A composed photo.

    Args:
        rgb: what the camera saw.
        alpha: coverage by the object.
    """

    rgb: UInt8[np.ndarray, "s s 3"]
    alpha: UInt8[np.ndarray, "s s"]


@dataclass(frozen=True, eq=False)
class _Layer:
    """Objects placed in the frame: premultiplied colours, coverage, normals, lowest row covered."""

    colour: Picture
    alpha: Float[np.ndarray, "s s"]
    normals: Float[np.ndarray, "s s 3"]


def compose(
    rng: Rng, objects: Objects, paints: Sequence[Paint], settings: ComposeSettings = ComposeSettings()
) -> Photo:
    """A random photo.

    Args:
        objects: rendered objects.
        paints: what surroundings are painted with.
    """
    size = settings.size
    behind = backdrop(rng, size, paints)
    picture = np.array(behind.picture, np.float32)
    light = _Illumination.draw(rng, picture)
    if rng.random() < settings.clutter:
        for _ in range(int(rng.integers(1, 5))):
            other = _place_aside(rng, objects, size)
            picture = picture * (1 - other.alpha[..., None]) + light.shade(rng, other)
    if rng.random() < 0.35:
        picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 4)) * size / 128)
    alpha = np.zeros((size, size), np.float32)
    if rng.random() >= settings.none:
        layer = _place_main(rng, objects, settings)
        if rng.random() < settings.detail:
            layer = _patterned(rng, layer, paints)
        if rng.random() < settings.alike:
            layer = _alike(rng, layer, picture)
        if rng.random() < settings.perch:
            picture = _perched(rng, picture, layer, paints)
        picture = _shadowed(rng, picture, layer, behind)
        shaded, alpha = light.shade(rng, layer), layer.alpha
        if rng.random() < 0.25:
            # A lens out of focus, or a mask narrower than the blur: colours of both run into each other.
            soft = float(rng.uniform(0.3, 0.8)) * size / 128
            shaded, alpha = (cv2.GaussianBlur(a, (0, 0), soft) for a in (shaded, alpha))
        picture = picture * (1 - alpha[..., None]) + shaded
    return Photo(_photographed(rng, picture), np.round(np.clip(alpha, 0, 1) * 255).astype(np.uint8))


def _place_main(rng: Rng, objects: Objects, settings: ComposeSettings) -> _Layer:
    size = settings.size
    low, high = settings.fill
    side = (low + (high - low) * float(rng.beta(1.6, 1.3))) * size
    stretch = math.exp(rng.normal(0, settings.stretch))
    first = int(rng.integers(len(objects)))
    if rng.random() >= settings.several:
        margin = (-0.25 if rng.random() < settings.cut else 0.02) * size
        return _placed(rng, objects[first], size, side, stretch, margin)
    count = int(rng.integers(2, 4))
    layer: _Layer | None = None
    for k in range(count):
        index = first + k if rng.random() < 0.7 else int(rng.integers(len(objects)))
        part = _placed(rng, objects[index % len(objects)], size, side / count * 1.3, stretch, 0.02 * size)
        layer = part if layer is None else _over(layer, part)
    assert layer is not None
    return layer


def _place_aside(rng: Rng, objects: Objects, size: int) -> _Layer:
    """A thing that is not the object: mostly outside of the frame, or small."""
    thing = objects[int(rng.integers(len(objects)))]
    if rng.random() < 0.3:
        return _placed(rng, thing, size, float(rng.uniform(0.05, 0.14)) * size, 1.0, 0.0)
    side, angle = float(rng.uniform(0.2, 0.7)) * size, float(rng.uniform(0, 2 * math.pi))
    reach = 0.5 + float(rng.uniform(0.15, 0.4)) * side / size
    # On the square's outline, pushed outwards.
    outwards = np.array([math.cos(angle), math.sin(angle)])
    centre = (0.5 + reach * outwards / np.abs(outwards).max()) * size
    return _warped(rng, thing, size, side, 1.0, (float(centre[0]), float(centre[1])))


def _placed(rng: Rng, thing: Foreground, size: int, side: float, stretch: float, margin: float) -> _Layer:
    """Somewhere in the frame, nearer to the middle than chance, at least ``margin`` from the border."""
    rows, columns = (np.nonzero((thing.rgba[..., 3] > 127).any(axis=k))[0] for k in (1, 0))
    if not len(rows):
        nothing = np.zeros((size, size, 3), np.float32)
        return _Layer(nothing, nothing[..., 0], nothing)
    scale = side / len(thing.rgba)
    half = np.array([np.ptp(columns) + 1, np.ptp(rows) + 1]) * scale / 2 * (stretch**0.5, stretch**-0.5)
    room = np.maximum(size / 2 - half - margin, 0)
    centre = size / 2 + room * rng.uniform(-1, 1, 2) * rng.uniform(0, 1)
    return _warped(rng, thing, size, side, stretch, (float(centre[0]), float(centre[1])))


def _warped(rng: Rng, thing: Foreground, size: int, side: float, stretch: float, centre: tuple[float, float]) -> _Layer:
    own = len(thing.rgba)
    angle = float(rng.normal(0, 0.12) if rng.random() < 0.85 else rng.uniform(-math.pi, math.pi))
    mirror = -1.0 if rng.random() < 0.5 else 1.0
    c, s = math.cos(angle), math.sin(angle)
    wide, tall = side / own * stretch**0.5, side / own * stretch**-0.5
    turn = np.array([[wide * c * mirror, -wide * s], [tall * s * mirror, tall * c]])
    shift = np.array(centre) - turn @ np.array([own / 2, own / 2])
    matrix = np.concatenate([turn, shift[:, None]], axis=1)
    rgba = thing.rgba.astype(np.float32) / 255
    rgba[..., :3] *= rgba[..., 3:]
    stack = np.concatenate([rgba[..., 3:], rgba[..., :3]], axis=-1)
    if side < 0.6 * own:  # against jagged edges where pictures shrink
        stack = cv2.GaussianBlur(stack, (0, 0), 0.3 * own / side)
    stack = cv2.warpAffine(stack, matrix, (size, size), flags=cv2.INTER_LINEAR)
    normals = thing.normals.astype(np.float32) / 127
    normals = cv2.warpAffine(normals, matrix, (size, size), flags=cv2.INTER_LINEAR)
    y, z = normals[..., 1] * mirror, normals[..., 2]
    normals[..., 1], normals[..., 2] = c * y + s * z, c * z - s * y
    colour = _coloured(rng, np.clip(stack[..., 1:], 0, 1), stack[..., 0])
    return _Layer(colour, np.clip(stack[..., 0], 0, 1), normals)


def _coloured(rng: Rng, colour: Picture, alpha: Float[np.ndarray, "s s"]) -> Picture:
    """Other colours and finer patterns than the renders have."""
    kind = rng.random()
    if kind < 0.35:
        mix = np.eye(3) * rng.uniform(0.5, 1.0) + rng.dirichlet(np.ones(3), 3) * rng.uniform(0, 0.5)
        colour = colour @ mix[rng.permutation(3)].T.astype(np.float32)
    elif kind < 0.45:
        colour = colour.mean(axis=-1, keepdims=True) * random_tint(rng, 0.6) / 0.5
    if rng.random() < 0.45:
        size = len(colour)
        field = fractal(rng, size, float(rng.uniform(3, 30)), float(rng.uniform(0.5, 1.0)))
        spread = rng.normal(0, 1, 3) * 0.3 + 1
        colour = colour * (1 + rng.uniform(0.1, 0.7) * field[..., None] * spread)
    return np.clip(colour, 0, alpha[..., None]).astype(np.float32)


def _patterned(rng: Rng, layer: _Layer, paints: Sequence[Paint]) -> _Layer:
    """The objects with light and dark of a painted texture: what is smooth and what is not tells nothing."""
    grey = paints[int(rng.integers(len(paints)))](rng, len(layer.alpha)).mean(axis=-1)
    contrast = np.clip((grey - grey.mean()) / (grey.std() + 0.02), -2, 2) * float(rng.uniform(0.05, 0.3))
    colour = np.clip(layer.colour * (1 + contrast[..., None]), 0, layer.alpha[..., None])
    return replace(layer, colour=colour.astype(np.float32))


def _alike(rng: Rng, layer: _Layer, picture: Picture) -> _Layer:
    """The objects with their mean colour pulled towards that of the surroundings."""
    covered = float(layer.alpha.sum())
    if covered < 1:
        return layer
    own = layer.colour.sum(axis=(0, 1)) / covered
    around = picture.mean(axis=(0, 1)) * float(rng.uniform(0.8, 1.25))
    shift = (around - own) * float(rng.uniform(0.5, 1.0))
    colour = np.clip(layer.colour + layer.alpha[..., None] * shift, 0, layer.alpha[..., None])
    return replace(layer, colour=colour.astype(np.float32))


def _perched(rng: Rng, picture: Picture, layer: _Layer, paints: Sequence[Paint]) -> Picture:
    """The surroundings with something under the object that holds it up: a block or a pole, or a bough across."""
    rows, columns = (np.nonzero((layer.alpha > 0.5).any(axis=k))[0] for k in (1, 0))
    if not len(rows):
        return picture
    size = len(picture)
    wide, tall = np.ptp(columns) + 1, np.ptp(rows) + 1
    x = float(columns.mean() + rng.normal(0, 0.15) * wide)
    y = float(rows[-1] - rng.uniform(0, 0.2) * tall)
    if rng.random() < 0.35:
        box = ((x, y), (4.0 * size, float(rng.uniform(0.02, 0.12)) * size), float(rng.uniform(0, 180)))
    else:
        width = float(rng.uniform(0.03, 0.15) * size if rng.random() < 0.5 else rng.uniform(0.3, 1.3) * wide)
        box = ((x, y + size), (width, 2.0 * size), float(rng.normal(0, 5)))
    shape = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(shape, np.round(cv2.boxPoints(box)).astype(np.int32), 255, cv2.LINE_AA)
    share = shape[..., None].astype(np.float32) / 255
    # Rounder towards its middle, as a pole is lit.
    depth = cv2.distanceTransform(shape, cv2.DIST_L2, 3)
    shade = float(rng.uniform(0.4, 1)) + float(rng.uniform(0, 0.5)) * depth / (depth.max() + 1e-6)
    texture = np.clip(paints[int(rng.integers(len(paints)))](rng, size) * shade[..., None], 0, 1)
    return (picture * (1 - share) + texture * share).astype(np.float32)


def _over(below: _Layer, above: _Layer) -> _Layer:
    keep = (1 - above.alpha)[..., None]
    return _Layer(
        below.colour * keep + above.colour,
        below.alpha * keep[..., 0] + above.alpha,
        np.where(above.alpha[..., None] > 0.5, above.normals, below.normals),
    )


@dataclass(frozen=True, eq=False)
class _Illumination:
    """One light for all objects of a photo, and a blurred mirror image of the surroundings.

    Args:
        direction: unit vector; x towards the camera, y right, z up.
        colour: of the light.
        ambient: share of light from everywhere.
        mirror: what polished things reflect, by (y, z) of their normals.
    """

    direction: np.ndarray
    colour: np.ndarray
    ambient: float
    mirror: Picture

    @classmethod
    def draw(cls, rng: Rng, surroundings: Picture) -> _Illumination:
        direction = np.array([rng.uniform(-0.3, 1.0), rng.normal(0, 0.8), rng.uniform(0.1, 1.2)])
        mirror = cv2.GaussianBlur(cv2.resize(surroundings, (48, 48)), (0, 0), float(rng.uniform(0.6, 4)))[::-1]
        mirror = np.clip(mirror * rng.uniform(0.6, 1.6) + rng.uniform(-0.1, 0.2), 0, 1)
        return cls(
            (direction / np.linalg.norm(direction)).astype(np.float32),
            (1 + rng.normal(0, 0.06, 3)).astype(np.float32),
            float(rng.uniform(0.25, 0.85)),
            np.ascontiguousarray(mirror, np.float32),
        )

    def shade(self, rng: Rng, layer: _Layer) -> Picture:
        """Premultiplied colours under this light; each object has its own polish."""
        towards = np.clip(layer.normals @ self.direction, 0, 1)
        sky = 0.5 + 0.5 * layer.normals[..., 2]
        strength = self.ambient * (0.7 + 0.3 * sky) + (1 - self.ambient) * 1.25 * towards
        shaded = layer.colour * (strength[..., None] * self.colour)
        if rng.random() < 0.4:
            half = self.direction + np.array([1, 0, 0], np.float32)
            shine = np.clip(layer.normals @ (half / np.linalg.norm(half)), 0, 1) ** float(rng.uniform(6, 80))
            shaded += (float(rng.uniform(0.1, 0.9)) * shine * layer.alpha)[..., None]
        if rng.random() < 0.2:
            side = len(self.mirror) - 1
            y, z = ((np.clip(n, -1, 1) * 0.5 + 0.5) * side for n in (layer.normals[..., 1], -layer.normals[..., 2]))
            seen = cv2.remap(self.mirror, y.astype(np.float32), z.astype(np.float32), cv2.INTER_LINEAR)
            share = float(rng.uniform(0.1, 0.8))
            shaded = shaded * (1 - share) + seen * layer.alpha[..., None] * share
        return np.clip(shaded, 0, layer.alpha[..., None]).astype(np.float32)


def _shadowed(rng: Rng, picture: Picture, layer: _Layer, behind: Backdrop) -> Picture:
    """Darken the surroundings by a contact shadow and one cast on the ground, or on the wall behind."""
    rows = np.nonzero((layer.alpha > 0.5).any(axis=1))[0]
    if not len(rows) or behind.ground is None or rng.random() < 0.2:
        return picture
    size, bottom = len(picture), int(rows[-1])
    height = bottom - int(rows[0]) + 1
    flatness = float(rng.uniform(0.03, 0.35)) * float(rng.choice([1, 1, 1, -1]))
    lean = float(rng.normal(0, 0.7))
    # Silhouette hinged at its lowest row, laid down and leaning.
    hinge = bottom - 0.04 * height
    matrix = np.array([[1, -lean, lean * hinge], [0, flatness, hinge - flatness * hinge]], np.float64)
    cast = cv2.warpAffine(layer.alpha, matrix, (size, size))
    cast = cv2.GaussianBlur(cast, (0, 0), max(0.4, float(rng.uniform(0.005, 0.08)) * height))
    flat = np.array([[1, 0, 0], [0, 0.08, bottom - 0.08 * bottom]], np.float64)
    contact = cv2.GaussianBlur(cv2.warpAffine(layer.alpha, flat, (size, size)), (0, 0), max(0.4, 0.025 * height))
    dark = np.clip(cast * rng.uniform(0, 0.6) + contact * rng.uniform(0, 0.8), 0, 0.9)
    if rng.random() < 0.12:
        # A polished table: the object upside down.
        flip = np.array([[1, 0, 0], [0, -1, 2 * bottom + 1]], np.float64)
        share = float(rng.uniform(0.1, 0.45)) * cv2.warpAffine(layer.alpha, flip, (size, size))[..., None]
        mirrored = cv2.warpAffine(layer.colour, flip, (size, size))
        picture = picture * (1 - share) + cv2.GaussianBlur(mirrored, (0, 0), 0.8) * (share > 0) * share.max()
    return (picture * (1 - dark[..., None])).astype(np.float32)


def _photographed(rng: Rng, picture: Picture) -> UInt8[np.ndarray, "s s 3"]:
    """Exposure, white balance, contrast, vignette, blur, grain and JPEG."""
    size = len(picture)
    picture = np.clip(picture, 0, 1)
    if rng.random() < 0.8:
        picture = picture ** float(np.exp(rng.normal(-0.15, 0.25)))
        picture = picture * (float(np.exp(rng.normal(0, 0.12))) * (1 + rng.normal(0, 0.05, 3)))
        picture = 0.5 + (picture - 0.5) * rng.uniform(0.75, 1.15)
    if rng.random() < 0.3:
        y, x = np.mgrid[0:size, 0:size] / size - 0.5
        picture = picture * (1 - rng.uniform(0, 0.6) * (x * x + y * y))[..., None]
    if rng.random() < 0.3:
        picture = cv2.GaussianBlur(picture.astype(np.float32), (0, 0), float(rng.uniform(0.3, 0.9)))
    if rng.random() < 0.5:
        picture = picture + rng.normal(0, rng.uniform(0.003, 0.05), (size, size, 1 if rng.random() < 0.5 else 3))
    if rng.random() < 0.05:
        picture = np.broadcast_to(picture.mean(axis=-1, keepdims=True), picture.shape)
    eight = np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = int(rng.integers(35, 95))
        stored = cv2.imencode(".jpg", eight, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        decoded = cv2.imdecode(stored, cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded.astype(np.uint8, copy=False)
    return eight
