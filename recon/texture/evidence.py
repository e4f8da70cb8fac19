"""Where the colours and the shape of each part of a surface come from: seen, mirrored, generated, or invented."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from scene.mesh import Faces, Vertices, face_areas

KINDS = ("seen", "mirrored", "generated", "invented")
"""Seen by a photo; by a photo from the other side of a symmetry plane; drawn alike by several generated views; none."""
COLOURS = ((46, 139, 87), (65, 105, 225), (240, 160, 30), (150, 150, 150))
"""sRGB of each kind in pictures of it."""


@dataclass(frozen=True)
class EvidenceShares:
    """Fractions of the surface's area, which add up to 1.

    Args:
        seen, mirrored, generated, invented: see :data:`KINDS`.
    """

    seen: float
    mirrored: float
    generated: float
    invented: float

    @classmethod
    def of(cls, evidence: Float[np.ndarray, "v 4"], vertices: Vertices, faces: Faces) -> EvidenceShares:
        """Area-weighted means over a mesh.

        Args:
            evidence: of each vertex, rows that add up to 1.
            vertices, faces: the mesh.
        """
        area = face_areas(vertices, faces)
        mean = (evidence[faces].mean(axis=1) * area[:, None]).sum(axis=0) / max(float(area.sum()), 1e-12)
        return cls(*(round(float(v), 4) for v in mean))


def evidence_colours(evidence: Float[np.ndarray, "v 4"]) -> Float[np.ndarray, "v 3"]:
    """Colours that show evidence, sRGB in [0, 255]."""
    return evidence @ np.array(COLOURS, np.float64)
