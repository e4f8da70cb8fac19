"""The photo of a symmetric object as a photo of its other side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.ndimage import map_coordinates

from pipeline.diffusion.modules.symmetry import SymmetryGuess
from pipeline.diffusion.preparation.lettering import lettering, without_lettering
from pipeline.jobs.settings import Symmetry
from scene.camera import OBJECT_RADIUS
from scene.symmetry import SymmetryPlane
from scene.view import View
from scene.voxel_grid import VoxelGrid

_LEAST_ANGLE = math.radians(20)
"""Between a camera and its mirrored one, from which that sees something new."""
_WORTH_NAMING = 0.4
"""Confidence from which a plane that is not used is named."""
_WEIGHT = 0.5
"""Of a mirrored photo, beside the photo's own weight, where its plane is sure."""
_HEADINGS_DEG = np.arange(0.0, 180.0, 5.0)
_CONTRADICTED = 0.42
"""Of the best plane's overlap, below which a given plane is doubted. Coarse volumes of 285 photos of unseen objects: so
little have 2 % of the true planes, and 20 % of those that are off by 20 degrees and more."""


@dataclass(frozen=True)
class Mirroring:
    """What became of a photo's symmetry.

    Args:
        view: the mirrored photo, if it is of use.
        reason: one line on why there is one, or none.
        heading_deg: azimuth of the plane's normal from the photo's camera, if a plane is known.
        confidence: in the plane.
        lettering: fraction of the photo that was wiped since it would read backwards.
        given: whether the user gave the plane.
        doubt: why the plane is hardly one, if so.
    """

    view: View | None
    reason: str
    heading_deg: float | None = None
    confidence: float | None = None
    lettering: float = 0.0
    given: bool = False
    doubt: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for metadata."""
        said: dict[str, Any] = {"used": self.view is not None, "reason": self.reason}
        if self.heading_deg is not None:
            said["heading_deg"] = round(self.heading_deg, 2)
        if self.confidence is not None:
            said["confidence"] = round(self.confidence, 4)
        if self.view is not None:
            said["lettering"] = round(self.lettering, 4)
        return said

    @property
    def warnings(self) -> list[str]:
        """What a user should know."""
        if self.given and self.view is None:
            return [f"The photo was not mirrored in the plane at {self.heading_deg:.0f} degrees: {self.reason}."]
        said = [] if self.doubt is None else [self.doubt]
        if self.lettering:
            letters = "Lettering would read backwards on the mirrored side, which has its broad colours only."
            said.append(f"{letters} Give --symmetry none if the object is not symmetric.")
        return said


def mirrored_photo(
    photo: View, wanted: Symmetry, guess: SymmetryGuess | None, occupancy: Float[np.ndarray, "r r r"] | None = None
) -> Mirroring:
    """The photo seen from the other side of its object's symmetry plane.

    Args:
        photo: the view from azimuth 0.
        wanted: the setting.
        guess: what the model says of the plane, if it says anything.
        occupancy: the coarse volume, over the cube ``[-0.6, 0.6]``, which a given plane is checked against.
    """
    if wanted == "none":
        return Mirroring(None, "switched off")
    if wanted == "auto":
        if guess is None:
            return Mirroring(None, "the view model does not look for planes")
        heading, confidence = guess.heading, guess.confidence
        if not guess.sure:
            likely = "no plane is certain enough"
            if confidence >= _WORTH_NAMING:
                likely += f"; the likeliest is --symmetry {math.degrees(heading):.0f} ({confidence:.0%} sure)"
            return Mirroring(None, likely, math.degrees(heading), confidence)
    else:
        heading, confidence = math.radians(wanted), 1.0
    plane, degrees = SymmetryPlane(heading), math.degrees(heading)
    if plane.view_angle(photo.camera) < _LEAST_ANGLE:
        nothing = "the mirrored photo would show what the photo shows"
        return Mirroring(None, nothing, degrees, confidence, given=wanted != "auto")
    view = plane.mirrored_view(photo, photo.weight * _WEIGHT * confidence)
    rgba = view.rgba()
    letters = lettering(rgba)
    share = float(letters.sum() / max((rgba[..., 3] > 0).sum(), 1))
    if share:
        view = View(view.name, view.camera, without_lettering(rgba, letters), weight=view.weight, origin="mirrored")
    given = wanted != "auto"
    doubt = None if occupancy is None or not given else _doubt(occupancy, degrees)
    return Mirroring(view, "given" if given else "found", degrees, confidence, share, given, doubt)


def _doubt(occupancy: Float[np.ndarray, "r r r"], degrees: float) -> str | None:
    best = max(mirror_overlap(occupancy, heading) for heading in _HEADINGS_DEG)
    overlap = mirror_overlap(occupancy, degrees)
    if overlap >= _CONTRADICTED * best:
        return None
    said = f"The plane at {degrees:.0f} degrees hardly fits: the coarse shape and its mirror image share {overlap:.0%}"
    return f"{said} of their volume, {best:.0%} in another plane. Look at the far side, or leave --symmetry out."


def mirror_overlap(occupancy: Float[np.ndarray, "r r r"], heading_deg: float) -> float:
    """Intersection over union of a volume and its image in a vertical plane through the origin, in [0, 1].

    Args:
        occupancy: probability that a voxel is solid, axes (x, y, z) over the cube ``[-0.6, 0.6]``.
        heading_deg: azimuth of the plane's normal, degrees.
    """
    side = occupancy.shape[0]
    grid = VoxelGrid(np.full(3, -OBJECT_RADIUS), 2 * OBJECT_RADIUS / side, (side, side, side))
    points = np.stack(np.meshgrid(*grid.centres(), indexing="ij"), -1)
    where = grid.to_grid(SymmetryPlane(math.radians(heading_deg)).mirrored(points))
    image = map_coordinates(occupancy.astype(np.float32), np.moveaxis(where, -1, 0), order=1)
    union = float(np.maximum(image, occupancy).sum())
    return float(np.minimum(image, occupancy).sum()) / union if union > 0 else 0.0
