"""Photos to assets: prepare, views, surface, asset, report, for each photo."""

from __future__ import annotations

import contextlib
import json
import platform
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.weight_files import PICKLES
from pipeline.diffusion.preparation.cutout import finder_files
from pipeline.diffusion.settings import CutoutWay, Memory, PoseEntry, Precision
from pipeline.diffusion.view_models.load import CheckpointInfo, checkpoint_info, load_view_model
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.diffusion.view_models.zero123plus import SixViewDiffusion
from pipeline.jobs.progress import Reporter, Silent
from pipeline.jobs.publishing import publish, unpublish, unpublishing
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, StageRun, digest_of_file, digest_of_folder
from pipeline.jobs.settings import Image2MeshSettings, ReconstructSettings, settings_as_dict
from pipeline.jobs.stages import asset_stage, load_prepared, prepare_stage, surface_stage, views_stage
from recon.export.usdz import has_usd
from recon.export.validate import find_khronos_validator
from scene.backends import pick_device, version_of
from scene.errors import InputError, OutputError, ViewloomError, unexpected
from scene.files import reading, write_text
from scene.resources import default_weights
from scene.viewset import ViewSet

STAGE_VERSIONS = {"prepare": 3, "views": 3, "surface": 6, "asset": 6}
"""Raised when a stage's code changes its result, so that earlier results are not kept."""


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


