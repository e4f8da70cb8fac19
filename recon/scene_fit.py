"""Fitting a surface to posed photos without masks: a radiance volume, then a surface in front of its background."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from recon import kernels
from recon.band import Band, Box, camera_rows, redistanced
from recon.field import Surface
from recon.fit import LevelFit, band_surface, next_band
from recon.pixels import Pixels
from recon.radiance import RadianceVolume, fused
from recon.rays import RaySet
from recon.settings import FitSettings
from scene.errors import InputError
from scene.viewset import ViewSet


def fit_scene(
    views: ViewSet, settings: FitSettings = FitSettings(), *, on_step: Callable[[int, int], None] | None = None
) -> Surface:
    """Fit the surface of what lies in the cube of ``settings.half`` about the origin, from photos without masks.

    The photos' surroundings are modelled too, and left out of the surface. What no photo sees is empty.

    Args:
        views: posed pictures; see :func:`recon.normalise.normalise_scene`.
        settings: the coarse levels are fitted as a volume, the last one as a surface.
        on_step: called with (step, steps).

    Raises:
        InputError: the volume stays empty.
    """
    rays = RaySet.of(views, settings.image_side, masked=False)
    pixels = Pixels.of(rays, masked=False)
    coarse, last = settings.levels[:-1] or settings.levels, len(settings.levels) - 1
    steps = [3 * n for n in settings.iterations[: len(coarse)]]
    total = sum(steps) + settings.iterations[-1]
    volume: RadianceVolume | None = None
    done = 0
    for level, side in enumerate(coarse):
        volume = _grown(volume, side, settings, pixels)
        for _ in volume.fit(
            rays, pixels, count=settings.rays, steps=steps[level], seed=[settings.seed, level, 1], rate=0.5, decay=0.1
        ):
            done += 1
            if on_step is not None:
                on_step(done, total)
    assert volume is not None
    solid = _fused(volume, rays)
    band = _first_band(volume, solid, settings, pixels)
    cameras = camera_rows(rays.cameras, band.box)
    backdrop, ahead = _backdrop(volume, rays, pixels)
    pixels = _informative(pixels, band, cameras, ahead)
    level_fit = LevelFit(band, pixels, cameras, settings, last, backdrop=backdrop)
    rng = np.random.default_rng([settings.seed, len(settings.levels)])
    losses: dict[str, float] = {}
    for step in range(settings.iterations[-1]):
        losses, _ = level_fit.step(step, rng, (math.inf, math.inf))
        if (step + 1) % 50 == 0:
            band.refresh()
        done += 1
        if on_step is not None:
            on_step(done, total)
    band.refresh()
    facts = {"kept": "fit", "masks": "none", **{f"loss_{k}": round(v, 5) for k, v in losses.items()}}
    return band_surface(band, facts)


def _grown(last: RadianceVolume | None, side: int, settings: FitSettings, pixels: Pixels) -> RadianceVolume:
    """The volume of a level: empty and grey, or the one before at another resolution."""
    half = settings.half
    box = Box.of_voxel(np.full(3, -half), np.full(3, half), 2 * half / side)
    return RadianceVolume.uniform(box, pixels.mean_colour(), settings.background) if last is None else last.at(box)


def _fused(volume: RadianceVolume, rays: RaySet) -> Float[np.ndarray, "x y z"]:
    """Signed distance (voxels) of the volume's surface as the cameras see it; what no camera sees is outside."""
    reach = 4.0
    mean, _ = fused(((camera, volume.depth(camera)) for camera in rays.cameras), volume.box, reach)
    solid = ndimage.binary_fill_holes(mean < 0)
    mean = np.where(solid & (mean >= 0), -reach, mean)
    mean = ndimage.gaussian_filter(mean, 0.7)
    if not (mean < 0).any():
        raise InputError(
            "no surface was found in the region of interest", fix="Check the poses, or give the region with --bounds."
        )
    return _largest(mean).astype(np.float32)


def _largest(distance: Float[np.ndarray, "x y z"]) -> Float[np.ndarray, "x y z"]:
    """Without specks: parts smaller than a twentieth of the largest are made outside."""
    label, number = ndimage.label(distance < 0)
    if number < 2:
        return distance
    size = np.bincount(label.reshape(-1))[1:]
    small: Bool[np.ndarray, "x y z"] = np.isin(label, 1 + np.nonzero(size < 0.05 * size.max())[0])
    return np.where(small, 1.0, distance)


def _first_band(
    volume: RadianceVolume, distance: Float[np.ndarray, "x y z"], settings: FitSettings, pixels: Pixels
) -> Band:
    """The surface at the last level's resolution, in the box of what was found, with the volume's colours."""
    rough = Band(volume.box, redistanced(distance), 3.0)
    rough.colour[:-1] = volume.inner[(*rough.cells.T, slice(1, 4))]
    found = np.argwhere(distance < 0)
    low = volume.box.low + (found.min(0) - 2) * volume.box.voxel
    high = volume.box.low + (found.max(0) + 3) * volume.box.voxel
    low, high = np.maximum(low, volume.box.low), np.minimum(high, volume.box.high)
    box = Box.around(low, high, settings.levels[-1] ** 3)
    where = np.stack(np.meshgrid(*box.centres(), indexing="ij"))
    local = (where - volume.box.low[:, None, None, None]) / volume.box.voxel - 0.5
    scale = volume.box.voxel / box.voxel
    fine = ndimage.map_coordinates(rough.grid, local, order=1, mode="nearest") * scale
    return next_band(box, redistanced(fine.astype(np.float32)), rough, rough.grid, pixels, 2.5)


def _backdrop(
    volume: RadianceVolume, rays: RaySet, pixels: Pixels
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n"]]:
    """What each pixel sees with the box empty, and how much of it is in front of the box."""
    cameras = camera_rows(rays.cameras, volume.box)
    out = volume.render(cameras, pixels.view, pixels.x, pixels.y, empty=True)
    return out[:, :3].astype(np.float16), out[:, 5]


def _informative(
    pixels: Pixels, band: Band, cameras: Float[np.ndarray, "v 16"], ahead: Float[np.ndarray, "n"]
) -> Pixels:
    """Draw mostly pixels that see the surface, and none that something in front of the box covers."""
    out = np.zeros((len(pixels.view), 5), np.float32)
    kernels.render_rays(
        band.grid,
        band.index,
        band.colour,
        band.light,
        cameras,
        pixels.view,
        pixels.x,
        pixels.y,
        np.float32(1.0),
        np.float32(0.7),
        np.float32(4.0),
        out,
    )
    clear = ahead < 0.3
    return Pixels(
        pixels.view,
        pixels.x,
        pixels.y,
        pixels.rgba,
        pixels.weight,
        np.nonzero(clear & (out[:, 3] > 0.02))[0],
        np.nonzero(clear & (out[:, 3] <= 0.02))[0],
    )
