"""Photos to assets: prepare, views, surface, asset, report, for each photo."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.jobs.asset import AssetSettings, build_asset, finished_item
from pipeline.jobs.item_lock import FolderBusyError, only_job
from pipeline.jobs.item_names import item_names
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.manifest import Manifest
from pipeline.jobs.photos import listed_photos
from pipeline.jobs.progress import Heard, Reporter, reporter_of
from pipeline.jobs.publishing import (
    ForeignResultError,
    Source,
    claim_results,
    delivered_manifest,
    remove_empty,
    sweep,
    unpublish,
    unpublishing,
)
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, digest_of_file
from pipeline.jobs.same_object import SameObject
from pipeline.jobs.settings import Busy, Image2MeshSettings, settings_as_dict
from pipeline.jobs.stages.aligned import AlignedStage
from pipeline.jobs.stages.prepare import PrepareStage
from pipeline.jobs.stages.surface import fit_device
from pipeline.jobs.stages.views import ViewsStage
from pipeline.jobs.time_left import Work
from pipeline.jobs.view_model import JobViewModel
from scene.backends import pick_device
from scene.errors import CheckpointError, InputError, OutputError, ViewloomError, unexpected
from scene.files import is_there, reading
from scene.resources import default_weights

_LOG = logging.getLogger("viewloom")
_SHARES = {"prepare": 0.03, "views": 0.5, "surface": 0.3, "asset": 0.17}
_VIEW_SHARES = {"prepare": 0.05, "views": 0.95}
"""Usual fractions of a photo's time."""
_ALIGNED = 0.15
"""The same of aligning, taken from that of the views."""


def image2mesh(
    photos: Sequence[Path],
    out: Path,
    settings: Image2MeshSettings = Image2MeshSettings(),
    *,
    mask: Path | None = None,
    reporter: Heard = None,
    done: Callable[[ItemResult], None] | None = None,
    busy: Busy = "refuse",
    overwrite: bool = False,
) -> list[ItemResult]:
    """Turn every photo into a textured GLB in ``out/NAME/NAME.glb``, with a report beside it.

    NAME is the photo's without ending; one that is too long for a file is shortened, one that comes twice numbered.

    A photo that fails does not stop the others. What an earlier run finished is kept; the asset itself is removed
    from ``out/NAME`` as soon as a stage is redone or the photo fails, so that an old one is never taken for the new.

    Args:
        photos: pictures of one object each; folders of them, and patterns such as ``photos/*.jpg``.
        out: output folder.
        settings: of all stages.
        mask: of the photo, if there is just one.
        reporter: told of the progress: a reporter, or a function that is called with where the job stands; without,
            the ``viewloom`` logger is.
        done: called with each photo's result as soon as it is there.
        busy: whether a photo fails at once when another job writes into its folder, or waits for that.
        overwrite: whether the result of another photo or capture in a photo's folder may be replaced.

    Raises:
        InputError: no photos, a folder without any, a mask for several photos, or a device that is not there.
        CheckpointError: the weights cannot be found, or views are to be aligned and they have no decoder for that.
    """
    job = _PhotoJob.ready(photos, settings, mask, reporter, with_mesh=True)
    return job.run(out, Manners(busy, overwrite), done)


def make_views(
    photos: Sequence[Path],
    out: Path,
    settings: Image2MeshSettings = Image2MeshSettings(),
    *,
    mask: Path | None = None,
    reporter: Heard = None,
    done: Callable[[ItemResult], None] | None = None,
    busy: Busy = "refuse",
    overwrite: bool = False,
) -> list[ItemResult]:
    """Turn every photo into a capture folder of views, ``out/NAME/views``; as :func:`image2mesh` without the mesh.

    An asset that was made of the same views stays, with its manifest and report.
    """
    job = _PhotoJob.ready(photos, settings, mask, reporter, with_mesh=False)
    return job.run(out, Manners(busy, overwrite), done)


@dataclass(frozen=True)
class Manners:
    """How a job behaves towards what is in its folders; see :func:`image2mesh`."""

    busy: Busy = "refuse"
    overwrite: bool = False


