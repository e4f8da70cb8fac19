"""Writing results so that a broken run never leaves a half file that looks whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from scene.errors import InputError, OutputError

NAME_BYTES = 255
"""What file systems take for one component of a path, in bytes of UTF-8."""

_LONGEST_ENDING = 32
_OTHERWISE = "choose another output folder."
_WRITE_ADVICE = {
    errno.ENOSPC: f"Check free space, or {_OTHERWISE}",
    errno.EDQUOT: f"Check your quota of this disk, or {_OTHERWISE}",
    errno.EACCES: f"Check permissions, or {_OTHERWISE}",
    errno.EPERM: f"Check permissions, or {_OTHERWISE}",
    errno.EROFS: "Choose an output folder on a disk that is not read-only.",
    errno.ENAMETOOLONG: f"Choose a shorter name: the system takes about {NAME_BYTES} bytes.",
    errno.ENOTDIR: f"A file is where a folder must go: move it, or {_OTHERWISE}",
    errno.EEXIST: f"A file is where a folder must go: move it, or {_OTHERWISE}",
    errno.EISDIR: f"A folder is where a file must go: move it, or {_OTHERWISE}",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.EIO: f"The disk may be failing: {_OTHERWISE}",
}
_READ_ADVICE = {
    errno.EACCES: "Check that you may read it.",
    errno.EPERM: "Check that you may read it.",
    errno.ENOENT: "Check that it is there.",
    errno.ENAMETOOLONG: f"Check its name: the system takes about {NAME_BYTES} bytes.",
    errno.EMFILE: "Raise the limit of open files (ulimit -n).",
    errno.EIO: "The disk may be failing: copy the file elsewhere.",
}


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends without an error.

    Raises:
        OutputError: the folder cannot be written, or the disk is full.
    """
    # Keep the ending: writers choose the format by it.
    kept = path.suffix if bytes_of(path.suffix) < _LONGEST_ENDING else ""
    ending = f".{os.getpid()}.{uuid.uuid4().hex[:8]}{kept}"
    partial = path.with_name(shortened(f".{path.stem}", NAME_BYTES - bytes_of(ending)) + ending)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        if file_of(error) not in (None, partial, path, path.parent):
            raise
        raise unwritable(error, path) from error
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
        fix=_READ_ADVICE.get(error.errno or 0, "Check that it is there, and that you may read it."),
    )


def unwritable(error: OSError, path: Path | None, what: str = "cannot be written") -> OutputError:
    """What stands for an error of the system while ``path`` was written; the advice fits its cause."""
    return OutputError(
        f"{what} ({error.strerror or error})",
        where=path,
        fix=_WRITE_ADVICE.get(error.errno or 0, f"Check free space and permissions, or {_OTHERWISE}"),
    )


def is_there(path: Path) -> bool:
    """Whether there is something of that name; no error for names that the system does not even look up."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to one place, be something there or not."""
    # os.path: that of pathlib raises where links lead to themselves.
    return os.path.realpath(one) == os.path.realpath(other)


def bytes_of(name: str) -> int:
    """Length of a name as file systems count it."""
    return len(os.fsencode(name) if os.name == "posix" else name.encode("utf-8", "surrogatepass"))


def shortened(name: str, room: int) -> str:
    """A name in ``room`` bytes: as it is if it fits, else its beginning and a digest of the whole.

    So two long names that begin alike stay two, and one name gives the same in every run.
    """
    if bytes_of(name) <= room:
        return name
    mark = "~" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    kept = name[: max(0, room - len(mark))]
    while kept and bytes_of(kept) > room - len(mark):
        kept = kept[:-1]
    return kept.rstrip(". ") + mark


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
