"""Pictures named for the side they show: ``front``, ``left``, ``back``, ``right``, perhaps ``top`` and ``bottom``.

The object faces +x. Sides are those of who stands before its front, as in technical drawings: ``left.png`` is what is
seen from that person's left (-y), ``right.png`` from the right (+y). ``top.png`` has the front at its lower edge,
``bottom.png`` at its upper one. Such pictures are mostly drawn or rendered nearly without perspective; the cameras are
Zero123's, at the default radius, whose field of view spans the longer side.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from scene.camera import ZERO123_FOV, orbit_camera
from scene.captures.folders import pictures_in, subfolder
from scene.errors import InputError
from scene.frames import Frame
from scene.lens import Intrinsics
from scene.maps import picture_head
from scene.viewset import ViewSet

SIDES = {
    "front": (0.0, 0.0),
    "right": (math.pi / 2, 0.0),
    "back": (math.pi, 0.0),
    "left": (-math.pi / 2, 0.0),
    "top": (0.0, math.pi / 2),
    "bottom": (0.0, -math.pi / 2),
}
"""Azimuth and elevation of the camera of every side, radians."""


def named_pictures(folder: Path) -> dict[str, Path]:
    """The pictures of sides in a folder or its ``images/``, if ``front`` and another one are there."""
    for top in (folder, folder / "images"):
        found = {path.stem.lower(): path for path in pictures_in(top) if path.stem.lower() in SIDES}
        if "front" in found and len(found) >= 2:
            return {side: found[side] for side in SIDES if side in found}
    return {}


def read_named(folder: Path) -> ViewSet:
    """Read a folder of named sides; every picture needs transparency, or a mask ``masks/front.png``.

    Raises:
        InputError: sides or masks are missing.
    """
    found = named_pictures(folder)
    if not found:
        raise InputError("no front.png with left, right or back beside it", where=folder)
    masks = subfolder(folder, ("masks", "mask"))
    in_masks = {} if masks is None else {path.stem.lower(): path for path in pictures_in(masks)}
    frames = []
    for side, picture in found.items():
        width, height = picture_head(picture).upright
        azimuth, elevation = SIDES[side]
        focal = max(width, height) / 2 / math.tan(ZERO123_FOV / 2)
        intrinsics = Intrinsics(focal, focal, width / 2, height / 2, width, height)
        c2w = orbit_camera(azimuth, elevation).c2w
        frames.append(Frame(picture, str(picture), c2w, intrinsics, mask=in_masks.get(side)))
    views = ViewSet.of_frames(frames, folder, {"format": "named", "up": "given"})
    if not views.has_masks:
        raise InputError(
            "named views need masks",
            where=folder,
            fix="Save them as PNG with a transparent background, or put masks/front.png and so on beside them.",
        )
    heights = [_extent(view.rgba()) for view in views if view.name.lower() not in ("top", "bottom")]
    if min(heights) < 0.9 * max(heights):
        note = f"the object's height differs between sides ({min(heights):.2f} to {max(heights):.2f} of the pictures)"
        views.metadata["notes"] = [*views.metadata.get("notes", []), note]
    return views


def _extent(rgba: np.ndarray) -> float:
    """Height of what is opaque, over the picture's longer side."""
    rows = np.flatnonzero((rgba[..., 3] > 127).any(axis=1))
    return float(rows[-1] - rows[0] + 1) / max(rgba.shape[:2]) if len(rows) else 0.0