@dataclass(frozen=True)
class _PhotoJob:
    """All that the photos of one call share."""

    photos: Sequence[Path]
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
        reporter: Heard,
        *,
        with_mesh: bool,
    ) -> _PhotoJob:
        """A job whose arguments, device and weights have been looked at, before any work."""
        listed = listed_photos(photos)
        if mask is not None and len(listed) > 1:
            raise InputError("--mask fits one photo only", fix="Give photos with alpha, or run them one by one.")
        if mask is not None:
            with reading(mask):
                if not mask.is_file():
                    raise InputError("is no file" if mask.exists() else "there is no such mask", where=mask)
        pick_device(settings.device)
        fit_device(settings.device)
        told = reporter_of(reporter)
        views = settings.views
        weights = views.weights or default_weights()
        announced = views.weights is not None
        model = JobViewModel(weights, settings.device, settings.dtype, settings.memory, views.pose, told, announced)
        model.check()
        if settings.align and not model.has_aligned_decoder:
            raise CheckpointError(
                "the model has no aligned decoder",
                where=model.path,
                fix="Leave --align out, or train one (scripts/train_decoder.py).",
            )
        return cls(listed, settings, mask, model, told, with_mesh)

    def run(self, out: Path, manners: Manners, done: Callable[[ItemResult], None] | None = None) -> list[ItemResult]:
        """Every photo by itself: one that fails carries its error and does not stop the others."""
        results: list[ItemResult] = []
        one_object = SameObject()
        shares: Mapping[str, float] = _SHARES if self.with_mesh else _VIEW_SHARES
        if self.settings.align:
            shares = _with_aligning(shares)
        out_was_there = is_there(out)
        for number, (photo, (name, note)) in enumerate(zip(self.photos, item_names(self.photos), strict=True), 1):
            folder = out / name
            self.reporter.item(f"{photo} -> {folder}", Work(number, len(self.photos), shares))
            was_there = is_there(folder)
            if note is not None:
                self.reporter.note(note)
            try:
                with only_job(folder, manners.busy, self.reporter.note):
                    result = self.run_item(photo, folder, one_object, overwrite=manners.overwrite, renamed=note)
            except Exception as error:  # noqa: BLE001 - one photo must not stop the others; what was caught is kept
                failure = _as_ours(error, photo)
                # A wrong name, or a folder that is busy or another's: what is there is not of this photo.
                if is_there(photo) and not isinstance(error, FolderBusyError | ForeignResultError):
                    with contextlib.suppress(OutputError):  # what failed is more worth telling
                        unpublish(folder)
                remove_empty([*([] if was_there else [folder]), *([] if out_was_there else [out])])
                results.append(ItemResult(name, folder, error=failure))
                self.reporter.failed(str(failure))
            else:
                results.append(result)
                self.reporter.finished()
            if done is not None:
                _tell(done, results[-1])
        return results

    def run_item(
        self, photo: Path, folder: Path, one_object: SameObject, *, overwrite: bool, renamed: str | None = None
    ) -> ItemResult:
        """One photo through all its stages.

        Args:
            photo: the file.
            folder: of its results.
            one_object: compares it with the photos before.
            overwrite: whether a result of another input may be replaced.
            renamed: why the folder has another name, for the manifest.
        """
        runner = Runner(folder, unpublishing(folder, self.reporter.stage))
        prepare = self._prepare_stage(photo)
        source = Source("photo", photo.name, prepare.photo_digest)
        claim_results(folder, source, overwrite=overwrite, note=self.reporter.note)
        sweep(folder, folder.name)
        prepared = runner.run(prepare)
        self._note_all(prepared.result.warnings)
        if hint := one_object.hint(prepared.result):
            self.reporter.note(hint)
        views = runner.run(ViewsStage(prepared, self.model, self.settings.views, self.reporter.step))
        self._note_all(views.result.warnings)
        shown = views
        if self.settings.align:
            s = self.settings
            shown = runner.run(AlignedStage(views, self.model, s.aligning, s.fit, s.device, self.reporter.step))
            self._note_all(shown.result.warnings[len(views.result.warnings) :])
        manifest = self._manifest(prepare)
        said = [] if renamed is None else [renamed]
        manifest.warnings = [*said, *prepared.result.warnings, *shown.result.warnings]
        manifest.symmetry = views.result.views.metadata.get("symmetry")
        name, page = folder.name, folder / "report.html"
        if self.with_mesh:
            s = self.settings
            chosen = AssetSettings(s.fit, s.mesh, s.glb, s.device)
            built = build_asset(runner, name, shown, chosen, manifest, self.reporter)
            write_report(runner, name, built.files[0])
            return finished_item(runner, name, manifest, built, page)
        # An asset that is there was made of these very views: else it would have been withdrawn.
        if "asset" not in delivered_manifest(folder):
            manifest.write(folder)
            write_report(runner, name, None)
        return finished_item(runner, name, manifest, None, page)

    def _prepare_stage(self, photo: Path) -> PrepareStage:
        mask = self.mask
        with reading(photo):
            if not photo.is_file():
                raise InputError("is no file" if photo.exists() else "there is no such photo", where=photo)
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


def _with_aligning(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares of stages, with that of aligning behind the views'."""
    found: dict[str, float] = {}
    for name, share in shares.items():
        found[name] = share - _ALIGNED if name == "views" else share
        if name == "views":
            found["aligned"] = _ALIGNED
    return found


def _tell(done: Callable[[ItemResult], None], result: ItemResult) -> None:
    try:
        done(result)
    except Exception:  # noqa: BLE001 - logged with its traceback; whoever listens must not cost the photos that follow
        _LOG.exception("the function that is told of results failed")


def _as_ours(error: Exception, photo: Path) -> ViewloomError:
    """The error itself if it is one of ours, else one of ours that it caused."""
    if isinstance(error, ViewloomError):
        return error
    ours = unexpected(error, where=photo)
    ours.__cause__ = error
    return ours
