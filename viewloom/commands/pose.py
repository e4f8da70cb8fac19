"""``viewloom pose``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.jobs.posing.mapping import PoseSettings
from viewloom.commands.output import Shown, ShownFlags, started
from viewloom.commands.parsing import DEFAULT_OUT, OwnOut, WhenBusy


@dataclass(frozen=True)
class Pose:
    """Find the cameras of photos of one object, and write a capture.

    The photos are taken from around the object. Lens, sparse points and the vertical come with the cameras. The same
    photos are not searched again: what the search needed is kept in OUT/colmap.
    """

    photos: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PHOTO ...", help_behavior_hint="")]]
    """Photos, or folders of photos, in the formats of image2mesh; three at least, of a thing that does not move."""
    out: OwnOut = None
    """Capture folder to write; viewloom-out/FOLDER by default, after the folder of the photos."""
    settings: Annotated[PoseSettings, tyro.conf.arg(name="")] = PoseSettings()
    """Settings of the search."""
    busy: WhenBusy = "refuse"
    """What to do when another job writes into the same folder."""
    shown: ShownFlags = Shown()
    """How much is said."""

    def run(self) -> int:
        """Search, and print where the capture is."""
        first = self.photos[0]
        folder = first if first.is_dir() else first.parent
        out = DEFAULT_OUT / (folder.resolve().name or "capture") if self.out is None else self.out
        with started("pose", self.shown) as reporter:
            from pipeline.jobs.posing.pose import pose

            result = pose(self.photos, out, self.settings, reporter=reporter, busy=self.busy)
        print(f"{result.folder}  ({result.summary})")
        return 0
