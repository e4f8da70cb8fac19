"""A view made ready for projection onto a mesh: no background in its picture, and where that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy import ndimage

from scene.camera import Camera
from scene.raycast import RayCaster
from scene.view import View

_REDUCED = 400
"""Longest side, in pixels, of the pictures that views are compared in."""
_RIM_WEIGHT = 0.15
"""What pixels in a rim count: parts thinner than the rim keep what they have."""
_RIM_PART, _CLEAN_RIM_PART = 150, 400
"""Which part of the picture's shorter side a rim is wide: among equal views, and of a photo taken as it is."""
_JUMP = 0.01
"""Smallest step in depth, as a fraction of the distance, that counts as one thing in front of another."""


@dataclass(frozen=True, eq=False)
class ProjectedView:
    """A view's colours, continued beyond its mask, and how far each pixel can be trusted.

    Args:
        camera: the camera.
        sharp: sRGB at full size, or reduced.
        soft: sRGB in [0, 1], reduced to about 400 pixels.
        core: 1, or less in the rim of the mask and of what stands in front of something else; 0 beside the mask.
        clean: the same with a narrower rim: what a photo that is taken as it is may colour.
    """

    camera: Camera
    sharp: UInt8[np.ndarray, "h w 3"]
    soft: Float[np.ndarray, "a b 3"]
    core: Float[np.ndarray, "a b"]
    clean: Float[np.ndarray, "a b"]

    def sharp_at(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        """Colours at pixel coordinates, with as little loss of sharpness as 8 x 8 pixels allow."""
        size = self.sharp.shape[1::-1]
        if size != (self.camera.width, self.camera.height):
            pixels = pixels * (np.array(size) / (self.camera.width, self.camera.height))
        return _sampled(self.sharp, pixels, cv2.INTER_LANCZOS4) / np.float32(255)

    def soft_at(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        """Colours at pixel coordinates of the full size, from the reduced picture."""
        return _sampled(self.soft, pixels * self._reduction, cv2.INTER_LINEAR)

    def core_at(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
        """Trust at pixel coordinates of the full size."""
        return _sampled(self.core[..., None], pixels * self._reduction, cv2.INTER_LINEAR)[:, 0]

    def clean_at(self, pixels: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n"]:
        """The same with the narrower rim."""
        return _sampled(self.clean[..., None], pixels * self._reduction, cv2.INTER_LINEAR)[:, 0]

    @property
    def _reduction(self) -> Float[np.ndarray, "2"]:
        return np.array(self.core.shape[::-1], np.float32) / (self.camera.width, self.camera.height)


def read_view(
    view: View, masked: bool, caster: RayCaster, *, ignored: bool = False, max_side: int | None = None
) -> ProjectedView:
    """The view with its picture made ready.

    Args:
        view: the view.
        masked: whether its alpha tells object from background.
        caster: of the mesh it shows; where the mesh covers itself, pixels near the edge are trusted less.
        ignored: whether alpha tells what is to be looked at; the rest, and what is next to it, is not trusted at all.
        max_side: longest side, pixels, at which a large picture is read; None for all its pixels.
    """
    rgba = view.rgba() if max_side is None else view.reduced(max_side, worth=1.0)
    height, width = rgba.shape[:2]
    factor = max(1, round(max(height, width) / _REDUCED))
    size = (-(-width // factor), -(-height // factor))
    rim, narrow = (max(1, round(min(height, width) / part)) for part in (_RIM_PART, _CLEAN_RIM_PART))
    if masked:
        narrow = min(max(narrow, edge_width(rgba[..., 3])), max(rim, narrow))
    rgb = np.ascontiguousarray(rgba[..., :3])
    edges = _depth_edges(view.camera.resized(*size), caster)
    core, clean = (_trust(edges, max(1, round(r / factor))) for r in (rim, narrow))
    if ignored:
        solid = np.pad((rgba[..., 3] >= 250).astype(np.uint8), rim, mode="edge")
        seen = cv2.erode(solid, np.ones((2 * rim + 1, 2 * rim + 1), np.uint8))[rim:-rim, rim:-rim] * np.uint8(255)
        core, clean = (np.where(_reduced(seen, size) < 1, np.float32(0), trusted) for trusted in (core, clean))
    if not masked:
        return ProjectedView(view.camera, rgb, _reduced(rgb, size), core, clean)
    alpha = np.ascontiguousarray(rgba[..., 3])
    # Premultiplied while it is averaged, so that what lies behind the mask (a background, or black) does not mix in.
    shown = cv2.multiply(rgb, np.repeat(alpha[..., None], 3, axis=-1), scale=1 / 255)
    whole = np.concatenate([_reduced(shown, size), _reduced(alpha, size)[..., None]], axis=-1)
    soft = np.where(whole[..., 3:] > 0.5, _straight(whole), _straight(cv2.GaussianBlur(whole, (0, 0), 1.5)))
    beyond = cv2.resize(np.round(soft.clip(0, 1) * 255).astype(np.uint8), (width, height))
    cv2.copyTo(rgb, (alpha >= 250).view(np.uint8), beyond)
    core, clean = (np.minimum(c, _reduced(_mask_core(alpha, r), size)) for c, r in ((core, rim), (clean, narrow)))
    return ProjectedView(view.camera, beyond, soft, core, clean)


def _reduced(image: UInt8[np.ndarray, "h w *c"], size: tuple[int, int]) -> Float[np.ndarray, "a b *c"]:
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.float32(255)


def _sampled(image: np.ndarray, pixels: Float[np.ndarray, "n 2"], kind: int) -> np.ndarray:
    """Values at pixel coordinates; beyond the picture, those at its border."""
    count, columns = len(pixels), 4096  # OpenCV's maps have at most 32,767 rows and columns
    rows = -(-count // columns)
    place = np.zeros((rows * columns, 2), np.float32)
    place[:count] = np.clip(pixels, -1e4, 1e5) - 0.5
    out = np.empty((rows * columns, image.shape[-1]), np.float32)
    for first in range(0, rows, 16_384):
        last = min(rows, first + 16_384)
        where = place[first * columns : last * columns].reshape(last - first, columns, 2)
        found = cv2.remap(image, where, None, kind, borderMode=cv2.BORDER_REPLICATE)
        out[first * columns : last * columns] = found.reshape(-1, image.shape[-1])
    return out[:count]


def _straight(premultiplied: Float[np.ndarray, "h w 4"]) -> Float[np.ndarray, "h w 3"]:
    return premultiplied[..., :3] / np.maximum(premultiplied[..., 3:], np.float32(1e-3))


def edge_width(alpha: UInt8[np.ndarray, "h w"]) -> int:
    """How many pixels it takes from outside to inside along the mask's edge: more in pictures that were enlarged."""
    inside = (alpha >= 128).astype(np.uint8)
    border = int((inside - cv2.erode(inside, np.ones((3, 3), np.uint8), borderValue=1)).sum())
    mixed = int(((alpha > 12) & (alpha < 243)).sum())
    return round(mixed / border) if border else 0


def _mask_core(alpha: UInt8[np.ndarray, "h w"], rim: int) -> UInt8[np.ndarray, "h w"]:
    """255 in the mask less a rim, where pixels are mixed with the background; the picture's border is no rim."""
    side = 2 * rim + 1
    inner = cv2.erode((alpha >= 250).astype(np.uint8), np.ones((side, side), np.uint8))
    return np.where(inner > 0, 255, np.where(alpha >= 128, round(255 * _RIM_WEIGHT), 0)).astype(np.uint8)


def _trust(edges: Bool[np.ndarray, "h w"], rim: int) -> Float[np.ndarray, "h w"]:
    """1, or less within ``rim`` pixels of an edge."""
    return np.where(ndimage.binary_dilation(edges, iterations=rim), _RIM_WEIGHT, 1.0).astype(np.float32)


def _depth_edges(camera: Camera, caster: RayCaster) -> Bool[np.ndarray, "h w"]:
    """Pixels where the mesh covers something farther away, be it itself."""
    origins, directions = camera.rays()
    distance = caster.cast(origins.reshape(-1, 3), directions.reshape(-1, 3)).distance.reshape(camera.height, -1)
    # Along a plane, inverse depth changes evenly, however slanted it is: only steps have a second difference.
    inverse = (1 / (distance * (directions @ camera.forward))).astype(np.float32)
    padded = np.pad(inverse, 1, mode="reflect", reflect_type="odd")
    centre = 2 * padded[1:-1, 1:-1]
    step = np.maximum(
        np.abs(padded[:-2, 1:-1] - centre + padded[2:, 1:-1]), np.abs(padded[1:-1, :-2] - centre + padded[1:-1, 2:])
    )
    near = ndimage.maximum_filter(inverse, 3)
    return step > _JUMP * near
