"""Archives of arrays: what numpy wrote comes back, everything else is refused before it is allocated."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scene.archives import npz_archive, read_npz
from scene.errors import InputError

ARRAYS = {
    "plain": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
    "big": np.arange(5, dtype=">i4"),
    "half": np.linspace(0, 1, 7, dtype=np.float16),
    "none": np.zeros((0, 3)),
    "one": np.float64(2.5),
    "text": np.array("naïve"),
    "bool": np.array([True, False]),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "a.npz", **ARRAYS)
    found = read_npz(tmp_path / "a.npz")
    assert found.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].flags.writeable
    with npz_archive(tmp_path / "a.npz") as archive:
        assert archive.text("text") == "naïve"
        assert archive.numbers("plain", (None, 3, 4)).shape == (2, 3, 4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_large_arrays_are_read_in_parts(tmp_path: Path, save: Callable[..., None]) -> None:
    save(tmp_path / "a.npz", **ARRAYS)
    with npz_archive(tmp_path / "a.npz") as archive:
        for name in ("plain", "fortran", "bool"):
            assert archive.shape(name) == ARRAYS[name].shape
            assert np.array_equal(list(archive.parts(name)), ARRAYS[name])
        first, *_ = zip(archive.parts("plain"), archive.parts("big"), strict=False)
        assert np.array_equal(first[0], ARRAYS["plain"][0])
        for name in ("one", "none"):
            with pytest.raises(InputError, match="which has no parts"):
                list(archive.parts(name))


def test_parts_of_damaged_arrays_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    numbers = np.arange(3000.0).reshape(3, 1000)
    np.savez(file, a=numbers)
    whole = file.read_bytes()
    at = whole.index(numbers[2].tobytes())
    file.write_bytes(whole[:at] + bytes([7]) + whole[at + 1 :])
    with npz_archive(file) as archive, pytest.raises(InputError, match="Bad CRC"):
        list(archive.parts("a"))
    file.write_bytes(packed(described("(10**18, 10**18)"), bytes(16)))
    with npz_archive(file) as archive, pytest.raises(InputError, match="cannot be read"):
        archive.shape("a")


def packed(head: bytes, body: bytes = b"", kind: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of one member ``a.npy`` of such bytes."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.writestr("a.npy", head + body)
    return out.getvalue()


def head(text: str) -> bytes:
    padded = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded


def described(shape: str, kind: str = "'<f8'") -> bytes:
    return head(f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}}}")


SOUND = packed(described("(2,)"), bytes(16))
HOSTILE = {
    "terabytes": packed(described("(1000000, 1000000)"), bytes(16)),
    "a side of 10 to the 20": packed(described(f"({10**20},)"), bytes(16)),
    "a product that runs over": packed(described(f"({2**33}, {2**33})"), bytes(16)),
    "a negative side": packed(described("(-2, -1)"), bytes(16)),
    "true for a side": packed(described("(True,)"), bytes(8)),
    "objects": packed(described("(2,)", "'|O'"), bytes(16)),
    "nothing, often": packed(described(f"({10**12},)", "'|V0'")),
    "no shape": packed(head("{'descr': '<f8', 'fortran_order': False}"), bytes(16)),
    "no head": packed(b"\x93NUMPY\x01\x00"),
    "a deep head": packed(head("(" * 110)),
    "code for a head": packed(head("__import__('os').system('true')")),
    "other magic": packed(b"PK not numpy at all"),
    "cut short": packed(described("(2,)"), bytes(12)),
    "too long": packed(described("(2,)"), bytes(20)),
    "bz2": packed(described("(2,)"), bytes(16), zipfile.ZIP_BZIP2),
    "lzma": packed(described("(2,)"), bytes(16), zipfile.ZIP_LZMA),
    "a bad checksum": SOUND.replace(bytes(16), b"\1" + bytes(15)),
    "half the archive": SOUND[: len(SOUND) // 2],
    "no directory": SOUND[:-30],
    "an array file": described("(2,)") + bytes(16),
    "empty": b"",
    "an encrypted member": SOUND.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
    "a size beyond the file": SOUND.replace(struct.pack("<II", 144, 144), struct.pack("<II", 2**31, 2**31)),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_numpy_did_not_write_is_refused_at_no_cost(tmp_path: Path, content: bytes) -> None:
    assert content != SOUND
    (tmp_path / "a.npz").write_bytes(content)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"a\.npz: "), npz_archive(tmp_path / "a.npz") as archive:
            archive.array("a")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_bomb_is_larger_than_arrays_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scene.archives._MOST_BYTES", 1_000_000)
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(100_000), b=np.zeros(100_000))
    with npz_archive(tmp_path / "a.npz") as archive:
        archive.array("a")
        with pytest.raises(InputError, match="the arrays are larger than"):
            archive.array("b")


def test_numbers_are_of_the_shape_and_kind_that_is_asked_for(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([1.0, np.nan]), b=np.arange(3), text=np.array(["x"]))
    with npz_archive(tmp_path / "a.npz", "numbers") as archive:
        for name, shape, message in (
            ("no", (2,), "no is missing"),
            ("a", (2,), "not finite"),
            ("a", (None, 2), r"float64 of shape \(2,\), not n x 2 numbers"),
            ("b", (3,), "int64 of shape"),
        ):
            with pytest.raises(InputError, match=message):
                archive.numbers(name, shape)
        with pytest.raises(InputError, match="its text is no text"):
            archive.text("text")
        assert archive.numbers("b", (3,), "iu").sum() == 3
