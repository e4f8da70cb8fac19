"""The first stage of a capture: masks, check, turned pictures, and the normalised world."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from pipeline.jobs.settings import CaptureSettings, MaskSource, settings_as_dict
from pipeline.jobs.stages.capture_folder import BESIDE_VIEWS, COARSE_FILE, CaptureFolder, read_coarse_volume
from recon.checks.capture import CaptureReport, Issue, check_capture
from recon.checks.depths import with_fitting_depths
from recon.checks.orientation import turned
from recon.views.claim import normalised_doubt
from recon.views.normalise import NormalisedCapture, normalise_capture, normalise_scene
from scene.captures import threshold_beside_ignored, threshold_masks, world_from_original
from scene.captures.mask_meaning import ignoring, outlining, unknown_ignored
from scene.errors import InputError
from scene.viewset import ViewSet


@dataclass(frozen=True)
class CaptureStage:
    """A capture as it came to a capture folder in the normalised world.

    Args:
        views: the capture, read.
        folder: that it came from.
        digest: of all its files, with their names.
        settings: how it is read.
        on_issue: called with each sentence of the check.
    """

    name: ClassVar[str] = "views"
    version: ClassVar[int] = 9

    views: ViewSet
    folder: Path
    digest: list[list[str | None]]
    settings: CaptureSettings
    on_issue: Callable[[str], None] | None = None

    @property
    def key(self) -> list[Any]:
        """The files, and the settings where they have an effect."""
        settings = {} if self.taken_as_it_is else settings_as_dict(self.settings)
        return [self.version, self.digest, settings]

    @cached_property
    def doubt(self) -> str | None:
        """What speaks against the capture's saying that it is normalised, if it says so."""
        return normalised_doubt(self.views) if self.views.metadata.get("normalised") else None

    @property
    def taken_as_it_is(self) -> bool:
        """Whether the capture is normalised."""
        return bool(self.views.metadata.get("normalised")) and self.doubt is None

    def run(self, folder: Path) -> None:
        """Write the capture folder.

        Raises:
            InputError: the check found the capture to be of no use, or its object is not found.
        """
        if self.taken_as_it_is:
            if self.settings != CaptureSettings() and self.on_issue is not None:
                self.on_issue(
                    "This capture is normalised already: it is taken as it is, without masks, bounds or checks."
                )
            self.views.save(folder)
            if (self.folder / COARSE_FILE).is_file():
                read_coarse_volume(self.folder / COARSE_FILE)
            for beside in BESIDE_VIEWS:
                if (self.folder / beside).is_file():
                    shutil.copyfile(self.folder / beside, folder / beside)
            return
        masked = with_masks(self.views, self.settings.masks)
        views, warnings = with_fitting_depths(masked)
        if self.doubt is not None:
            warnings.insert(0, f"The capture says that it is normalised, but {self.doubt}: it is read like any other.")
            # Its region was the bounding sphere of the world that it says to be in.
            views = replace(views, metadata={k: v for k, v in views.metadata.items() if k != "region"})
        known = self.views.metadata.get("notes", [])
        for text in [*(note for note in masked.metadata.get("notes", []) if note not in known), *warnings]:
            self._say(text)
        found: NormalisedCapture | None = None
        sharpness: dict[str, float] = {}
        if self.settings.check:
            report = check_capture(views)
            sharpness = {check.name: round(check.sharpness, 3) for check in report.views if check.sharpness is not None}
            views, more, found = self._mended(views, report)
            warnings += more
        moved, matrix = found or normalised(views, self.settings.bounds)
        for text in moved.metadata.get("notes", []):
            if text not in views.metadata.get("notes", []):
                self._say(text)
        moved = replace(moved, views=tuple(replace(v, sharpness=sharpness.get(v.name, v.sharpness)) for v in moved))
        from_world = matrix @ world_from_original(self.views.metadata)
        metadata = {
            **moved.metadata,
            "normalised": True,
            "normalised_from_world": np.round(from_world, 12).tolist(),
            "warnings": warnings,
        }
        replace(moved, metadata=metadata).save(folder)

    def load(self, folder: Path) -> CaptureFolder:
        """The capture folder."""
        return CaptureFolder(folder).looked_at()

    def _say(self, text: str) -> None:
        if self.on_issue is not None:
            self.on_issue(text)

    def _mended(self, views: ViewSet, report: CaptureReport) -> tuple[ViewSet, list[str], NormalisedCapture | None]:
        """The views, those stored turned put right if asked for; what the check says; and what it normalised."""
        # A mirrored picture may be of something else: no job goes so far.
        mended = [found for found in report.turned if self.settings.turn and not found.mirrored]
        said = [_turned_back(c) if mended and c.kind == "turned" else c.text for c in report.issues]
        for text in said:
            self._say(text)
        _require_usable(report)
        lost = {name for issue in report.issues if issue.kind == "unreadable" for name in issue.views}
        if lost:
            views = replace(views, views=tuple(view for view in views if view.name not in lost))
        # The check has looked for the object already, unless the user says where it is.
        known = report.normalised_after(mended) if self.settings.bounds is None else None
        if not mended:
            return views, said, known
        metadata = {**views.metadata, "turned_deg": {found.name: 90 * found.quarters for found in mended}}
        if known is not None:
            known = known._replace(views=replace(known.views, metadata={**known.views.metadata, **metadata}))
        return replace(turned(views, mended), metadata=metadata), said, known


