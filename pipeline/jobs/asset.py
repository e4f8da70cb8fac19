"""What photos and captures share: from a capture folder to the published asset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.manifest import Manifest
from pipeline.jobs.progress import Reporter
from pipeline.jobs.publishing import publish
from pipeline.jobs.runner import Runner, StageRun, digest_of_file
from pipeline.jobs.settings import MeshSettings
from pipeline.jobs.stages.asset import AssetReport, AssetStage
from pipeline.jobs.stages.capture_folder import CaptureFolder
from pipeline.jobs.stages.surface import SurfaceStage
from recon.settings import FitSettings, GlbSettings
from scene.backends import version_of


@dataclass(frozen=True)
class BuiltAsset:
    """An asset in its item's folder.

    Args:
        files: of every format, the GLB first.
        turntable: an animated picture of it.
        report: what is known of it.
    """

    files: tuple[Path, ...]
    turntable: Path
    report: AssetReport


@dataclass(frozen=True)
class AssetSettings:
    """What of a job's settings decides how a capture folder becomes an asset."""

    fit: FitSettings
    mesh: MeshSettings
    glb: GlbSettings
    device: str


def build_asset(
    runner: Runner,
    name: str,
    capture: StageRun[CaptureFolder],
    settings: AssetSettings,
    manifest: Manifest,
    reporter: Reporter,
) -> BuiltAsset:
    """Fit the surface, make the asset, copy it into the item's folder, and write the manifest.

    Args:
        runner: of the item.
        name: of the item and its files.
        capture: posed pictures in the normalised world.
        settings: of these stages.
        manifest: what is known so far; the asset is added.
        reporter: told of the progress.
    """
    state = runner.folder / ".surface-fit.npz"
    surface = runner.run(SurfaceStage(capture, settings.fit, settings.device, reporter.step, state))
    generator = f"viewloom {version_of('viewloom') or ''}".strip()
    stage = AssetStage(capture, surface, name, settings.mesh, settings.glb, manifest.extras, generator)
    asset = runner.run(stage)
    report: AssetReport = asset.result
    publish(asset.folder, report.published, runner.folder)
    final = runner.folder / f"{name}.glb"
    manifest.add_asset(final.name, digest_of_file(final), report)
    manifest.write(runner.folder)
    for note in report.notes:
        reporter.note(note)
    files = tuple(runner.folder / made["file"] for made in report.files)
    return BuiltAsset(files, asset.folder / "turntable.webp", report)


def finished_item(
    runner: Runner, name: str, manifest: Manifest, built: BuiltAsset | None, page: Path | None
) -> ItemResult:
    """The result of an item whose stages have run.

    Args:
        runner: of the item.
        name: of it.
        manifest: as it was written.
        built: its asset, if it has one.
        page: its report.
    """
    folders = {run.name: run.folder for run in runner.runs}
    return ItemResult(
        name,
        runner.folder,
        asset=None if built is None else built.files[0],
        files=() if built is None else built.files,
        views=folders.get("views"),
        report=page,
        turntable=None if built is None else built.turntable,
        verdict=None if built is None else built.report.verdict,
        evidence=None if built is None else built.report.evidence,
        seconds={run.name: run.seconds for run in runner.runs},
        warnings=tuple(manifest.warnings),
    )
