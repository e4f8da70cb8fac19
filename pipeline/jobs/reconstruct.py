"""Captures to assets: a folder of posed pictures becomes a textured GLB."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pipeline.jobs.image2mesh import ItemResult, surface_and_asset, versions
from pipeline.jobs.progress import Reporter, Silent
from pipeline.jobs.publishing import unpublish, unpublishing
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, digest_of_file
from pipeline.jobs.settings import ReconstructSettings, settings_as_dict
from recon.checks.capture import Issue, check_capture
from recon.checks.orientation import turned
from recon.views.normalise import normalise_capture, normalise_scene
from scene.camera import Mat4
from scene.captures import load_capture, threshold_masks, world_from_original
from scene.errors import InputError
from scene.files import reading
from scene.viewset import ViewSet

_VERSION = 4


def reconstruct(
    capture: Path, out: Path, settings: ReconstructSettings = ReconstructSettings(), *, reporter: Reporter | None = None
) -> ItemResult:
    """Fit a surface to a capture folder and export it to ``out/NAME.glb``, with a report beside it.

    Args:
        capture: folder or file of any format that :func:`scene.captures.load_capture` knows.
        out: output folder; what an earlier run finished is kept.
        settings: of the fit, mesh and asset.
        reporter: told of the progress.

    Raises:
        InputError: the capture cannot be used, or it lies where the stages write; the message says which file and why.
    """
    tell = reporter or Silent()
    folder = capture.parent if capture.is_file() else capture
    name = folder.resolve().name
    tell.item(f"{capture} -> {out}")
    try:
        views = load_capture(capture)
    except InputError:
        unpublish(out)  # of an earlier, better state of the capture
        raise
    pictures = [p for view in views for p in (view.image_path, view.mask_path) if p is not None]
    cameras = _camera_files(capture, folder, out)
    _refuse_own_results([*cameras, *pictures], out)
    with reading(capture):
        digest = [digest_of_file(p) if p.is_file() else None for p in (*cameras, *pictures)]
    for note in views.metadata.get("notes", ()):
        tell.note(str(note))
    warnings: list[str] = []
    runner = Runner(out, unpublishing(out, tell.stage))

    def normalise(target: Path) -> None:
        if views.metadata.get("normalised"):
            views.save(target)
            if (folder / "coarse.npz").is_file():
                (target / "coarse.npz").write_bytes((folder / "coarse.npz").read_bytes())
            return
        masked = with_masks(views, settings.capture.masks)
        found: list[str] = []
        if settings.capture.check:
            masked, found = _checked(masked, tell, settings.capture.turn)
        moved, matrix = normalised(masked, settings.capture.bounds)
        facts = {
            **moved.metadata,
            "normalised": True,
            "normalised_from_world": np.round(matrix @ world_from_original(views.metadata), 12).tolist(),
            "warnings": found,
        }
        replace(moved, metadata=facts).save(target)

    key = [_VERSION, digest, settings_as_dict(settings.capture)]
    prepared = runner.run("views", key, normalise)
    warnings += ViewSet.load(prepared.folder).metadata.get("warnings", [])
    manifest: dict[str, Any] = {
        "capture": name,
        "settings": settings_as_dict(settings),
        "versions": versions(),
        "warnings": warnings,
    }
    asset = surface_and_asset(runner, name, prepared.folder, prepared.key, settings, manifest, tell)
    write_report(runner, name, asset)
    return ItemResult(name, out, asset)


def with_masks(views: ViewSet, masks: Literal["auto", "given", "background", "none"]) -> ViewSet:
    """The views with the masks that were asked for.

    Raises:
        InputError: there are no masks where they were insisted on, or the background is not uniform.
    """
    if masks == "none":
        return replace(views, has_masks=False)
    if masks == "background" or (masks == "auto" and not views.has_masks):
        try:
            return threshold_masks(views)
        except InputError:
            if masks == "background":
                raise
    if masks == "given" and not views.has_masks:
        raise InputError(
            "the capture has no masks", fix="Give RGBA pictures or mask files, or leave --capture.masks out."
        )
    return views


def normalised(views: ViewSet, bounds: tuple[float, ...] | None = None) -> tuple[ViewSet, Mat4]:
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


def _checked(views: ViewSet, tell: Reporter, turn: bool) -> tuple[ViewSet, list[str]]:
    """The views, those stored turned put right if asked for, and what the check says; also told to the reporter."""
    report = check_capture(views)
    # A mirrored picture may be of something else: no job goes so far.
    mended = [found for found in report.turned if turn and not found.mirrored]
    said = [_turned_back(c) if mended and c.kind == "turned" else c.text for c in report.issues]
    for warning in said:
        tell.note(warning)
    if not report.usable:
        fatal = next(c for c in report.issues if c.fatal)
        raise InputError(
            fatal.text.rstrip("."), fix="Mend the capture, or switch the check off with --capture.no-check."
        )
    if not mended:
        return views, said
    metadata = {**views.metadata, "turned_deg": {found.name: 90 * found.quarters for found in mended}}
    return replace(turned(views, mended), metadata=metadata), said


def _turned_back(issue: Issue) -> str:
    """The issue's sentence on what was found, and in place of what to do what was done."""
    found = issue.text.rsplit(". ", 1)[0]
    return f"{found}. They were turned before the fit; --capture.no-turn leaves them as they are."


_CAMERA_FILES = (".json", ".txt", ".bin", ".npz", ".out", ".ply", ".npy")


def _camera_files(capture: Path, folder: Path, out: Path) -> list[Path]:
    """Files other than pictures that a reader may look at."""
    if capture.is_file():
        return [capture]
    mine = out.resolve()
    files = (p for p in folder.rglob("*") if p.suffix.lower() in _CAMERA_FILES and p.is_file())
    return sorted(p for p in files if not p.resolve().is_relative_to(mine) or mine == folder.resolve())


def _refuse_own_results(files: list[Path], out: Path) -> None:
    """Raise if files that are read lie in a folder that a stage replaces, such as an earlier job's ``OUT/views``."""
    for file in files:
        for stage in ("views", "surface", "asset"):
            if file.resolve().is_relative_to((out / stage).resolve()):
                raise InputError(
                    f"is read from, and would be replaced by this job's own {stage}",
                    where=file,
                    fix=f"Choose an output folder other than {out}, or copy the capture out of it.",
                )
