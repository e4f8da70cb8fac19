"""The view stage: posed views of a cut-out, by a view model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.generate import generate_six_views, generate_views
from pipeline.diffusion.preparation.prepare import PreparedPhoto
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion
from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import RingSettings, ViewsSettings, settings_as_dict
from pipeline.jobs.stages.capture_folder import COARSE_FILE, CaptureFolder, write_latents
from pipeline.jobs.stages.mirroring import mirrored_photo
from pipeline.jobs.view_model import JobViewModel
from scene.backends import pick_device
from scene.camera import DEFAULT_RADIUS
from scene.errors import InputError, ViewloomError
from scene.view import View
from scene.viewset import ViewSet


@dataclass(frozen=True)
class ViewsStage:
    """A cut-out to a capture of the photo and the views drawn from it.

    Args:
        prepared: the cut-out.
        model: the view model, loaded when it is first needed.
        settings: where the views stand and how they are sampled.
        on_step: called with (done, total) denoising steps.
    """

    name: ClassVar[str] = "views"
    version: ClassVar[int] = 6

    prepared: StageRun[PreparedPhoto]
    model: JobViewModel
    settings: ViewsSettings
    on_step: Callable[[int, int], None] | None = None

    @property
    def key(self) -> list[Any]:
        """The cut-out, the settings but for the weights' place and their pose entry, and the model as it is loaded."""
        settings = settings_as_dict(self.settings)
        plain = {name: value for name, value in settings.items() if name not in ("weights", "pose")}
        device = pick_device(self.model.device).type
        return [self.version, self.prepared.key, plain, self.model.digest, device, *self.model.key]

    def run(self, folder: Path) -> None:
        """Draw the views and write the capture."""
        draw_views(folder, self.prepared.result, self.model.loaded, self.settings, self.on_step)

    def load(self, folder: Path) -> CaptureFolder:
        """The capture."""
        return CaptureFolder(folder).looked_at()


def draw_views(
    folder: Path,
    prepared: PreparedPhoto,
    model: ViewDiffusion | SixViewDiffusion,
    settings: ViewsSettings,
    on_step: Callable[[int, int], None] | None = None,
) -> None:
    """Write a capture folder with the photo and the generated views, the latents of the views,
    and the coarse volume if there is one.

    The photo of a symmetric object comes a second time, mirrored, from the other side of its plane.

    Empty views are left out, with a warning in the capture's metadata; the others keep their numbers.
    A model of six views has a rig of its own, which takes the place of the rings.

    Raises:
        ViewloomError: the model drew nothing at all.
    """
    photo, elevation = prepared.resized(model.image_size), settings.elevation_deg
    if isinstance(model, SixViewDiffusion):
        orbits = model.rig.orbits().double().numpy()
        generated = generate_six_views(model, photo, settings.sampling, elevation_deg=elevation, on_step=on_step)
    else:
        orbits = ring_orbits(settings.rings)
        generated = generate_views(
            model, photo, torch.from_numpy(orbits).float(), settings.sampling, elevation_deg=elevation, on_step=on_step
        )
    side = prepared.framed.shape[0]
    views = [View("photo", generated.photo_camera.resized(side, side), prepared.framed, weight=settings.photo_weight)]
    empty = []
    for k, (rgba, orbit) in enumerate(zip(generated.rgba, orbits, strict=True)):
        name = f"view_{k:02d}"
        if not (rgba[..., 3] >= 128).any():
            empty.append(name)
            continue
        weight = view_confidence(settings, orbit, generated.elevation)
        views.append(View(name, generated.cameras[k], rgba, weight=weight, origin="generated"))
    if len(views) == 1:
        raise ViewloomError("the model generated empty views only", fix="Try another --views.sampling.seed.")
    mirroring = mirrored_photo(views[0], settings.symmetry, generated.symmetry, generated.occupancy)
    if mirroring.view is not None:
        views.append(mirroring.view)
    metadata: dict[str, Any] = {
        "source_elevation_deg": round(math.degrees(generated.elevation), 3),
        "normalised": True,
        "cutout_confidence": round(prepared.confidence, 4),
        "elevation": "given"
        if settings.elevation_deg is not None
        else "predicted"
        if generated.occupancy is not None
        else "assumed",
    }
    metadata["symmetry"] = mirroring.as_dict()
    warnings = list(mirroring.warnings)
    if empty:
        # As masks they would say that nothing is there, with the weight of a view.
        warning = f"{len(empty)} of {len(orbits)} generated views are empty and were left out: {', '.join(empty)}."
        warnings.append(f"{warning} Another --views.sampling.seed may fill them.")
    if warnings:
        metadata["warnings"] = warnings
    ViewSet(tuple(views), True, metadata).save(folder)
    if generated.latents is not None:
        kept = [k for k in range(len(orbits)) if f"view_{k:02d}" not in empty]
        write_latents(folder, [f"view_{k:02d}" for k in kept], generated.latents[kept], latent_digest(model.vae))
    if generated.occupancy is not None and generated.colours is not None:
        with (folder / COARSE_FILE).open("wb") as file:
            np.savez(
                file, occupancy=generated.occupancy.astype(np.float16), colours=generated.colours.astype(np.float16)
            )


def ring_orbits(rings: RingSettings) -> Float[np.ndarray, "v 3"]:
    """(azimuth, elevation, radius) of all views of the rings, radians.

    Raises:
        InputError: the rings' lists have different lengths.
    """
    if not len(rings.views) == len(rings.elevations_deg) == len(rings.offsets_deg):
        raise InputError("rings need as many elevations and offsets as counts of views")
    rows = [
        (math.radians(offset + k * 360 / count), math.radians(elevation), DEFAULT_RADIUS)
        for count, elevation, offset in zip(rings.views, rings.elevations_deg, rings.offsets_deg, strict=True)
        for k in range(count)
    ]
    return np.array(rows)


def view_confidence(settings: ViewsSettings, orbit: Float[np.ndarray, "3"], photo_elevation: float) -> float:
    """Confidence in a generated view: falls with the angle between its camera and the photo's.

    Args:
        settings: confidences next to and opposite to the photo.
        orbit: (azimuth, elevation, radius) of the view; the photo stands at azimuth 0.
        photo_elevation: of the photo's camera, radians.
    """
    azimuth, elevation = float(orbit[0]), float(orbit[1])
    cosine = math.cos(azimuth) * math.cos(elevation) * math.cos(photo_elevation)
    cosine += math.sin(elevation) * math.sin(photo_elevation)
    return settings.front_weight + (settings.back_weight - settings.front_weight) * (1 - cosine) / 2
