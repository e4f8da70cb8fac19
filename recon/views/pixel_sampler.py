"""The pixels that a fit looks at, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from recon.views.ray_set import RaySet


@dataclass(frozen=True, eq=False)
class Pixels:
    """Pixels of all views worth looking at, sorted by view and row.

    Args:
        view: of each pixel.
        x, y: continuous coordinates of its centre.
        rgba: straight sRGB and mask in [0, 1].
        weight: confidence of its view, mean 1.
        inside, around: indices of those on the object and of those about it.
    """

    view: Int[np.ndarray, "n"]
    x: Float[np.ndarray, "n"]
    y: Float[np.ndarray, "n"]
    rgba: Float[np.ndarray, "n 4"]
    weight: Float[np.ndarray, "n"]
    inside: Int[np.ndarray, "i"]
    around: Int[np.ndarray, "a"]

    @classmethod
    def of(cls, rays: RaySet, *, masked: bool = True) -> Pixels:
        """Pixels on the object and about it; if there are no masks, all that may be looked at."""
        views, xs, ys, values = [], [], [], []
        for k in range(len(rays)):
            alpha = rays.alpha[k].cpu().numpy()
            margin = max(3, round(0.08 * max(alpha.shape)))
            wanted = ndimage.maximum_filter(alpha > 0.02, size=2 * margin + 1) if masked else alpha > 0.5
            known = rays.known[k]
            row, column = np.nonzero(wanted if known is None else wanted & known.cpu().numpy())
            views.append(np.full(len(row), k, np.int32))
            xs.append(column)
            ys.append(row)
            colour = rays.colour[k].cpu().numpy()[row, column]
            values.append(np.concatenate([colour, alpha[row, column][:, None]], axis=1))
        view = np.concatenate(views)
        rgba = np.concatenate(values).astype(np.float32)
        confidence = rays.weight.cpu().numpy().astype(np.float64)
        weight = confidence[view]
        weight = (weight / max(float(weight.mean()), 1e-9)).astype(np.float32)
        solid = rgba[:, 3] > 0.5
        return cls(
            view,
            (np.concatenate(xs) + 0.5).astype(np.float32),
            (np.concatenate(ys) + 0.5).astype(np.float32),
            rgba,
            weight,
            np.nonzero(solid)[0],
            np.nonzero(~solid)[0],
        )

    def draw(self, count: int, rng: np.random.Generator) -> Int[np.ndarray, "c"]:
        """Indices of ``count`` pixels, three fifths of them on the object, in ascending order (caches like that)."""
        most = count if not len(self.around) else round(0.6 * count)
        parts = [self.inside[rng.integers(len(self.inside), size=most)]]
        if most < count:
            parts.append(self.around[rng.integers(len(self.around), size=count - most)])
        return np.sort(np.concatenate(parts))

    def mean_colour(self) -> Float[np.ndarray, "3"]:
        """Mean colour of the object."""
        weight = self.weight[self.inside, None]
        return (self.rgba[self.inside, :3] * weight).sum(0) / max(float(weight.sum()), 1e-9)
