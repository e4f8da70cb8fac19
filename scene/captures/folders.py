"""What lies in a capture's folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from scene import documents
from scene.errors import InputError
from scene.photo import read_picture
from scene.pictures.opening import picture_endings

_NO_PICTURE = re.compile(r"depth|normal|mask|alpha|albedo|thumb", re.IGNORECASE)
"""In names of pictures that are something else beside a picture."""


_LOOKED_AT = 64
"""Side to which pictures are reduced while they are decoded, where only what is said of them counts."""


def pictures_in(folder: Path) -> list[Path]:
    """The pictures directly in a folder, in order of their names; hidden files do not count."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.suffix.lower() in picture_endings() and path.is_file()]
    return sorted(path for path in found if not path.name.startswith("."))


def subfolder(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of some folders that is there."""
    return next((path for name in names if (path := folder / name).is_dir()), None)


def by_number(pictures: Sequence[Path]) -> dict[int, Path]:
    """Pictures whose name is a number, by it."""
    return {int(path.stem): path for path in pictures if re.fullmatch(r"[0-9]{1,9}", path.stem)}


def numbered(pictures: Sequence[Path], count: int, where: Path, notes: list[str]) -> list[int]:
    """Which of ``count`` numbered cameras belongs to which picture, pictures being in order of their names.

    As many pictures as cameras: one after the other. Fewer: by the number that is the picture's name. ``notes`` get a
    sentence where the pictures' numbers do not tell that themselves, and on cameras without a picture.

    Raises:
        InputError: neither is possible, or the order of names is not that of their numbers ("10" before "2").
    """
    stems = [picture.stem for picture in pictures]
    found = [re.search(r"\d{1,9}$", stem) for stem in stems]
    numbers = [-1 if match is None else int(match[0]) for match in found]
    if len(pictures) == count:
        if -1 not in numbers and len({re.sub(r"\d+$", "", stem) for stem in stems}) == 1 and numbers != sorted(numbers):
            raise InputError(
                "pictures are numbered without leading zeros, so that their order is not clear",
                where=pictures[0].parent,
                fix="Rename them so that all have as many digits (002.png, 010.png).",
            )
        if len({number - k for k, number in enumerate(numbers)}) > 1:
            first, last = pictures[0].name, pictures[-1].name
            notes.append(f"pictures were paired with the cameras in order of their names, from {first} to {last}")
        return list(range(count))
    if len(set(numbers)) == len(numbers) and all(stem.isdigit() for stem in stems) and max(numbers) < count:
        notes.append(f"{count - len(pictures)} of {count} cameras have no picture and were not used")
        return numbers
    raise InputError(
        f"{count} cameras for {len(pictures)} pictures",
        where=where,
        fix=f"Cameras and the pictures in {pictures[0].parent} must belong together one by one.",
    )


def read_json(file: Path) -> Any:
    """What a JSON file holds; None if it cannot be read as one."""
    try:
        return documents.read_json(file)
    except InputError:
        return None


def first_json(path: Path, pattern: str, holds: Callable[[Any], object]) -> Path | None:
    """The first JSON file of a folder whose name matches and which holds the right thing, or a file that does.

    A file that matches and cannot be read as JSON counts too: its reader says what is wrong with it.
    """
    if path.is_file():
        files = [path] if path.suffix.lower() == ".json" else []
    else:
        files = sorted(path.glob(pattern))
    for file in files:
        content = read_json(file)
        if holds(content) or (content is None and file.match(pattern)):
            return file
    return None


def unknown_json(path: Path, known: Collection[Path]) -> list[str]:
    """Notes on files of usual names that describe cameras in no known way."""
    if not path.is_dir():
        return []
    files = [file for pattern in ("transforms.json", "cameras.json") for file in path.glob(pattern)]
    return [f"{file.name} is of a kind that is not known here, and was not read" for file in files if file not in known]


def unused_pictures(used: Sequence[Path], files: Collection[Path]) -> list[str]:
    """A note on pictures beside those that were used, if there are any.

    Args:
        used: the pictures of views.
        files: all files that views are read from.
    """
    beside = [picture for folder in sorted({path.parent for path in used}) for picture in pictures_in(folder)]
    rest = [picture for picture in beside if picture not in files and not _NO_PICTURE.search(picture.stem)]
    if not rest:
        return []
    count = f"{len(rest)} of {len(rest) + len(set(used))} pictures"
    return [f"{count} in the capture's folders were not used, the first is {rest[0].name}"]


def picture_notes(used: Sequence[Path]) -> list[str]:
    """What was guessed of some of a capture's picture files, or not believed: of the first, the middle and the last.

    Pictures of one capture come from one camera and one program; to decode all of them for this would take minutes.
    """
    chosen = dict.fromkeys(used[k] for k in (0, len(used) // 2, len(used) - 1)) if used else {}
    names: dict[str, str] = {}
    for path in chosen:
        try:
            found = read_picture(path, _LOOKED_AT).notes
        except InputError:
            continue  # whoever uses it says what is wrong with it
        for note in found:
            names.setdefault(note, path.name)
    return [f"of pictures such as {name}: {note}" for note, name in names.items()]
