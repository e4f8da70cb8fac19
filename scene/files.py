"""Writing results so that a broken run never leaves a half file that looks whole."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from scene.errors import InputError, OutputError


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    # Keep the ending: writers choose the format by it.
    partial = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        if file_of(error) not in (None, partial, path, path.parent):
            raise
        raise OutputError(
            f"cannot be written ({error.strerror or error})",
            where=path,
            fix="Check free space and permissions, or choose another output folder.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """A block that reads ``path``, or what lies in it.

    Raises:
        InputError: the system does not let it.
    """
    try:
        yield
    except OSError as error:
        raise unreadable(error, path) from error


def require_regular(path: Path) -> None:
    """Raise unless a path is a plain file, or leads to one: to open a pipe would wait for ever.

    Raises:
        OSError: it is something else, or not there.
    """
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no plain file", str(path))


def unreadable(error: OSError, path: Path | None = None) -> InputError:
    """What stands for an error of the system while the file that it names, or else ``path``, was read."""
    return InputError(
        f"cannot be read ({error.strerror or error})",
        where=file_of(error) or path,
        fix="Check that it is there, and that you may read it.",
    )


def file_of(error: OSError) -> Path | None:
    """The file that an error of the system names, if it names one."""
    return Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes | os.PathLike) else None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file aside and rename it."""
    with written_aside(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file aside and rename it."""
    with written_aside(path) as partial:
        partial.write_bytes(data)
