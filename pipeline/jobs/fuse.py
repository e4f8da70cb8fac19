"""A few photos of one object, without cameras, to a ring of views, and to an asset if that is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.diffusion.preparation.prepare import PreparedPhoto
from pipeline.diffusion.viewfusion.generate import MOST
from pipeline.jobs.asset import AssetSettings, build_asset, finished_item
from pipeline.jobs.fusion_model import JobFusionModel
from pipeline.jobs.item_lock import only_job
from pipeline.jobs.item_names import item_names
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.manifest import Manifest
from pipeline.jobs.photos import listed_photos
from pipeline.jobs.progress import Heard, Reporter, one_item, reporter_of
from pipeline.jobs.publishing import Source, claim_results, remove_empty, sweep, unpublish, unpublishing
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, StageRun, digest_of, digest_of_file
from pipeline.jobs.same_object import unlike
from pipeline.jobs.settings import Busy, FuseSettings, settings_as_dict
from pipeline.jobs.stages.fused import FusedStage, NumberedPhoto
from pipeline.jobs.stages.prepare import PrepareStage
from pipeline.jobs.stages.surface import fit_device
from pipeline.jobs.time_left import Work
from scene.backends import pick_device
from scene.errors import InputError
from scene.files import is_there, reading

_SHARES: Mapping[str, float] = {"views": 1.0}
_MESH_SHARES: Mapping[str, float] = {"views": 0.5, "surface": 0.35, "asset": 0.15}
"""Usual fractions of the time, but for the cut-outs."""
_TRAINED = 6


def fuse(
    photos: Sequence[Path],
    out: Path,
    settings: FuseSettings = FuseSettings(),
    *,
    mesh: bool = False,
    reporter: Heard = None,
    busy: Busy = "refuse",
    overwrite: bool = False,
) -> ItemResult:
    """Fuse photos of one object into a ring of posed views, ``out/NAME/views``; NAME is the first photo's.

    A photo that cannot be used is left out, which is said; the others go on.

    Args:
        photos: pictures of the object, folders of them, and patterns; the first is the one that azimuths count from.
        out: output folder; what an earlier run finished is kept.
        settings: of the stages.
        mesh: fit a surface to the views, and export it to ``out/NAME/NAME.glb``.
        reporter: told of the progress: a reporter, or a function that is called with where the job stands; without,
            the ``viewloom`` logger is.
        busy: whether the job gives up at once when another one writes into the folder, or waits for it.
        overwrite: whether the result of another input in the folder may be replaced.

    Raises:
        InputError: no photo can be used, or there are too many.
        CheckpointError: the weights cannot be loaded.
        OutputError: the folder cannot be written, is busy, or holds the result of another input.
    """
    listed, told = listed_photos(photos), reporter_of(reporter)
    if len(listed) > MOST:
        raise InputError(f"{len(listed)} photos are more than the network takes", fix=f"Give at most {MOST}.")
    pick_device(settings.device)
    fit_device(settings.device)
    model = JobFusionModel(settings.fusion.weights, settings.device)
    model.loaded  # noqa: B018 - refused before any work
    name, renamed = item_names(listed[:1])[0]
    folder = out / name
    shares = _MESH_SHARES if mesh else _SHARES
    title = f"{listed[0]}{f' and {len(listed) - 1} more' if len(listed) > 1 else ''} -> {folder}"
    new = [path for path in (folder, out) if not is_there(path)]
    with one_item(told, title, Work(shares=shares)):
        try:
            with only_job(folder, busy, told.note):
                said = [text for text in (renamed,) if text is not None]
                return _fused(listed, folder, model, settings, told, said, mesh=mesh, overwrite=overwrite)
        except Exception:
            remove_empty(new)
            raise


def _fused(
    photos: Sequence[Path],
    folder: Path,
    model: JobFusionModel,
    settings: FuseSettings,
    told: Reporter,
    said: Sequence[str],
    *,
    mesh: bool,
    overwrite: bool,
) -> ItemResult:
    name = folder.name
    digests, unreadable = _digests(photos)
    source = Source("photo", photos[0].name, digest_of(list(digests.values())))
    claim_results(folder, source, overwrite=overwrite, note=told.note)
    sweep(folder, name)
    runner = Runner(folder, unpublishing(folder, told.stage))
    try:
        prepared, left_out = _prepared(runner, digests, settings, unreadable)
    except InputError:
        unpublish(folder)
        raise
    views = runner.run(FusedStage(tuple(prepared.values()), model, settings.fusion, told.step))
    said = [*said, *left_out, *_unlike(prepared), *views.result.warnings]
    for text in said:
        told.note(text)
    manifest = _manifest(settings, model, {photo: digests[photo] for photo in prepared}, source, said)
    built = None
    if mesh:
        chosen = AssetSettings(settings.fit, settings.mesh, settings.glb, settings.device)
        built = build_asset(runner, name, views, chosen, manifest, told)
    else:
        manifest.write(folder)
    page = write_report(runner, name, None if built is None else built.files[0])
    return finished_item(runner, name, manifest, built, page)


def _digests(photos: Sequence[Path]) -> tuple[dict[Path, str], list[str]]:
    """Digests of the photos that can be read, and why others cannot.

    Raises:
        InputError: none can.
    """
    digests: dict[Path, str] = {}
    failed: list[InputError] = []
    for photo in photos:
        try:
            with reading(photo):
                if not photo.is_file():
                    raise InputError("is no file" if photo.exists() else "there is no such photo", where=photo)
                digests[photo] = digest_of_file(photo)
        except InputError as error:
            failed.append(error)
    if not digests:
        raise failed[0]
    return digests, [f"{error} It is left out." for error in failed]


def _prepared(
    runner: Runner, digests: Mapping[Path, str], settings: FuseSettings, unreadable: Sequence[str]
) -> tuple[dict[Path, StageRun[PreparedPhoto]], list[str]]:
    """Cut-outs of the photos that have an object, and what is to be said of them.

    Raises:
        InputError: none has.
    """
    prepared: dict[Path, StageRun[PreparedPhoto]] = {}
    said, failed = [*unreadable], []
    for photo, digest in digests.items():
        stage = NumberedPhoto(PrepareStage(photo, digest, settings.prepare), len(prepared))
        try:
            run = runner.run(stage)
            said += [f"{photo.name}: {text}" for text in run.result.warnings]
        except InputError as error:
            failed.append(error)
            said.append(f"{error} It is left out.")
        else:
            prepared[photo] = run
    if not prepared:
        raise failed[0]
    if len(prepared) > _TRAINED:
        said.append(f"{len(prepared)} photos: the network was trained with {_TRAINED} at most.")
    return prepared, said


def _unlike(prepared: Mapping[Path, StageRun[PreparedPhoto]]) -> list[str]:
    """A warning for each photo whose colours the first does not have."""
    first, *others = prepared.items()
    return [
        f"{photo.name} has hardly a colour in common with {first[0].name}: are they of one object?"
        for photo, run in others
        if unlike(first[1].result, run.result)
    ]


def _manifest(
    settings: FuseSettings, model: JobFusionModel, used: Mapping[Path, str], source: Source, said: Sequence[str]
) -> Manifest:
    plain = settings_as_dict(settings)
    plain["fusion"].pop("weights")  # a path of this machine; the digest names them
    return Manifest(
        plain,
        photo={"name": source.name, "sha256": str(source.digest)},
        photos=[{"name": photo.name, "sha256": digest} for photo, digest in used.items()],
        weights={"sha256": model.digest, "kind": "ViewFusion", "licence": "unknown"},
        warnings=[*said],
    )
