"""Vertices posed by the motions of parts: linear blend, and dual quaternions."""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from scene.mesh import Vertices
from scene.skinning.weights import Weights

Method = Literal["linear", "dual_quaternion"]
"""Linear blend skinning, which any viewer knows and which takes volume away where it twists; dual quaternions, which
keep it and take rigid motions only."""


def posed_vertices(
    vertices: Vertices, skin: Weights, motions: Float[np.ndarray, "p 4 4"], method: Method = "dual_quaternion"
) -> Vertices:
    """Vertices under a blend of motions.

    Args:
        vertices: in the pose in which they were bound, world frame.
        skin: their weights.
        motions: of each part, world frame; for dual quaternions rigid ones.
        method: see :data:`Method`.

    Source: Kavan et al., "Skinning with Dual Quaternions", I3D 2007, section 3 and algorithm 1.
    """
    if method == "linear":
        blend = np.einsum("vk,vkij->vij", skin.weights, motions[skin.joints][:, :, :3])
        return np.asarray(np.einsum("vij,vj->vi", blend[:, :, :3], vertices) + blend[:, :, 3])
    real, dual = _dual_quaternions(motions)
    real, dual = real[skin.joints], dual[skin.joints]
    # Of the two quaternions of a rotation, those on the side of the heaviest part's.
    sign = np.where(np.einsum("vkc,vc->vk", real, real[:, 0]) < 0, -1.0, 1.0)
    weight = skin.weights * sign
    real, dual = np.einsum("vk,vkc->vc", weight, real), np.einsum("vk,vkc->vc", weight, dual)
    norm = np.maximum(np.linalg.norm(real, axis=1, keepdims=True), 1e-12)
    real, dual = real / norm, dual / norm
    axis, angle = real[:, :3], real[:, 3:]
    turned = vertices + 2 * np.cross(axis, np.cross(axis, vertices) + angle * vertices)
    shift = 2 * (angle * dual[:, :3] - dual[:, 3:] * axis + np.cross(axis, dual[:, :3]))
    return np.asarray(turned + shift)


def _dual_quaternions(motions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Real and dual parts, scalar last, of rigid motions."""
    real = Rotation.from_matrix(motions[:, :3, :3]).as_quat()
    shift = motions[:, :3, 3]
    # Half the product of the pure quaternion of the shift with the rotation.
    vector = 0.5 * (shift * real[:, 3:] + np.cross(shift, real[:, :3]))
    scalar = -0.5 * (shift * real[:, :3]).sum(axis=1, keepdims=True)
    return real, np.concatenate([vector, scalar], axis=1)
