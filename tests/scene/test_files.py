"""Writing aside: whole files or none."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scene.errors import OutputError
from scene.files import bytes_of, shortened, unwritable, write_bytes, write_text, written_aside


def test_the_file_appears_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.json"
    with written_aside(path) as partial:
        assert partial.suffix == ".json"  # writers choose the format by the ending
        assert partial.parent == path.parent
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def write_and_fail(path: Path, error: BaseException) -> None:
    """Write something aside, then raise."""
    with written_aside(path) as partial:
        partial.write_text("half")
        raise error


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing_and_keeps_what_was_there(tmp_path: Path, error: BaseException) -> None:
    old = tmp_path / "old.txt"
    old.write_text("old")
    for path in (old, tmp_path / "fresh.txt"):
        with pytest.raises(type(error)):
            write_and_fail(path, error)
    assert [p.name for p in tmp_path.iterdir()] == ["old.txt"]
    assert old.read_text() == "old"


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with written_aside(path) as first, written_aside(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # the outer block ends last


def test_a_full_disk_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.bin: cannot be written \(No space left.*Check free space"):
        write_and_fail(tmp_path / "a.bin", OSError(errno.ENOSPC, "No space left on device"))
    assert not list(tmp_path.iterdir())


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "taken" / "a.txt", "x")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_text(tmp_path / "a.txt", "x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_failures_to_read_other_files_are_not_called_write_failures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), written_aside(tmp_path / "a.txt") as partial:
        partial.write_bytes((tmp_path / "no such input").read_bytes())
    assert not list(tmp_path.iterdir())


def test_text_is_utf8_with_plain_newlines(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "ä\nb\n")
    assert (tmp_path / "a.txt").read_bytes() == "ä\nb\n".encode()
    write_bytes(tmp_path / "a.bin", b"\r\n\0")
    assert (tmp_path / "a.bin").read_bytes() == b"\r\n\0"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Check free space"),
        (errno.EACCES, "Check permissions"),
        (errno.EROFS, "not read-only"),
        (errno.ENAMETOOLONG, "Choose a shorter name"),
        (errno.ENOTDIR, "A file is where a folder must go"),
        (errno.EMFILE, "ulimit"),
        (errno.ELOOP, "Check free space and permissions"),
    ],
)
def test_every_error_of_the_system_is_told_by_its_own_cause(tmp_path: Path, number: int, advice: str) -> None:
    error = OSError(number, "told by the system", str(tmp_path / "a"))
    told = str(unwritable(error, tmp_path / "a"))
    assert advice in told
    assert ("free space" in told) is (number in (errno.ENOSPC, errno.ELOOP))


@pytest.mark.parametrize("name", ["a" * 250 + ".bin", "杯" * 83 + ".bin", "é" * 125 + ".json", "a." + "b" * 250])
def test_names_that_a_file_can_have_can_be_written(tmp_path: Path, name: str) -> None:
    """The scratch name has to fit as well."""
    write_bytes(tmp_path / name, b"whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_name_that_no_file_can_have_is_refused_by_its_length(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\(File name too long\)\. Choose a shorter name"):
        write_bytes(tmp_path / ("a" * 256), b"whole")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=200), st.integers(12, 255))
def test_shortened_names_fit_and_stay_apart(name: str, room: int) -> None:
    short = shortened(name, room)
    assert bytes_of(short) <= room
    assert (short == name) is (bytes_of(name) <= room)
    if short != name:
        assert shortened(name + "x", room) != short
