"""``viewloom reconstruct``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.jobs.settings import Corners, MaskSource, ReconstructSettings
from viewloom.commands.output import started, summary
from viewloom.commands.parsing import Out


@dataclass(frozen=True)
class Reconstruct:
    """Turn a capture of any format into a textured GLB.

    Captures: nerfstudio, instant-ngp and Blender transforms.json, COLMAP, NeuS, Middlebury, Bundler, projection
    matrices, and pictures called front.png, left.png, ... A second run continues where the first stopped.
    """

    capture: tyro.conf.Positional[Path]
    """Folder of the capture, or its camera file."""
    out: Out
    """Output folder."""
    settings: Annotated[ReconstructSettings, tyro.conf.arg(name="")] = ReconstructSettings()
    """Settings of the stages."""
    preset: str | None = None
    """Named preset (draft, standard, high) or a YAML file; flags override it."""
    masks: MaskSource | None = None
    """Where masks come from: auto, given, background or none (--capture.masks)."""
    bounds: Corners | None = None
    """Region of interest in the capture's world (z up): X0 Y0 Z0 X1 Y1 Z1; found by default (--capture.bounds)."""
    debug: bool = False
    """Show the traceback of errors."""

    @property
    def chosen(self) -> ReconstructSettings:
        """The settings, with the short flags in their places."""
        capture = self.settings.capture
        if self.masks is not None:
            capture = replace(capture, masks=self.masks)
        if self.bounds is not None:
            capture = replace(capture, bounds=self.bounds)
        return replace(self.settings, capture=capture)

    def run(self) -> int:
        """Run the job and print where the asset is."""
        with started("reconstruct") as reporter:
            from pipeline.jobs.reconstruct import reconstruct

            result = reconstruct(self.capture, self.out, self.chosen, reporter=reporter)
        return summary([result], debug=self.debug)
