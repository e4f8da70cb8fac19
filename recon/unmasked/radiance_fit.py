"""Fitting a surface to posed photos without masks: a radiance volume, then a surface in front of its background."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from recon.sdf_grid import kernels
from recon.sdf_grid.checkpoint import FitState
from recon.sdf_grid.fit import LevelFit, band_surface, log_level, next_band
from recon.sdf_grid.narrow_band import NarrowBandSDF, camera_rows, redistanced
from recon.settings import FitSettings
from recon.surface import Surface
from recon.surface_report import SurfaceReport, ViewsReport
from recon.unmasked.checkpoint import SceneState, scene_digest
from recon.unmasked.radiance_volume import OptimizerState, RadianceVolume
from recon.unmasked.stereo_fit import stereo_surface
from recon.unmasked.tsdf_fusion import fuse_depth_maps, without_small_components
from recon.views.choice import evenly_chosen
from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from scene.errors import InputError
from scene.viewset import ViewSet
from scene.voxel_grid import VoxelGrid

_LOG = logging.getLogger("viewloom")
_REFRESH = 50
"""Steps between looks at where the surface has gone."""
_SAVE = 200
"""Steps of the volume between states on disk."""


def fit_unmasked(
    views: ViewSet,
    settings: FitSettings = FitSettings(),
    *,
    on_step: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> Surface:
    """The surface of photos without masks: by stereo where it sees anything, else as :func:`fit_scene` does.

    Stereo is faster and truer wherever there is texture, and needs no checkpoint; a volume is for plain things. Of more
    photos than ``settings.max_views`` some are chosen, and ``report.views`` says so.
    """
    given, views = len(views), evenly_chosen(views, settings.max_views)
    seen = stereo_surface(views, settings, on_step=on_step)
    if seen is None:
        seen = fit_scene(views, settings, on_step=on_step, checkpoint=checkpoint)
    if len(views) == given:
        return seen
    return replace(seen, report=replace(seen.report, views=ViewsReport(len(views), given)))


def fit_scene(
    views: ViewSet,
    settings: FitSettings = FitSettings(),
    *,
    on_step: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> Surface:
    """Fit the surface of what lies in the cube of ``settings.half_extent`` about the origin, from photos without masks.

    The photos' surroundings are modelled too, and left out of the surface. What no photo sees is empty.

    Args:
        views: posed pictures; see :func:`recon.views.normalise.normalise_scene`.
        settings: the coarse levels are fitted as a volume, the last one as a surface.
        on_step: called with (step, steps).
        checkpoint: file to continue from if it exists and to write now and then; what comes out is the same as without
            the interruption. It is left for the caller to remove.

    Raises:
        InputError: the volume stays empty.
    """
    rays = RaySet.of(views, settings.image_side, masked=False)
    fit = _SceneFit(rays, Pixels.of(rays, masked=False), settings, scene_digest(rays, settings), checkpoint, on_step)
    state = SceneState.resume(checkpoint, fit.digest) if checkpoint is not None else None
    volume = fit.volume(state)
    band, losses = fit.band(volume, None if state is None else state.band)
    rounded = {name: round(value, 5) for name, value in losses.items()}
    return band_surface(band, SurfaceReport(masked=False, losses=rounded))


@dataclass(frozen=True, eq=False)
class _SceneFit:
    """What both halves of a fit need."""

    rays: RaySet
    pixels: Pixels
    settings: FitSettings
    digest: str
    checkpoint: Path | None
    on_step: Callable[[int, int], None] | None

    @property
    def coarse(self) -> tuple[int, ...]:
        """Levels that are fitted as a volume."""
        return self.settings.levels[:-1] or self.settings.levels

    @property
    def steps(self) -> list[int]:
        """Steps at each of them."""
        return list(self.settings.iterations[: len(self.coarse)])

    def report_step(self, done: int) -> None:
        if self.on_step is not None:
            self.on_step(done, sum(self.steps) + self.settings.iterations[-1])

    def volume(self, state: SceneState | None) -> RadianceVolume:
        """Fit the volume, from its beginning or from a state."""
        settings, half = self.settings, self.settings.half_extent
        volume: RadianceVolume | None = None
        for level, side in enumerate(self.coarse):
            if state is not None and level < state.level:
                continue
            since = time.monotonic()
            box = VoxelGrid.of_voxel(np.full(3, -half), np.full(3, half), 2 * half / side)
            if state is not None and level == state.level:
                volume = state.volume(box, settings.background)
                if state.optimizer is None:  # the surface has begun
                    return volume
                optimizer = state.optimizer
            else:
                grey = self.pixels.mean_colour()
                volume = RadianceVolume.uniform(box, grey, settings.background) if volume is None else volume.at(box)
                optimizer = OptimizerState.begin(volume, [settings.seed, level, 1])
            for _ in volume.fit(
                self.rays, self.pixels, optimizer, count=settings.rays, steps=self.steps[level], rate=0.5, decay=0.1
            ):
                if self.checkpoint is not None and optimizer.step % _SAVE == 0:
                    SceneState(volume.inner, volume.outer, level, self.digest, optimizer).save(self.checkpoint)
                self.report_step(sum(self.steps[:level]) + optimizer.step)
            _LOG.debug("volume: grid of %d, %d steps in %.1f s", side, self.steps[level], time.monotonic() - since)
        assert volume is not None
        return volume

    def band(self, volume: RadianceVolume, state: FitState | None) -> tuple[NarrowBandSDF, dict[str, float]]:
        """Fit the surface that the volume shows, from its beginning or from a state; also returns the losses."""
        settings, last = self.settings, len(self.settings.levels) - 1
        band = _first_band(volume, _volume_surface(volume, self.rays), settings, self.pixels)
        cameras = camera_rows(self.rays.cameras, band.box)
        backdrop, ahead = _backdrop(volume, self.rays, self.pixels)
        pixels = _informative(self.pixels, band, cameras, ahead)
        rng = np.random.default_rng([settings.seed, len(settings.levels)])
        begin, since = 0, time.monotonic()
        if state is not None:
            band, begin = state.band(), state.iteration
            rng.bit_generator.state = state.rng
        level_fit = LevelFit(band, pixels, cameras, settings, last, backdrop=backdrop)
        limits = (math.inf, math.inf)
        losses: dict[str, float] = {}
        for step in range(begin, settings.iterations[-1]):
            losses, _ = level_fit.step(step, rng, limits)
            if (step + 1) % _REFRESH == 0:
                band.refresh()
                # Not after the last step: what a fit reports of its losses comes from a step after the state.
                due = (step + 1) % (2 * _REFRESH) == 0 and step + 1 < settings.iterations[-1]
                if self.checkpoint is not None and due:
                    nothing = np.zeros((0, 0, 0), np.float32)  # no level follows that would ask how this one began
                    of_band = FitState.of(band, nothing, last, step + 1, rng, limits, self.digest)
                    level = len(self.coarse) - 1
                    SceneState(volume.inner, volume.outer, level, self.digest, band=of_band).save(self.checkpoint)
            self.report_step(sum(self.steps) + step + 1)
        band.refresh()
        log_level("fit without masks", band, settings.iterations[-1] - begin, losses, since)
        return band, losses


def _volume_surface(volume: RadianceVolume, rays: RaySet) -> Float[np.ndarray, "x y z"]:
    """Signed distance (voxels) of the volume's surface as the cameras see it; what no camera sees is outside."""
    truncation = 4.0
    depths = ((camera, volume.depth(camera)) for camera in rays.cameras)
    mean, _ = fuse_depth_maps(depths, volume.box, truncation)
    solid = ndimage.binary_fill_holes(mean < 0)
    mean = np.where(solid & (mean >= 0), -truncation, mean)
    mean = ndimage.gaussian_filter(mean, 0.7)
    if not (mean < 0).any():
        raise InputError(
            "no surface was found in the region of interest", fix="Check the poses, or give the region with --bounds."
        )
    return without_small_components(mean.astype(np.float32))


