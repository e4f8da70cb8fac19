"""``viewloom fuse``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.jobs.settings import FuseSettings
from viewloom.commands.output import Results, ShownItems, ShownItemsFlags, Switch, started
from viewloom.commands.parsing import (
    DEFAULT_OUT,
    Formats,
    GivenDegrees,
    GivenName,
    GivenNumber,
    GivenPath,
    Out,
    Overwrite,
    WhenBusy,
    with_formats,
)


@dataclass(frozen=True)
class Fuse:
    """Turn a few photos of one object, without cameras, into posed views.

    The views are a ring around the first photo, a capture in OUT/NAME/views, where NAME is the first photo's.
    """

    photos: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PHOTO ...", help_behavior_hint="")]]
    """Photos of one object from several sides, in any order but for the first, or folders of them."""
    out: Out = DEFAULT_OUT
    """Output folder."""
    settings: Annotated[FuseSettings, tyro.conf.arg(name="")] = FuseSettings()
    """Settings of the stages."""
    weights: GivenPath = None
    """A folder of scripts/train_fusion.py, or a file of ViewFusion's published code (--fusion.weights); none come with
    viewloom yet."""
    mesh: Switch = False
    """Fit a surface to the views, and export it."""
    azimuths: GivenNumber = None
    """Views of the ring, 24 by default (--fusion.views)."""
    elevation: GivenDegrees = None
    """Elevation of the first photo's camera above the horizon; predicted by default (--fusion.elevation-deg)."""
    seeds: GivenNumber = None
    """Rings to draw, to see how sure the model is (--fusion.seeds)."""
    preset: GivenName = None
    """Named preset (draft, standard, high) or a YAML file; flags override it."""
    format: Formats = None
    """Files to write, such as glb,usdz (--glb.formats); the GLB always comes with them."""
    busy: WhenBusy = "refuse"
    """What to do when another job writes into the same folder."""
    overwrite: Overwrite = False
    """Replace the result of another input in the output folder."""
    shown: ShownItemsFlags = ShownItems()
    """How much is said."""

    @property
    def chosen(self) -> FuseSettings:
        """The settings, with the short flags in their places."""
        fusion = self.settings.fusion
        if self.weights is not None:
            fusion = replace(fusion, weights=self.weights)
        if self.azimuths is not None:
            fusion = replace(fusion, views=self.azimuths)
        if self.elevation is not None:
            fusion = replace(fusion, elevation_deg=self.elevation)
        if self.seeds is not None:
            fusion = replace(fusion, seeds=self.seeds)
        return replace(self.settings, fusion=fusion, glb=with_formats(self.settings.glb, self.format))

    def run(self) -> int:
        """Run the job and print where the result is."""
        settings = self.chosen
        with started("fuse", self.shown) as reporter:
            from pipeline.jobs.fuse import fuse

            result = fuse(
                self.photos,
                self.out,
                settings,
                mesh=self.mesh,
                reporter=reporter,
                busy=self.busy,
                overwrite=self.overwrite,
            )
        results = Results(self.shown)
        results.add(result)
        return results.exit_code()
