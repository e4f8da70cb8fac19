"""Stages with a memory: one whose inputs and settings have not changed is not run again, and none is half done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scene.errors import OutputError

_STAMP = "stage.json"


def digest_of(*parts: Any) -> str:
    """SHA-256 over plain values; equal values give equal digests on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(file.read()).hexdigest()
        )


def digest_of_folder(folder: Path, suffixes: Iterable[str] = ()) -> str:
    """SHA-256 over names and contents of a folder's files, optionally of some endings only."""
    wanted = tuple(suffixes)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and (not wanted or p.suffix in wanted))
    return digest_of([(p.relative_to(folder).as_posix(), digest_of_file(p)) for p in files])


@dataclass
class StageRun:
    """A finished stage: where its files are, its key, its seconds (0 if it was kept from before)."""

    name: str
    folder: Path
    key: str
    seconds: float
    cached: bool


@dataclass
class Runner:
    """Runs the stages of one item in a folder.

    Every stage writes into a folder of its own, under another name until it is complete. Its key names everything its
    result depends on; a folder with the same key is kept. So a killed job continues where it stopped, and a changed
    setting redoes only what depends on it.

    Args:
        folder: of the item.
        on_stage: told (stage, cached) when a stage starts.
    """

    folder: Path
    on_stage: Callable[[str, bool], None] = lambda name, cached: None
    runs: list[StageRun] = field(default_factory=list)

    def run(self, name: str, key_parts: Any, action: Callable[[Path], None]) -> StageRun:
        """Run a stage, or keep its earlier result.

        Args:
            name: of the stage and its folder.
            key_parts: plain values that determine the result.
            action: writes the result into the folder it is given.

        Raises:
            OutputError: the folder cannot be written.
        """
        key, target = digest_of(name, key_parts), self.folder / name
        if self._stamped(target) == key:
            self.on_stage(name, True)
            run = StageRun(name, target, key, 0.0, True)
        else:
            self.on_stage(name, False)
            start = time.monotonic()
            partial = self.folder / f".{name}.part"
            try:
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                action(partial)
                (partial / _STAMP).write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
                _sync(partial)
                if target.exists():
                    shutil.rmtree(target)
                partial.replace(target)
            except OSError as error:
                shutil.rmtree(partial, ignore_errors=True)
                raise OutputError(
                    f"cannot be written ({error.strerror or error})",
                    where=target,
                    fix="Check free space and permissions, or choose another output folder.",
                ) from error
            run = StageRun(name, target, key, time.monotonic() - start, False)
        self.runs.append(run)
        return run

    @staticmethod
    def _stamped(folder: Path) -> str | None:
        try:
            return str(json.loads((folder / _STAMP).read_text(encoding="utf-8"))["key"])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _sync(folder: Path) -> None:
    """Force files to disk before the rename, so that a power cut cannot leave a whole-looking folder of empty files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with contextlib.suppress(OSError), path.open("rb") as file:
                os.fsync(file.fileno())
