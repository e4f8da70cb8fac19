"""Which photos a job is to take: files, folders of them, and patterns that a shell has not filled in."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from scene.errors import InputError
from scene.files import reading
from scene.pictures.opening import picture_endings

_CAPTURE_FILES = ("transforms.json", "transforms_train.json", "cameras.txt", "cameras.bin", "cameras.npz")


def listed_photos(paths: Sequence[Path], *, deep: bool = False) -> list[Path]:
    """Every photo once, in the order given; those of a folder or pattern by name as people count (2 before 10).

    Files that are not there stay in the list, so that they fail by themselves and the others do not.

    Args:
        paths: files, folders, and patterns such as ``photos/*.jpg``.
        deep: of a folder without pictures take those of its folders, as cameras fill cards, one after the other; not of
            folders that are captures.

    Raises:
        InputError: nothing was given, a folder cannot be read or has no pictures, or no picture fits a pattern.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        with reading(path):
            for photo in _photos_of(path, deep):
                found.setdefault(Path(os.path.realpath(photo)), photo)  # unlike resolve, also of links in a loop
    if not found:
        raise InputError("no photos were given", fix="Name photos, or a folder of photos.")
    return list(found.values())


def by_name(photos: Iterable[Path]) -> list[Path]:
    """Sorted by name as people count."""
    return sorted(photos, key=lambda path: (_counted(path.name), str(path)))


def _photos_of(path: Path, deep: bool) -> list[Path]:
    try:
        folder, there = path.is_dir(), path.exists()
    except OSError:  # of a name that is too long, say: it fails by itself
        return [path]
    if folder:
        return (_photos_below(path) if deep else []) or _photos_in(path)
    if there or not glob.has_magic(str(path)):
        return [path]
    matches = [match for match in map(Path, glob.glob(str(path), recursive=True)) if _is_picture(match)]
    if not matches:
        raise InputError("no picture fits this pattern", where=path, fix="Check the folder and the ending.")
    return by_name(matches)


def _photos_below(folder: Path) -> list[Path]:
    """The pictures of a folder, or, if it has none, those of the folders in it, down to the first that have any."""
    inside = [path for path in folder.iterdir() if _is_picture(path)]
    if inside:
        return by_name(inside)
    folders = [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "." and not path.is_symlink()]
    return [photo for path in by_name(folders) if not _is_capture(path) for photo in _photos_below(path)]


def _is_capture(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _CAPTURE_FILES)


def _photos_in(folder: Path) -> list[Path]:
    inside = [path for path in folder.iterdir() if _is_picture(path)]
    if inside:
        return by_name(inside)
    fix = "Give a folder of JPEG, PNG or WebP files."
    if _is_capture(folder):
        fix = "It looks like a capture: run viewloom reconstruct on it."
    raise InputError("has no pictures", where=folder, fix=fix)


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in picture_endings() and path.name[0] != "." and path.is_file()


def _counted(name: str) -> list[tuple[int, int, str]]:
    """A sorting key that counts digits as numbers."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