def with_masks(views: ViewSet, masks: MaskSource) -> ViewSet:
    """The views with the masks that were asked for.

    Raises:
        InputError: there are no masks where they were insisted on, or the background is not uniform.
    """
    if masks == "none":
        return replace(outlining(views), has_masks=False)
    own = views.has_masks or views.has_ignored
    bordered = not own and any(view.unknown_source is not None for view in views)
    if own and (masks == "ignore" or (masks == "auto" and views.has_ignored)):
        seen = views if views.has_ignored else ignoring(views)
        try:
            return threshold_beside_ignored(seen)
        except InputError:
            return seen
    if masks in ("object", "given") and views.has_ignored:
        if any(view.ignore_path is not None for view in views):
            raise InputError(
                "dynamic masks tell what moves, not what is the object", fix="Use --masks ignore, or give masks."
            )
        return outlining(views)
    if masks == "background" or (masks == "auto" and not own):
        try:
            return threshold_beside_ignored(unknown_ignored(views)) if bordered else threshold_masks(outlining(views))
        except InputError:
            if masks == "background":
                raise
    if masks in ("object", "given", "ignore") and not own:
        raise InputError(
            "the capture has no masks", fix="Give RGBA pictures or mask files, or leave --capture.masks out."
        )
    return unknown_ignored(views) if bordered else views


def normalised(views: ViewSet, bounds: tuple[float, ...] | None = None) -> NormalisedCapture:
    """The views with their object, or region of interest, in the bounding sphere; and the similarity to there.

    Args:
        views: the capture.
        bounds: two corners of the region of interest, capture's world.
    """
    region = None
    if bounds is not None:
        low, high = np.array(bounds[:3]), np.array(bounds[3:])
        region = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
    if views.has_masks and region is None:
        return normalise_capture(views)
    return normalise_scene(views, region)


def _require_usable(report: CaptureReport) -> None:
    if not report.usable:
        fatal = next(c for c in report.issues if c.fatal)
        raise InputError(
            fatal.text.rstrip("."), fix="Mend the capture, or switch the check off with --capture.no-check."
        )


def _turned_back(issue: Issue) -> str:
    """The issue's sentence on what was found, and in place of what to do what was done."""
    found = issue.text.rsplit(". ", 1)[0]
    return f"{found}. They were turned before the fit; --capture.no-turn leaves them as they are."
