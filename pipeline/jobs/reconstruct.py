"""Captures to assets: a folder of posed pictures becomes a textured GLB."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.jobs.asset import AssetSettings, BuiltAsset, build_asset, finished_item
from pipeline.jobs.item_lock import only_job
from pipeline.jobs.item_names import item_name
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.manifest import Manifest
from pipeline.jobs.progress import Heard, Reporter, one_item, reporter_of
from pipeline.jobs.publishing import Source, claim_results, is_of, sweep, unpublish, unpublishing
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, StageRun, digest_of, digest_of_file
from pipeline.jobs.settings import Busy, CaptureSettings, ReconstructSettings, settings_as_dict
from pipeline.jobs.stages.capture import CaptureStage
from pipeline.jobs.stages.capture_folder import BESIDE_VIEWS, CaptureFolder
from pipeline.jobs.stages.surface import fit_device
from pipeline.jobs.time_left import Work
from scene.captures import load_capture
from scene.errors import InputError
from scene.files import reading
from scene.viewset import ViewSet

CAPTURE_SHARES = {"views": 0.1, "surface": 0.6, "asset": 0.3}
"""Usual fractions of a capture's time."""


def reconstruct(
    capture: Path,
    out: Path,
    settings: ReconstructSettings = ReconstructSettings(),
    *,
    reporter: Heard = None,
    busy: Busy = "refuse",
    overwrite: bool = False,
) -> ItemResult:
    """Fit a surface to a capture folder and export it to ``out/NAME.glb``, with a report beside it.

    Args:
        capture: folder or file of any format that :func:`scene.captures.load_capture` knows.
        out: output folder; what an earlier run finished is kept.
        settings: of the fit, mesh and asset.
        reporter: told of the progress: a reporter, or a function that is called with where the job stands; without,
            the ``viewloom`` logger is.
        busy: whether the job gives up at once when another one writes into ``out``, or waits for it.
        overwrite: whether the result of another capture in ``out`` may be replaced.

    Raises:
        InputError: the capture cannot be used, or it lies where the stages write; the message says which file and why.
        OutputError: ``out`` cannot be written, is busy, or holds the result of another capture.
    """
    told = reporter_of(reporter)
    fit_device(settings.device)
    with one_item(told, f"{capture} -> {out}", Work(shares=CAPTURE_SHARES)), only_job(out, busy, told.note):
        return _reconstruct(capture, out, settings, told, overwrite)


def _reconstruct(
    capture: Path, out: Path, settings: ReconstructSettings, told: Reporter, overwrite: bool
) -> ItemResult:
    views = read_capture(capture, out, settings.capture)
    built = built_of_capture(capture, views, out, settings, told, overwrite=overwrite)
    page = write_report(built.runner, built.name, built.asset.files[0])
    return finished_item(built.runner, built.name, built.manifest, built.asset, page)


def read_capture(capture: Path, out: Path, settings: CaptureSettings) -> ViewSet:
    """Read a capture; if it cannot be, what an earlier, better state of it became is withdrawn.

    Raises:
        InputError: the capture cannot be used.
    """
    try:
        return load_capture(capture, kind=kind_of(settings), up=settings.up)
    except InputError:
        # Else what is there is of another.
        if capture.exists() and is_of(out, Source("capture", capture_name(capture))):
            unpublish(out)
        raise


@dataclass(frozen=True)
class BuiltCapture:
    """A capture whose asset was made.

    Args:
        name: of the item.
        runner: whose stages have run.
        prepared: the capture in the normalised world.
        asset: what was made of it.
        manifest: as it was written.
    """

    name: str
    runner: Runner
    prepared: StageRun[CaptureFolder]
    asset: BuiltAsset
    manifest: Manifest


