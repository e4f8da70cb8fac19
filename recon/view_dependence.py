"""What of a picture's colours belongs to the view and not to the surface: its exposure, and the gloss of the object.

A glossy object mirrors its surroundings softly. What it adds to its own colour is modelled as one function of the
mirrored line of sight for the whole object, in spherical harmonics up to degree three, and each picture has a gain for
each channel. Both are found by robust least squares from what the fit cannot explain, in turns with the fit.

Source: Ramamoorthi and Hanrahan 2001 (reflection as a convolution, of which low degrees are left).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage, sparse

from recon.sdf_grid import kernels
from recon.sdf_grid.narrow_band import NarrowBandSDF
from recon.views.pixel_sampler import Pixels
from scene.camera import Camera

TERMS = 15
_SAMPLES = 40_000
"""Pixels from which the view's part is found."""
_USUAL = 0.03
"""Errors above this count less and less."""
_RIDGE = 0.01
"""Weight of the assumptions that there is no gloss and that exposures are the same, beside all pixels."""
_GAINS = (0.7, 1.4)


def harmonics(direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 15"]:
    """Real spherical harmonics of degrees one to three at unit vectors, each with a mean square of 1.

    The constant is left out: it belongs to the surface's own colour.
    """
    x, y, z = direction.T
    root = np.sqrt
    terms = (
        *(root(3) * x, root(3) * y, root(3) * z),
        *(root(15) * x * y, root(15) * y * z, root(15) * z * x),
        *(root(5) / 2 * (3 * z * z - 1), root(15) / 2 * (x * x - y * y)),
        *(root(35 / 8) * y * (3 * x * x - y * y), root(105) * x * y * z, root(21 / 8) * y * (5 * z * z - 1)),
        *(root(7) / 2 * z * (5 * z * z - 3), root(21 / 8) * x * (5 * z * z - 1)),
        *(root(105) / 2 * z * (x * x - y * y), root(35 / 8) * x * (x * x - 3 * y * y)),
    )
    return np.stack(terms, -1)


@dataclass(frozen=True, eq=False)
class Gloss:
    """Light that the whole object mirrors.

    Args:
        terms: what :func:`harmonics` of the mirrored line of sight are multiplied with; sRGB.
    """

    terms: Float[np.ndarray, "15 3"]

    def seen_from(
        self, camera: Camera, points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]
    ) -> Float[np.ndarray, "n 3"]:
        """What it adds to the colours of surface points with unit normals, world frame."""
        return self.at(mirrored(points - camera.centre, normals))

    def at(self, direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """What is mirrored of a direction."""
        return harmonics(direction) @ self.terms


@dataclass(frozen=True, eq=False)
class ViewColour:
    """The views' part of the colours.

    Args:
        gloss: what all see mirrored; gain: of each view, by which its colours are brighter than the object's.
    """

    gloss: Gloss
    gain: Float[np.ndarray, "v 3"]


def mirrored(sight: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit vectors of the lines of sight (any length, away from the camera) after a mirror with the unit normals."""
    sight = sight / np.maximum(np.linalg.norm(sight, axis=-1, keepdims=True), 1e-12)
    return sight - 2 * np.einsum("nc,nc->n", sight, normal)[:, None] * normal


def found_view_colour(
    shown: Float[np.ndarray, "n 3"],
    own: Float[np.ndarray, "n 3"],
    direction: Float[np.ndarray, "n 3"],
    view: Int[np.ndarray, "n"],
    count: int,
    rounds: int = 4,
) -> ViewColour:
    """The gloss and the gains that explain pictures best: shown = gain * (own + gloss).

    Args:
        shown: colours of pixels; own: of the surface there; direction: mirrored lines of sight; view: of each pixel.
        count: views; one without pixels has gain 1.
    """
    basis, gain = harmonics(direction), np.ones((count, 3))
    terms = np.zeros((TERMS, 3))
    of_view = sparse.csr_array((np.ones(len(view)), view, np.arange(len(view) + 1)), shape=(len(view), count))
    for channel in range(3):
        for _ in range(rounds):  # Gauss-Newton, with weights by the last round's errors
            model = own[:, channel] + basis @ terms[:, channel]
            factor = gain[view, channel]
            rest = shown[:, channel] - factor * model
            weight = np.minimum(1, _USUAL / np.maximum(np.abs(rest), 1e-9))
            slope = sparse.hstack([basis * factor[:, None], of_view.multiply(model[:, None])], format="csr")
            weighted = slope.multiply(weight[:, None]).tocsr()
            now = np.concatenate([terms[:, channel], gain[:, channel] - 1])
            seen = np.bincount(view, weight * model * model, count)
            ridge = np.concatenate([np.full(TERMS, _RIDGE * weight.sum()), _RIDGE * seen + 1e-9])
            normal = (weighted.T @ slope).toarray() + np.diag(ridge)
            now += np.linalg.solve(normal, weighted.T @ rest - ridge * now)
            terms[:, channel], gain[:, channel] = now[:TERMS], np.clip(1 + now[TERMS:], *_GAINS)
        gain[:, channel] /= np.exp(np.log(gain[:, channel]).mean())
    return ViewColour(Gloss(terms), gain)


class ViewColourFit:
    """Finds the views' part of the colours while a band is fitted.

    Args:
        pixels: as they were taken.
        cameras: rows for the band's box.
    """

    def __init__(self, pixels: Pixels, cameras: Float[np.ndarray, "v 16"]) -> None:
        self.pixels, self.cameras = pixels, cameras
        self.found: ViewColour | None = None

    def corrected(self, band: NarrowBandSDF) -> Pixels:
        """The pixels without the views' part, as far as the band explains them; a function of the band alone."""
        pixels, inside = self.pixels, self.pixels.inside
        view, x, y = pixels.view[inside], pixels.x[inside], pixels.y[inside]
        out = np.zeros((len(inside), 5), np.float32)
        sharpness, length, reach = np.float32(4.0), np.float32(0.7), np.float32(2.0)
        kernels.render_rays(
            band.grid, band.index, band.colour, band.light, self.cameras, view, x, y, sharpness, length, reach, out
        )
        hit = np.nonzero(out[:, 3] > 0.9)[0]
        row = self.cameras[view[hit]].astype(np.float64)
        local = np.stack(
            [(x[hit] - row[:, 14]) / row[:, 12], -(y[hit] - row[:, 15]) / row[:, 13], -np.ones(len(hit))], -1
        )
        sight = np.einsum("nij,nj->ni", row[:, 3:12].reshape(-1, 3, 3), local)
        sight /= np.linalg.norm(sight, axis=-1, keepdims=True)
        direction = mirrored(sight, _normals(band.grid, row[:, :3] + out[hit, 4:5] * sight))
        shown = pixels.rgba[inside[hit], :3].astype(np.float64)
        own = (out[hit, :3] / out[hit, 3:4]).astype(np.float64)
        some = np.arange(0, len(hit), max(1, len(hit) // _SAMPLES))
        self.found = found_view_colour(shown[some], own[some], direction[some], view[hit][some], len(self.cameras))
        rgba = pixels.rgba.copy()
        rgba[:, :3] /= self.found.gain[pixels.view].astype(np.float32)
        rgba[inside[hit], :3] -= self.found.gloss.at(direction).astype(np.float32)
        return replace(pixels, rgba=rgba)

    @property
    def facts(self) -> dict[str, object]:
        """How strong the gloss is, and how far the exposures differ."""
        if self.found is None:
            return {}
        gain = self.found.gain.mean(axis=1)
        strength = float(np.sqrt(np.square(self.found.gloss.terms).sum(axis=0).mean()))
        return {"gloss": round(strength, 4), "exposures": [round(float(g), 3) for g in (gain.min(), gain.max())]}


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
