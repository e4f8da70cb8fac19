"""Vertical symmetry planes: what is seen from one side of an object is also what the other side looks like."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from scene.camera import Camera, Mat4, Points
from scene.view import View


@dataclass(frozen=True)
class SymmetryPlane:
    """A vertical plane that an object is its own mirror image in: the points p with ``p . normal = offset``.

    Args:
        heading: azimuth of the plane's normal, radians; the opposite normal is the same plane. From a photo's camera,
            which stands at azimuth 0, an object in profile has 0, one that faces the camera has pi / 2.
        offset: distance of the plane from the origin along the normal, world units.
    """

    heading: float
    offset: float = 0.0

    @property
    def normal(self) -> Float[np.ndarray, "3"]:
        """Unit normal."""
        return np.array([math.cos(self.heading), math.sin(self.heading), 0.0])

    @property
    def matrix(self) -> Mat4:
        """The reflection, for homogeneous points."""
        out = np.eye(4)
        out[:3, :3] -= 2 * np.outer(self.normal, self.normal)
        out[:3, 3] = 2 * self.offset * self.normal
        return out

    def mirrored(self, points: Points) -> Points:
        """The points on the other side."""
        points = np.asarray(points, dtype=np.float64)
        return points - 2 * ((points @ self.normal) - self.offset)[..., None] * self.normal

    def mirrored_camera(self, camera: Camera) -> Camera:
        """The camera whose picture of a symmetric object is the mirror image, left to right, of this camera's.

        A reflection would make its axes left-handed, so its x axis is turned around, and with it the picture.
        """
        c2w = self.matrix @ camera.c2w @ np.diag([-1.0, 1, 1, 1])
        return replace(camera, c2w=c2w, cx=camera.width - camera.cx)

    def mirrored_view(self, view: View, weight: float, name: str = "mirrored") -> View:
        """A photo as a picture of the other side; without maps of depth and normals.

        Args:
            view: the photo.
            weight: confidence in what comes out.
            name: of the new view.
        """
        rgba = np.ascontiguousarray(view.rgba()[:, ::-1])
        return View(name, self.mirrored_camera(view.camera), rgba, weight=weight, origin="mirrored")

    def angle_to(self, heading: float) -> float:
        """Angle between the plane and another vertical one, radians in [0, pi / 2]."""
        away = abs(self.heading - heading) % math.pi
        return min(away, math.pi - away)

    def view_angle(self, camera: Camera) -> float:
        """Angle at the origin between a camera and its mirrored one, radians."""
        one, other = camera.centre, self.mirrored_camera(camera).centre
        cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        return float(np.arccos(np.clip(cosine, -1, 1)))
