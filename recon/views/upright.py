"""The similarity that puts a world of found cameras in order: z up, centred, at a known scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from scene.camera import DEFAULT_RADIUS, Camera, Mat4
from scene.captures.worlds import estimated_up
from scene.errors import InputError


def upright_transform(cameras: Sequence[Camera], centre: Float[np.ndarray, "3"]) -> Mat4:
    """The similarity that puts ``centre`` at the origin and up, as far as the cameras tell it, along +z.

    The median camera then stands :data:`~scene.camera.DEFAULT_RADIUS` from the origin, the first one at azimuth 0.

    Raises:
        InputError: the cameras stand at the centre.
    """
    up, _ = estimated_up(list(cameras))
    distance = float(np.median([np.linalg.norm(camera.centre - centre) for camera in cameras]))
    if distance < 1e-9:
        raise InputError("the cameras stand at the point they look at")
    front = cameras[0].centre - centre
    front = front - up * (up @ front)
    if np.linalg.norm(front) < 1e-6 * distance:  # the first camera looks straight down: any azimuth will do
        front = np.cross(up, np.eye(3)[int(np.argmin(np.abs(up)))])
    front /= np.linalg.norm(front)
    matrix = np.eye(4)
    matrix[:3, :3] = DEFAULT_RADIUS / distance * np.stack([front, np.cross(up, front), up])
    matrix[:3, 3] = -matrix[:3, :3] @ centre
    return matrix
