"""Edits of captures: the asset as reconstruct makes it, then as a skeleton, boxes or a mesh say, and views of that."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.editing.control_pictures import control_kind
from pipeline.editing.depth_target import DepthTarget
from pipeline.editing.redraw import check_editable
from pipeline.editing.target import ReadTarget, check_meets, check_seen, read_target
from pipeline.jobs.asset import finished_item
from pipeline.jobs.editor import JobEditor
from pipeline.jobs.item_lock import only_job
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.manifest import GENERATED
from pipeline.jobs.progress import Heard, Reporter, one_item, reporter_of
from pipeline.jobs.publishing import publish, unpublish_deformed, unpublish_edit
from pipeline.jobs.reconstruct import BuiltCapture, built_of_capture, folder_of, read_capture
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import StageRun, digest_of_file, forget_killed
from pipeline.jobs.settings import DRAFT_START, Busy, EditMethod, EditSettings
from pipeline.jobs.stages.capture_folder import CaptureFolder
from pipeline.jobs.stages.edit import (
    DraftViewsStage,
    EditedViews,
    EditedViewsStage,
    EditReport,
    EditStage,
    edited_name,
    rig_name,
)
from pipeline.jobs.stages.redraw import Draft, EditedAssetStage, EditedSurfaceStage, RedrawnViewsStage, edit_report_of
from pipeline.jobs.stages.surface import fit_device
from pipeline.jobs.time_left import Work
from recon.export.glb_read import read_glb
from recon.views.claim import normalised_doubt
from scene.backends import version_of
from scene.camera import Mat4
from scene.captures import world_from_original
from scene.errors import InputError, OutputError, ViewloomError
from scene.viewset import ViewSet

_DRAWN = {"views": 0.02, "surface": 0.1, "asset": 0.06}
_FITTED = {"edited-surface": 0.12, "edited-asset": 0.06}
SHARES: Mapping[EditMethod, Mapping[str, float]] = {
    "deform": {"views": 0.08, "surface": 0.5, "asset": 0.27, "edit": 0.05, "edited-views": 0.1},
    "consolidate": {**_DRAWN, "edited-views": 0.64, **_FITTED},
    "both": {**_DRAWN, "edit": 0.02, "draft-views": 0.02, "edited-views": 0.6, **_FITTED},
}
"""Usual fractions of an edit's time."""
_STAGES = ("edit", "draft-views", "edited-views", "edited-surface", "edited-asset")
"""Of all methods; none runs them all."""
_WORK, _FIT_STATE = ".edit-work", ".edited-surface-fit.npz"
"""What unfinished stages of edits by diffusion go on from."""


def edit(
    capture: Path,
    out: Path,
    settings: EditSettings = EditSettings(),
    *,
    skeleton: Path | None = None,
    boxes: Path | None = None,
    depth: Path | None = None,
    rest: Path | None = None,
    reporter: Heard = None,
    busy: Busy = "refuse",
    overwrite: bool = False,
) -> ItemResult:
    """Make a capture's asset, and the same asset as a target says: ``out/NAME.glb`` and ``out/NAME-edited.glb``.

    Beside them are a rig with a clip from the one to the other (``NAME-edited-rig.glb``, of skeletons, unless all is
    drawn anew), a report, and the folder ``edited-views``, a capture of the edited object.

    Args:
        capture: folder or file of any format that :func:`scene.captures.load_capture` knows.
        out: output folder; what an earlier run finished is kept, and another target redoes the edit only.
        settings: of the fit, mesh, asset and edit.
        skeleton: file of the pose that is wanted (:meth:`scene.skeleton.Skeleton.load`), in the capture's own world; or
        boxes: file of boxes before and after (:class:`pipeline.editing.boxes.BoxTarget`), in that world too; or
        depth: file of a closed mesh there, whose depth the object shall have; not for deforming.
        rest: file of the skeleton in the pose of the capture; ``skeleton.json`` in its folder by default.
        reporter: told of the progress: a reporter, or a function that is called with where the job stands; without,
            the ``viewloom`` logger is.
        busy: whether the job gives up at once when another one writes into ``out``, or waits for it.
        overwrite: whether the result of another capture in ``out`` may be replaced.

    Raises:
        InputError: the capture or the target cannot be used; the message says which file and why. What was finished
            before is kept.
        CheckpointError: views are to be drawn anew, and the editor is missing, damaged, or follows no such target.
        ViewloomError: the editor drew nothing.
        OutputError: ``out`` cannot be written, is busy, or holds the result of another capture.
    """
    told = reporter_of(reporter)
    fit_device(settings.device)
    if not capture.exists():
        read_capture(capture, out, settings.capture)  # which says so, before a skeleton is missed in it
    read = read_target(folder_of(capture), skeleton, boxes, rest, depth, fit_bones=settings.fit_bones)
    if isinstance(read.target, DepthTarget) and settings.method != "consolidate":
        raise InputError(
            f"a mesh does not say which part of the object goes where: --method {settings.method} cannot follow it",
            where=depth,
            fix="Use --method consolidate, or give a skeleton or boxes.",
        )
    editor = None
    if settings.method != "deform":
        kind = "depth" if settings.method == "both" else control_kind(read.target)
        editor = JobEditor(settings.editor, kind, settings.device, told)
        editor.check()
    with one_item(told, f"{capture} -> {out}", Work(shares=SHARES[settings.method])), only_job(out, busy, told.note):
        return _edit(capture, out, settings, read, editor, told, overwrite)


