"""Lenses that OpenCV does not have, as COLMAP names them: FOV, division, enhanced unified, thin prisms on a fisheye.

Sources: Devernay and Faugeras 2001 (FOV); Fitzgibbon 2001 (division); Khomutenko et al. 2016 (enhanced unified);
COLMAP's camera models for their parameters. Each agrees with COLMAP's own projection, see its test.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from scene.lens import Lens, Plane


@dataclass(frozen=True)
class FovLens(Lens):
    """An image grows with the angle from the axis, by one parameter.

    Args:
        omega: the ideal field of view, radians; 0 bends nothing.
    """

    omega: float = 0.0

    def distort(self, points: Plane) -> Plane:
        """See :meth:`scene.lens.Lens.distort`."""
        r = np.linalg.norm(points, axis=-1)
        half = math.tan(self.omega / 2)
        if abs(half) < 1e-6:
            return np.array(points)
        bent = np.arctan(2 * r * half) / self.omega
        factor = np.where(r > 1e-9, bent / np.maximum(r, 1e-9), 2 * half / self.omega)
        return points * factor[..., None]


@dataclass(frozen=True)
class DivisionLens(Lens):
    """What is imaged at radius ``r`` lies at ``r / (1 + k r^2)``.

    Args:
        k: the parameter.
    """

    k: float = 0.0

    def distort(self, points: Plane) -> Plane:
        """See :meth:`scene.lens.Lens.distort`; NaN where nothing is imaged."""
        r2 = (points * points).sum(axis=-1)
        with np.errstate(invalid="ignore"):
            root = np.sqrt(1 - 4 * self.k * r2)
        return points * (2 / (1 + root))[..., None]


@dataclass(frozen=True)
class UnifiedLens(Lens):
    """The enhanced unified model: by way of an ellipsoid.

    Args:
        alpha: 0 for a pinhole, up to 1.
        beta: shape of the ellipsoid.
    """

    alpha: float = 0.0
    beta: float = 1.0

    def distort(self, points: Plane) -> Plane:
        """See :meth:`scene.lens.Lens.distort`."""
        r2 = (points * points).sum(axis=-1)
        depth = self.alpha * np.sqrt(self.beta * r2 + 1) + 1 - self.alpha
        return points / depth[..., None]


@dataclass(frozen=True)
class PrismFisheyeLens(Lens):
    """A fisheye's polynomial, then tangential and thin-prism terms of the angle.

    Args:
        angular: coefficients of the even powers of the angle, of which the last prism model has six.
        tangential: two, in the order of their axes: x, y.
        prism: coefficients of the angle's second and fourth power, along x, then along y.
        after: whether the last two act on the angle as the polynomial changed it.
    """

    angular: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    prism: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    after: bool = False

    def distort(self, points: Plane) -> Plane:
        """See :meth:`scene.lens.Lens.distort`."""
        r = np.linalg.norm(points, axis=-1)
        angle = np.arctan(r)
        scale = np.where(r > 1e-9, angle / np.maximum(r, 1e-9), 1.0)
        radial = self._radial(angle)
        bent = points * (scale * radial)[..., None]
        acted = bent if self.after else points * scale[..., None]
        return bent + self._prism(acted)

    @cached_property
    def max_radius(self) -> float:
        """See :attr:`scene.lens.Lens.max_radius`; the fold is that of the polynomial."""
        radii = np.linspace(0, 4, 4001)
        angle = np.arctan(radii)
        falling = np.flatnonzero(~(np.diff(angle * self._radial(angle)) > 0))
        return float(radii[falling[0]]) if len(falling) else 4.0

    def _radial(self, angle: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        a2 = angle * angle
        return 1 + sum((k * a2 ** (n + 1) for n, k in enumerate(self.angular)), start=np.zeros_like(a2))

    def _prism(self, points: Plane) -> Plane:
        x, y = points[..., 0], points[..., 1]
        r2 = x * x + y * y
        px, py = self.tangential
        s0, s1, s2, s3 = self.prism
        return np.stack(
            [
                px * (r2 + 2 * x * x) + 2 * py * x * y + r2 * (s0 + s1 * r2),
                py * (r2 + 2 * y * y) + 2 * px * x * y + r2 * (s2 + s3 * r2),
            ],
            axis=-1,
        )
