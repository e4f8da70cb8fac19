"""What an item's folder shows the user: copies of what the asset stage made, and never those of an earlier run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from pipeline.jobs.runner import digest_of_file
from scene.files import unwritable, write_bytes


def publish(stage: Path, names: Iterable[str], folder: Path) -> None:
    """Copy files of the asset stage into the item's folder; those that are there already are left alone.

    Args:
        stage: folder of the asset stage.
        names: of its files.
        folder: of the item.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    for name in names:
        made, final = stage / name, folder / name
        if not final.is_file() or digest_of_file(final) != digest_of_file(made):
            write_bytes(final, made.read_bytes())


def unpublish(folder: Path) -> None:
    """Remove what an earlier run delivered into an item's folder, with its manifest and report.

    Whoever finds a GLB there may then take it for the result of the last run. Nothing is lost: the asset stage keeps
    its own files until new ones replace them, and a run with the earlier settings delivers them again. Files of the
    same names that are not those copies stay.

    Raises:
        OutputError: the files cannot be removed.
    """
    try:
        for made in _delivered(folder / "asset"):
            copy = folder / made.name
            if copy.is_file() and made.is_file() and digest_of_file(copy) == digest_of_file(made):
                copy.unlink()
        if delivered_manifest(folder):
            (folder / "report.html").unlink(missing_ok=True)
            (folder / "manifest.json").unlink()
    except OSError as error:
        raise unwritable(error, folder, "an earlier result cannot be removed") from error


def unpublishing(folder: Path, on_stage: Callable[[str, bool], None]) -> Callable[[str, bool], None]:
    """What a runner tells of its stages, passed on; before one is redone, the earlier results are withdrawn."""

    def begins(name: str, cached: bool) -> None:
        if not cached:
            unpublish(folder)
        on_stage(name, cached)

    return begins


def _delivered(stage: Path) -> list[Path]:
    """The files of an asset stage that are copied into the item's folder."""
    try:
        facts = json.loads((stage / "asset.json").read_text(encoding="utf-8"))
        return [stage / name for made in facts["files"] for name in made["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return list(stage.glob("*.glb"))


def delivered_manifest(folder: Path) -> dict[str, Any]:
    """The manifest that a job wrote into an item's folder; empty if there is none."""
    try:
        content: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return content if "viewloom" in content["versions"] else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