def _edit(
    capture: Path,
    out: Path,
    settings: EditSettings,
    read: ReadTarget,
    editor: JobEditor | None,
    told: Reporter,
    overwrite: bool,
) -> ItemResult:
    views = read_capture(capture, out, settings.capture)
    if len(views) < 2:
        raise InputError("one view tells no surface that could be edited", where=capture, fix="Give several views.")
    world = _views_from_original(views)
    warnings = [*read.warnings, *check_seen(read.target.transformed(world), [view.camera for view in views])]
    for warning in warnings:
        told.note(warning)
    check = {} if editor is None else {"check": check_editable}
    built = built_of_capture(capture, views, out, settings, told, overwrite=overwrite, **check)
    try:
        told_read = replace(read, warnings=tuple(warnings))
        report = _edited(built, settings, told_read, world, editor, told)
    except OutputError:
        raise
    except ViewloomError:
        write_report(built.runner, built.name, built.asset.files[0])  # what was made is told
        raise
    files = tuple(out / made["file"] for made in report.files)
    page = write_report(built.runner, built.name, built.asset.files[0])
    made = finished_item(built.runner, built.name, built.manifest, built.asset, page)
    rig = out / rig_name(built.name)
    last = "edit" if settings.method == "deform" else "edited-asset"
    edited = next(run for run in built.runner.runs if run.name == last)
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


def _edited(
    built: BuiltCapture, settings: EditSettings, read: ReadTarget, world: Mat4, editor: JobEditor | None, told: Reporter
) -> EditReport:
    """Run the edit's stages, deliver what they made, and note it in the manifest."""
    runner, name = built.runner, built.name
    forget_killed(runner.folder, _STAGES)
    if editor is None:  # what a killed edit by diffusion would go on from is of another method
        _drop_unfinished(runner.folder)
    deformed = None
    if settings.method != "consolidate":
        asset = next(run for run in runner.runs if run.name == "asset")
        deformed = runner.run(
            EditStage(asset, name, read.target, settings.method, settings.deform, settings.mesh, settings.glb, world)
        )
    if editor is None:
        assert deformed is not None
        report: EditReport = deformed.result
        publish(deformed.folder, report.published, runner.folder)
        _deliver(built, report, read, None)
        _draw(built, settings, read, world, deformed, EditedViewsStage, told)
    else:
        report = _redrawn(built, settings, read, world, editor, deformed, told)
        _deliver(built, report, read, editor)
    for note in report.notes:
        told.note(note)
    return report


def _drop_unfinished(folder: Path) -> None:
    """Remove what unfinished stages of edits by diffusion keep beside their results."""
    shutil.rmtree(folder / _WORK, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / _FIT_STATE).unlink()


def _deliver(built: BuiltCapture, report: EditReport, read: ReadTarget, editor: JobEditor | None) -> None:
    """Note an edit in the manifest."""
    glb = built.runner.folder / f"{edited_name(built.name)}.glb"
    built.manifest.warnings += [*read.warnings, *report.warnings]
    built.manifest.add_edit(glb.name, digest_of_file(glb), report, None if editor is None else editor.facts)
    built.manifest.write(built.runner.folder)


