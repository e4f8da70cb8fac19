"""Names of results, made of the names of photos and captures: for the file system, and one for each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from scene.files import NAME_BYTES, shortened

ITEM_BYTES = NAME_BYTES - 15
"""Room for an item's name: its files add endings, the longest of them ``_texture.jpg``."""


class ItemName(NamedTuple):
    """The name of an item's folder and files.

    Args:
        name: without ending.
        note: why it is not the input's own name, as a sentence; None if it is.
    """

    name: str
    note: str | None = None


def item_name(text: str, otherwise: str) -> str:
    """A name for results that the file system can hold, in the folder that they are put in.

    Args:
        text: the input's name without ending.
        otherwise: the name if nothing is left of it.
    """
    # Dots alone would name the folder above, and some file systems do not keep them at the end.
    return shortened(_printable(text).rstrip(". ") or otherwise, ITEM_BYTES)


def item_names(photos: Sequence[Path]) -> list[ItemName]:
    """Names for photos: their own without ending, shortened if they are too long, numbered where two are the same."""
    names: list[ItemName] = []
    taken: dict[str, Path] = {}
    for photo in photos:
        base = item_name(photo.stem, "photo")
        name, k = base, 2
        while (first := taken.get(_folded(name))) is not None:
            name, k = shortened(base, ITEM_BYTES - len(f"-{k}")) + f"-{k}", k + 1
        note = None
        if name != base:
            first = taken[_folded(base)]
            note = f"{photo.name} would have its results where those of {first.name} are: they are called {name}."
        elif len(base) < len(photo.stem) and base[-9:-8] == "~":
            note = f"The photo's name is too long for the files that are made of it: they are called {name}."
        elif base == "photo" != photo.stem:
            note = f"The photo's name {photo.name} is no name for a folder: its results are called {name}."
        names.append(ItemName(name, note))
        taken[_folded(name)] = photo
    return names


def _folded(name: str) -> str:
    """Equal for names that some file systems take for one, such as Cup and cup, or two ways to write an accent."""
    return unicodedata.normalize("NFC", name).casefold()


def _printable(text: str) -> str:
    """File names may hold bytes that are no UTF-8; those cannot be printed or written into a report."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)