@dataclass(eq=False)
class _Model:
    """The view model, loaded when a stage first needs it."""

    weights: Path
    device: str
    dtype: Precision = "float32"
    memory: Memory = "normal"
    pose: PoseEntry = "auto"
    tell: Reporter = field(default_factory=Silent)
    named: bool = True
    path: Path = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self.path = local_checkpoint(self.weights)
        with reading(self.path):
            self.digest = (
                digest_of_file(self.path)
                if self.path.is_file()
                else digest_of_folder(self.path, (".json", ".safetensors", *PICKLES))
            )

    def check(self) -> None:
        """Raise for files that cannot be loaded before any work is done."""
        self.facts.line(self.dtype, self.memory)

    @cached_property
    def facts(self) -> CheckpointInfo:
        return checkpoint_info(self.path, self.pose)

    @property
    def key(self) -> list[str]:
        """What the views depend on besides weights and device, where it is not as usual."""
        usual = {"dtype": "float32", "memory": "normal", "pose": "auto"}
        return [f"{name} {getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]

    @cached_property
    def loaded(self) -> ViewDiffusion | SixViewDiffusion:
        dtype = getattr(torch, self.dtype)
        if self.named:
            self.tell.note(self.facts.line(self.dtype, self.memory))
        model = load_view_model(self.path, dtype=dtype, pose=self.pose)
        return model.to(pick_device(self.device), dtype).use_memory(self.memory)


def image2mesh(
    photos: Sequence[Path],
    out: Path,
    settings: Image2MeshSettings = Image2MeshSettings(),
    *,
    mask: Path | None = None,
    reporter: Reporter | None = None,
) -> list[ItemResult]:
    """Turn every photo into a textured GLB in ``out/NAME/NAME.glb``, with a report beside it.

    A photo that fails does not stop the others. What an earlier run finished is kept; the asset itself is withdrawn
    from ``out/NAME`` as soon as a stage is redone or the photo fails, so that an old one is never taken for the new.

    Args:
        photos: pictures of one object each.
        out: output folder.
        settings: of all stages.
        mask: of the photo, if there is just one.
        reporter: told of the progress.

    Raises:
        InputError: no photos, or a mask for several photos.
        CheckpointError: the weights cannot be found.
    """

    def rest(runner: Runner, name: str, views: StageRun, manifest: dict[str, Any], tell: Reporter) -> Path:
        parts = ReconstructSettings(fit=settings.fit, mesh=settings.mesh, glb=settings.glb)
        return surface_and_asset(runner, name, views.folder, views.key, parts, manifest, tell)

    return _each_photo(photos, out, settings, mask, reporter or Silent(), rest)


def make_views(
    photos: Sequence[Path],
    out: Path,
    settings: Image2MeshSettings = Image2MeshSettings(),
    *,
    mask: Path | None = None,
    reporter: Reporter | None = None,
) -> list[ItemResult]:
    """Turn every photo into a capture folder of views, ``out/NAME/views``; as :func:`image2mesh` without the mesh."""
    return _each_photo(photos, out, settings, mask, reporter or Silent(), lambda *_: None)


def _each_photo(
    photos: Sequence[Path],
    out: Path,
    settings: Image2MeshSettings,
    mask: Path | None,
    tell: Reporter,
    rest: Callable[[Runner, str, StageRun, dict[str, Any], Reporter], Path | None],
) -> list[ItemResult]:
    if not photos:
        raise InputError("no photos were given")
    if mask is not None and len(photos) > 1:
        raise InputError("--mask fits one photo only", fix="Give photos with alpha, or run them one by one.")
    weights = settings.views.weights or default_weights()
    named = settings.views.weights is not None
    model = _Model(weights, settings.device, settings.dtype, settings.memory, settings.views.pose, tell, named)
    model.check()
    results = []
    for photo, name in zip(photos, _names(photos), strict=True):
        tell.item(f"{photo} -> {out / name}")
        runner = Runner(out / name, unpublishing(out / name, tell.stage))
        try:
            asset = _one_photo(runner, photo, name, settings, mask, model, tell, rest)
            results.append(ItemResult(name, out / name, asset))
        except Exception as error:  # noqa: BLE001 - one photo must not stop the others; what was caught is kept
            failure = _as_ours(error, photo)
            with contextlib.suppress(OutputError):  # what failed is more worth telling
                unpublish(out / name)
            results.append(ItemResult(name, out / name, error=failure))
            if len(photos) > 1:
                tell.note(f"failed: {failure}")
    return results


def _as_ours(error: Exception, photo: Path) -> ViewloomError:
    """The error itself if it is one of ours, else one of ours that it caused."""
    if isinstance(error, ViewloomError):
        return error
    ours = unexpected(error, where=photo)
    ours.__cause__ = error
    return ours


def _finder_key(way: CutoutWay) -> list[str | None]:
    """What cut-outs of photos without a mask depend on beside the settings."""
    rembg, files = finder_files(way)
    return [rembg, *(digest_of_file(path) for path in files)]


def _one_photo(
    runner: Runner,
    photo: Path,
    name: str,
    settings: Image2MeshSettings,
    mask: Path | None,
    model: _Model,
    tell: Reporter,
    rest: Callable[[Runner, str, StageRun, dict[str, Any], Reporter], Path | None],
) -> Path | None:
    if not photo.is_file():
        raise InputError("there is no such photo" if not photo.exists() else "is a folder, not a photo", where=photo)
    if mask is not None and not mask.is_file():
        raise InputError("there is no such mask", where=mask)
    with reading(photo):
        photo_digest = digest_of_file(photo)
        mask_key = _finder_key(settings.prepare.cutout) if mask is None else digest_of_file(mask)
    prepared_run = runner.run(
        "prepare",
        [STAGE_VERSIONS["prepare"], photo_digest, settings_as_dict(settings.prepare), mask_key],
        lambda folder: prepare_stage(folder, photo, settings.prepare, mask),
    )
    prepared = load_prepared(prepared_run.folder)
    for warning in prepared.warnings:
        tell.note(warning)
    chosen = settings_as_dict(settings.views)
    chosen.pop("weights")
    keyed = {name: value for name, value in chosen.items() if name != "pose"}
    views = runner.run(
        "views",
        [STAGE_VERSIONS["views"], prepared_run.key, keyed, model.digest, pick_device(settings.device).type, *model.key],
        lambda folder: views_stage(folder, prepared, model.loaded, settings.views, tell.step),
    )
    drawn: list[str] = ViewSet.load(views.folder).metadata.get("warnings", [])
    for warning in drawn:
        tell.note(warning)
    manifest: dict[str, Any] = {
        "photo": {"name": photo.name, "sha256": photo_digest},
        "weights": {"sha256": model.digest, **model.facts.as_dict()},
        "settings": {**settings_as_dict(settings), "views": chosen},
        "versions": versions(),
        "warnings": [*prepared.warnings, *drawn],
    }
    asset = rest(runner, name, views, manifest, tell)
    if asset is None:
        write_text(runner.folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    write_report(runner, name, asset)
    return asset


def surface_and_asset(
    runner: Runner,
    name: str,
    capture: Path,
    capture_key: str,
    settings: ReconstructSettings,
    manifest: dict[str, Any],
    tell: Reporter,
    *,
    device: str = "cpu",
) -> Path:
    """The stages that captures and photos share; also writes the manifest."""
    surface = runner.run(
        "surface",
        [STAGE_VERSIONS["surface"], capture_key, settings_as_dict(settings.fit), pick_device(device).type],
        lambda folder: surface_stage(
            folder, capture, settings.fit, tell.step, device=device, checkpoint=runner.folder / ".surface-fit.npz"
        ),
    )
    extras = {
        "manifest": {
            "licence": manifest.get("weights", {}).get("licence"),
            "versions": manifest["versions"],
            "seed": manifest["settings"].get("views", {}).get("sampling", {}).get("seed"),
        }
    }
    generator = f"viewloom {version_of('viewloom') or ''}".strip()
    asset = runner.run(
        "asset",
        [
            STAGE_VERSIONS["asset"],
            surface.key,
            settings_as_dict(settings.mesh),
            settings_as_dict(settings.mesh.limits),
            settings_as_dict(settings.glb),
            name,
            extras,
            generator,
            find_khronos_validator() is not None,
            "usdz" in settings.glb.formats and has_usd(),
        ],
        lambda folder: asset_stage(
            folder, capture, surface.folder / "surface.npz", name, settings.mesh, settings.glb, extras, generator
        ),
    )
    facts = json.loads((asset.folder / "asset.json").read_text(encoding="utf-8"))
    publish(asset.folder, [file for made in facts["files"] for file in made["files"]], runner.folder)
    final = runner.folder / f"{name}.glb"
    manifest = {**manifest, "asset": {"file": final.name, "sha256": digest_of_file(final), **facts}}
    write_text(runner.folder / "manifest.json", json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    tell.note(facts["summary"])
    for text in facts["broken_limits"]:
        tell.note(f"Over the profile {settings.mesh.profile}: {text}.")
    if facts["surface"].get("kept") != "fit":
        tell.note(f"The fit was not better than its start: the {facts['surface'].get('kept')} was kept.")
    return final


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    names = ("viewloom", "torch", "diffusers", "numpy", "scipy", "scikit-image", "xatlas", "fast-simplification")
    return {"python": platform.python_version(), **{name: version_of(name) or "unknown" for name in names}}


def _names(photos: Sequence[Path]) -> list[str]:
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
