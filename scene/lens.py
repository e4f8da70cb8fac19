"""Lenses that bend straight lines, and the pinhole pictures that come of undoing it.

Two families, with OpenCV's names and meaning (COLMAP and nerfstudio use the same): radial and tangential terms k1..k6,
p1, p2, of which SIMPLE_RADIAL, RADIAL, OPENCV and FULL_OPENCV are cases; and the fisheye polynomial k1..k4 in the angle
from the optical axis. Both act on the plane at depth 1: x right, y down.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float, Float32, Shaped

from scene.camera import Camera, Mat4
from scene.errors import InputError

Plane = Float[np.ndarray, "*n 2"]
_WIDEST = math.tan(math.radians(60))
"""Where a pinhole picture ends: nearer to 90 degrees it is stretched without bound."""


class Intrinsics(NamedTuple):
    """A camera without a pose: focal lengths, principal point and size in pixels (first pixel's centre 0.5, 0.5)."""

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def camera(self, c2w: Mat4) -> Camera:
        """The pinhole camera at a pose (camera-to-world, OpenGL axes)."""
        return Camera(c2w, self.fx, self.fy, self.cx, self.cy, self.width, self.height)

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same for a picture resampled to another size."""
        sx, sy = width / self.width, height / self.height
        return Intrinsics(self.fx * sx, self.fy * sy, self.cx * sx, self.cy * sy, width, height)


@dataclass(frozen=True)
class Lens:
    """Distortion coefficients; none by default. Lenses of other families are subclasses.

    Args:
        k1, k2, k3, k4, k5, k6: radial; for a fisheye the four coefficients of the angle's polynomial.
        p1, p2: tangential.
        fisheye: whether the coefficients are those of the fisheye model.
        r8: radial coefficient of the radius's eighth power, which OpenCV has not: Metashape's and nerfstudio's k4.

    Source: OpenCV, calib3d (camera model) and calib3d fisheye.
    """

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    k4: float = 0.0
    k5: float = 0.0
    k6: float = 0.0
    p1: float = 0.0
    p2: float = 0.0
    fisheye: bool = False
    r8: float = 0.0

    @property
    def bends(self) -> bool:
        """Whether pictures differ from a pinhole's; a fisheye's do even with all coefficients zero."""
        return self != Lens()

    def distort(self, points: Plane) -> Plane:
        """Where the lens images points of the plane at depth 1, again in that plane."""
        x, y = points[..., 0], points[..., 1]
        r2 = x * x + y * y
        if self.fisheye:
            r = np.sqrt(r2)
            angle = np.arctan(r)
            a2 = angle * angle
            bent = angle * (1 + a2 * (self.k1 + a2 * (self.k2 + a2 * (self.k3 + a2 * self.k4))))
            return points * np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 1.0)[..., None]
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * (self.k3 + r2 * self.r8 if self.r8 else self.k3)))
        radial = radial / (1 + r2 * (self.k4 + r2 * (self.k5 + r2 * self.k6)))
        across = np.stack(
            [2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x), self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y],
            axis=-1,
        )
        return points * radial[..., None] + across

    def undistort(self, points: Plane) -> Plane:
        """Inverse of :meth:`distort` by Newton's method; NaN where nothing within ``max_radius`` is imaged there."""
        target = np.asarray(points, dtype=np.float64)
        guess = target.copy()
        with np.errstate(all="ignore"):
            for _ in range(40):
                a, b, c, d = self._slope(guess)
                det = a * d - b * c
                off = self.distort(guess) - target
                if not (np.linalg.norm(off, axis=-1) > 1e-13).any():
                    break  # what is NaN stays so
                step = np.stack([d * off[..., 0] - b * off[..., 1], a * off[..., 1] - c * off[..., 0]], axis=-1)
                step = step / np.where(np.abs(det) > 1e-9, det, np.nan)[..., None]
                # Long steps leave the range in which the polynomial means anything.
                longest = 0.5 * (1 + np.linalg.norm(guess, axis=-1, keepdims=True))
                guess = guess - step * np.minimum(1, longest / np.linalg.norm(step, axis=-1, keepdims=True))
            miss = np.linalg.norm(self.distort(guess) - target, axis=-1)
            found = (miss < 1e-9) & (np.linalg.norm(guess, axis=-1) <= self.max_radius)
        return np.where(found[..., None], guess, np.nan)

    @cached_property
    def max_radius(self) -> float:
        """Radius in the plane up to which images move outwards; beyond, the polynomial folds back and means nothing."""
        radii = np.linspace(0, 4, 4001)
        images = self.distort(np.stack([radii, np.zeros_like(radii)], axis=-1))[:, 0]
        if not self.fisheye:
            # The tangential part depends on the direction; the fold is the radial part's.
            images = images - 3 * self.p2 * radii**2
        falling = np.flatnonzero(~(np.diff(images) > 0))
        return float(radii[falling[0]]) if len(falling) else 4.0

    def _slope(self, points: Plane) -> tuple[Float[np.ndarray, "*n"], ...]:
        """Derivatives of :meth:`distort`, row by row."""
        right, down = np.array([1e-6, 0.0]), np.array([0.0, 1e-6])
        dx = (self.distort(points + right) - self.distort(points - right)) / 2e-6
        dy = (self.distort(points + down) - self.distort(points - down)) / 2e-6
        return dx[..., 0], dy[..., 0], dx[..., 1], dy[..., 1]


@dataclass(frozen=True, eq=False)
class Undistortion:
    """From pictures of a bending lens to those of a pinhole camera, all of whose pixels the lens saw.

    Args:
        lens: the lens.
        raw: intrinsics of the pictures as taken.
        pinhole: intrinsics of the undistorted pictures.
        keeps_maps: whether the look-up maps (8 bytes a pixel) stay in memory for the next picture.
    """

    lens: Lens
    raw: Intrinsics
    pinhole: Intrinsics
    keeps_maps: bool = True
    _kept: dict[str, tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]] = field(
        default_factory=dict, repr=False
    )
    _smaller: dict[tuple[int, int], Undistortion] = field(default_factory=dict, repr=False)

    def picture(self, image: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """An undistorted picture, with bilinear interpolation."""
        return self._remapped(image, cv2.INTER_LINEAR)

    def reduced(self, width: int, height: int) -> Undistortion:
        """The same for pictures that were reduced to a size; it is made once for each size."""
        found = self._smaller.get((width, height))
        if found is None:
            raw, pinhole = self.raw.resized(width, height), self.pinhole.resized(width, height)
            found = self._smaller[width, height] = Undistortion(self.lens, raw, pinhole, self.keeps_maps)
        return found

    def values(self, image: Shaped[np.ndarray, "..."]) -> Shaped[np.ndarray, "..."]:
        """An undistorted map of what must not be mixed, such as depth: the nearest value."""
        return self._remapped(image, cv2.INTER_NEAREST)

    def _remapped(self, image: Shaped[np.ndarray, "..."], how: int) -> Shaped[np.ndarray, "..."]:
        if image.shape[1::-1] != (self.raw.width, self.raw.height):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise InputError(f"the picture is {size}, its camera says {self.raw.width}x{self.raw.height}")
        maps = self._kept.get("maps")
        if maps is None:
            maps = self._maps()
            if self.keeps_maps:
                self._kept["maps"] = maps
        return cv2.remap(image, *maps, interpolation=how, borderMode=cv2.BORDER_REPLICATE)

    def _maps(self) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        xs, ys = np.arange(self.pinhole.width) + 0.5, np.arange(self.pinhole.height) + 0.5
        pixels = _imaged(self.lens, self.raw, self.pinhole, np.stack(np.meshgrid(xs, ys), axis=-1))
        # OpenCV counts pixels from the first one's centre.
        return (pixels[..., 0] - 0.5).astype(np.float32), (pixels[..., 1] - 0.5).astype(np.float32)


def undistort(cameras: Sequence[tuple[Lens, Intrinsics]]) -> list[Undistortion | None]:
    """The undistortion of every camera, None for pinholes; equal cameras share one, with its maps.

    Raises:
        InputError: a lens cannot be undone over its picture.
    """
    uses = Counter(cameras)
    made = {
        (lens, raw): Undistortion(lens, raw, pinhole_of(lens, raw), keeps_maps=count > 1)
        for (lens, raw), count in uses.items()
        if lens.bends
    }
    return [made.get(camera) for camera in cameras]


def pinhole_of(lens: Lens, raw: Intrinsics) -> Intrinsics:
    """The pinhole camera, of the same size and aspect, with the widest view that the lens saw completely.

    Every pixel centre of its picture lies between pixel centres of the raw one. Wide lenses are cut at 60 degrees from
    the axis.

    Raises:
        InputError: there is none: the coefficients make no sense for this focal length and size.
    """
    left, top, right, bottom = _seen(lens, raw)
    across, down = max(raw.width - 1, 1), max(raw.height - 1, 1)
    sound = left < right and top < bottom
    focal = max(across / (right - left) / raw.fx, down / (bottom - top) / raw.fy) if sound else 0.0
    # Nearly always the first fits; what lies beyond ``max_radius`` shows only when it is tried.
    for zoom in np.append(1.0, 1 + 5e-4 * 1.25 ** np.arange(40)) if sound else ():
        fx, fy = raw.fx * focal * zoom, raw.fy * focal * zoom
        cx, cy = raw.width / 2 - fx * (left + right) / 2, raw.height / 2 - fy * (top + bottom) / 2
        pinhole = Intrinsics(float(fx), float(fy), float(cx), float(cy), raw.width, raw.height)
        if _all_seen(lens, raw, pinhole):
            return pinhole
    raise InputError(
        "the lens distortion cannot be undone over the picture",
        fix="Check the coefficients (k1, k2, ...), the camera model, and that focal length and size belong together.",
    )


def _seen(lens: Lens, raw: Intrinsics) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of an upright rectangle, in the plane at depth 1, that the picture's border encloses.

    The border is bowed once undistorted: each side counts where it comes nearest to the middle.
    """
    steps = np.linspace(0, 1, 129)
    xs = (0.5 + steps * (raw.width - 1) - raw.cx) / raw.fx
    ys = (0.5 + steps * (raw.height - 1) - raw.cy) / raw.fy
    sides = []
    for k, (x, y) in enumerate(((xs[0], ys), (xs, ys[0]), (xs[-1], ys), (xs, ys[-1]))):
        points = lens.undistort(np.stack(np.broadcast_arrays(x, y), axis=-1))[:, k % 2]
        points = points[np.isfinite(points)]
        outer = _WIDEST if k >= 2 else -_WIDEST
        # Parts of the border that the model does not reach lie outside of everything.
        nearest = outer if not len(points) else points.min() if k >= 2 else points.max()
        sides.append(float(np.clip(nearest, -_WIDEST, _WIDEST)))
    return sides[0], sides[1], sides[2], sides[3]


def _all_seen(lens: Lens, raw: Intrinsics, pinhole: Intrinsics) -> bool:
    """Whether the raw picture holds every pixel of the pinhole picture (its border and a grid within are tried)."""
    xs = np.linspace(0.5, pinhole.width - 0.5, 65)
    ys = np.linspace(0.5, pinhole.height - 0.5, 65)
    grid = np.stack(np.meshgrid(xs, ys), axis=-1)
    plane = (grid - [pinhole.cx, pinhole.cy]) / [pinhole.fx, pinhole.fy]
    if np.linalg.norm(plane, axis=-1).max() > lens.max_radius:
        return False
    pixels = _imaged(lens, raw, pinhole, grid)
    slack = 1e-6
    inside = (pixels >= 0.5 - slack) & (pixels <= np.array([raw.width, raw.height]) - 0.5 + slack)
    return bool(inside.all())


def _imaged(lens: Lens, raw: Intrinsics, pinhole: Intrinsics, pixels: Plane) -> Plane:
    """Where pixels of the pinhole picture are in the raw one."""
    plane = (pixels - [pinhole.cx, pinhole.cy]) / [pinhole.fx, pinhole.fy]
    return lens.distort(plane) * [raw.fx, raw.fy] + [raw.cx, raw.cy]
