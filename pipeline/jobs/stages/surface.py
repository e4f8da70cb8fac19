"""The surface stage: a surface fitted to a capture folder, whoever made that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from pipeline.jobs.runner import StageRun
from pipeline.jobs.settings import settings_as_dict
from pipeline.jobs.stages.capture_folder import CaptureFolder, CoarseGrid
from recon.fit import fit_surface, prior_surface
from recon.settings import FitSettings
from recon.surface import Surface
from recon.unmasked.radiance_fit import fit_unmasked
from scene.backends import pick_device
from scene.errors import InputError
from scene.viewset import ViewSet


@dataclass(frozen=True)
class SurfaceStage:
    """A capture folder to a surface.

    Args:
        capture: posed pictures.
        settings: of the fit.
        device: see :func:`fit_device`.
        on_step: called with (done, total) steps of the fit.
        checkpoint: where a fit that is stopped keeps its state.
    """

    name: ClassVar[str] = "surface"
    version: ClassVar[int] = 7
    file: ClassVar[str] = "surface.npz"

    capture: StageRun[CaptureFolder]
    settings: FitSettings
    device: str = "auto"
    on_step: Callable[[int, int], None] | None = None
    checkpoint: Path | None = None

    @property
    def key(self) -> list[Any]:
        """The capture, the settings, and the kind of device, whose fits differ."""
        return [self.version, self.capture.key, settings_as_dict(self.settings), fit_device(self.device).type]

    def run(self, folder: Path) -> None:
        """Fit the surface; the coarse volume takes its place if the views contradict each other wholly."""
        capture = self.capture.result
        if capture.views.has_masks:
            device, step = fit_device(self.device), self.on_step
            surface = fit_drawn(capture.views, capture.coarse_volume, self.settings, device, step, self.checkpoint)
        else:
            surface = fit_unmasked(capture.views, self.settings, on_step=self.on_step, checkpoint=self.checkpoint)
        surface.save(folder / self.file)
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def load(self, folder: Path) -> Surface:
        """The surface."""
        return Surface.load(folder / self.file)


def fit_drawn(
    views: ViewSet,
    coarse: CoarseGrid | None,
    settings: FitSettings,
    device: torch.device,
    on_step: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> Surface:
    """A surface of views with masks; the coarse volume takes its place if the views contradict each other wholly.

    Args:
        views: posed pictures.
        coarse: occupancy and colours, where one photo is all there was.
        settings, device: of the fit.
        on_step: called with (done, total) steps.
        checkpoint: where a fit that is stopped keeps its state.

    Raises:
        InputError: nothing can be fitted, and there is no coarse volume.
    """
    prior = None if coarse is None else coarse[0]
    try:
        return fit_surface(views, settings, prior=prior, device=device, on_step=on_step, checkpoint=checkpoint)
    except InputError as error:
        if coarse is None:
            raise
        surface = prior_surface(*coarse, settings)
        return replace(surface, report=replace(surface.report, reason=error.what))


def fit_device(device: str) -> torch.device:
    """Where surfaces are fitted: on the CPU, whose compiled kernels are the reference, unless a device is named.

    Args:
        device: ``auto``, ``cpu``, or an accelerator such as ``cuda`` or ``mps``, which fits a hash grid with torch.

    Raises:
        InputError: there is no such device.
    """
    return torch.device("cpu") if device == "auto" else pick_device(device)
