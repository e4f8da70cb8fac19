"""Names of results: in their folder, within what file systems take, one for each photo, and told where they differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.jobs.item_names import ITEM_BYTES, item_name, item_names
from pipeline.jobs.reconstruct import capture_name
from recon.export.export_mesh import FORMATS
from scene.files import NAME_BYTES, bytes_of


def names(paths: list[str]) -> list[str]:
    return [name for name, _ in item_names([Path(path) for path in paths])]


def test_photos_of_the_same_name_get_names_of_their_own() -> None:
    paths = ["a/cup.png", "b/cup.jpg", "cup-2.png", "Cup.webp", "other.png", "cup.png"]
    assert names(paths) == ["cup", "cup-2", "cup-2-2", "Cup-3", "other", "cup-4"]


def test_another_name_than_the_photos_own_is_told() -> None:
    found = item_names([Path("a/cup.png"), Path("b/cup.jpg"), Path("...png"), Path("x" * 300 + ".png")])
    assert found[0].note is None
    assert found[1].note == "cup.jpg would have its results where those of cup.png are: they are called cup-2."
    assert found[2].note == "The photo's name ...png is no name for a folder: its results are called photo."
    assert (found[3].note or "").startswith("The photo's name is too long for the files that are made of it")
    assert [note for _, note in item_names([Path("photo.png"), Path("a.b.png"), Path("杯.png")])] == [None] * 3


@pytest.mark.parametrize(
    ("name", "folder"),
    [("...png", "photo"), ("..png", "photo"), ("con .png", "con"), (".a.png", ".a"), ("..", "photo")],
)
def test_no_photo_is_called_as_the_folder_above(name: str, folder: str) -> None:
    assert names([name]) == [folder]


def test_names_that_are_no_text_become_printable() -> None:
    assert names(["cup\udcff.png"]) == ["cup\ufffd"]


def test_two_ways_to_write_an_accent_are_one_name() -> None:
    assert names(["caf\u00e9.png", "cafe\u0301.png"]) == ["caf\u00e9", "cafe\u0301-2"]


@given(st.lists(st.sampled_from(["a.png", "A.png", "a-2.png", "a-2-2.jpg", "b/a", "ß.png", "SS.png"]), max_size=12))
def test_no_two_photos_share_a_folder(paths: list[str]) -> None:
    found = names(paths)
    assert len({name.casefold() for name in found}) == len(paths)
    assert all(name.startswith(Path(path).stem) for name, path in zip(found, paths, strict=True))


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=260))
def test_every_file_that_is_made_of_a_name_fits(stem: str) -> None:
    for name in names([f"{stem}.png", f"{stem}.jpg", f"{stem}.webp"]):
        for ending in (*(f".{format}" for format in FORMATS), ".mtl", "_texture.jpg"):
            assert bytes_of(name + ending) <= NAME_BYTES
        assert Path("out", name).parent == Path("out")
        assert Path(name).name == name not in (".", "..", "")


def test_names_that_fit_are_kept() -> None:
    assert names(["a" * 236 + ".png", "杯" * 78 + ".png"]) == ["a" * 236, "杯" * 78]
    assert bytes_of(item_name("a" * 300, "photo")) == ITEM_BYTES
    assert item_name("a" * 300, "photo") != item_name("a" * 301, "photo")


def test_captures_are_named_within_the_same_room(tmp_path: Path) -> None:
    folder = tmp_path / ("c" * 250)
    folder.mkdir()
    assert bytes_of(capture_name(folder)) == ITEM_BYTES
    assert capture_name(tmp_path) == tmp_path.name
