"""Writing results so that a broken run never leaves a half file that looks whole."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from scene.errors import OutputError


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
        if error.filename is not None and Path(os.fsdecode(error.filename)) not in (partial, path, path.parent):
            raise
        raise OutputError(
            f"cannot be written ({error.strerror or error})",
            where=path,
            fix="Check free space and permissions, or choose another output folder.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file aside and rename it."""
    with written_aside(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a binary file aside and rename it."""
    with written_aside(path) as partial:
        partial.write_bytes(data)
