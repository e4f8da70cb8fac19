"""``viewloom check``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from pipeline.jobs.settings import CaptureFormat, MaskSource, UpAxis
from viewloom.commands.output import ShownReport, ShownReportFlags, started

if TYPE_CHECKING:
    from recon.checks.capture import CaptureReport, ViewCheck


@dataclass(frozen=True)
class Check:
    """Say what is wrong with a capture: blur, exposure, masks, coverage.

    Views that contradict the others are found by their masks. Exit code 2: the capture cannot be used. With --json one
    line with all numbers goes to the standard output.
    """

    capture: tyro.conf.Positional[Path]
    """A capture of any format that can be read."""
    masks: MaskSource = "auto"
    """Where masks come from, or what they mean, as for reconstruct."""
    up: UpAxis = "auto"
    """Axis of the capture's world that points up, as for reconstruct."""
    format: CaptureFormat = "auto"
    """Which of several descriptions of the cameras is read; by default the first that can be."""
    shown: ShownReportFlags = ShownReport()
    """How much is said."""

    def run(self) -> int:
        """Check, and print a line for each issue and each view."""
        with started("check", self.shown) as reporter:
            from pipeline.jobs.stages.capture import with_masks
            from recon.checks.capture import check_capture
            from recon.checks.depths import with_fitting_depths
            from scene.captures import load_capture

            reporter.item(str(self.capture))
            reporter.stage("check", False)
            kind = None if self.format == "auto" else self.format
            loaded = load_capture(self.capture, kind=kind, up=self.up)
            views, found = with_fitting_depths(with_masks(loaded, self.masks))
            notes = [str(text) for text in [*views.metadata.get("notes", []), *found]]
            for text in notes:
                reporter.note(text)
            report = check_capture(views, reporter.step)
            reporter.finished()
        if self.shown.json:
            print(json.dumps({"capture": str(self.capture), "notes": notes, **report.as_dict()}, default=float))
            return 0 if report.usable else 2
        for line in _lines(report):
            print(f"  {line}")
        return 0 if report.usable else 2


def _lines(report: CaptureReport) -> Iterator[str]:
    for text in report.warnings or ("nothing to complain about",):
        yield f"{'--' if report.warnings else 'ok'}  {text}"
    yield f"{'view':<16}  sharpness  stops  overexposed    mask    fit  off by"
    yield from (_row(view) for view in report.views)
    if report.coverage is not None:
        low, high = report.coverage.elevation_deg
        gap = f"largest gap {report.coverage.gap_deg:.0f} degrees"
        yield f"cameras: {gap}, elevation {low:.0f} to {high:.0f} degrees"
    if report.consistency is not None:
        yield f"consistency of the masks: {report.consistency:.2f}"


def _row(view: ViewCheck) -> str:
    numbers = [
        f"{'-' if value is None else format(value, form):>{width}}"
        for value, form, width in (
            (view.sharpness, ".2f", 9),
            (view.stops, "+.1f", 5),
            (view.overexposed, ".0%", 11),
            (view.mask_fraction, ".1%", 6),
            (view.silhouette_iou, ".2f", 5),
        )
    ]
    return f"{view.name:<16}  {'  '.join(numbers)}  {view.shift or '-'}"
