"""Fitting a narrow-band SDF to masked views with NeuS weights, coarse to fine, on the CPU."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from recon.sdf_grid import kernels
from recon.sdf_grid.appearance import AppearanceFit
from recon.sdf_grid.checkpoint import FitState, fit_digest
from recon.sdf_grid.initial_sdf import InitialSDF
from recon.sdf_grid.narrow_band import NarrowBandSDF, camera_rows, redistanced
from recon.sdf_grid.supervision import LevelSupervision
from recon.settings import FitSettings
from recon.surface import Surface
from recon.surface_report import SurfaceReport
from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from scene.voxel_grid import VoxelGrid

_LOG = logging.getLogger("viewloom")
_REFRESH = 50
"""Steps between looks at where the surface has gone."""


def fit_narrow_band(
    rays: RaySet,
    start: InitialSDF,
    settings: FitSettings,
    *,
    prior: Float[np.ndarray, "p p p"] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> Surface:
    """Fit distances and colours to masked views, from the hull.

    Args:
        rays: the views.
        start: where each level starts from; its maps supervise the fit.
        settings: see there.
        prior: of the start, if it has one: a checkpoint belongs to one prior.
        on_step: called with (step, steps).
        checkpoint: file to continue from if it exists and to write now and then.

    Returns:
        The surface, whose report holds losses, maps and shading.
    """
    digest = fit_digest(rays, settings, prior, start.maps.arrays if start.maps is not None else ())
    pixels = Pixels.of(rays)
    total = sum(settings.iterations)
    state = FitState.resume(checkpoint, digest) if checkpoint is not None else None
    band: NarrowBandSDF | None = None
    first: Float[np.ndarray, "x y z"] | None = None
    losses: dict[str, float] = {}
    for level in range(len(settings.levels)):
        done, since = sum(settings.iterations[:level]), time.monotonic()
        if state is not None and level < state.level:
            continue
        box = start.box(settings.levels[level])
        if state is not None and level == state.level:
            band, first, begin = state.band(), state.first, state.iteration
            rng = np.random.default_rng()
            rng.bit_generator.state = state.rng
            limits = state.limits
        else:
            hull = start.distances(box)
            band = next_band(box, hull, band, first, pixels, _truncation(settings, level))
            first, begin, limits = hull.copy(), 0, (math.inf, math.inf)
            rng = np.random.default_rng([settings.seed, level])
        supervision = None if start.maps is None else start.maps.at(box, settings, level)
        level_fit = LevelFit(band, pixels, camera_rows(rays.cameras, box), settings, level, supervision=supervision)
        for step in range(begin, settings.iterations[level]):
            losses, limits = level_fit.step(step, rng, limits)
            if (step + 1) % _REFRESH == 0:
                band.refresh()
                # Not after a level's last step: what a fit reports of its losses comes from a step after the state.
                due = (step + 1) % (2 * _REFRESH) == 0 and step + 1 < settings.iterations[level]
                if checkpoint is not None and due:
                    FitState.of(band, first, level, step + 1, rng, limits, digest).save(checkpoint)
            if on_step is not None:
                on_step(done + step + 1, total)
        band.refresh()
        log_level("fit", band, settings.iterations[level] - begin, losses, since)
    assert band is not None
    report = SurfaceReport(
        losses={name: round(value, 5) for name, value in losses.items()},
        maps=None if start.maps is None else start.maps.report,
    )
    appearance = level_fit.appearance
    if appearance is None or appearance.found is None:
        return band_surface(band, report)
    return replace(band_surface(band, appearance.described(report)), specular=appearance.found.specular)


def log_level(what: str, band: NarrowBandSDF, steps: int, losses: dict[str, float], since: float) -> None:
    """One line on a level that is done, for debugging.

    Args:
        what: was fitted.
        band: as it is now.
        steps: that were made.
        losses: of the last one.
        since: when the level began, by the monotonic clock.
    """
    size = " x ".join(str(side) for side in band.box.shape)
    said = "".join(f", loss of {name} {value:.4f}" for name, value in losses.items())
    seconds = time.monotonic() - since
    _LOG.debug("%s: grid %s, %d cells, %d steps in %.1f s%s", what, size, len(band.cells), steps, seconds, said)


def _truncation(settings: FitSettings, level: int) -> float:
    """Distance (voxels) at which ray intervals begin: where a density of the level's first inv_s has faded."""
    return min(5.0, 3.5 / _inv_s(settings, level)[0])


