"""One job at a time writes into an item's folder, whoever started it and on whichever machine."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipeline.jobs.settings import Busy
from scene.documents import is_number, is_whole, read_object
from scene.errors import InputError, OutputError

_CLAIM = ".viewloom-job.json"
_SIGN_OF_LIFE = 30.0
"""Seconds between touches of the claim."""
_SILENCE = 120.0
"""Seconds without a touch after which a job is taken to have ended."""
_PAUSE = 0.5


class FolderBusyError(OutputError):
    """Another job is writing into the folder."""


def owner() -> str:
    """Names this process among all that may write into a folder: ``HOST-PID``, fit for file names."""
    host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:40] or "host"
    return f"{host}-{os.getpid()}"


def is_alive(name: str) -> bool | None:
    """Whether the process of an :func:`owner` runs; None for one of another machine."""
    host, _, pid = name.rpartition("-")
    if host != owner().rpartition("-")[0] or not pid.isdigit():
        return None
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextlib.contextmanager
def only_job(folder: Path, busy: Busy = "refuse", on_wait: Callable[[str], None] | None = None) -> Iterator[None]:
    """A block in which no other job writes into a folder.

    Jobs of this user and machine are told apart by a lock that the system lets go of when a job is killed; others by a
    file in the folder, which names the job's process, machine and start and is touched while it runs: one that has not
    been touched for two minutes, or whose process is gone, is taken over. Where neither can be made, the block runs
    without.

    Args:
        folder: of the item.
        busy: whether a job that finds the folder busy gives up at once, or waits.
        on_wait: told once, in a sentence, what is waited for.

    Raises:
        FolderBusyError: another job is in such a block.
    """
    with contextlib.ExitStack() as stack:
        while True:
            try:
                held = _locked(folder)
                try:
                    claim = _Claim.made(folder)
                except BaseException:
                    if held is not None:
                        held.release()
                    raise
                break
            except FolderBusyError as error:
                if busy == "refuse":
                    raise
                if on_wait is not None:
                    on_wait(f"Waiting: in {folder} {error.what}.")
                    on_wait = None
            time.sleep(_PAUSE)
        if held is not None:
            stack.callback(held.release)
        if claim is not None:
            stack.enter_context(claim)
        yield


def _locked(folder: Path) -> FileLock | None:
    """The system's lock, or None where none can be made."""
    name = hashlib.sha256(os.path.realpath(folder).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    with contextlib.suppress(OSError, ImportError, KeyError):  # no such folder or user; a file system without locks
        place = Path(tempfile.gettempdir()) / f"viewloom-{getpass.getuser()}"
        place.mkdir(mode=0o700, exist_ok=True)
        held = FileLock(place / f"{name}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            raise _busy(folder) from error
        return held
    return None


class _Claim:
    """The file that tells other machines that a job writes here.

    Args:
        path: of it.
        made: folders that had to be made for it, the innermost first.
    """

    def __init__(self, path: Path, made: list[Path]) -> None:
        self._path, self._made, self._end = path, made, threading.Event()
        self._thread = threading.Thread(target=self._touch, daemon=True)

    @classmethod
    def made(cls, folder: Path) -> _Claim | None:
        """Claim a folder; None where no file can be written, which the job's first stage will say.

        Raises:
            FolderBusyError: a job of another machine, or of another user, is at work there.
        """
        path = folder / _CLAIM
        new = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path):
                if _is_live(path):
                    raise _busy(folder)
                path.unlink()
            content = {"owner": owner(), "host": socket.gethostname(), "process": os.getpid(), "since": time.time()}
            # Made anew or not at all: of two jobs that come at once one fails here.
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
        except FileExistsError as error:
            if folder.is_dir():
                raise _busy(folder) from error
            return None
        except OSError:
            _remove_empty(new)
            return None
        return cls(path, new)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if _content(self._path).get("owner") == owner():
                self._path.unlink()
        _remove_empty(self._made)

    def _touch(self) -> None:
        while not self._end.wait(_SIGN_OF_LIFE):
            with contextlib.suppress(OSError):
                os.utime(self._path)


def _is_live(claim: Path) -> bool:
    """Whether the job that a claim names is at work."""
    name = str(_content(claim).get("owner"))
    alive = is_alive(name)
    if name == owner() or alive is False:
        return False
    # The file server's clock may differ from ours: both times are its own.
    with tempfile.NamedTemporaryFile(dir=claim.parent, prefix=f"{_CLAIM}.") as probe:
        now = os.stat(probe.name).st_mtime
    return now - claim.stat().st_mtime < _SILENCE


def _content(claim: Path) -> dict[str, Any]:
    try:
        return read_object(claim)
    except InputError:
        return {}


def _busy(folder: Path) -> FolderBusyError:
    said = _content(folder / _CLAIM)
    who = ""
    if is_whole(said.get("process"), 0, 2**63) and is_number(said.get("since"), 0, 1e11):
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(said["since"]))
        who = f" (process {said['process']} on {str(said.get('host'))[:80]}, since {since})"
    return FolderBusyError(
        f"another job is writing here{who}",
        where=folder,
        fix="Wait for it, as --busy wait does, or choose another output folder.",
    )


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):  # not empty, or never made
            folder.rmdir()
