"""Solid occupancy of meshes that need not be closed, by carving away what cameras can see past."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from scene.camera import OBJECT_RADIUS, Camera, orbit_camera
from scene.render import MeshRenderer


def voxel_centres(resolution: int, half: float = OBJECT_RADIUS) -> Float[np.ndarray, "r r r 3"]:
    """World positions of voxel centres of the cube ``[-half, half]``; array axes are (x, y, z)."""
    axis = (np.arange(resolution) + 0.5) / resolution * 2 * half - half
    return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)


def sphere_cameras(count: int, size: int, radius: float = 1.5) -> list[Camera]:
    """Cameras spread evenly over the sphere by a Fibonacci lattice, looking at the origin."""
    golden = math.pi * (3 - math.sqrt(5))
    heights = 1 - (np.arange(count) + 0.5) * 2 / count
    return [orbit_camera(golden * k, math.asin(h), radius, size=size) for k, h in enumerate(heights)]


def carve_solid(
    renderer: MeshRenderer, resolution: int, *, views: int = 14, size: int | None = None, colours: bool = False
) -> tuple[Bool[np.ndarray, "r r r"], Float[np.ndarray, "r r r 3"] | None]:
    """Occupancy of a normalised mesh: what no camera can see through or in front of.

    Open meshes get the solid that their outside suggests, bowls stay hollow, and hidden interiors are filled.

    Args:
        renderer: of a mesh normalised to the bounding sphere.
        resolution: voxels along each side of the cube that encloses the sphere.
        views: depth maps used.
        size: pixels along each side of a depth map; by default about 2.5 a voxel.
        colours: also give each occupied voxel near the surface the mean colour seen there (0 elsewhere).
    """
    size = size or int(2.5 * resolution)
    points = voxel_centres(resolution).reshape(-1, 3)
    solid = np.ones(len(points), bool)
    voxel = 2 * OBJECT_RADIUS / resolution
    seen = []
    for camera in sphere_cameras(views, size):
        picture = renderer.render(camera, samples=1)
        pixels, depth = camera.project(points)
        column = np.clip(pixels[:, 0].astype(np.int64), 0, size - 1)
        row = np.clip(pixels[:, 1].astype(np.int64), 0, size - 1)
        surface = picture.depth[row, column]
        # Half a voxel of slack keeps sheets thinner than a voxel, whose own voxel centre may lie in front of them.
        solid &= ~((surface == 0) | (depth < surface - 0.5 * voxel))
        if colours:
            seen.append((row, column, np.abs(depth - surface) < 1.2 * voxel, picture.rgba))
    grid = solid.reshape(resolution, resolution, resolution)
    if not colours:
        return grid, None
    total, weight = np.zeros((len(points), 3)), np.zeros((len(points), 1))
    for row, column, near, rgba in seen:
        use = near & solid & (rgba[row, column, 3] > 0)
        total[use] += rgba[row[use], column[use], :3]
        weight[use] += 1
    colour = (total / np.maximum(weight, 1)).astype(np.float32)
    return grid, colour.reshape(resolution, resolution, resolution, 3)
