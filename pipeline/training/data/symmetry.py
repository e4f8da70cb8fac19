"""Labels of symmetry: how far each object is from its mirror image, over all headings of a vertical plane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

from pipeline.training.procedural import Rng
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError
from scene.mesh import ColouredMesh, face_areas

HEADINGS = 36
"""Headings that are measured, over half a turn."""
LABELS_FILE = "symmetry.npz"
"""In the folder of the samples."""
_EXACT, _ALMOST, _CLEAR = 0.012, 0.03, 0.6
"""Errors below which any heading is a plane, below which a minimum is, and how far a minimum is below the median."""


def reflection_errors(
    mesh: ColouredMesh, rng: Rng, *, points: int = 300, cloud: int = 5000
) -> tuple[Float[np.ndarray, "k"], Float[np.ndarray, "k"]]:
    """Mean distance of mirrored surface points to the surface, over the object's radius, for each heading.

    Each heading's plane goes through the middle of the object's extent or through its mean, whichever is better. What
    points of the surface have as distance to others of their own kind is subtracted.

    Args:
        mesh: a normalised object.
        rng: draws the points.
        points, cloud: mirrored, and those that stand for the surface.

    Returns:
        Errors, and the planes' offsets from the origin along the normal.
    """
    here, probe = _surface_points(mesh, cloud, rng), _surface_points(mesh, points, rng)
    tree = cKDTree(here)
    usual = tree.query(probe)[0].mean()
    errors, offsets = np.full(HEADINGS, np.inf), np.zeros(HEADINGS)
    for k in range(HEADINGS):
        angle = k * math.pi / HEADINGS
        normal = np.array([math.cos(angle), math.sin(angle), 0.0])
        along = here @ normal
        for offset in {round(float(along.min() + along.max()) / 2, 4), round(float(along.mean()), 4)}:
            image = probe - 2 * ((probe @ normal) - offset)[:, None] * normal
            error = (tree.query(image)[0].mean() - usual) / OBJECT_RADIUS
            if error < errors[k]:
                errors[k], offsets[k] = error, offset
    return errors, offsets


def true_planes(errors: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, "n k"]:
    """Which headings are symmetry planes: none, one, several, or all of them."""
    lowest = (errors <= np.roll(errors, 1, 1)) & (errors <= np.roll(errors, -1, 1))
    clear = errors < np.minimum(_ALMOST, _CLEAR * np.median(errors, axis=1, keepdims=True))
    return (errors < _EXACT) | (lowest & clear)


def near_a_plane(
    errors: Float[np.ndarray, "n k"],
    azimuth: Float[np.ndarray, "n"],
    headings: Float[np.ndarray, "n h"],
    degrees: float,
) -> Bool[np.ndarray, "n h"]:
    """Whether headings from photos are within so many degrees of a true plane.

    Args:
        errors: of the objects.
        azimuth: of each photo's camera in its object's world, radians.
        headings: azimuths of normals from each photo's camera, radians.
        degrees: tolerance.
    """
    step = 180 / errors.shape[1]
    turned = np.degrees(headings + azimuth[:, None])
    away = np.abs(turned[:, :, None] - step * np.arange(errors.shape[1])) % 180
    away = np.minimum(away, 180 - away)
    return ((away <= degrees) & true_planes(errors)[:, None]).any(axis=-1)


@dataclass(frozen=True, eq=False)
class SymmetryLabels:
    """Labels of the first samples of a folder.

    Args:
        errors, offsets: of each sample's object, in the sample's world; see :func:`reflection_errors`.
    """

    errors: Float[np.ndarray, "n k"]
    offsets: Float[np.ndarray, "n k"]

    def __len__(self) -> int:
        return len(self.errors)

    @classmethod
    def open(cls, folder: Path) -> SymmetryLabels:
        """Read the labels of a folder of samples.

        Raises:
            InputError: it has none.
        """
        path = folder / LABELS_FILE
        if not path.is_file():
            raise InputError(
                "these samples have no labels", where=path, fix="Make them with scripts/label_symmetry.py."
            )
        with np.load(path, allow_pickle=False) as data:
            return cls(data["errors"], data["offsets"])

    def save(self, folder: Path) -> None:
        """Write them, aside at first."""
        path = folder / LABELS_FILE
        partial = path.with_suffix(".part")
        with partial.open("wb") as file:
            np.savez(file, errors=self.errors.astype(np.float32), offsets=self.offsets.astype(np.float32))
        partial.replace(path)


def _surface_points(mesh: ColouredMesh, count: int, rng: Rng) -> Float[np.ndarray, "n 3"]:
    area = face_areas(mesh.vertices, mesh.faces)
    a, b, c = (
        mesh.vertices[mesh.faces[rng.choice(len(area), count, p=area / area.sum())]]
        .astype(np.float64)
        .transpose(1, 0, 2)
    )
    # Uniform over each triangle (Osada et al. 2002, section 3.1).
    root, share = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return (1 - root) * a + root * (1 - share) * b + root * share * c
