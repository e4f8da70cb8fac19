"""The stage of aligned views: a draft of the surface, and the views decoded once more along it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import UInt8

from pipeline.diffusion.align import aligned_pictures, encoded_note, encoded_views
from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.settings import AlignSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import settings_as_dict
from pipeline.jobs.stages.capture_folder import COARSE_FILE, LATENTS_FILE, CaptureFolder, read_latents
from pipeline.jobs.stages.surface import fit_device, fit_drawn
from pipeline.jobs.view_model import JobViewModel
from recon.settings import FitSettings
from scene.backends import pick_device
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet


@dataclass(frozen=True)
class AlignedStage:
    """A capture of generated views to one of aligned views.

    Args:
        capture: the photo and views with their latents.
        model: that drew them.
        settings: of the decoding.
        fit: of the final surface; the draft's is that without its finest level.
        device: where the draft is fitted.
        on_step: called with (done, total) steps of the draft's fit.
    """

    name: ClassVar[str] = "aligned"
    version: ClassVar[int] = 1

    capture: StageRun[CaptureFolder]
    model: JobViewModel
    settings: AlignSettings
    fit: FitSettings
    device: str = "auto"
    on_step: Callable[[int, int], None] | None = None

    @property
    def key(self) -> list[Any]:
        """The views, the settings, the model, and the devices of both."""
        plain = [settings_as_dict(self.settings), settings_as_dict(draft_fit(self.fit))]
        devices = [pick_device(self.model.device).type, fit_device(self.device).type]
        return [self.version, self.capture.key, *plain, self.model.digest, *devices, *self.model.key]

    def run(self, folder: Path) -> None:
        """Fit drafts, decode, and write the capture; its other pictures stay as they are."""
        capture, model = self.capture.result, self.model.loaded
        if not isinstance(model, ViewDiffusion):
            raise InputError("a model that draws six views as one has no latents of each", fix="Leave --align out.")
        views, device = list(capture.views), fit_device(self.device)
        drawn = [view for view in views if view.origin == "generated"]
        photo, warnings = photo_of(views, capture.path), list(capture.warnings)
        if len(drawn) < 2:
            self._write(
                folder, capture.views, [*warnings, "There is one view only, which has no others to be aligned with."]
            )
            return
        plain = pictures_of_one_size(drawn)
        if (capture.path / LATENTS_FILE).is_file():
            latents = read_latents(capture.path, [view.name for view in drawn], latent_digest(model.vae))
        else:
            plain, latents = encoded_views(model, plain, reduce=self.settings.reduce)
            warnings.append(encoded_note(model))
        cameras = [view.camera.resized(plain.shape[2], plain.shape[1]) for view in drawn]
        current = capture.views
        for _ in range(self.settings.iterations):
            surface = fit_drawn(current, capture.coarse_volume, draft_fit(self.fit), device, self.on_step)
            pictures = aligned_pictures(
                model, latents, plain, cameras, photo.rgba(), photo.camera, surface, self.settings
            )
            found = {
                view.name: View(view.name, camera, rgba, weight=view.weight, origin=view.origin)
                for view, camera, rgba in zip(drawn, cameras, pictures, strict=True)
                if (rgba[..., 3] >= 128).any()
            }
            current = ViewSet(tuple(found.get(view.name, view) for view in views), True, capture.views.metadata)
        self._write(folder, current, warnings)

    def _write(self, folder: Path, views: ViewSet, warnings: list[str]) -> None:
        """The capture, its coarse volume beside it."""
        if warnings:
            views = replace(views, metadata={**views.metadata, "warnings": warnings})
        views.save(folder)
        coarse = self.capture.result.path / COARSE_FILE
        if coarse.is_file():
            shutil.copyfile(coarse, folder / COARSE_FILE)

    def load(self, folder: Path) -> CaptureFolder:
        """The capture."""
        return CaptureFolder(folder).looked_at()


def photo_of(views: Sequence[View], capture: Path) -> View:
    """The front view of a capture of generated views.

    Raises:
        InputError: there is none.
    """
    for view in views:
        if view.origin == "photo":
            return view
    raise InputError(
        "there is no photo among the cameras", where=capture, fix="Draw the views anew, or leave --align out."
    )


def pictures_of_one_size(views: Sequence[View]) -> UInt8[np.ndarray, "v s s 4"]:
    """Pictures of views.

    Raises:
        InputError: they differ in size, or are not square.
    """
    pictures = [view.rgba() for view in views]
    sizes = {picture.shape[:2] for picture in pictures}
    if len(sizes) > 1 or any(height != width for height, width in sizes):
        told = ", ".join(f"{width}x{height}" for height, width in sorted(sizes))
        raise InputError(f"views that are decoded together have one square size, not {told}")
    return np.stack(pictures)


def draft_fit(fit: FitSettings) -> FitSettings:
    """A fit without its finest level, if it has several."""
    return replace(fit, levels=fit.levels[:-1], iterations=fit.iterations[:-1]) if len(fit.levels) > 1 else fit
