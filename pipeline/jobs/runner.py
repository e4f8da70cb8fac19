"""Stages with a memory: one whose inputs and settings have not changed is not run again, and none is half done."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from pipeline.jobs.item_lock import is_alive, owner
from scene.documents import read_object
from scene.errors import InputError, OutputError
from scene.files import file_of, require_regular, unreadable, unwritable

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)

_STAMP = "stage.json"
_PIECE = 1 << 20
_FORGOTTEN = 3600.0
"""Seconds after which a half-written folder of another machine is nobody's: the lock would have kept us away."""
_NO_ROOM = (errno.ENOSPC, errno.EROFS)
"""What the system says of files that were to be written, wherever they lie."""


def digest_of(*parts: Any) -> str:
    """SHA-256 over plain values; equal values give equal digests on every machine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content, which may be larger than memory."""
    digest = hashlib.sha256()
    require_regular(path)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def digest_of_folder(folder: Path, suffixes: Iterable[str] = ()) -> str:
    """SHA-256 over names and contents of a folder's files, optionally of some endings only."""
    wanted = tuple(suffixes)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and (not wanted or p.suffix in wanted))
    return digest_of([(p.relative_to(folder).as_posix(), digest_of_file(p)) for p in files])


@runtime_checkable
class Stage(Protocol[Result_co]):
    """One step of a job: what it needs is in its fields, what it makes are files in a folder.

    A stage is a small frozen dataclass, so that its inputs have names and types; what earlier stages made reaches it as
    their :class:`StageRun`.
    """

    @property
    def name(self) -> str:
        """Of the stage, and of its folder."""

    @property
    def key(self) -> list[Any]:
        """Plain values that determine the result: digests of inputs, settings, the stage's version."""

    def run(self, folder: Path) -> None:
        """Write the result into an empty folder."""

    def load(self, folder: Path) -> Result_co:
        """Read what :meth:`run` wrote, in this run or in an earlier one."""


@dataclass
class StageRun(Generic[Result]):
    """A finished stage.

    Args:
        name, key: of the stage.
        folder: its files.
        seconds: that it took; 0 if it was kept from before.
        cached: whether it was.
        load: reads the result.
        kept: the result, where it has been read already.
    """

    name: str
    folder: Path
    key: str
    seconds: float
    cached: bool
    load: Callable[[Path], Result]
    kept: tuple[Result] | None = None

    @cached_property
    def result(self) -> Result:
        """What the stage made, read from its files when first asked for."""
        return self.load(self.folder) if self.kept is None else self.kept[0]


@dataclass
class Runner:
    """Runs the stages of one item in a folder.

    Every stage writes into a folder of its own, under another name until it is complete. Its key names everything its
    result depends on; a folder with the same key, whose files are as they were written and can be read, is kept. So a
    killed job continues where it stopped, a changed setting redoes only what depends on it, and a folder that was
    tampered with is made again. Folders that no stage wrote are never replaced.

    Args:
        folder: of the item.
        on_stage: told (stage, cached) when a stage starts.
    """

    folder: Path
    on_stage: Callable[[str, bool], None] = lambda name, cached: None
    runs: list[StageRun[Any]] = field(default_factory=list)

    def run(self, stage: Stage[Result]) -> StageRun[Result]:
        """Run a stage, or keep its earlier result.

        Raises:
            OutputError: the folder cannot be written, or a folder of that name holds something else.
            InputError: a file that lies elsewhere cannot be read.
        """
        name = stage.name
        key, target = digest_of(name, stage.key), self.folder / name
        # With the owner's name: whoever comes beside the lock, another version say, then has folders of its own.
        partial, old = (self.folder / f".{name}.{owner()}.{end}" for end in ("part", "old"))
        _remove(*_left_behind(self.folder, name))
        kept = _kept(stage, target, key)
        if kept is not None:
            self.on_stage(name, True)
            run = StageRun(name, target, key, 0.0, True, stage.load, kept)
        else:
            self.on_stage(name, False)
            start = time.monotonic()
            try:
                partial.mkdir(parents=True)
                _refuse_foreign(target)
                stage.run(partial)
                stamp = {"key": key, "files": _contents(partial)}
                (partial / _STAMP).write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
                _sync(partial)
                if os.path.lexists(target):
                    target.replace(old)  # at once: half deleted, it could no longer be told from a foreign folder
                partial.replace(target)
            except OSError as error:
                named = file_of(error)
                ours = named is None or any(_same_branch(named, folder) for folder in (partial, target, old))
                if not ours and error.errno not in _NO_ROOM:
                    raise unreadable(error) from error
                raise unwritable(error, target if ours else named) from error
            finally:
                _remove(partial, old)
            run = StageRun(name, target, key, time.monotonic() - start, False, stage.load)
        self.runs.append(run)
        return run


