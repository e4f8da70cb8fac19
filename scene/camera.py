"""Cameras, and the one convention of the whole project.

* Camera axes: OpenGL and nerfstudio. x right, y up, z backwards; the camera looks along -z.
* World: right-handed, z up. Objects are centred at the origin and their bounding sphere has radius
  :data:`OBJECT_RADIUS`. A photo's camera stands at azimuth 0, that is on the +x side.
* Pixels: continuous coordinates, x right, y down; pixel (0, 0) spans [0, 1) x [0, 1), so its centre is (0.5, 0.5).
* Angles: radians, unless a name ends in ``_deg``. Elevation is measured from the horizon, azimuth about +z from +x.

Every other convention (OpenCV, COLMAP, Zero123's polar one, glTF) is reached through a named function here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float

from scene.errors import InputError

OBJECT_RADIUS = 0.6
"""Radius of the bounding sphere of a normalised object (world units)."""
ZERO123_FOV = 2 * math.atan(32 / 2 / 35)
"""Field of view of Zero123's training cameras (35 mm lens, 32 mm sensor): 49.134 degrees, in radians."""
DEFAULT_RADIUS = 1.5
"""Distance from which views are generated: the near end of Zero123's 1.5 to 2.2, where objects look largest."""

Mat4 = Float[np.ndarray, "4 4"]
Points = Float[np.ndarray, "*n 3"]


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    Args:
        c2w: camera-to-world matrix, OpenGL camera axes, a rigid motion.
        fx, fy: focal lengths in pixels, positive.
        cx, cy: principal point in pixels.
        width, height: image size in pixels.
    """

    c2w: Mat4
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        c2w = np.asarray(self.c2w, dtype=np.float64)
        if c2w.shape != (4, 4) or not np.isfinite(c2w).all():
            raise InputError(f"a camera pose must be a finite 4x4 matrix, got {c2w.shape}")
        rotation = c2w[:3, :3]
        if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-4:
            raise InputError(
                "a camera pose must hold a rotation, but its upper 3x3 block is not orthonormal",
                fix="Remove scale or shear from the matrix.",
            )
        if np.linalg.det(rotation) < 0:
            raise InputError(
                "a camera pose is mirrored (determinant -1)",
                fix="Negate one axis: left-handed poses are not supported.",
            )
        if min(self.width, self.height) < 1 or not (self.fx > 0 and self.fy > 0):
            raise InputError(
                f"a camera needs a positive size and focal length, got {self.width}x{self.height}, "
                f"fx={self.fx}, fy={self.fy}"
            )
        object.__setattr__(self, "c2w", c2w)

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """Camera centre, world frame."""
        return self.c2w[:3, 3]

    @property
    def forward(self) -> Float[np.ndarray, "3"]:
        """Unit viewing direction, world frame."""
        return -self.c2w[:3, 2]

    @property
    def intrinsics(self) -> Float[np.ndarray, "3 3"]:
        """The matrix K for OpenCV camera axes: pixel = K (x, y, z) / z."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    def project(self, points: Points) -> tuple[Float[np.ndarray, "*n 2"], Float[np.ndarray, "*n"]]:
        """Project world points.

        Returns:
            Pixel coordinates, and z-depth along the optical axis (positive in front). Points in the camera's plane
            get infinite pixel coordinates.
        """
        local = (np.asarray(points, dtype=np.float64) - self.centre) @ self.c2w[:3, :3]
        depth = np.asarray(-local[..., 2])  # of a single point, too, an array
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.cx + self.fx * local[..., 0] / depth
            y = self.cy - self.fy * local[..., 1] / depth
        return np.stack([x, y], axis=-1), depth

    def shows(self, pixels: Float[np.ndarray, "*n 2"], depth: Float[np.ndarray, "*n"]) -> Bool[np.ndarray, "*n"]:
        """Whether what :meth:`project` gives lies in front of the camera and within the picture."""
        with np.errstate(invalid="ignore"):
            inside = (pixels >= 0).all(axis=-1) & (pixels < (self.width, self.height)).all(axis=-1)
            return np.asarray((depth > 0) & inside)

    def unproject(self, pixels: Float[np.ndarray, "*n 2"], depth: Float[np.ndarray, "*n"]) -> Points:
        """World points at the given z-depths: the inverse of :meth:`project`."""
        x = (pixels[..., 0] - self.cx) / self.fx
        y = -(pixels[..., 1] - self.cy) / self.fy
        local = np.stack([x, y, -np.ones_like(x)], axis=-1) * np.asarray(depth)[..., None]
        return local @ self.c2w[:3, :3].T + self.centre

    def rays(self, pixels: Float[np.ndarray, "*n 2"] | None = None) -> tuple[Points, Points]:
        """World rays through pixel coordinates, by default through all pixel centres ``[height, width]``.

        Returns:
            Origins and unit directions.
        """
        if pixels is None:
            xs, ys = np.meshgrid(np.arange(self.width) + 0.5, np.arange(self.height) + 0.5)
            pixels = np.stack([xs, ys], axis=-1)
        ends = self.unproject(pixels, np.ones(pixels.shape[:-1]))
        directions = ends - self.centre
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        return np.broadcast_to(self.centre, directions.shape), directions

    def resized(self, width: int, height: int) -> Camera:
        """The same camera for an image resampled to another size."""
        sx, sy = width / self.width, height / self.height
        return replace(
            self, fx=self.fx * sx, fy=self.fy * sy, cx=self.cx * sx, cy=self.cy * sy, width=width, height=height
        )

    def cropped(self, scale: float, offset: tuple[float, float], size: int) -> Camera:
        """The camera of the image after ``new_pixel = scale * old_pixel + offset``, cut to a square of ``size``."""
        return replace(
            self,
            fx=self.fx * scale,
            fy=self.fy * scale,
            cx=self.cx * scale + offset[0],
            cy=self.cy * scale + offset[1],
            width=size,
            height=size,
        )


