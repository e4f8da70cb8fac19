"""Captures to assets: a folder of posed, masked pictures becomes a textured GLB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pipeline.jobs.delivery import withdrawing
from pipeline.jobs.image2mesh import ItemResult, surface_and_asset, versions
from pipeline.jobs.progress import Reporter, Silent
from pipeline.jobs.report import write_report
from pipeline.jobs.runner import Runner, digest_of_file, digest_of_folder
from pipeline.jobs.settings import ReconstructSettings, settings_as_dict
from recon.normalise import normalise_capture
from scene.errors import InputError
from scene.viewset import ViewSet

_VERSION = 2


def reconstruct(
    capture: Path, out: Path, settings: ReconstructSettings = ReconstructSettings(), *, reporter: Reporter | None = None
) -> ItemResult:
    """Fit a surface to a capture folder and export it to ``out/NAME.glb``, with a report beside it.

    Args:
        capture: folder with ``transforms.json`` (nerfstudio's format), or that file. Pictures need alpha or masks.
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
    views = ViewSet.load(capture)
    pictures = [p for view in views for p in (view.image_path, view.mask_path) if p is not None]
    _refuse_own_results([folder / "transforms.json" if capture.is_dir() else capture, *pictures], out)
    digest = [
        digest_of_file(folder / "transforms.json" if capture.is_dir() else capture),
        *[digest_of_file(p) if p.is_file() else None for p in pictures],
        digest_of_folder(folder, (".npz",)) if (folder / "coarse.npz").is_file() else None,
    ]
    runner = Runner(out, withdrawing(out, tell.stage))

    def normalise(target: Path) -> None:
        if views.facts.get("normalised"):
            views.save(target)
            if (folder / "coarse.npz").is_file():
                (target / "coarse.npz").write_bytes((folder / "coarse.npz").read_bytes())
            return
        moved, matrix = normalise_capture(views)
        facts = {**moved.facts, "normalised": True, "normalised_from_world": np.round(matrix, 12).tolist()}
        ViewSet(moved.views, moved.has_masks, facts).save(target)

    prepared = runner.run("views", [_VERSION, digest], normalise)
    manifest: dict[str, Any] = {
        "capture": name,
        "settings": settings_as_dict(settings),
        "versions": versions(),
        "warnings": [],
    }
    asset = surface_and_asset(runner, name, prepared.folder, prepared.key, settings, manifest, tell)
    write_report(runner, name, asset)
    return ItemResult(name, out, asset)


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
