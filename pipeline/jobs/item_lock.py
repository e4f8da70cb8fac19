"""One job at a time writes into an item's folder."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from scene.errors import OutputError


class FolderBusyError(OutputError):
    """Another job is writing into the folder."""


@contextlib.contextmanager
def only_job(folder: Path) -> Iterator[None]:
    """A block in which no other job of this user and machine writes into a folder.

    The lock is a file elsewhere, which leaves the folder clean; the system lets go of it when a job is killed. Where no
    such file can be made, the block runs without.

    Raises:
        FolderBusyError: another job is in such a block.
    """
    name = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    lock: FileLock | None = None
    with contextlib.suppress(OSError, ImportError, KeyError):  # no such folder or user; a file system without locks
        place = Path(tempfile.gettempdir()) / f"viewloom-{getpass.getuser()}"
        place.mkdir(mode=0o700, exist_ok=True)
        held = FileLock(place / f"{name}.lock")
        try:
            held.acquire(timeout=0)
        except Timeout as error:
            raise FolderBusyError(
                "another job is writing here", where=folder, fix="Wait for it, or choose another output folder."
            ) from error
        lock = held
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