def built_of_capture(
    capture: Path,
    views: ViewSet,
    out: Path,
    settings: ReconstructSettings,
    told: Reporter,
    *,
    overwrite: bool,
    check: Callable[[ViewSet], None] = lambda views: None,
) -> BuiltCapture:
    """Run the stages from a capture to its asset, and deliver that.

    Args:
        capture: that the views were read from.
        views: see :func:`read_capture`.
        out, settings, overwrite: see :func:`reconstruct`.
        told: of the progress.
        check: of the views as they are fitted, before they are; what it raises ends the job.

    Raises:
        InputError: the capture cannot be used, or it lies where the stages write.
        OutputError: ``out`` cannot be written, or holds the result of another capture.
    """
    folder, name = folder_of(capture), capture_name(capture)
    files = [*_camera_files(capture, folder, out), *(path for view in views for path in view.files)]
    _refuse_own_results(files, out)
    with reading(capture):
        # Names count as well: many formats tell views apart by them.
        digest = [[_name_of(p, folder), digest_of_file(p) if p.is_file() else None] for p in files]
    for note in views.metadata.get("notes", ()):
        told.note(str(note))
    source = Source("capture", name, digest_of(digest))
    claim_results(out, source, overwrite=overwrite, note=told.note)
    sweep(out, name)
    runner = Runner(out, unpublishing(out, told.stage))
    prepared = runner.run(CaptureStage(views, folder, digest, settings.capture, told.note))
    check(prepared.result.views)
    said = prepared.result.warnings
    manifest = Manifest(_told_settings(settings), capture=name, capture_sha256=source.digest, warnings=said)
    chosen = AssetSettings(settings.fit, settings.mesh, settings.glb, settings.device)
    built = build_asset(runner, name, prepared, chosen, manifest, told)
    return BuiltCapture(name, runner, prepared, built, manifest)


def _told_settings(settings: ReconstructSettings) -> dict[str, Any]:
    """Plain values of settings for manifests, without places on this machine; an edit tells its editor's digest."""
    plain = settings_as_dict(settings)
    editor = plain.get("editor", {})
    editor.pop("weights", None)
    for name in ("skeleton_net", "depth_net"):
        if editor.get(name) and Path(editor[name]).exists():
            editor[name] = Path(editor[name]).name
    return plain


def folder_of(capture: Path) -> Path:
    """The folder of a capture that may be given by its file."""
    return capture.parent if capture.is_file() else capture


def kind_of(settings: CaptureSettings) -> str | None:
    """The format that :func:`scene.captures.load_capture` shall read; None for any."""
    return None if settings.format == "auto" else settings.format


def capture_name(capture: Path) -> str:
    """Name of a capture, and of the asset that is made of it: that of its folder."""
    return item_name(folder_of(capture).resolve().name, "capture")


_STAGES = (
    "views", "surface", "asset", "edit", "draft-views", "edited-views", "edited-surface", "edited-asset",
)  # fmt: skip
"""Folders that this job, or an edit, replaces."""
_CAMERA_FILES = (".json", ".txt", ".bin", ".npz", ".out", ".ply", ".npy", ".lst")


def _name_of(file: Path, folder: Path) -> str:
    """A file's name within the capture, so that the capture may be moved; what lies elsewhere has its bare name."""
    file, folder = Path(os.path.abspath(file)), Path(os.path.abspath(folder))
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name


def _camera_files(capture: Path, folder: Path, out: Path) -> list[Path]:
    """Files other than pictures that a reader may look at."""
    if capture.is_file():
        beside = (p for p in folder.iterdir() if p.suffix.lower() == ".ply" or p.name in BESIDE_VIEWS)
        return [capture, *sorted(p for p in beside if p.is_file())]
    mine = out.resolve()
    files = (p for p in folder.rglob("*") if p.suffix.lower() in _CAMERA_FILES and p.is_file())
    return sorted(p for p in files if not p.resolve().is_relative_to(mine) or mine == folder.resolve())


def _refuse_own_results(files: list[Path], out: Path) -> None:
    """Raise if files that are read lie in a folder that a stage replaces, such as an earlier job's ``OUT/views``."""
    for file in files:
        for stage in _STAGES:
            if file.resolve().is_relative_to((out / stage).resolve()):
                raise InputError(
                    f"is read from, and would be replaced by this job's own {stage}",
                    where=file,
                    fix=f"Choose an output folder other than {out}, or copy the capture out of it.",
                )
