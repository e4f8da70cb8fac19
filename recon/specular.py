"""Specular reflection of a whole object: one function of the reflected line of sight, in spherical harmonics.

A glossy object mirrors its surroundings softly. What that adds to its diffuse colour is modelled as one function of the
reflected direction for the whole object, of degrees one to three.

Source: Ramamoorthi and Hanrahan 2001 (reflection as a convolution, of which low degrees are left).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from scene.camera import Camera
from scene.volume_rendering import spherical_harmonics

TERMS = 15
"""Harmonics of degrees one to three; the constant one belongs to the diffuse colour."""
_ORDER = torch.tensor([3, 1, 2, 4, 5, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15])
"""Order of the coefficients, also in files: x, y, z; xy, yz, xz, z2, x2-y2; degree three by order."""


def harmonics(direction: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 15"]:
    """Real spherical harmonics of degrees one to three at unit vectors, each with a mean square of 1, without mean."""
    values = spherical_harmonics(torch.from_numpy(np.asarray(direction, np.float64)), normalisation="4pi")
    return values.index_select(-1, _ORDER).numpy()


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
