"""What meshes of one photo must beat: its extruded silhouette, and the bounding sphere."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import UInt8

from pipeline.training.procedural import superellipsoid
from recon.mesh.marching_cubes import extract_mesh
from recon.surface import Surface
from recon.views.visual_hull import signed_distance
from scene.camera import OBJECT_RADIUS, orbit_camera
from scene.mesh import Faces, Vertices


def extruded_silhouette(photo: UInt8[np.ndarray, "s s 4"], elevation: float, side: int = 64) -> tuple[Vertices, Faces]:
    """The photo's silhouette pushed along the line of sight, as thick as its shorter side.

    Args:
        photo: framed cut-out.
        elevation: of its camera, which stands at azimuth 0, radians.
        side: voxels along each side.
    """
    camera = orbit_camera(0.0, elevation, size=side)
    mask = cv2.resize(photo[..., 3], (side, side), interpolation=cv2.INTER_AREA) >= 128
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    shorter = int(min(np.ptp(rows), np.ptp(columns))) + 1
    grid = np.zeros((side, side, side), np.float32)
    low = max(1, side // 2 - shorter // 2)
    grid[:, :, low : side - low] = mask[:, :, None]
    vertices, faces = extract_mesh(
        Surface.cube(signed_distance(grid, 0.5, 1.0), np.zeros((2, 2, 2, 3), np.float32), 1.0)
    )
    # Array axes (row, column, depth) are image down, right and away from the camera.
    local = np.stack([vertices[:, 1], -vertices[:, 0], -vertices[:, 2]], axis=-1)
    return local @ camera.c2w[:3, :3].T, faces


def bounding_sphere() -> tuple[Vertices, Faces]:
    """The sphere that every normalised object lies in."""
    return superellipsoid(1.0, 1.0, (OBJECT_RADIUS,) * 3, 32, 64)
