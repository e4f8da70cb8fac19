"""A surface from posed photos without masks, by stereo: depth maps, TSDF fusion across their gaps, mean colours."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from recon.sdf_grid.narrow_band import redistanced
from recon.settings import FitSettings
from recon.surface import Surface
from recon.surface_report import MapReport, SurfaceReport
from recon.unmasked.plane_sweep import neighbours, stereo_depths
from recon.unmasked.tsdf_fusion import fuse_and_fill, without_small_components
from recon.views.ray_set import RaySet
from scene.camera import Camera
from scene.viewset import ViewSet
from scene.voxel_grid import VoxelGrid

_LOG = logging.getLogger("viewloom")
_LARGER = 1.5
"""Stereo's pictures relative to those of a fit: it is faster, and what it sees stays."""
_FIRST = 64
"""Side of the grid in which the surface's place is found."""
_FEW = 0.02
"""Fraction of the pixels with a depth, of the median view, below which stereo has seen nothing."""
_OVERLAP = 0.1
"""Fraction of a depth map's pixels that stereo must know to judge it; if it knows fewer, it has seen outlines only."""
_CONTRADICTION = 0.05
"""Relative difference, of the median pixel, from which on a depth map is in another scale or another place."""


def stereo_surface(
    views: ViewSet, settings: FitSettings = FitSettings(), *, on_step: Callable[[int, int], None] | None = None
) -> Surface | None:
    """What stereo sees in the cube of ``settings.half_extent`` about the origin; what no photo shows is empty.

    Args:
        views: posed pictures; see :func:`recon.views.normalise.normalise_scene`. Where stereo sees nothing, their depth
            maps are believed, unless they contradict it elsewhere.
        settings: size of pictures and of the last level are used, and whether depth maps have any weight.
        on_step: called with (step, steps).

    Returns:
        None where pictures are too plain, or stand too far apart, for stereo, and there are no depth maps.

    Raises:
        InputError: a picture or a map cannot be read.
    """
    since = time.monotonic()
    rays = RaySet.of(views, round(_LARGER * settings.image_side), masked=False)
    steps = len(rays) + 2

    def report_step(done: int, _: int) -> None:
        if on_step is not None:
            on_step(done, steps)

    planes = max(48, round(settings.image_side / 2))
    depths = stereo_depths(rays, 3**0.5 * settings.half_extent, planes=planes, on_step=report_step)
    maps: MapReport | None = None
    if settings.depth_weight > 0:
        depths, maps = _with_maps(views, rays.cameras, depths)
        if views.has_ignored:  # maps show what is not to be looked at, too
            depths = [np.where(a.numpy() > 0.5, d, np.float32(0)) for a, d in zip(rays.alpha, depths, strict=True)]
    known = [float((depth > 0).mean()) for depth in depths]
    _LOG.debug(
        "stereo: %d pictures, %d planes, depth known for %.0f %% of the pixels, %.1f s",
        len(rays),
        planes,
        100 * np.mean(known),
        time.monotonic() - since,
    )
    if np.median(known) < _FEW:
        return None
    half = settings.half_extent
    cube = VoxelGrid.of_voxel(np.full(3, -half), np.full(3, half), 2 * half / _FIRST)
    rough = without_small_components(fuse_and_fill(rays.cameras, depths, cube, 2 * half))
    report_step(steps - 1, steps)
    if not (rough < 0).any():
        return None
    found = np.argwhere(rough < 0)
    low = np.maximum(cube.low + (found.min(0) - 2) * cube.voxel, cube.low)
    high = np.minimum(cube.low + (found.max(0) + 3) * cube.voxel, cube.high)
    box = VoxelGrid.around(low, high, settings.levels[-1] ** 3)
    start = ndimage.map_coordinates(rough, box.coordinates_in(cube), order=1, mode="nearest")
    field = without_small_components(fuse_and_fill(rays.cameras, depths, box, 2 * half, start))
    report_step(steps, steps)
    fraction = round(float(np.mean(known)), 4)
    report = SurfaceReport("stereo", masked=False, maps=maps, depth_fraction=fraction)
    distance = redistanced(field) * np.float32(box.voxel)
    return Surface(distance.astype(np.float32), _colours(rays, depths, box), box.low, box.voxel, report)


def _with_maps(
    views: ViewSet, cameras: Sequence[Camera], depths: Sequence[Float[np.ndarray, "_ _"]]
) -> tuple[list[Float[np.ndarray, "_ _"]], MapReport | None]:
    """Depths with those of the views' maps where there are none; and how many maps are used, and which are not.

    A map is left out if both other maps and stereo contradict it. Where it and stereo differ, and other maps confirm
    it, stereo has seen the outlines of something plain.

    Args:
        views: perhaps with maps; cameras: at the size of ``depths``; depths: along the optical axis, 0 where unknown.
    """
    maps = [_at_size(view.depth(), camera) for view, camera in zip(views, cameras, strict=True)]
    out, used, wrong = [], 0, []
    for k, (view, depth, measured) in enumerate(zip(views, depths, maps, strict=True)):
        if measured is None:
            out.append(depth)
            continue
        both = (depth > 0) & (measured > 0)
        judges = both.sum() >= max(1, _OVERLAP * np.count_nonzero(measured))
        differs = judges and np.median(np.abs(measured[both] / depth[both] - 1)) > _CONTRADICTION
        if differs and not _confirmed_by_maps(cameras, maps, k):
            wrong.append(view.name)
            out.append(depth)
            continue
        used += 1
        first, second = (measured, depth) if differs or not judges else (depth, measured)
        out.append(np.where(first > 0, first, second))
    return out, MapReport(used, left_out=tuple(wrong)) if used or wrong else None


def _at_size(measured: Float[np.ndarray, "_ _"] | None, camera: Camera) -> Float[np.ndarray, "h w"] | None:
    """A depth map at a camera's size; the nearest values, since one between two surfaces would be on neither."""
    if measured is None:
        return None
    rows = ((np.arange(camera.height) + 0.5) * measured.shape[0] / camera.height).astype(int)
    columns = ((np.arange(camera.width) + 0.5) * measured.shape[1] / camera.width).astype(int)
    return measured[rows[:, None], columns]


def _confirmed_by_maps(
    cameras: Sequence[Camera], maps: Sequence[Float[np.ndarray, "_ _"] | None], k: int, samples: int = 2000
) -> bool:
    """Whether most points of a map are where the maps of neighbouring views have theirs."""
    mine = maps[k]
    assert mine is not None
    row, column = np.nonzero(mine > 0)
    row, column = (a[:: max(1, len(row) // samples)] for a in (row, column))
    points = cameras[k].unproject(np.stack([column + 0.5, row + 0.5], -1), mine[row, column].astype(np.float64))
    agreeing = compared = 0
    for n in neighbours(cameras, k):
        other, depth = cameras[n], maps[n]
        if depth is None:
            continue
        pixels, ahead = other.project(points)
        inside = other.shows(pixels, ahead)
        u, v = pixels[inside].astype(int).T
        found, ahead = depth[v, u], ahead[inside]
        agreeing += int(((found > 0) & (np.abs(found / ahead - 1) < _CONTRADICTION / 2)).sum())
        compared += int((found > 0).sum())
    return compared > 0 and agreeing > 0.5 * compared


def _colours(rays: RaySet, depths: Sequence[np.ndarray], box: VoxelGrid) -> Float[np.ndarray, "x y z 3"]:
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