def forget_killed(folder: Path, stages: Iterable[str]) -> None:
    """Remove what killed jobs left half-written of some stages, which the present job may not come to."""
    for name in stages:
        _remove(*_left_behind(folder, name))


def _contents(folder: Path) -> dict[str, str]:
    """Digest of every file that a stage wrote."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / _STAMP)
    return {p.relative_to(folder).as_posix(): digest_of_file(p) for p in files}


def _kept(stage: Stage[Result], folder: Path, key: str) -> tuple[Result] | None:
    """What a folder holds that a stage of this key wrote, or None if it must be made again."""
    if not _is_intact(folder, key):
        return None
    try:
        return (stage.load(folder),)
    except Exception:  # noqa: BLE001 - whatever a reader stumbles over, files and stamp were edited together
        return None


def _is_intact(folder: Path, key: str) -> bool:
    """Whether a stage with this key wrote the folder and all its files are as they were; more files do not matter."""
    try:
        stamp = read_object(folder / _STAMP)
        files = stamp["files"]
        if stamp["key"] != key or not files or folder.is_symlink() or not all(map(_is_inside, files)):
            return False
        root = folder.resolve()
        return all((folder / name).resolve().is_relative_to(root) for name in files) and all(
            digest_of_file(folder / name) == digest for name, digest in files.items()
        )
    # Python before 3.13 raises RuntimeError for links that lead to themselves.
    except (InputError, OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_inside(name: str) -> bool:
    """Whether a name of a stamp leads to a place below the stage's folder."""
    pure = PurePosixPath(name)
    return bool(pure.name) and not pure.is_absolute() and ".." not in pure.parts and not set(name) & set("\\:\0")


def _left_behind(folder: Path, name: str) -> list[Path]:
    """Half-written folders of this stage whose writers are gone."""
    found = [folder / f".{name}.part", folder / f".{name}.old"]  # as they were called up to version 0.1
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            match = re.fullmatch(rf"\.{re.escape(name)}\.(?P<owner>\w+-\d+)\.(part|old)", path.name)
            if match is None:
                continue
            alive = is_alive(match["owner"])
            gone = time.time() - path.lstat().st_mtime > _FORGOTTEN if alive is None else not alive
            if gone or match["owner"] == owner():
                found.append(path)
    return found


def _refuse_foreign(folder: Path) -> None:
    """Raise if a folder has files and was not written by a stage: a capture of the user's may be called ``views``."""
    if folder.exists() and not (folder / _STAMP).is_file() and any(folder.iterdir()):
        raise OutputError("holds files of another origin", where=folder, fix="Choose another output folder.")


def _same_branch(path: Path, folder: Path) -> bool:
    """Whether a path is a folder, lies in it, or holds it (and had to be made first)."""
    path, folder = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def _remove(*folders: Path) -> None:
    for folder in folders:
        if folder.is_symlink() or not folder.is_dir():
            with contextlib.suppress(OSError):
                folder.unlink()
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Force files to disk before the rename, so that a power cut cannot leave a whole-looking folder of empty files."""
    for path in folder.rglob("*"):
        if path.is_file():
            with contextlib.suppress(OSError), path.open("rb") as file:
                os.fsync(file.fileno())
