"""Solid occupancy of meshes that need not be closed, by carving away what cameras can see past."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float

from scene.camera import OBJECT_RADIUS, Camera, orbit_camera
from scene.render import MeshRenderer

SHEET_FRACTION = 0.1
"""Surface is bare if the solid interpolated there is less than this."""


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
    renderer: MeshRenderer,
    resolution: int,
    *,
    views: int = 14,
    size: int | None = None,
    colours: bool = False,
    sheets: bool = True,
) -> tuple[Bool[np.ndarray, "r r r"], Float[np.ndarray, "r r r 3"] | None]:
    """Occupancy of a normalised mesh: what no camera can see through or in front of.

    Open meshes get the solid that their outside suggests, bowls stay hollow, and hidden interiors are filled.

    Args:
        renderer: of a mesh normalised to the bounding sphere.
        resolution: voxels along each side of the cube that encloses the sphere.
        views: depth maps used.
        size: pixels along each side of a depth map; by default about 2.5 a voxel.
        colours: also give each occupied voxel near the surface the mean colour seen there (0 elsewhere).
        sheets: make walls thinner than a voxel whole, of which carving leaves only what lies near voxel centres: every
            voxel is solid that holds visible surface with next to no solid around it.
    """
    size = size or int(2.5 * resolution)
    points = voxel_centres(resolution).reshape(-1, 3)
    solid = np.ones(len(points), bool)
    voxel = 2 * OBJECT_RADIUS / resolution
    seen = []
    surfaces = []
    for camera in sphere_cameras(views, size):
        picture = renderer.render(camera, samples=1)
        pixels, depth = camera.project(points)
        column = np.clip(pixels[:, 0].astype(np.int64), 0, size - 1)
        row = np.clip(pixels[:, 1].astype(np.int64), 0, size - 1)
        surface = picture.depth[row, column]
        # Half a voxel of slack keeps sheets thinner than a voxel, whose own voxel centre may lie in front of them.
        solid &= ~((surface == 0) | (depth < surface - 0.5 * voxel))
        if sheets:
            surfaces.append(_surface_points(camera, picture.depth))
        if colours:
            seen.append((row, column, np.abs(depth - surface) < 1.2 * voxel, picture.rgba))
    grid = solid.reshape(resolution, resolution, resolution)
    if sheets:
        _fill_sheets(grid, np.concatenate(surfaces))
    if not colours:
        return grid, None
    total, weight = np.zeros((len(points), 3)), np.zeros((len(points), 1))
    for row, column, near, rgba in seen:
        use = near & solid & (rgba[row, column, 3] > 0)
        total[use] += rgba[row[use], column[use], :3]
        weight[use] += 1
    colour = (total / np.maximum(weight, 1)).astype(np.float32)
    return grid, colour.reshape(resolution, resolution, resolution, 3)


def _surface_points(camera: Camera, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "n 3"]:
    """World positions of what a depth map shows."""
    row, column = np.nonzero(depth)
    return camera.unproject(np.stack([column + 0.5, row + 0.5], axis=-1), depth[row, column])


def _fill_sheets(solid: Bool[np.ndarray, "r r r"], points: Float[np.ndarray, "n 3"]) -> None:
    """Make the voxels of surface points solid, in place, where the grid between voxel centres is all but empty."""
    resolution = len(solid)
    place = (points / (2 * OBJECT_RADIUS) + 0.5) * resolution
    place = place[((place > 0.5) & (place < resolution - 0.5)).all(axis=1)]
    low = (place - 0.5).astype(np.int64)
    part = place - 0.5 - low
    value = np.zeros(len(place))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, part, 1 - part).prod(axis=1)
        value += weight * solid[tuple((low + corner).T)]
    # Beside a flat face of a thick solid the value is about a half, at an edge a quarter, at a corner an eighth.
    bare = place[value < SHEET_FRACTION].astype(np.int64)
    solid[tuple(bare.T)] = True
