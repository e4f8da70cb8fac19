"""What of a picture's colours belongs to the view and not to the surface: exposure, and specular reflection.

Each picture has an exposure for each channel; specular reflection is one function for the whole object, see
:mod:`recon.specular`. Both are found by robust least squares from what the fit cannot explain, in turns with the fit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage, sparse

from recon.sdf_grid import kernels
from recon.sdf_grid.narrow_band import NarrowBandSDF
from recon.specular import TERMS, SpecularSH, harmonics, reflected
from recon.surface_report import SurfaceReport
from recon.views.pixel_sampler import Pixels

_SAMPLES = 40_000
"""Pixels from which the view's part is found."""
_USUAL = 0.03
"""Errors above this count less and less."""
_RIDGE = 0.01
"""Weight of the assumptions that nothing is specular and that exposures are the same, beside all pixels."""
_EXPOSURES = (0.7, 1.4)
"""Smallest and largest exposure."""


@dataclass(frozen=True, eq=False)
class ViewAppearance:
    """The views' part of the colours.

    Args:
        specular: reflection, the same function for all views.
        exposure: factor of each view and channel by which its colours are brighter than the object's, near 1.
    """

    specular: SpecularSH
    exposure: Float[np.ndarray, "v 3"]


def solve_appearance(
    shown: Float[np.ndarray, "n 3"],
    own: Float[np.ndarray, "n 3"],
    direction: Float[np.ndarray, "n 3"],
    view: Int[np.ndarray, "n"],
    count: int,
    rounds: int = 4,
) -> ViewAppearance:
    """The specular reflection and exposures that explain pictures best: shown = exposure * (own + specular).

    Args:
        shown: sRGB of pixels; own: diffuse sRGB of the surface there.
        direction: reflected lines of sight, unit vectors; view: of each pixel.
        count: views; one without pixels has exposure 1.
        rounds: of Gauss-Newton.
    """
    basis, exposure = harmonics(direction), np.ones((count, 3))
    terms = np.zeros((TERMS, 3))
    of_view = sparse.csr_array((np.ones(len(view)), view, np.arange(len(view) + 1)), shape=(len(view), count))
    for channel in range(3):
        for _ in range(rounds):  # Gauss-Newton, with weights by the last round's errors
            model = own[:, channel] + basis @ terms[:, channel]
            factor = exposure[view, channel]
            rest = shown[:, channel] - factor * model
            weight = np.minimum(1, _USUAL / np.maximum(np.abs(rest), 1e-9))
            slope = sparse.hstack([basis * factor[:, None], of_view.multiply(model[:, None])], format="csr")
            weighted = slope.multiply(weight[:, None]).tocsr()
            now = np.concatenate([terms[:, channel], exposure[:, channel] - 1])
            seen = np.bincount(view, weight * model * model, count)
            ridge = np.concatenate([np.full(TERMS, _RIDGE * weight.sum()), _RIDGE * seen + 1e-9])
            normal = (weighted.T @ slope).toarray() + np.diag(ridge)
            now += np.linalg.solve(normal, weighted.T @ rest - ridge * now)
            terms[:, channel], exposure[:, channel] = now[:TERMS], np.clip(1 + now[TERMS:], *_EXPOSURES)
        exposure[:, channel] /= np.exp(np.log(exposure[:, channel]).mean())
    return ViewAppearance(SpecularSH(terms), exposure)


class AppearanceFit:
    """Finds the views' part of the colours while a band is fitted.

    Args:
        pixels: as they were taken.
        cameras: rows for the band's box.
    """

    def __init__(self, pixels: Pixels, cameras: Float[np.ndarray, "v 16"]) -> None:
        self.pixels, self.cameras = pixels, cameras
        self.found: ViewAppearance | None = None

    def corrected(self, band: NarrowBandSDF) -> Pixels:
        """The pixels without the views' part, as far as the band explains them; a function of the band alone."""
        pixels, inside = self.pixels, self.pixels.inside
        view, x, y = pixels.view[inside], pixels.x[inside], pixels.y[inside]
        out = np.zeros((len(inside), 5), np.float32)
        sampling = kernels.Sampling(np.float32(4.0), np.float32(0.7), np.float32(2.0))
        kernels.render_rays(band.field, kernels.Rays(self.cameras, view, x, y), sampling, out)
        hit = np.nonzero(out[:, 3] > 0.9)[0]
        row = self.cameras[view[hit]].astype(np.float64)
        local = np.stack(
            [(x[hit] - row[:, 14]) / row[:, 12], -(y[hit] - row[:, 15]) / row[:, 13], -np.ones(len(hit))], -1
        )
        sight = np.einsum("nij,nj->ni", row[:, 3:12].reshape(-1, 3, 3), local)
        sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
        direction = reflected(sight, _normals(band.grid, row[:, :3] + out[hit, 4:5] * sight))
        shown = pixels.rgba[inside[hit], :3].astype(np.float64)
        own = (out[hit, :3] / out[hit, 3:4]).astype(np.float64)
        some = np.arange(0, len(hit), max(1, len(hit) // _SAMPLES))
        self.found = solve_appearance(shown[some], own[some], direction[some], view[hit][some], len(self.cameras))
        rgba = pixels.rgba.copy()
        rgba[:, :3] /= self.found.exposure[pixels.view].astype(np.float32)
        rgba[inside[hit], :3] -= self.found.specular.at(direction).astype(np.float32)
        return replace(pixels, rgba=rgba)

    def described(self, report: SurfaceReport) -> SurfaceReport:
        """The report with how strong the specular part is, and how far the exposures differ."""
        if self.found is None:
            return report
        exposure = self.found.exposure.mean(axis=1)
        low, high = (round(float(value), 3) for value in (exposure.min(), exposure.max()))
        strength = float(np.sqrt(np.square(self.found.specular.coefficients).sum(axis=0).mean()))
        return replace(report, specular=round(strength, 4), exposures=(low, high))


def _normals(grid: Float[np.ndarray, "x y z"], places: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit gradients at grid coordinates."""
    slope = np.stack(
        [
            ndimage.map_coordinates(grid, (places + step).T, order=1, mode="nearest")
            - ndimage.map_coordinates(grid, (places - step).T, order=1, mode="nearest")
            for step in np.eye(3)
        ],
        -1,
    )
    return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-9)
