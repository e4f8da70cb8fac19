"""Bringing a capture of any scale and place into the normalised world: where the object is, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from recon.views.ray_set import RaySet
from recon.views.visual_hull import vote_inside
from scene.camera import OBJECT_RADIUS, Camera, Mat4, normalising_transform
from scene.captures.worlds import with_notes
from scene.errors import InputError
from scene.viewset import ViewSet

WORKING_SIDE = 128
"""Longest side, pixels, of the masks in which an object is looked for."""
TOO_LARGE = 2.5
"""Times the cameras' common view, from which on a region of interest is not believed."""
_SURROUND = 0.75
"""Fraction of the cameras that show the point they look at: those in a room that look around have no common view."""


class NormalisedCapture(NamedTuple):
    """A capture in the normalised world.

    Args:
        views: the moved views.
        matrix: the similarity from the capture's world to the normalised one.
    """

    views: ViewSet
    matrix: Mat4


def normalise_capture(views: ViewSet, max_side: int = WORKING_SIDE) -> NormalisedCapture:
    """Move and scale a masked capture so that its object is centred in the bounding sphere.

    The object is found by a visual hull, first in a wide cube about the point that the cameras look at, then again in
    the box of what was found.

    Raises:
        InputError: fewer than two views, no masks, or cameras that see no common region.
    """
    if len(views) < 2:
        raise InputError("a capture needs at least two views")
    centre = look_at_point([view.camera for view in views])
    matrix = framing_transform([view.camera for view in views], centre)
    for resolution in (48, 64):
        moved = views.transformed(matrix)
        rays = RaySet.of(moved, max_side)
        inside = vote_inside(rays, resolution, 1.0)
        solid = inside >= min(0.9, float(inside.max()) * 0.95)
        if float(inside.max()) < 0.3:
            raise InputError("the cameras see no common region", fix="Check the poses: they must be camera-to-world.")
        axis = (np.arange(resolution) + 0.5) / resolution * 2 - 1
        points = np.stack(np.nonzero(solid), axis=-1)
        # Voxel corners, so that a thin object keeps its extent.
        corners = np.concatenate([axis[points] - 1 / resolution, axis[points] + 1 / resolution])
        matrix = (
            normalising_transform(corners) @ matrix
            if resolution == 64
            else normalising_transform(corners, 0.9) @ matrix
        )
    return NormalisedCapture(views.transformed(matrix), matrix)


def normalise_scene(views: ViewSet, region: tuple[Float[np.ndarray, "3"], float] | None = None) -> NormalisedCapture:
    """Move and scale a capture without masks so that its region of interest is the bounding sphere.

    Args:
        views: the capture.
        region: centre and radius, capture's world. By default what the capture's file says, unless that is far more
            than the cameras' common view, which a note tells; else that view.

    Returns:
        The moved set; its metadata keep a region that was used, as the bounding sphere and what the pictures show.

    Raises:
        InputError: fewer than two views, or cameras that look in the same direction.
    """
    if len(views) < 2:
        raise InputError("a capture needs at least two views")
    stated = views.metadata.get("region")
    if region is None and isinstance(stated, dict):
        region = np.array(stated["centre"], float), float(stated["radius"])
        common = _smaller_than(region[1], [view.camera for view in views])
        if common is not None:
            note = (
                f"the file's region of interest is {region[1] / common[1]:.2g} times as large as what the cameras have "
                "in common: that was taken in its place (--bounds gives another)"
            )
            views, region = with_notes(views, [note]), None
    given = region is not None
    if region is None:
        region = common_view([view.camera for view in views])
    centre, radius = region
    if not radius > 0:
        raise InputError(f"the region of interest has radius {radius:g}", fix="Give a positive radius.")
    matrix = np.eye(4) * (OBJECT_RADIUS / radius)
    matrix[:3, 3] = -centre * OBJECT_RADIUS / radius
    matrix[3, 3] = 1
    moved = views.transformed(matrix)
    metadata = {key: value for key, value in views.metadata.items() if key != "region"}
    if given:
        shown = shown_at_origin([view.camera for view in moved]) / OBJECT_RADIUS
        metadata["region"] = {"centre": [0.0, 0.0, 0.0], "radius": OBJECT_RADIUS, "shown": round(shown, 6)}
    return NormalisedCapture(replace(moved, metadata=metadata), matrix)


def common_view(cameras: Sequence[Camera]) -> tuple[Float[np.ndarray, "3"], float]:
    """What the cameras have in common: a sphere about the point that they look at, centre and radius.

    It is a little larger than most pictures show, since parts of objects reach out, and holds no camera.

    Raises:
        InputError: the cameras look in the same direction.
    """
    centre = look_at_point(cameras)
    distances = [float(np.linalg.norm(camera.centre - centre)) for camera in cameras]
    shown = [d * min(c.width / c.fx, c.height / c.fy) / 2 for d, c in zip(distances, cameras, strict=True)]
    return centre, min(1.3 * float(np.median(shown)), 0.75 * min(distances))


def shown_at_origin(cameras: Sequence[Camera]) -> float:
    """Half of what the pictures show across at the origin, world units, in the median."""
    halves = [float(np.linalg.norm(c.centre)) * min(c.width / c.fx, c.height / c.fy) / 2 for c in cameras]
    return float(np.median(halves))


def _smaller_than(radius: float, cameras: Sequence[Camera]) -> tuple[Float[np.ndarray, "3"], float] | None:
    """The cameras' common view where they surround one, and a region of such a radius is far larger; else None."""
    try:
        centre, common = common_view(cameras)
    except InputError:
        return None
    shown = [camera.shows(*camera.project(centre)) for camera in cameras]
    if not common > 0 or np.mean(shown) < _SURROUND:
        return None
    pictures = [np.linalg.norm(c.centre - centre) * min(c.width / c.fx, c.height / c.fy) / 2 for c in cameras]
    return (centre, common) if radius > TOO_LARGE * max(common, float(np.median(pictures))) else None


def framing_transform(cameras: Sequence[Camera], centre: Float[np.ndarray, "3"]) -> Mat4:
    """A rough similarity to begin with: ``centre`` comes to the origin, 0.6 of the cameras' median distance to 1.

    An object that fills its pictures then lies well within the cube ``[-1, 1]^3``.
    """
    half = 0.6 * float(np.median([np.linalg.norm(camera.centre - centre) for camera in cameras]))
    matrix = np.eye(4) / half
    matrix[:3, 3], matrix[3, 3] = -centre / half, 1.0
    return matrix


def look_at_point(cameras: Sequence[Camera]) -> Float[np.ndarray, "3"]:
    """The point nearest to all optical axes (least squares).

    Raises:
        InputError: the axes are parallel.
    """
    total, right = np.zeros((3, 3)), np.zeros(3)
    for camera in cameras:
        across = np.eye(3) - np.outer(camera.forward, camera.forward)
        total += across
        right += across @ camera.centre
    if np.linalg.cond(total) > 1e8:
        raise InputError("all cameras look in the same direction", fix="A surface needs views from around the object.")
    return np.linalg.solve(total, right)
