"""Photos to assets: prepare, views, surface, asset, report, for each photo."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.jobs.asset import AssetSettings, ItemResult, build_asset
from pipeline.jobs.manifest import Manifest
from pipeline.jobs.progress import Reporter, SilentReporter
from pipeline.jobs.publishing import unpublish, unpublishing
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, digest_of_file
from pipeline.jobs.settings import Image2MeshSettings, settings_as_dict
from pipeline.jobs.stages.prepare import PrepareStage
from pipeline.jobs.stages.surface import fit_device
from pipeline.jobs.stages.views import ViewsStage
from pipeline.jobs.view_model import JobViewModel
from scene.backends import pick_device
from scene.errors import InputError, OutputError, ViewloomError, unexpected
from scene.files import reading
from scene.resources import default_weights


def image2mesh(
    photos: Sequence[Path],
    out: Path,
    settings: Image2MeshSettings = Image2MeshSettings(),
    *,
    mask: Path | None = None,
    reporter: Reporter | None = None,
) -> list[ItemResult]:
    """Turn every photo into a textured GLB in ``out/NAME/NAME.glb``, with a report beside it.

    A photo that fails does not stop the others. What an earlier run finished is kept; the asset itself is removed
    from ``out/NAME`` as soon as a stage is redone or the photo fails, so that an old one is never taken for the new.

    Args:
        photos: pictures of one object each.
        out: output folder.
        settings: of all stages.
        mask: of the photo, if there is just one.
        reporter: told of the progress.

    Raises:
        InputError: no photos, a mask for several photos, or a device that is not there.
        CheckpointError: the weights cannot be found.
    """
    return _PhotoJob.ready(photos, settings, mask, reporter, with_mesh=True).run(photos, out)


def make_views(
    photos: Sequence[Path],
    out: Path,
    settings: Image2MeshSettings = Image2MeshSettings(),
    *,
    mask: Path | None = None,
    reporter: Reporter | None = None,
) -> list[ItemResult]:
    """Turn every photo into a capture folder of views, ``out/NAME/views``; as :func:`image2mesh` without the mesh."""
    return _PhotoJob.ready(photos, settings, mask, reporter, with_mesh=False).run(photos, out)


@dataclass(frozen=True)
class _PhotoJob:
    """All that the photos of one call share."""

    settings: Image2MeshSettings
    mask: Path | None
    model: JobViewModel
    reporter: Reporter
    with_mesh: bool

    @classmethod
    def ready(
        cls,
        photos: Sequence[Path],
        settings: Image2MeshSettings,
        mask: Path | None,
        reporter: Reporter | None,
        *,
        with_mesh: bool,
    ) -> _PhotoJob:
        """A job whose arguments, device and weights have been looked at, before any work."""
        if not photos:
            raise InputError("no photos were given")
        if mask is not None and len(photos) > 1:
            raise InputError("--mask fits one photo only", fix="Give photos with alpha, or run them one by one.")
        pick_device(settings.device)
        fit_device(settings.device)
        heard = reporter or SilentReporter()
        views = settings.views
        weights = views.weights or default_weights()
        announced = views.weights is not None
        model = JobViewModel(weights, settings.device, settings.dtype, settings.memory, views.pose, heard, announced)
        model.check()
        return cls(settings, mask, model, heard, with_mesh)

    def run(self, photos: Sequence[Path], out: Path) -> list[ItemResult]:
        """Every photo by itself: one that fails carries its error and does not stop the others."""
        results = []
        for photo, name in zip(photos, folder_names(photos), strict=True):
            folder = out / name
            self.reporter.item(f"{photo} -> {folder}")
            try:
                results.append(self.run_item(photo, folder))
            except Exception as error:  # noqa: BLE001 - one photo must not stop the others; what was caught is kept
                failure = _as_ours(error, photo)
                with contextlib.suppress(OutputError):  # what failed is more worth telling
                    unpublish(folder)
                results.append(ItemResult(name, folder, error=failure))
                if len(photos) > 1:
                    self.reporter.note(f"failed: {failure}")
        return results

    def run_item(self, photo: Path, folder: Path) -> ItemResult:
        """One photo through all its stages."""
        runner = Runner(folder, unpublishing(folder, self.reporter.stage))
        prepare = self._prepare_stage(photo)
        prepared = runner.run(prepare)
        self._note_all(prepared.result.warnings)
        views = runner.run(ViewsStage(prepared, self.model, self.settings.views, self.reporter.step))
        self._note_all(views.result.warnings)
        manifest = self._manifest(prepare)
        manifest.warnings = [*prepared.result.warnings, *views.result.warnings]
        asset = None
        if self.with_mesh:
            s = self.settings
            chosen = AssetSettings(s.fit, s.mesh, s.glb, s.device)
            asset = build_asset(runner, folder.name, views, chosen, manifest, self.reporter)
        else:
            manifest.write(folder)
        write_report(runner, folder.name, asset)
        return ItemResult(folder.name, folder, asset)

    def _prepare_stage(self, photo: Path) -> PrepareStage:
        if not photo.is_file():
            what = "is a folder, not a photo" if photo.exists() else "there is no such photo"
            raise InputError(what, where=photo)
        mask = self.mask
        if mask is not None and not mask.is_file():
            raise InputError("there is no such mask", where=mask)
        with reading(photo):
            photo_digest = digest_of_file(photo)
            mask_digest = None if mask is None else digest_of_file(mask)
        return PrepareStage(photo, photo_digest, self.settings.prepare, mask, mask_digest)

    def _manifest(self, prepare: PrepareStage) -> Manifest:
        settings = settings_as_dict(self.settings)
        settings["views"].pop("weights")  # a path of this machine; the digest names them
        return Manifest(
            settings,
            photo={"name": prepare.photo.name, "sha256": prepare.photo_digest},
            weights={"sha256": self.model.digest, **self.model.info.as_dict()},
        )

    def _note_all(self, texts: Sequence[str]) -> None:
        for text in texts:
            self.reporter.note(text)


def _as_ours(error: Exception, photo: Path) -> ViewloomError:
    """The error itself if it is one of ours, else one of ours that it caused."""
    if isinstance(error, ViewloomError):
        return error
    ours = unexpected(error, where=photo)
    ours.__cause__ = error
    return ours


def folder_names(photos: Sequence[Path]) -> list[str]:
    """Folder names for photos: their names without ending, numbered where two are the same."""
    names: list[str] = []
    taken: set[str] = set()
    for photo in photos:
        base = _printable(photo.stem) or "photo"
        name, k = base, 2
        while name.casefold() in taken:  # many file systems do not tell Cup from cup
            name, k = f"{base}-{k}", k + 1
        names.append(name)
        taken.add(name.casefold())
    return names


def _printable(text: str) -> str:
    """File names may hold bytes that are no UTF-8; those cannot be printed or written into a report."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