def _inv_s(settings: FitSettings, level: int) -> tuple[float, float]:
    """Inverse deviation of the density, per voxel, at the start and at the end of a level."""
    soft, sharp = settings.inv_s
    if level + 1 < len(settings.levels):
        return soft, min(3 * soft, sharp)
    return (min(2 * soft, sharp), sharp) if level else (soft, sharp)


def next_band(
    box: VoxelGrid,
    hull: Float[np.ndarray, "x y z"],
    last: NarrowBandSDF | None,
    first: Float[np.ndarray, "lx ly lz"] | None,
    pixels: Pixels,
    truncation: float,
) -> NarrowBandSDF:
    """The band of a level: the hull, changed as the levels before changed their own.

    What they could not hold stays as the hull has it, so that thin parts survive.

    Args:
        box: of the level; hull: distances to the hull there, voxels.
        last: the band of the level before; first: distances to the hull there.
        pixels: for the mean colour.
        truncation: distance at which ray intervals begin, voxels.
    """
    width = truncation + 2.5
    if last is None or first is None:
        band = NarrowBandSDF(box, hull, width)
        band.colour[:] = pixels.mean_colour()
        return band
    scale = last.box.voxel / box.voxel
    local = box.coordinates_in(last.box)
    change = ndimage.map_coordinates(last.grid - first, local, order=1, mode="nearest") * scale
    # Where the coarser grid saw another surface, such as the next thicker part, its changes are not of this one.
    known = ndimage.map_coordinates(first, local, order=1, mode="nearest") * scale
    change[np.abs(known - hull) > scale + 1] = 0
    band = NarrowBandSDF(box, redistanced((hull + change).astype(np.float32)), width)
    if (band.grid >= 0).all():
        band = NarrowBandSDF(box, hull, width)
    if len(band.cells):
        nearest = np.round(local[(slice(None), *band.cells.T)]).astype(int)
        nearest = np.clip(nearest, 0, np.array(last.box.shape)[:, None] - 1)
        band.colour[:-1] = last.dense_colour()[tuple(nearest)]
    band.colour[-1] = last.colour[-1]
    band.shading = last.shading.copy()
    return band


