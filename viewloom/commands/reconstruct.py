"""``viewloom reconstruct``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.jobs.settings import Corners, MaskSource, ReconstructSettings, UpAxis
from viewloom.commands.output import Results, ShownItems, ShownItemsFlags, started
from viewloom.commands.parsing import DEFAULT_OUT, Formats, GivenName, Overwrite, OwnOut, WhenBusy, with_formats


@dataclass(frozen=True)
class Reconstruct:
    """Turn a capture of any format into a textured GLB.

    Captures: nerfstudio, instant-ngp and Blender transforms.json, COLMAP, Metashape, RealityCapture, Meshroom, OpenSfM,
    Polycam and a dozen others, which the README lists. A second run continues where the first stopped.
    """

    capture: tyro.conf.Positional[Path]
    """Folder of the capture, or its camera file."""
    out: OwnOut = None
    """Output folder; viewloom-out/NAME by default."""
    settings: Annotated[ReconstructSettings, tyro.conf.arg(name="")] = ReconstructSettings()
    """Settings of the stages."""
    preset: GivenName = None
    """Named preset (draft, standard, high) or a YAML file; flags override it."""
    masks: Annotated[MaskSource | None, tyro.conf.arg(metavar="SOURCE", help_behavior_hint="")] = None
    """Where masks come from: auto, background or none; or what the capture's own mean: outlines of the object, or
    what to ignore where they are black (--capture.masks)."""
    up: Annotated[UpAxis | None, tyro.conf.arg(metavar="AXIS", help_behavior_hint="")] = None
    """Axis of the capture's world that points up: auto, +x, -x, +y, -y, +z or -z (--capture.up)."""
    bounds: Annotated[Corners | None, tyro.conf.arg(metavar="X0 Y0 Z0 X1 Y1 Z1", help_behavior_hint="")] = None
    """Region of interest in the capture's world (z up): two corners; found by default (--capture.bounds)."""
    format: Formats = None
    """Files to write, such as glb,usdz (--glb.formats); the GLB always comes with them. What is read
    has a flag of its own (--capture.format)."""
    busy: WhenBusy = "refuse"
    """What to do when another job writes into the same folder."""
    overwrite: Overwrite = False
    """Replace the result of another capture in the output folder."""
    shown: ShownItemsFlags = ShownItems()
    """How much is said."""

    @property
    def chosen(self) -> ReconstructSettings:
        """The settings, with the short flags in their places."""
        capture = self.settings.capture
        if self.masks is not None:
            capture = replace(capture, masks=self.masks)
        if self.up is not None:
            capture = replace(capture, up=self.up)
        if self.bounds is not None:
            capture = replace(capture, bounds=self.bounds)
        return replace(self.settings, capture=capture, glb=with_formats(self.settings.glb, self.format))

    def run(self) -> int:
        """Run the job and print where the asset is."""
        settings = self.chosen
        with started("reconstruct", self.shown) as reporter:
            from pipeline.jobs.reconstruct import capture_name, reconstruct

            out = DEFAULT_OUT / capture_name(self.capture) if self.out is None else self.out
            result = reconstruct(
                self.capture, out, settings, reporter=reporter, busy=self.busy, overwrite=self.overwrite
            )
        results = Results(self.shown)
        results.add(result)
        return results.exit_code()
