"""What photos and captures share: from a capture folder to the published asset."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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
from scene.errors import ViewloomError


@dataclass(frozen=True)
class ItemResult:
    """What became of one photo or capture.

    Args:
        name: of the item and its folder.
        folder: its results.
        asset: the GLB, if the job makes one and it was made.
        error: why it failed, if it did.
    """

    name: str
    folder: Path
    asset: Path | None = None
    error: ViewloomError | None = None


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
) -> Path:
    """Fit the surface, make the asset, copy it into the item's folder, and write the manifest.

    Args:
        runner: of the item.
        name: of the item and its files.
        capture: posed pictures in the normalised world.
        settings: of these stages.
        manifest: what is known so far; the asset is added.
        reporter: told of the progress.

    Returns:
        The GLB in the item's folder.
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
    return final