def _first_band(
    volume: RadianceVolume, distance: Float[np.ndarray, "x y z"], settings: FitSettings, pixels: Pixels
) -> NarrowBandSDF:
    """The surface at the last level's resolution, in the box of what was found, with the volume's colours."""
    rough = NarrowBandSDF(volume.box, redistanced(distance), 3.0)
    rough.colour[:-1] = volume.inner[(*rough.cells.T, slice(1, 4))]
    found = np.argwhere(distance < 0)
    low = volume.box.low + (found.min(0) - 2) * volume.box.voxel
    high = volume.box.low + (found.max(0) + 3) * volume.box.voxel
    low, high = np.maximum(low, volume.box.low), np.minimum(high, volume.box.high)
    box = VoxelGrid.around(low, high, settings.levels[-1] ** 3)
    local = box.coordinates_in(volume.box)
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
    pixels: Pixels, band: NarrowBandSDF, cameras: Float[np.ndarray, "v 16"], ahead: Float[np.ndarray, "n"]
) -> Pixels:
    """Draw mostly pixels that see the surface, and none that something in front of the box covers."""
    out = np.zeros((len(pixels.view), 5), np.float32)
    sampling = kernels.Sampling(np.float32(1.0), np.float32(0.7), np.float32(4.0))
    kernels.render_rays(band.field, kernels.Rays(cameras, pixels.view, pixels.x, pixels.y), sampling, out)
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
