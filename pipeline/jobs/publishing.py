"""What an item's folder shows the user: copies of what the asset stage made, and never those of an earlier run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.jobs.runner import digest_of_file
from scene.documents import read_object, shown
from scene.errors import InputError, OutputError
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
    for name in _plain(names):
        made, final = stage / name, folder / name
        if not final.is_file() or digest_of_file(final) != digest_of_file(made):
            write_bytes(final, made.read_bytes())


class ForeignResultError(OutputError):
    """The folder holds the result of another input."""


@dataclass(frozen=True)
class Source:
    """What a result is made of.

    Args:
        kind: of the input.
        name: of the photo's file, or of the capture.
        digest: of its content.
    """

    kind: Literal["photo", "capture"]
    name: str
    digest: str | None = None


def claim_results(folder: Path, source: Source, *, overwrite: bool, note: Callable[[str], None]) -> None:
    """Make sure that a job may replace what an item's folder holds, before it replaces anything.

    Results of the same input are replaced, and those of an input of the same name whose content was another, which is
    said. Results of an input of another name are only replaced when that is asked for.

    Args:
        folder: of the item.
        source: of the new result.
        overwrite: whether results of other inputs may go.
        note: told what goes.

    Raises:
        ForeignResultError: the folder holds the result of another input.
    """
    earlier = _source_of(folder)
    if earlier is None:
        return
    if not is_of(folder, source):
        said = f"the result of another {earlier.kind}, {earlier.name}"
        if not overwrite:
            raise ForeignResultError(
                f"holds {said}", where=folder, fix="Choose another output folder, or give --overwrite to replace it."
            )
        note(f"{folder} holds {said}: it is replaced.")
    elif None not in (earlier.digest, source.digest) and earlier.digest != source.digest:
        note(f"{folder} holds a result of other content of the name {earlier.name}: it is replaced.")


def is_of(folder: Path, source: Source) -> bool:
    """Whether what an item's folder holds, if anything, was made of an input of this kind and name."""
    earlier = _source_of(folder)
    return earlier is None or (earlier.kind, earlier.name) == (source.kind, source.name)


def _source_of(folder: Path) -> Source | None:
    """What the result in an item's folder was made of, as far as it is known."""
    manifest = delivered_manifest(folder)
    photo, capture = manifest.get("photo"), manifest.get("capture")
    if isinstance(photo, dict) and isinstance(photo.get("name"), str):
        return Source("photo", photo["name"], str(photo.get("sha256")))
    if isinstance(capture, str):
        digest = manifest.get("capture_sha256")
        return Source("capture", capture, digest if isinstance(digest, str) else None)
    return None


def unpublish(folder: Path) -> None:
    """Remove what an earlier run delivered into an item's folder, with its manifest and report.

    Whoever finds a GLB there may then take it for the result of the last run. Nothing is lost: the asset stage keeps
    its own files until new ones replace them, and a run with the earlier settings delivers them again. Files of the
    same names that are not those copies stay.

    Raises:
        OutputError: the files cannot be removed.
    """
    try:
        for made in (*_delivered(folder / "asset", "asset.json"), *_edits(folder)):
            _withdraw(folder / made.name, made)
        if delivered_manifest(folder):
            (folder / "report.html").unlink(missing_ok=True)
            (folder / "manifest.json").unlink()
    except OSError as error:
        raise unwritable(error, folder, "an earlier result cannot be removed") from error


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders that a failed job left, if nothing is in them."""
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty, or never made
            folder.rmdir()


def unpublish_edit(folder: Path) -> None:
    """Remove the edited asset that an earlier run delivered; the original, and what is told of it, stays.

    Raises:
        OutputError: the files cannot be removed.
    """
    _withdraw_all(folder, _edits(folder))


def unpublish_deformed(folder: Path) -> None:
    """Remove what was delivered of a deformed asset, with its rig; one of views drawn anew stays.

    Raises:
        OutputError: the files cannot be removed.
    """
    _withdraw_all(folder, _delivered(folder / "edit", "edit.json"))


def _unpublish_redrawn(folder: Path) -> None:
    """Remove the asset of views drawn anew; a deformed one stays, which does not depend on views."""
    _withdraw_all(folder, _delivered(folder / "edited-asset", "asset.json"))


def _edits(folder: Path) -> list[Path]:
    """What was delivered of a deformed asset, and of one that was fitted to views drawn anew."""
    return [*_delivered(folder / "edit", "edit.json"), *_delivered(folder / "edited-asset", "asset.json")]


def _withdraw_all(folder: Path, files: Iterable[Path]) -> None:
    try:
        for made in files:
            _withdraw(folder / made.name, made)
    except OSError as error:
        raise unwritable(error, folder, "an earlier result cannot be removed") from error


def _withdraw(copy: Path, made: Path) -> None:
    if copy.is_file() and made.is_file() and digest_of_file(copy) == digest_of_file(made):
        copy.unlink()


_ASIDE = re.compile(r"\.(?P<stem>.+)\.\d+\.[0-9a-f]{8}(\.\w+)?")


def sweep(folder: Path, name: str) -> None:
    """Remove files that killed jobs of an item left half written aside; only for whoever holds the folder.

    Args:
        folder: of the item.
        name: of it, and of its files.
    """
    edited = f"{name}-edited"
    stems = {
        name,
        f"{name}_texture",
        edited,
        f"{edited}_texture",
        f"{edited}-rig",
        "manifest",
        "report",
        ".surface-fit",
        ".edited-surface-fit",
    }
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = _ASIDE.fullmatch(path.name)
            if match is not None and match["stem"] in stems and path.is_file():
                path.unlink()


def unpublishing(folder: Path, on_stage: Callable[[str, bool], None]) -> Callable[[str, bool], None]:
    """What a runner tells of its stages, passed on; before one is redone, the earlier results are withdrawn."""

    def begins(name: str, cached: bool) -> None:
        if not cached:
            _withdrawn_before(name)(folder)
        on_stage(name, cached)

    return begins


def _withdrawn_before(name: str) -> Callable[[Path], None]:
    """What is withdrawn before a stage is redone."""
    if name in ("draft-views", "edited-views", "edited-surface", "edited-asset"):
        return _unpublish_redrawn
    return unpublish_edit if name == "edit" else unpublish


def _delivered(stage: Path, report: str) -> list[Path]:
    """The files of a stage that are copied into the item's folder, as its report names them."""
    try:
        facts = read_object(stage / report)
        return [stage / name for name in _plain(name for made in facts["files"] for name in made["files"])]
    except (InputError, OutputError, KeyError, TypeError):
        return list(stage.glob("*.glb"))


def _plain(names: Iterable[str]) -> list[str]:
    """Names of files in a folder.

    Raises:
        OutputError: one leads elsewhere.
    """
    found = list(names)
    for name in found:
        if not isinstance(name, str) or not name.strip(". ") or set(name) & set("/\\:\0"):
            raise OutputError(
                f"the stored asset names a file {shown(name)}, which is no name of one",
                fix="Remove the folder asset beside it, which is then made again.",
            )
    return found


def delivered_manifest(folder: Path) -> dict[str, Any]:
    """The manifest that a job wrote into an item's folder; empty if there is none."""
    try:
        content = read_object(folder / "manifest.json")
        return content if "viewloom" in content["versions"] else {}
    except (InputError, KeyError, TypeError):
        return {}
