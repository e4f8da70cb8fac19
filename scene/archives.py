"""The one reader of ``.npz`` archives: nothing is allocated before the file is known to hold it."""

from __future__ import annotations

import contextlib
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from scene.errors import InputError
from scene.files import require_regular

_MOST_BYTES = 1_000_000_000
"""Of all the arrays that are read from one archive."""
_LONGEST_HEAD = 10_000
_PIECE = 1 << 20
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What numpy writes."""
_DEFLATED = 1032
"""Bytes that deflate can make of one, at most."""
_ENCRYPTED = 1
_BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile's and numpy's readers raise when a file is not what its head promises."""


class _Head(NamedTuple):
    """What the head of an array says."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool


class Archive:
    """The arrays of an open ``.npz``, read when they are asked for.

    Args:
        file: the archive.
        where, what: the path, and what it is to hold, for messages.
    """

    def __init__(self, file: zipfile.ZipFile, where: Path, what: str) -> None:
        self._file, self._where, self._what, self._read = file, where, what, 0
        self._size = where.stat().st_size
        self.names = frozenset(name.removesuffix(".npy") for name in file.namelist() if name.endswith(".npy"))

    def array(self, name: str) -> Shaped[np.ndarray, "..."]:
        """One array, whole and as it was written.

        Raises:
            InputError: it is not there, is not meant for numpy, damaged, of Python objects, or larger than the file.
        """
        with self._said_of(name) as info:
            return self._array(info)

    def text(self, name: str) -> str:
        """A text that was stored as an array of one.

        Raises:
            InputError: as :meth:`array`, or it is no text.
        """
        array = self.array(name)
        if array.shape != () or array.dtype.kind != "U":
            raise InputError(f"its {name} is no text", where=self._where)
        return str(array)

    def numbers(self, name: str, shape: tuple[int | None, ...], kinds: str = "f") -> Shaped[np.ndarray, "..."]:
        """An array of finite numbers.

        Args:
            name: of it.
            shape: that it must have; None for a side that may be anything.
            kinds: numpy's letters of the types that it may have.

        Raises:
            InputError: as :meth:`array`, or it is not of these.
        """
        array = self.array(name)
        fits = len(array.shape) == len(shape) and all(w is None or w == n for n, w in zip(array.shape, shape))
        if not fits or array.dtype.kind not in kinds:
            wanted = " x ".join("n" if side is None else str(side) for side in shape) or "a single number"
            raise InputError(
                f"its {name} is {array.dtype} of shape {array.shape}, not {wanted} numbers", where=self._where
            )
        if not np.isfinite(array).all():
            raise InputError(f"its {name} holds numbers that are not finite", where=self._where)
        return array

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that an array's head says, read without its numbers.

        Raises:
            InputError: as :meth:`array`.
        """
        with self._said_of(name) as info, self._opened(info) as (_, head):
            return head.shape

    def parts(self, name: str) -> Iterator[Shaped[np.ndarray, "..."]]:
        """The items of an array along its first axis, one after another: for arrays that are large as a whole.

        Raises:
            InputError: as :meth:`array`, or it is a single number or empty.
        """
        with self._said_of(name) as info, self._opened(info) as (stream, head):
            if 0 in head.shape or not head.shape:
                raise ValueError(f"its shape is {head.shape}, which has no parts")
            if head.fortran:
                yield from self._array(info)
                return
            size = head.dtype.itemsize * math.prod(head.shape[1:])
            if size > _MOST_BYTES:
                raise ValueError(f"one of its parts is larger than {_MOST_BYTES / 1e9:g} GB")
            for _ in range(head.shape[0]):
                yield _filled(stream, size).view(head.dtype).reshape(head.shape[1:])
            stream.read(1)  # the checksum is compared at the end

    def _array(self, info: zipfile.ZipInfo) -> Shaped[np.ndarray, "..."]:
        with self._opened(info) as (stream, head):
            dtype, shape = head.dtype, head.shape
            size = dtype.itemsize * math.prod(shape)
            self._read += size
            if self._read > _MOST_BYTES:
                raise ValueError(f"the arrays are larger than {_MOST_BYTES / 1e9:g} GB")
            data = _filled(stream, size)
            stream.read(1)  # the checksum is compared at the end
        values = data.view(dtype) if dtype.itemsize else np.zeros(math.prod(shape), dtype)
        return values.reshape(shape[::-1]).transpose() if head.fortran else values.reshape(shape)

    @contextlib.contextmanager
    def _said_of(self, name: str) -> Iterator[zipfile.ZipInfo]:
        """A block in which an array is read, whose errors become ours."""
        if name not in self.names:
            raise InputError(f"{name} is missing", where=self._where)
        try:
            yield self._file.getinfo(f"{name}.npy")
        except _BROKEN as error:
            said = f"cannot be read as {self._what} ({name}: {_said(error)})"
            raise InputError(said, where=self._where) from error

    @contextlib.contextmanager
    def _opened(self, info: zipfile.ZipInfo) -> Iterator[tuple[Any, _Head]]:
        """An array's bytes after its head, which says no more than the file holds."""
        if info.flag_bits & _ENCRYPTED:
            raise ValueError("it is encrypted")
        if info.compress_type not in _COMPRESSIONS:
            raise ValueError(f"it is compressed in the way {info.compress_type}, which numpy does not write")
        factor = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATED
        if info.compress_size > self._size or info.file_size > factor * info.compress_size:
            raise ValueError("it promises more than the file holds")
        with self._file.open(info) as stream:
            dtype, shape, fortran, length = _header(stream)
            if dtype.hasobject:
                raise ValueError("it holds Python objects")
            if any(side < 0 for side in shape):
                raise ValueError(f"its shape is {shape}")
            # As Python's own integers, which do not run over.
            size = dtype.itemsize * math.prod(shape)
            if not dtype.itemsize and shape:
                raise ValueError(f"it holds {dtype}, which is nothing")
            if length + size != info.file_size:
                raise ValueError(f"its head promises {size:,} bytes, there are {info.file_size - length:,}")
            yield stream, _Head(dtype, shape, fortran)


