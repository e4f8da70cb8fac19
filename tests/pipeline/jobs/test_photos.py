"""Which photos a job takes: files as they are, folders and patterns in the order in which people count."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pipeline.jobs import photos as module
from pipeline.jobs.item_names import item_names
from pipeline.jobs.photos import by_name, listed_photos
from scene.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures among other files; only names count here."""
    shots = tmp_path / "shots"
    (shots / "inner.png").mkdir(parents=True)
    (shots / "deep").mkdir()
    for name in (
        "IMG_10.jpg",
        "IMG_2.JPG",
        "img_1.png",
        "notes.txt",
        "scan.pdf",
        ".hidden.png",
        "cup.heic",
        "deep/b.png",
    ):
        (shots / name).touch()
    return shots


def names(photos: list[Path]) -> list[str]:
    return [photo.name for photo in photos]


def test_a_folder_gives_its_own_pictures_as_people_count(folder: Path) -> None:
    assert names(listed_photos([folder])) == ["cup.heic", "img_1.png", "IMG_2.JPG", "IMG_10.jpg"]


def test_files_keep_the_order_in_which_they_were_given(folder: Path) -> None:
    given = [folder / "IMG_10.jpg", folder / "notes.txt", folder / "gone.png", folder / "cup.heic"]
    assert listed_photos(given) == given  # what is no photo, or not there, fails by itself later


def test_every_photo_comes_once(folder: Path) -> None:
    around = folder / "deep" / ".." / "IMG_2.JPG"
    assert names(listed_photos([folder / "IMG_10.jpg", folder, around, folder])) == [
        "IMG_10.jpg",
        "cup.heic",
        "img_1.png",
        "IMG_2.JPG",
    ]


def test_patterns_that_no_shell_has_filled_in(folder: Path) -> None:
    assert names(listed_photos([folder / "*.[jJ]*"])) == ["IMG_2.JPG", "IMG_10.jpg"]
    assert names(listed_photos([folder / "**" / "*.png"])) == ["b.png", "img_1.png"]
    assert names(listed_photos([folder / "*"])) == ["cup.heic", "img_1.png", "IMG_2.JPG", "IMG_10.jpg"]


def test_a_name_with_brackets_is_a_name_if_it_is_there(folder: Path) -> None:
    (folder / "cup[1].png").touch()
    (folder / "cup1.png").touch()
    assert names(listed_photos([folder / "cup[1].png"])) == ["cup[1].png"]
    (folder / "cup[1].png").unlink()
    assert names(listed_photos([folder / "cup[1].png"])) == ["cup1.png"]


def test_a_pattern_that_fits_nothing_and_one_that_fits_no_picture(folder: Path) -> None:
    with pytest.raises(InputError, match=r"\*\.bmp: no picture fits this pattern"):
        listed_photos([folder / "*.bmp"])
    with pytest.raises(InputError, match=r"\*\.txt: no picture fits this pattern"):
        listed_photos([folder / "cup.heic", folder / "*.txt"])


def test_nothing_at_all() -> None:
    with pytest.raises(InputError, match="no photos were given"):
        listed_photos([])


def test_a_folder_without_pictures_says_what_to_give(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"has no pictures\. Give a folder of JPEG, PNG or WebP files") as caught:
        listed_photos([tmp_path])
    assert caught.value.where == str(tmp_path)
    (tmp_path / "transforms.json").touch()
    with pytest.raises(InputError, match="looks like a capture: run viewloom reconstruct"):
        listed_photos([tmp_path])


@pytest.mark.parametrize("pattern", ["", "*.jpg"])
def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refused)
    monkeypatch.setattr(module.glob, "glob", refused)
    with pytest.raises(InputError, match=r"cannot be read \(Permission denied\)") as caught:
        listed_photos([folder / pattern])
    assert caught.value.where == str(folder)


def test_thousands_of_photos_take_a_moment(tmp_path: Path) -> None:
    for k in range(5000):
        (tmp_path / f"shot {k}.jpg").touch()
    start = time.process_time()
    photos = listed_photos([tmp_path, tmp_path / "*.jpg"])
    named = [name for name, _ in item_names(photos)]
    assert time.process_time() - start < 20
    assert names(photos) == [f"shot {k}.jpg" for k in range(5000)]
    assert named == [f"shot {k}" for k in range(5000)]


def test_names_are_sorted_as_people_count() -> None:
    given = ["b", "a10", "a2", "A1", "a02", "10", "9", "x9y10", "x9y9", "²"]
    assert names(by_name([Path(name) for name in given])) == [
        "9",
        "10",
        "A1",
        "a02",
        "a2",
        "a10",
        "b",
        "x9y9",
        "x9y10",
        "²",
    ]


def test_a_name_that_no_file_can_have_fails_by_itself(folder: Path) -> None:
    given = [folder / ("a" * 300 + ".png"), folder / "cup.heic"]
    assert listed_photos(given) == given