def _draw(
    built: BuiltCapture,
    settings: EditSettings,
    read: ReadTarget,
    world: Mat4,
    deformed: StageRun[EditReport],
    kind: type[EditedViewsStage],
    told: Reporter,
) -> StageRun[EditedViews]:
    """Views of a deformed asset."""
    side = settings.view_side
    drawn = built.runner.run(kind(built.prepared, deformed, built.name, read.target, world, side, on_step=told.step))
    if kind is not EditedViewsStage:
        return drawn
    sizes = {(view.camera.width, view.camera.height) for view in drawn.result.views}
    given = {(view.camera.width, view.camera.height) for view in built.prepared.result.views}
    if sizes != given:
        told.note(
            f"The edited views are at most {side} pixels large, less than the capture's; --view-side changes that."
        )
    if not built.prepared.result.views.has_masks:
        told.note("The edited views show the object alone: what was behind it is not drawn.")
    return drawn


def _redrawn(
    built: BuiltCapture,
    settings: EditSettings,
    read: ReadTarget,
    world: Mat4,
    editor: JobEditor,
    deformed: StageRun[EditReport] | None,
    told: Reporter,
) -> EditReport:
    """Draw the views anew, and fit a surface to them."""
    runner, name = built.runner, built.name
    original = next(run for run in runner.runs if run.name == "asset")
    if deformed is None:
        unpublish_deformed(runner.folder)  # what an earlier edit delivered is not of this one
        _check_meets(built, read)
    draft = None
    if deformed is not None:
        drawn = _draw(built, settings, read, world, deformed, DraftViewsStage, told)
        draft = Draft(original, deformed, drawn, name)
    chosen = settings.consolidate
    chosen = replace(chosen, start=chosen.start or (1.0 if draft is None else DRAFT_START))
    if settings.editor.memory == "low":
        chosen = replace(chosen, rows_at_once=1)
    work = runner.folder / _WORK
    views = runner.run(
        RedrawnViewsStage(
            built.prepared, read.target, editor, chosen, settings.editor.most_views, draft, work, told.step
        )
    )
    shutil.rmtree(work, ignore_errors=True)
    given, drawn_anew = len(built.prepared.result.views), len(views.result.drawn)
    if drawn_anew < given:
        told.note(f"{drawn_anew} of {given} views were drawn; --editor.most-views takes more.")
    side = views.result.views.views[0].camera.width
    told.note(f"The edited views are {side} pixels large, as the editor draws them.")
    capture = StageRun(
        views.name,
        views.folder,
        views.key,
        views.seconds,
        views.cached,
        lambda folder: CaptureFolder(folder).looked_at(),
    )
    state = runner.folder / _FIT_STATE
    surface = runner.run(EditedSurfaceStage(capture, settings.fit, settings.device, told.step, state))
    extras = {**built.manifest.extras, "digitalSourceType": GENERATED, "edit": {"method": settings.method}}
    extras["manifest"] = {**extras["manifest"], "licence": editor.facts["licence"], "seed": settings.consolidate.seed}
    generator = f"viewloom {version_of('viewloom') or ''}".strip()
    asset = runner.run(
        EditedAssetStage(
            capture, surface, edited_name(name), settings.mesh, settings.glb, extras, generator, original, name
        )
    )
    publish(asset.folder, asset.result.published, runner.folder)
    report = edit_report_of(settings.method, asset.result, views.result, None if deformed is None else deformed.result)
    if deformed is not None:
        publish(deformed.folder, [file for file in deformed.result.published if file == rig_name(name)], runner.folder)
    return report


def _check_meets(built: BuiltCapture, read: ReadTarget) -> None:
    """Whether the target is where the captured surface is.

    Raises:
        MissedControlError: it is not; what an earlier edit delivered is withdrawn.
    """
    asset = read_glb(built.asset.files[0])
    back = np.eye(4) if asset.world_from_asset is None else asset.world_from_asset
    try:
        check_meets(read.target.transformed(np.linalg.inv(back)), asset.vertices)
    except InputError:
        unpublish_edit(built.runner.folder)
        raise


def _views_from_original(views: ViewSet) -> Mat4:
    """From the capture's own world, in which targets are, to that of its views as they were read."""
    if views.metadata.get("normalised") and normalised_doubt(views) is None:
        return np.array(views.metadata.get("normalised_from_world", np.eye(4)), np.float64)
    return world_from_original(views.metadata)
