"""Edits of captures: the asset as reconstruct makes it, then as a skeleton or boxes say, and views of that."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.editing.target import ReadTarget, check_seen, read_target
from pipeline.jobs.asset import finished_item
from pipeline.jobs.item_lock import only_job
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.progress import Heard, Reporter, one_item, reporter_of
from pipeline.jobs.publishing import publish
from pipeline.jobs.reconstruct import BuiltCapture, built_of_capture, folder_of, read_capture
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import digest_of_file
from pipeline.jobs.settings import Busy, EditSettings
from pipeline.jobs.stages.edit import EditedViewsStage, EditReport, EditStage, edited_name, rig_name
from pipeline.jobs.stages.surface import fit_device
from pipeline.jobs.time_left import Work
from recon.views.claim import normalised_doubt
from scene.camera import Mat4
from scene.captures import world_from_original
from scene.errors import InputError
from scene.viewset import ViewSet

EDIT_SHARES = {"views": 0.08, "surface": 0.5, "asset": 0.27, "edit": 0.05, "edited-views": 0.1}
"""Usual fractions of an edit's time."""


def edit(
    capture: Path,
    out: Path,
    settings: EditSettings = EditSettings(),
    *,
    skeleton: Path | None = None,
    boxes: Path | None = None,
    rest: Path | None = None,
    reporter: Heard = None,
    busy: Busy = "refuse",
    overwrite: bool = False,
) -> ItemResult:
    """Make a capture's asset, and the same asset as a target says: ``out/NAME.glb`` and ``out/NAME-edited.glb``.

    Beside them are a rig with a clip from the one to the other (``NAME-edited-rig.glb``, of skeletons), a report, and
    the folder ``edited-views``, a capture of the edited object.

    Args:
        capture: folder or file of any format that :func:`scene.captures.load_capture` knows.
        out: output folder; what an earlier run finished is kept, and another target redoes the edit only.
        settings: of the fit, mesh, asset and edit.
        skeleton: file of the pose that is wanted (:meth:`scene.skeleton.Skeleton.load`), in the capture's own world; or
        boxes: file of boxes before and after (:class:`pipeline.editing.boxes.BoxTarget`), in that world too.
        rest: file of the skeleton in the pose of the capture; ``skeleton.json`` in its folder by default.
        reporter: told of the progress: a reporter, or a function that is called with where the job stands; without,
            the ``viewloom`` logger is.
        busy: whether the job gives up at once when another one writes into ``out``, or waits for it.
        overwrite: whether the result of another capture in ``out`` may be replaced.

    Raises:
        InputError: the capture or the target cannot be used; the message says which file and why. What was finished
            before is kept.
        OutputError: ``out`` cannot be written, is busy, or holds the result of another capture.
    """
    told = reporter_of(reporter)
    fit_device(settings.device)
    if not capture.exists():
        read_capture(capture, out, settings.capture)  # which says so, before a skeleton is missed in it
    read = read_target(folder_of(capture), skeleton, boxes, rest, fit_bones=settings.fit_bones)
    with one_item(told, f"{capture} -> {out}", Work(shares=EDIT_SHARES)), only_job(out, busy, told.note):
        return _edit(capture, out, settings, read, told, overwrite)


def _edit(
    capture: Path, out: Path, settings: EditSettings, read: ReadTarget, told: Reporter, overwrite: bool
) -> ItemResult:
    views = read_capture(capture, out, settings.capture)
    if len(views) < 2:
        raise InputError("one view tells no surface that could be edited", where=capture, fix="Give several views.")
    world = _views_from_original(views)
    warnings = [*read.warnings, *check_seen(read.target.transformed(world), [view.camera for view in views])]
    for warning in warnings:
        told.note(warning)
    built = built_of_capture(capture, views, out, settings, told, overwrite=overwrite)
    try:
        report = _edited(built, settings, replace(read, warnings=tuple(warnings)), world, told)
    except InputError:
        write_report(built.runner, built.name, built.asset.files[0])  # what was made is told
        raise
    files = tuple(out / made["file"] for made in report.files)
    page = write_report(built.runner, built.name, built.asset.files[0])
    made = finished_item(built.runner, built.name, built.manifest, built.asset, page)
    rig = out / rig_name(built.name)
    edited = next(run for run in built.runner.runs if run.name == "edit")
    return replace(
        made,
        asset=files[0],
        files=files,
        views=out / "edited-views",
        turntable=edited.folder / "turntable.webp",
        verdict=None,  # the verdict is on the fit, as the manifest says
        original=made.asset,
        rig=rig if rig in files else None,
    )


def _edited(built: BuiltCapture, settings: EditSettings, read: ReadTarget, world: Mat4, told: Reporter) -> EditReport:
    """Run the edit's stages, deliver what they made, and note it in the manifest."""
    runner, name = built.runner, built.name
    asset = next(run for run in runner.runs if run.name == "asset")
    run = runner.run(
        EditStage(asset, name, read.target, settings.method, settings.deform, settings.mesh, settings.glb, world)
    )
    report: EditReport = run.result
    publish(run.folder, report.published, runner.folder)
    glb = runner.folder / f"{edited_name(name)}.glb"
    built.manifest.warnings += [*read.warnings, *report.warnings]
    built.manifest.add_edit(glb.name, digest_of_file(glb), report)
    built.manifest.write(runner.folder)
    for note in report.notes:
        told.note(note)
    drawn = runner.run(
        EditedViewsStage(built.prepared, run, name, read.target, world, settings.view_side, on_step=told.step)
    )
    sizes = {(view.camera.width, view.camera.height) for view in drawn.result.views}
    given = {(view.camera.width, view.camera.height) for view in built.prepared.result.views}
    if sizes != given:
        told.note(
            f"The edited views are at most {settings.view_side} pixels large, less than the capture's; "
            "--view-side changes that."
        )
    if not built.prepared.result.views.has_masks:
        told.note("The edited views show the object alone: what was behind it is not drawn.")
    return report


def _views_from_original(views: ViewSet) -> Mat4:
    """From the capture's own world, in which targets are, to that of its views as they were read."""
    if views.metadata.get("normalised") and normalised_doubt(views) is None:
        return np.array(views.metadata.get("normalised_from_world", np.eye(4)), np.float64)
    return world_from_original(views.metadata)