def look_at(centre: Float[np.ndarray, "3"], target: Float[np.ndarray, "3"] | None = None) -> Mat4:
    """Pose of an upright camera at ``centre`` that looks at ``target`` (default: the origin)."""
    centre = np.asarray(centre, dtype=np.float64)
    forward = (np.zeros(3) if target is None else np.asarray(target, dtype=np.float64)) - centre
    distance = np.linalg.norm(forward)
    if distance < 1e-9:
        raise InputError("a camera cannot stand at the point it looks at")
    forward /= distance
    right = np.cross(forward, (0.0, 0.0, 1.0))
    norm = np.linalg.norm(right)
    # Straight up or down every heading is upright: take the limit that azimuth 0 approaches.
    right = np.array([0.0, 1.0, 0.0]) if norm < 1e-9 else right / norm
    c2w = np.eye(4)
    c2w[:3, :3] = np.stack([right, np.cross(right, forward), -forward], axis=1)
    c2w[:3, 3] = centre
    return c2w


def orbit_camera(
    azimuth: float, elevation: float, radius: float = DEFAULT_RADIUS, *, size: int = 128, fov: float = ZERO123_FOV
) -> Camera:
    """A square camera on a sphere about the origin, looking at the origin (radians, world units, pixels)."""
    if not all(math.isfinite(value) for value in (azimuth, elevation, radius)):
        raise InputError(f"an orbit needs finite numbers, got {azimuth}, {elevation}, {radius}")
    ca, sa, ce, se = math.cos(azimuth), math.sin(azimuth), math.cos(elevation), math.sin(elevation)
    # Not by look_at: at the pole, and a rounding error beyond it, only the azimuth knows the heading.
    c2w = np.array(
        [
            [-sa, -se * ca, ce * ca, radius * ce * ca],
            [ca, -se * sa, ce * sa, radius * ce * sa],
            [0, ce, se, radius * se],
            [0, 0, 0, 1.0],
        ]
    )
    focal = size / 2 / math.tan(fov / 2)
    return Camera(c2w, focal, focal, size / 2, size / 2, size, size)


def orbit_of(camera: Camera) -> tuple[float, float, float]:
    """Azimuth in (-pi, pi], elevation and radius of a camera about the origin: the inverse of :func:`orbit_camera`."""
    x, y, z = camera.centre
    radius = float(np.linalg.norm(camera.centre))
    return math.atan2(y, x), math.asin(max(-1.0, min(1.0, z / radius))), radius


