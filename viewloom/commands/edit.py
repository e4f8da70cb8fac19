"""``viewloom edit``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.jobs.settings import EditSettings
from viewloom.commands.output import Results, ShownItems, ShownItemsFlags, started
from viewloom.commands.parsing import (
    DEFAULT_OUT,
    Formats,
    GivenName,
    GivenPath,
    Overwrite,
    OwnOut,
    WhenBusy,
    with_formats,
)


@dataclass(frozen=True)
class Edit:
    """Pose or reshape the object of a capture, by a skeleton, boxes or a mesh.

    The asset is made as reconstruct makes it; then its surface is bound to the target and deformed, or its views are
    drawn anew by diffusion. A deformed body is a rig, too. Views of the result are a capture again. A second run
    continues where the first stopped, and another target redoes the edit only.
    """

    capture: tyro.conf.Positional[Path]
    """Folder of the capture, or its camera file."""
    skeleton: GivenPath = None
    """Pose that is wanted, as JSON: the 18 joints of COCO by name, in the capture's own world."""
    boxes: GivenPath = None
    """Boxes around parts of the object, before and after, as JSON."""
    depth: GivenPath = None
    """Closed mesh where the surface shall be, loosely; for --method consolidate."""
    rest: GivenPath = None
    """Skeleton in the pose of the capture; skeleton.json in its folder by default."""
    out: OwnOut = None
    """Output folder; viewloom-out/NAME by default."""
    settings: Annotated[EditSettings, tyro.conf.arg(name="")] = EditSettings()
    """Settings of the stages."""
    preset: GivenName = None
    """Named preset (draft, standard, high) or a YAML file; flags override it."""
    format: Formats = None
    """Files to write, such as glb,usdz (--glb.formats)."""
    busy: WhenBusy = "refuse"
    """What to do when another job writes into the same folder."""
    overwrite: Overwrite = False
    """Replace the result of another capture in the output folder."""
    shown: ShownItemsFlags = ShownItems()
    """How much is said."""

    def run(self) -> int:
        """Run the job and print where the edited asset is."""
        settings = replace(self.settings, glb=with_formats(self.settings.glb, self.format))
        with started("edit", self.shown) as reporter:
            from pipeline.jobs.edit import edit
            from pipeline.jobs.reconstruct import capture_name

            out = DEFAULT_OUT / capture_name(self.capture) if self.out is None else self.out
            result = edit(
                self.capture,
                out,
                settings,
                skeleton=self.skeleton,
                boxes=self.boxes,
                depth=self.depth,
                rest=self.rest,
                reporter=reporter,
                busy=self.busy,
                overwrite=self.overwrite,
            )
        results = Results(self.shown)
        results.add(result)
        return results.exit_code()
