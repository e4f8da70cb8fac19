"""Fitting a surface to posed photos without masks: a radiance volume, then a surface in front of its background."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from recon import density_kernels, kernels
from recon.band import Band, Box, camera_rows, redistanced
from recon.field import Surface
from recon.fit import LevelFit, band_surface, next_band
from recon.pixels import Pixels
from recon.rays import RaySet
from recon.settings import FitSettings
from scene.errors import InputError
from scene.viewset import ViewSet

_SHIFT = np.float32(-3.0)
"""Added to raw densities, so that a volume that knows nothing is nearly empty."""
_RATE = 0.5
"""Typical change of a raw density in a step."""
_DECISIVE = 0.0
"""Weight that draws opacities to 0 or 1; any was seen to empty small scenes."""
_STEP = np.float32(0.8)
"""Spacing of samples in the box, voxels."""


@dataclass(eq=False)
class RadianceVolume:
    """Densities and colours of a box, and of what surrounds it.

    Args:
        box: the box.
        inner: raw density and sRGB of its voxels.
        outer: the same of the surroundings, contracted into a cube.
        background: samples in front of and behind the box.
    """

    box: Box
    inner: Float[np.ndarray, "x y z 4"]
    outer: Float[np.ndarray, "s s s 4"]
    background: tuple[int, int]

    @property
    def frame(self) -> Float[np.ndarray, "4"]:
        """Middle of the box and radius of what is not contracted, voxels."""
        size = np.array(self.box.shape)
        return np.array([*((size - 1) / 2), size.max() / 2 * 1.2], np.float32)

    def render(
        self, cameras: Float[np.ndarray, "v 16"], pixels: Pixels, chosen: slice, *, empty: bool = False
    ) -> Float[np.ndarray, "n 6"]:
        """Colour, opacity and distance in the box, and opacity in front of it, of some pixels.

        Args:
            cameras: of the box, see ``camera_rows``.
            pixels, chosen: which.
            empty: leave out what the box holds.
        """
        view = pixels.view[chosen]
        out = np.zeros((len(view), 6), np.float32)
        allowed = np.full(self.box.shape, not empty)
        density_kernels.render_density(
            self.inner,
            allowed,
            self.outer,
            self.frame,
            _SHIFT,
            cameras,
            view,
            pixels.x[chosen],
            pixels.y[chosen],
            _STEP,
            self.background[0],
            self.background[1],
            out,
        )
        return out


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
        for _ in _fit_volume(volume, rays, pixels, settings, steps[level], level):
            done += 1
            if on_step is not None:
                on_step(done, total)
    assert volume is not None
    solid = _fused(volume, rays, pixels)
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
    if last is None:
        inner = np.zeros((*box.shape, 4), np.float32)
        inner[..., 1:] = pixels.mean_colour()
        outer = np.zeros((64, 64, 64, 4), np.float32)
        outer[..., 1:] = pixels.mean_colour()
        return RadianceVolume(box, inner, outer, settings.background)
    factor = np.array(box.shape) / last.box.shape
    inner = np.stack([ndimage.zoom(last.inner[..., c], factor, order=1) for c in range(4)], -1)
    return RadianceVolume(box, np.ascontiguousarray(inner), last.outer, settings.background)


def _fit_volume(
    volume: RadianceVolume, rays: RaySet, pixels: Pixels, settings: FitSettings, steps: int, level: int
) -> Iterator[None]:
    """One step at a time."""
    cameras = camera_rows(rays.cameras, volume.box)
    rng = np.random.default_rng([settings.seed, level, 1])
    inner, outer = volume.inner, volume.outer
    grads = [np.zeros((kernels.LANES, *grid.shape), np.float32) for grid in (inner, outer)]
    moments = [np.zeros((*grid.shape, 2), np.float32) for grid in (inner, outer)]
    allowed = np.ones(volume.box.shape, bool)
    error = np.zeros((settings.rays, 3), np.float32)
    for step in range(steps):
        index = pixels.draw(settings.rays, rng)
        rgba = pixels.rgba[index]
        density_kernels.density_step(
            inner,
            allowed,
            outer,
            volume.frame,
            _SHIFT,
            cameras,
            pixels.view[index],
            pixels.x[index],
            pixels.y[index],
            rgba[:, :3],
            rgba[:, 3],
            pixels.weight[index],
            rng.random(len(index), dtype=np.float32),
            _STEP,
            volume.background[0],
            volume.background[1],
            np.float32(-1),
            np.float32(_DECISIVE),
            grads[0],
            grads[1],
            error,
        )
        fall = 0.1 ** (step / steps)
        for grid, grad, moment in zip((inner, outer), grads, moments, strict=True):
            density_kernels.volume_step(
                grid,
                np.ascontiguousarray(grid[..., 0]),
                grad,
                moment,
                step + 1,
                np.float32(_RATE * fall),
                np.float32(0.03 * fall),
                np.float32(1e-7),
            )
        yield


def _fused(volume: RadianceVolume, rays: RaySet, pixels: Pixels) -> Float[np.ndarray, "x y z"]:
    """Signed distance (voxels) of the volume's surface as the cameras see it; what no camera sees is outside."""
    cameras = camera_rows(rays.cameras, volume.box)
    total, count = (np.zeros(volume.box.shape, np.float32) for _ in range(2))
    reach = np.float32(4.0)
    start = 0
    for k, camera in enumerate(rays.cameras):
        size = camera.width * camera.height
        out = volume.render(cameras, pixels, slice(start, start + size))
        start += size
        depth = out[:, 4].copy()
        depth[out[:, 5] > 0.3] = 0  # hidden by something in front of the box: nothing is known
        density_kernels.fuse_depth(
            ndimage.median_filter(depth.reshape(camera.height, camera.width), 3), cameras[k], reach, total, count
        )
    mean = np.where(count > 0, total / np.maximum(count, 1), reach)
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
    out = volume.render(cameras, pixels, slice(None), empty=True)
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
