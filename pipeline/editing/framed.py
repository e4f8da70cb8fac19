"""Views of a capture as the editor takes them: squares of one size around the object, whatever cameras took them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from scene.camera import Camera
from scene.errors import InputError
from scene.framing import Framing, apply_framing
from scene.view import RGBA

FILL = 0.8
"""Radius of the object's sphere over half the side of a frame; what the nano editor was trained on has .6 to .87."""


@dataclass(frozen=True, eq=False)
class Frame:
    """A square cut out of a camera's picture, around a sphere.

    Args:
        camera: of the square.
        framing: from pixels of the whole picture to those of the square.
    """

    camera: Camera
    framing: Framing

    def picture(self, rgba: RGBA) -> UInt8[np.ndarray, "s s 4"]:
        """The square of the whole picture; what lies beyond its edge is transparent."""
        return apply_framing(rgba, self.framing)


def frame_around(camera: Camera, centre: Float[np.ndarray, "3"], radius: float, side: int) -> Frame:
    """The square that shows a sphere at :data:`FILL` of its side.

    Args:
        camera: any pinhole camera; pixels that are not square stay so.
        centre, radius: of the sphere, world frame.
        side: of the square, pixels.

    Raises:
        InputError: the camera stands in the sphere, or looks away from it.
    """
    pixels, depth = camera.project(centre[None])
    if not depth[0] > radius:
        where = "behind it" if depth[0] < -radius else "around it"
        raise InputError(f"a camera has the object {where}", fix="Leave that view out.")
    half = max(camera.fx, camera.fy) * radius / float(depth[0])
    scale = FILL * side / (2 * half)
    (x, y) = (float(value) for value in pixels[0])
    framing = Framing(scale, (side / 2 - scale * x, side / 2 - scale * y), side)
    return Frame(camera.cropped(framing.scale, framing.offset, side), framing)
