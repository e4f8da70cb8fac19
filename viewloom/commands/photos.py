"""What the commands that start from photos share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from pipeline.diffusion.settings import Filtering
from pipeline.jobs.settings import Image2MeshSettings, Symmetry
from scene.errors import SettingsError
from viewloom.commands.output import Results, ShownItems, ShownItemsFlags, started
from viewloom.commands.parsing import (
    DEFAULT_OUT,
    GivenDegrees,
    GivenName,
    GivenNumber,
    GivenPath,
    Out,
    Overwrite,
    WhenBusy,
)


@dataclass(frozen=True)
class PhotoCommand:
    """Arguments of the commands that start from photos."""

    photos: tyro.conf.Positional[Annotated[tuple[Path, ...], tyro.conf.arg(metavar="PHOTO ...", help_behavior_hint="")]]
    """Photos of one object each (JPEG, PNG, WebP, TIFF, AVIF, ...), or folders; a cut-out with alpha works best."""
    out: Out = DEFAULT_OUT
    """Output folder."""
    settings: Annotated[Image2MeshSettings, tyro.conf.arg(name="")] = Image2MeshSettings()
    """Settings of the stages."""
    mask: GivenPath = None
    """Mask of the photo (white is the object), if there is just one photo."""
    preset: GivenName = None
    """Named preset (draft, standard, high) or a YAML file; flags override it."""
    elevation: GivenDegrees = None
    """Elevation of the photo's camera above the horizon; predicted by default."""
    symmetry: Annotated[str, tyro.conf.arg(metavar="auto|none|DEGREES", help_behavior_hint="(default: auto)")] = ""
    """Plane to mirror symmetric things in (0: a profile); auto takes sure ones only."""
    seed: GivenNumber = None
    """Seed of the generated views (--views.sampling.seed)."""
    filtering: Annotated[Filtering | None, tyro.conf.arg(metavar="WAY", help_behavior_hint="")] = None
    """Attention map filtering: zero-to-hero, amf or none (--views.sampling.filtering)."""
    busy: WhenBusy = "refuse"
    """What to do when another job writes into the same folder."""
    overwrite: Overwrite = False
    """Replace the result of another photo in the output folder."""
    shown: ShownItemsFlags = ShownItems()
    """How much is said."""

    def told(self, name: str, settings: Image2MeshSettings, find: Callable[[], Callable[..., object]]) -> int:
        """Run a job on the photos and print a line for each; returns the exit code.

        Args:
            name: of the command.
            settings: of the job.
            find: gives the job, which is imported when the first line is out.
        """
        results = Results(self.shown)
        with started(name, self.shown) as reporter:
            find()(
                self.photos,
                self.out,
                settings,
                mask=self.mask,
                reporter=reporter,
                done=results.add,
                busy=self.busy,
                overwrite=self.overwrite,
            )
        return results.exit_code()

    @property
    def chosen(self) -> Image2MeshSettings:
        """The settings, with the short flags in their places."""
        views, sampling = self.settings.views, self.settings.views.sampling
        if self.seed is not None:
            sampling = replace(sampling, seed=self.seed)
        if self.filtering is not None:
            sampling = replace(sampling, filtering=self.filtering)
        if self.elevation is not None:
            views = replace(views, elevation_deg=self.elevation)
        if self.symmetry:
            views = replace(views, symmetry=symmetry_of(self.symmetry))
        return replace(self.settings, views=replace(views, sampling=sampling))


def symmetry_of(text: str) -> Symmetry:
    """The setting that a word or a number of degrees stands for.

    Raises:
        SettingsError: it is neither.
    """
    word = text.strip().lower()
    if word in ("auto", "none"):
        return "auto" if word == "auto" else "none"
    try:
        return float(word)
    except ValueError as error:
        raise SettingsError(
            f"--symmetry {text} is no plane", fix="Give auto, none, or degrees: 0 for an object in profile."
        ) from error