@contextlib.contextmanager
def npz_archive(path: Path, what: str = "an archive of arrays") -> Iterator[Archive]:
    """A block in which the arrays of a ``.npz`` can be read.

    Args:
        path: the file.
        what: it is to be, in words.

    Raises:
        InputError: it cannot be opened, or is something else.
    """
    try:
        require_regular(path)
        file = zipfile.ZipFile(path)
    except _BROKEN as error:
        raise InputError(f"cannot be read as {what} ({_said(error)})", where=path) from error
    with file:
        yield Archive(file, path, what)


def read_npz(path: Path, what: str = "an archive of arrays") -> dict[str, Shaped[np.ndarray, "..."]]:
    """All arrays of a ``.npz`` by name.

    Raises:
        InputError: as :func:`npz_archive` and :meth:`Archive.array`.
    """
    with npz_archive(path, what) as archive:
        return {name: archive.array(name) for name in sorted(archive.names)}


def _filled(stream: Any, size: int) -> Shaped[np.ndarray, "n"]:
    """So many bytes of a stream."""
    data = np.empty(size, np.uint8)
    got = 0
    while got < size and (read := _into(stream, data[got : got + _PIECE])):
        got += read
    if got != size:
        raise ValueError("it is cut off")
    return data


def _into(stream: Any, place: Shaped[np.ndarray, "n"]) -> int:
    """Fill an array of bytes from a stream; returns how many came."""
    return int(stream.readinto(place.data))


def _header(stream: Any) -> tuple[np.dtype[Any], tuple[int, ...], bool, int]:
    """Type, shape, order and length of the head of a ``.npy``."""
    version = np.lib.format.read_magic(stream)
    readers: dict[tuple[int, int], Callable[..., Any]] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"it is of the version {version}, which numpy does not write")
    shape, fortran, dtype = readers[version](stream, max_header_size=_LONGEST_HEAD)
    return dtype, shape, fortran, stream.tell()


def _said(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