class LevelFit:
    """One level of the fit.

    Args:
        band: what is fitted.
        pixels: of the views; cameras: rows for the band's box.
        settings, level: see there.
        backdrop: sRGB behind the box for every pixel, for views without masks.
        supervision: depth and normal maps, if there are any.
    """

    def __init__(
        self,
        band: NarrowBandSDF,
        pixels: Pixels,
        cameras: Float[np.ndarray, "v 16"],
        settings: FitSettings,
        level: int,
        *,
        backdrop: Float[np.ndarray, "n 3"] | None = None,
        supervision: LevelSupervision | None = None,
    ) -> None:
        self.band, self.pixels, self.cameras, self.level = band, pixels, cameras, level
        self.settings = settings.filled(masked=backdrop is None)
        self.laplacian_weight = float(self.settings.laplacian_weight or 0)
        self.albedo_tv_weight = float(self.settings.albedo_tv_weight or 0)
        self.shading_lr = float(self.settings.shading_lr or 0)
        self.backdrop, self.supervision = backdrop, supervision
        # The first level is too coarse to tell what is reflected.
        view_dependent = settings.view_dependence and level > 0 and backdrop is None
        self.appearance = AppearanceFit(pixels, cameras) if view_dependent else None
        count = settings.rays
        self.error = np.zeros((count, 3), np.float32)
        self.grad_backdrop = np.zeros((count, 3), np.float32)
        self.white = np.ones((count, 3), np.float32)

    def step(
        self, step: int, rng: np.random.Generator, limits: tuple[float, float]
    ) -> tuple[dict[str, float], tuple[float, float]]:
        """One step; returns mean losses, and the limits above which errors count as contradictions."""
        settings, band = self.settings, self.band
        if self.appearance is not None and step % _REFRESH == 0:
            self.pixels = self.appearance.corrected(band)
        pixels = self.pixels
        last = self.level + 1 == len(settings.levels)
        progress = step / max(1, settings.iterations[self.level] - 1)
        soft, sharp = _inv_s(settings, self.level)
        index = pixels.draw(settings.rays, rng)
        rgba = pixels.rgba[index]
        inv_s = math.exp(math.log(soft) * (1 - progress) + math.log(sharp) * progress)
        kernels.fit_step(
            band.field,
            kernels.Rays(self.cameras, pixels.view[index], pixels.x[index], pixels.y[index]),
            kernels.Sampling(
                np.float32(inv_s), np.float32(0.5 if last else 0.7), np.float32(_truncation(settings, self.level))
            ),
            kernels.Target(
                rgba[:, :3],
                rgba[:, 3],
                pixels.weight[index],
                self.white if self.backdrop is None else self.backdrop[index].astype(np.float32),
                rng.random(len(index), dtype=np.float32),
            ),
            kernels.Loss(
                np.float32(settings.mask_weight if self.backdrop is None else -1),
                np.float32(limits[0]),
                np.float32(limits[1]),
                np.float32(settings.colour_pull),
            ),
            kernels.Gradients(band.grad_sdf, band.grad_colour, band.grad_shading, self.grad_backdrop),
            self.error,
        )
        if step % 2 == 0:  # every second step with twice the weight: half the time
            band.regularise(2 * settings.eikonal_weight, 2 * self.laplacian_weight, 2 * self.albedo_tv_weight)
        if self.supervision is not None:
            if step % _REFRESH == 0:
                self.supervision.locate_normals(band, step)
            self.supervision.add_gradients(band, step)
        # Full speed for the first quarter of a level, then down to almost nothing, which averages the noise away.
        fall = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * max(0.0, (progress - 0.25) / 0.75)))
        rate = settings.sdf_lr * (0.5 if last and self.level else 1.0) * fall
        band.step(rate, settings.colour_lr * fall, blur=settings.blur)
        if self.shading_lr > 0:
            band.step_shading(self.shading_lr * fall)
        return self._losses(rgba[:, 3] > 0.5), self._limits(rgba[:, 3] > 0.5, limits)

    def _losses(self, front: np.ndarray) -> dict[str, float]:
        colour = self.error[front, 0]
        return {"colour": float(colour.mean()) if len(colour) else 0.0, "mask": float(self.error[:, 1].mean())}

    def _limits(self, front: np.ndarray, limits: tuple[float, float]) -> tuple[float, float]:
        keep = self.settings.loss_trim_fraction
        if keep >= 1 or self.level == 0 or not front.any():
            return math.inf, math.inf
        colour = float(np.quantile(self.error[front, 0], keep))
        mask = float(np.quantile(self.error[:, 1], max(keep, 0.9)))
        if not math.isfinite(limits[0]):
            return colour, mask
        return 0.9 * limits[0] + 0.1 * colour, 0.9 * limits[1] + 0.1 * mask


def band_surface(band: NarrowBandSDF, report: SurfaceReport) -> Surface:
    """What a band has learned; its shading is part of the colours."""
    slope = np.stack(np.gradient(band.grid), -1)
    normal = slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
    colour = np.clip(band.dense_colour() * (1 + normal @ band.shading)[..., None], 0, 1)
    shading = tuple(round(float(v), 4) for v in band.shading)
    return Surface(
        (band.grid * band.box.voxel).astype(np.float32),
        colour.astype(np.float32),
        band.box.low,
        band.box.voxel,
        replace(report, shading=shading),
    )
