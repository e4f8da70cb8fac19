"""The whole way from one prepared photo to posed views, for one object."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.modules.attention import Step
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.symmetry import SymmetryGuess
from pipeline.diffusion.sample import coarse_volume, finished_views, sample_latents, view_conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.diffusion.view_models.zero123plus import FOV, SixViewDiffusion, sample_six_views
from scene.camera import DEFAULT_RADIUS, ZERO123_FOV, Camera, orbit_camera
from scene.errors import InputError
from scene.segment import segment_object

_LOG = logging.getLogger("viewloom")
DEFAULT_ELEVATION_DEG = 15.0
"""Assumed for photos when nothing predicts it."""


@dataclass(frozen=True, eq=False)
class GeneratedViews:
    """Posed views of one object, world frame of its photo.

    Args:
        rgba: generated views, straight alpha.
        cameras: their cameras.
        photo_camera: the photo's camera at the model's image size.
        elevation: of the photo's camera, radians.
        occupancy, colours: the coarse volume, if the model has one.
        symmetry: the likeliest symmetry plane, if the model looks for one.
        latents: of the views, normalised, if each view has its own.
    """

    rgba: UInt8[np.ndarray, "v s s 4"]
    cameras: tuple[Camera, ...]
    photo_camera: Camera
    elevation: float
    occupancy: Float[np.ndarray, "r r r"] | None
    colours: Float[np.ndarray, "r r r 3"] | None
    symmetry: SymmetryGuess | None = None
    latents: Float[np.ndarray, "v c h w"] | None = None


def generate_views(
    model: ViewDiffusion,
    photo: UInt8[np.ndarray, "s s 4"],
    orbits: Float[Tensor, "v 3"],
    settings: SamplingSettings,
    *,
    elevation_deg: float | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> GeneratedViews:
    """Generate views of a prepared photo.

    Args:
        model: the view model.
        photo: framed cut-out at the model's image size.
        orbits: (azimuth, elevation, radius) of the views; the photo stands at azimuth 0.
        settings: of the sampler.
        elevation_deg: of the photo; predicted by the model's coarse volume if None.
        on_step: called with (steps done, steps).
    """
    batch, since = torch.from_numpy(photo)[None], time.monotonic()
    source = source_camera(model, batch, elevation_deg)
    volume = coarse_volume(model, batch, source)
    first = time.monotonic()

    def report(step: Step) -> None:
        if on_step is not None:
            on_step(step.index + 1, step.count)

    conditions = view_conditions(model, batch, source, orbits[None], volume)
    latents = sample_latents(model, conditions, settings, on_step=report)
    images = finished_views(model, batch, latents, orbits[None], volume, settings)[0].float().cpu().numpy()
    size = model.image_size
    _LOG.debug(
        "views: %d of %d pixels, %d steps in %.1f s; %s in %.1f s",
        len(images),
        size,
        settings.plan(model.sampling).steps,
        time.monotonic() - first,
        "no coarse volume" if volume is None else f"coarse volume of {volume.occupancy.shape[-1]}",
        first - since,
    )
    elevation, focal, cx, cy = (float(v) for v in source[0].cpu())
    stand = orbit_camera(0.0, elevation, DEFAULT_RADIUS, size=size)
    photo_camera = Camera(stand.c2w, focal * size, focal * size, cx * size, cy * size, size, size)
    cameras = tuple(orbit_camera(*(float(v) for v in orbit), size=size, fov=ZERO123_FOV) for orbit in orbits)
    occupancy = colours = symmetry = None
    if volume is not None:
        if model.symmetry is not None and model.coarse is not None:
            symmetry = model.symmetry.guess(model.coarse, images_from_rgba(batch.to(model.device), 4))[0]
        occupancy = volume.occupancy[0].float().cpu().numpy()
        colours = volume.colours[0].float().movedim(0, -1).cpu().numpy()
    return GeneratedViews(
        np.round(np.clip(images, 0, 1) * 255).astype(np.uint8),
        cameras,
        photo_camera,
        elevation,
        occupancy,
        colours,
        symmetry,
        latents[0].float().cpu().numpy(),
    )


def generate_six_views(
    model: SixViewDiffusion,
    photo: UInt8[np.ndarray, "s s 4"],
    settings: SamplingSettings,
    *,
    elevation_deg: float | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> GeneratedViews:
    """Generate the six views of Zero123++'s rig, and cut them out of their grey.

    Args:
        model: the model; its rig says where the views stand.
        photo: framed cut-out at the model's image size.
        settings: of the sampler.
        elevation_deg: of the photo's camera; the model neither needs nor predicts it.
        on_step: called with (steps done, steps).
    """

    def report(step: Step) -> None:
        if on_step is not None:
            on_step(step.index + 1, step.count)

    since = time.monotonic()
    tiles = sample_six_views(model, torch.from_numpy(photo)[None], settings, on_step=report)
    colours = np.round(tiles.permute(0, 2, 3, 1).cpu().numpy() * 255).astype(np.uint8)
    seconds = time.monotonic() - since
    _LOG.debug("views: 6 of %d pixels, %d steps in %.1f s", colours.shape[1], settings.plan().steps, seconds)
    rgba = np.stack([np.concatenate([tile, _object_mask(tile)[..., None]], -1) for tile in colours])
    elevation = math.radians(DEFAULT_ELEVATION_DEG if elevation_deg is None else elevation_deg)
    photo_camera = orbit_camera(0.0, elevation, DEFAULT_RADIUS, size=model.image_size, fov=ZERO123_FOV)
    side = rgba.shape[1]
    cameras = tuple(orbit_camera(*(float(v) for v in orbit), size=side, fov=FOV) for orbit in model.rig.orbits())
    return GeneratedViews(rgba, cameras, photo_camera, elevation, None, None)


def _object_mask(tile: UInt8[np.ndarray, "s s 3"]) -> UInt8[np.ndarray, "s s"]:
    """The object's mask in a view on plain grey; empty where nothing stands out."""
    try:
        return segment_object(tile)
    except InputError:
        return np.zeros(tile.shape[:2], np.uint8)


@torch.no_grad()
def source_camera(
    model: ViewDiffusion, photo: UInt8[Tensor, "o s s 4"], elevation_deg: float | None = None
) -> Float[Tensor, "o 4"]:
    """Camera descriptions of prepared photos: predicted where the model can, but for an elevation that is known."""
    device = model.device
    if model.coarse is None:
        elevation = math.radians(DEFAULT_ELEVATION_DEG if elevation_deg is None else elevation_deg)
        focal = 0.5 / math.tan(ZERO123_FOV / 2)
        return torch.tensor([[elevation, focal, 0.5, 0.5]], device=device).expand(len(photo), 4)
    images = images_from_rgba(photo.to(device), 4)
    source = model.coarse(images)[2]
    if elevation_deg is not None:
        source = torch.cat([torch.full_like(source[:, :1], math.radians(elevation_deg)), source[:, 1:]], 1)
    return source
