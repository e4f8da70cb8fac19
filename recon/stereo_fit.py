"""A surface from posed photos without masks, by stereo: depth maps, a membrane across their gaps, and mean colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from recon.band import Box, redistanced
from recon.field import Surface
from recon.membrane import membrane, without_specks
from recon.rays import RaySet
from recon.settings import FitSettings
from recon.stereo import stereo_depths
from scene.viewset import ViewSet

_LARGER = 1.5
"""Stereo's pictures relative to those of a fit: it is faster, and what it sees stays."""
_FIRST = 64
"""Side of the grid in which the surface's place is found."""
_FEW = 0.02
"""Share of the pixels with a depth, of the median view, below which stereo has seen nothing."""


def stereo_surface(
    views: ViewSet, settings: FitSettings = FitSettings(), *, on_step: Callable[[int, int], None] | None = None
) -> Surface | None:
    """What stereo sees in the cube of ``settings.half`` about the origin; what no photo shows is empty.

    Args:
        views: posed pictures; see :func:`recon.normalise.normalise_scene`.
        settings: size of pictures and of the last level are used.
        on_step: called with (step, steps).

    Returns:
        None where pictures are too plain, or stand too far apart, for stereo.
    """
    rays = RaySet.of(views, round(_LARGER * settings.image_side), masked=False)
    steps = len(rays) + 2

    def tell(done: int, _: int) -> None:
        if on_step is not None:
            on_step(done, steps)

    planes = max(48, round(settings.image_side / 2))
    depths = stereo_depths(rays, 3**0.5 * settings.half, planes=planes, on_step=tell)
    shares = [float((depth > 0).mean()) for depth in depths]
    if np.median(shares) < _FEW:
        return None
    half = settings.half
    cube = Box.of_voxel(np.full(3, -half), np.full(3, half), 2 * half / _FIRST)
    rough = without_specks(membrane(rays.cameras, depths, cube, 2 * half))
    tell(steps - 1, steps)
    if not (rough < 0).any():
        return None
    found = np.argwhere(rough < 0)
    low = np.maximum(cube.low + (found.min(0) - 2) * cube.voxel, cube.low)
    high = np.minimum(cube.low + (found.max(0) + 3) * cube.voxel, cube.high)
    box = Box.around(low, high, settings.levels[-1] ** 3)
    where = np.stack(np.meshgrid(*box.centres(), indexing="ij"))
    local = (where - cube.low[:, None, None, None]) / cube.voxel - 0.5
    start = ndimage.map_coordinates(rough, local, order=1, mode="nearest")
    field = without_specks(membrane(rays.cameras, depths, box, 2 * half, start))
    tell(steps, steps)
    facts: dict[str, object] = {"kept": "stereo", "masks": "none", "known": round(float(np.mean(shares)), 4)}
    distance = redistanced(field) * np.float32(box.voxel)
    return Surface(distance.astype(np.float32), _colours(rays, depths, box), box.low, box.voxel, facts)


def _colours(rays: RaySet, depths: Sequence[np.ndarray], box: Box) -> Float[np.ndarray, "x y z 3"]:
    """Mean colour of the pixels whose depth lies in a voxel, the nearest known one elsewhere; half the resolution."""
    shape = tuple(max(1, n // 2) for n in box.shape)
    total = np.zeros((int(np.prod(shape)), 4))
    for camera, depth, colour in zip(rays.cameras, depths, rays.colour, strict=True):
        row, column = np.nonzero(depth > 0)
        points = camera.unproject(np.stack([column + 0.5, row + 0.5], -1), depth[row, column].astype(np.float64))
        cell = np.floor((points - box.low) / (box.high - box.low) * shape).astype(int)
        inside = ((cell >= 0) & (cell < shape)).all(axis=1)
        index = np.ravel_multi_index(tuple(cell[inside].T), shape)
        values = np.concatenate([colour.numpy()[row, column], np.ones((len(row), 1))], axis=1)
        np.add.at(total, index, values[inside])
    count = total[:, 3].reshape(shape)
    mean = (total[:, :3] / np.maximum(total[:, 3:], 1)).reshape(*shape, 3)
    nearest = ndimage.distance_transform_edt(count == 0, return_distances=False, return_indices=True)
    return mean[tuple(nearest)].astype(np.float32)