# --- other conventions -------------------------------------------------------------------------------------------

_FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])
_Y_UP_FROM_Z_UP = np.array([[1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


def c2w_to_opencv(c2w: Mat4) -> Mat4:
    """OpenGL camera axes to OpenCV ones (x right, y down, z forward); also the inverse of itself."""
    return c2w @ _FLIP_YZ


c2w_from_opencv = c2w_to_opencv


def c2w_from_colmap(rotation: Float[np.ndarray, "3 3"], translation: Float[np.ndarray, "3"]) -> Mat4:
    """COLMAP's world-to-camera rotation and translation (OpenCV axes) to a camera-to-world matrix."""
    w2c = np.eye(4)
    w2c[:3, :3], w2c[:3, 3] = rotation, translation
    return c2w_from_opencv(np.linalg.inv(w2c))


def colmap_from_c2w(c2w: Mat4) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Inverse of :func:`c2w_from_colmap`."""
    w2c = np.linalg.inv(c2w_to_opencv(c2w))
    return w2c[:3, :3], w2c[:3, 3]


def zero123_pose(source: Camera, target: Camera) -> Float[np.ndarray, "4"]:
    """Zero123's relative pose ``[dtheta, sin dphi, cos dphi, dr]``, theta measured down from +z, target minus source.

    Raising the camera gives a negative dtheta, moving it right a positive dphi; the identity is ``[0, 0, 1, 0]``.
    Source: Zero-1-to-3, ldm/data/simple.py.
    """
    azimuth_s, elevation_s, radius_s = orbit_of(source)
    azimuth_t, elevation_t, radius_t = orbit_of(target)
    dphi = azimuth_t - azimuth_s
    return np.array([elevation_s - elevation_t, math.sin(dphi), math.cos(dphi), radius_t - radius_s])


def camera_from_zero123(source: Camera, pose: Float[np.ndarray, "4"]) -> Camera:
    """The target camera of a Zero123 pose vector: the inverse of :func:`zero123_pose` for orbit cameras."""
    azimuth, elevation, radius = orbit_of(source)
    dtheta, sine, cosine, dr = (float(v) for v in pose)
    target = orbit_camera(azimuth + math.atan2(sine, cosine), elevation - dtheta, radius + dr, size=source.width)
    return replace(target, fx=source.fx, fy=source.fy, cx=source.cx, cy=source.cy)


def gltf_from_world(front_azimuth: float = 0.0) -> Mat4:
    """Rotation from the world (z up) to glTF (+Y up) that turns the side seen from ``front_azimuth`` to face +Z."""
    turn = np.eye(4)
    # Azimuth 0 (+x) must become +Z; the plain axis change (x, z, -y) sends -y there, a quarter turn away.
    angle = -front_azimuth - math.pi / 2
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return _Y_UP_FROM_Z_UP @ turn


def z_up_from_y_up(points: Points) -> Points:
    """Y-up asset coordinates (glTF, most meshes) to the z-up world: (x, y, z) to (x, -z, y)."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], axis=-1)


def y_up_from_z_up(points: Points) -> Points:
    """Inverse of :func:`z_up_from_y_up`."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], axis=-1)


def apply_transform(matrix: Mat4, points: Points) -> Points:
    """Apply a 4x4 affine matrix to points."""
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def normalising_transform(points: Float[np.ndarray, "n 3"], radius: float = OBJECT_RADIUS) -> Mat4:
    """The similarity that centres points by their bounding box and scales them into a sphere of ``radius``."""
    points = np.asarray(points, dtype=np.float64)
    if len(points) == 0 or not np.isfinite(points).all():
        raise InputError("cannot normalise an object without finite points")
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    extent = np.linalg.norm(points - middle, axis=1).max()
    if extent == 0:
        raise InputError("cannot normalise an object that is a single point")
    matrix = np.eye(4) * (radius / extent)
    matrix[:3, 3] = -middle * radius / extent
    matrix[3, 3] = 1
    return matrix
