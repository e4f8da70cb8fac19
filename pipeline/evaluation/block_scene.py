"""A scene whose large photos are drawn in a second: two textured blocks in a textured room, in true perspective."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from scene.camera import Camera, look_at

_RINGS_DEG = (14.0, 32.0, 52.0)
"""Elevations of the rings that cameras stand on, in turns."""
_RADIUS = 1.5
_NEAR = 1e-3
"""Distance before a camera at which what is nearer is cut off."""


@dataclass(frozen=True, eq=False)
class Panel:
    """A textured rectangle.

    Args:
        corner: its first corner; across, down: from there to its neighbours, world units.
        texture: sRGB, stretched over it.
    """

    corner: Float[np.ndarray, "3"]
    across: Float[np.ndarray, "3"]
    down: Float[np.ndarray, "3"]
    texture: UInt8[np.ndarray, "h w 3"]

    @property
    def corners(self) -> Float[np.ndarray, "4 3"]:
        """All four, in order."""
        return self.corner + np.stack([0 * self.across, self.across, self.across + self.down, self.down])

    def faces(self, camera: Camera) -> bool:
        """Whether the camera is on the side that shows."""
        return float(np.cross(self.across, self.down) @ (camera.centre - self.corner)) < 0


@dataclass(frozen=True, eq=False)
class BlockScene:
    """The blocks, one standing on the other, and the room, whose walls hide nothing.

    Args:
        room: walls, floor and ceiling, seen from within.
        blocks: the lower block's sides, then the upper one's.
    """

    room: tuple[Panel, ...]
    blocks: tuple[Panel, ...]

    @classmethod
    def of_seed(cls, seed: int = 0) -> BlockScene:
        """The scene with textures drawn from a seed."""
        rng = np.random.default_rng(seed)
        room = _box(np.array([0, 0, 2.7]), np.array([4.0, 4.0, 3.0]), 0.0, rng, side=2048, outward=False)
        lower = _box(np.array([0, 0, -0.15]), np.array([0.28, 0.2, 0.15]), 0.3, rng, side=1024)
        upper = _box(np.array([0.03, 0, 0.14]), np.array([0.13, 0.13, 0.14]), 0.9, rng, side=1024)
        return cls(tuple(room), (*lower, *upper))

    def photo(self, camera: Camera) -> tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w"]]:
        """What a camera above the lower block sees, and the mask of the blocks."""
        picture = np.zeros((camera.height, camera.width, 3), np.uint8)
        mask = np.zeros((camera.height, camera.width), np.uint8)
        for panel in self.room:
            _draw(picture, None, panel, camera)
        # Each block is convex, and the lower one lies wholly behind the plane between them.
        for panel in self.blocks:
            if panel.faces(camera):
                _draw(picture, mask, panel, camera)
        return picture, mask


def ring_cameras(count: int, size: tuple[int, int], focal: float) -> Iterable[Camera]:
    """Cameras around the blocks, on three rings in turns.

    Args:
        count: of all.
        size: width and height of their pictures.
        focal: pixels.
    """
    for k in range(count):
        azimuth, elevation = 2 * math.pi * k / count, math.radians(_RINGS_DEG[k % len(_RINGS_DEG)])
        level = math.cos(elevation)
        towards = np.array([level * math.cos(azimuth), level * math.sin(azimuth), math.sin(elevation)])
        yield Camera(look_at(_RADIUS * towards), focal, focal, size[0] / 2, size[1] / 2, *size)


def _box(
    centre: np.ndarray, half: np.ndarray, turn: float, rng: np.random.Generator, *, side: int, outward: bool = True
) -> list[Panel]:
    """The six sides of an upright box; textures read rightly from outside, or from inside."""
    cosine, sine = math.cos(turn), math.sin(turn)
    axes = np.array([[cosine, sine, 0], [-sine, cosine, 0], [0, 0, 1.0]]) * half[:, None]
    panels = []
    for k, (normal, right, up) in enumerate(
        [
            (axes[0], axes[1], axes[2]),
            (axes[1], -axes[0], axes[2]),
            (-axes[0], -axes[1], axes[2]),
            (-axes[1], axes[0], axes[2]),
            (axes[2], axes[1], -axes[0]),
            (-axes[2], axes[1], axes[0]),
        ]
    ):
        right = right if outward else -right
        panels.append(
            Panel(centre + normal - right + up, 2 * right, -2 * up, _texture(rng, side, str(k + 1) if outward else ""))
        )
    return panels


def _texture(rng: np.random.Generator, side: int, label: str) -> UInt8[np.ndarray, "s s 3"]:
    """Blotches of several sizes in one hue; with a label to see sharpness by, and a rim, unless it is empty."""
    hue = rng.uniform(60, 200, 3)
    out = np.broadcast_to(hue, (side, side, 3)).astype(np.float32)
    for cells, strength in ((6, 30), (24, 26), (96, 22), (256, 18)):
        noise = rng.normal(size=(cells, cells, 1)) + 0.35 * rng.normal(size=(cells, cells, 3))
        out = out + strength * cv2.resize(noise.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    out = np.clip(out, 0, 255).astype(np.uint8)
    if not label:
        return out
    cv2.rectangle(out, (0, 0), (side - 1, side - 1), (30, 30, 30), side // 40)
    place = (side // 3, 2 * side // 3)
    cv2.putText(out, label, place, cv2.FONT_HERSHEY_SIMPLEX, side / 70, (250, 250, 250), side // 30, cv2.LINE_AA)
    return out


def _draw(picture: np.ndarray, mask: np.ndarray | None, panel: Panel, camera: Camera) -> None:
    """Draw a panel over what is there, as far as it lies before the camera."""
    shown = _before(panel.corners, camera)
    if len(shown) < 3:
        return
    pixels = camera.project(shown)[0]
    low = np.maximum(np.floor(pixels.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(pixels.max(axis=0)).astype(int) + 1, (camera.width, camera.height))
    if (low >= high).any():
        return
    width, height = (high - low).tolist()
    inside = np.zeros((height, width), np.uint8)
    outline = np.round((np.clip(pixels, -1e5, 1e5) - low - 0.5) * 16).astype(np.int32)
    cv2.fillConvexPoly(inside, outline, 255, shift=4)
    # From texels over points on the panel to pixels is a homography.
    local = camera.c2w[:3, :3].T
    plane = np.stack([panel.across, panel.down, panel.corner - camera.centre], axis=1)
    flip = np.diag([1.0, -1.0, -1.0])
    lens = np.array([[camera.fx, 0, camera.cx - 0.5 - low[0]], [0, camera.fy, camera.cy - 0.5 - low[1]], [0, 0, 1]])
    rows, columns = panel.texture.shape[:2]
    texel = np.array([[1 / columns, 0, 0.5 / columns], [0, 1 / rows, 0.5 / rows], [0, 0, 1]])
    matrix = lens @ flip @ local @ plane @ texel
    drawn = cv2.warpPerspective(panel.texture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    part = picture[low[1] : high[1], low[0] : high[0]]
    cv2.copyTo(drawn, inside, part)
    if mask is not None:
        mask[low[1] : high[1], low[0] : high[0]] |= inside


def _before(corners: Float[np.ndarray, "n 3"], camera: Camera) -> Float[np.ndarray, "m 3"]:
    """A polygon cut to what lies before the camera."""
    depth = (corners - camera.centre) @ camera.forward - _NEAR
    kept = []
    for a, b, one, other in zip(depth, np.roll(depth, -1), corners, np.roll(corners, -1, axis=0), strict=True):
        if a > 0:
            kept.append(one)
        if (a > 0) != (b > 0):
            kept.append(one + (other - one) * a / (a - b))
    return np.array(kept).reshape(-1, 3)
