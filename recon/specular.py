"""Specular reflection of a whole object: one function of the reflected line of sight, in spherical harmonics.

A glossy object mirrors its surroundings softly. What that adds to its diffuse colour is modelled as one function of the
reflected direction for the whole object, of degrees one to three.

Source: Ramamoorthi and Hanrahan 2001 (reflection as a convolution, of which low degrees are left).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scene.camera import Camera

TERMS = 15
"""Harmonics of degrees one to three; the constant one belongs to the diffuse colour."""


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
class SpecularSH:
    """Specular radiance of the whole object.

    Args:
        coefficients: of :func:`harmonics` of the reflected line of sight, for each channel; sRGB.
    """

    coefficients: Float[np.ndarray, "15 3"]

    def seen_from(
        self, camera: Camera, points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]
    ) -> Float[np.ndarray, "n 3"]:
        """What it adds to the colours of surface points with unit normals, world frame."""
        return self.at(reflected(points - camera.centre, normals))

    def at(self, direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB that is reflected from unit directions."""
        return harmonics(direction) @ self.coefficients


def reflected(sight: Float[np.ndarray, "n 3"], normal: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Unit vectors of lines of sight (any length, away from the camera) after reflection at unit normals."""
    sight = sight / np.maximum(np.linalg.norm(sight, axis=-1, keepdims=True), 1e-12)
    return sight - 2 * np.einsum("nc,nc->n", sight, normal)[:, None] * normal
