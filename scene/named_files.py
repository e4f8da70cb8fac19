"""The files that a capture names, found where its folder has them now."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from scene.errors import InputError
from scene.files import NAME_BYTES
from scene.pictures.opening import picture_endings

_LEFT_OUT = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")
"""Endings that NeRF-synthetic files leave out."""
_LONGEST_PATH = 4096
_ABSOLUTE = re.compile(r"/|[A-Za-z]:")


class NamedFiles:
    """Finds what a capture names; what is found in another place than the one named is told.

    Names are relative to some folders of the capture. Paths of another machine, other cases of letters, and folders
    that are no longer there lead to the file that ends alike, if there is just one and no other name could mean it.

    Args:
        folder: of the capture.
        names: all that will be asked for, as the capture has them.
        tops: where names may begin, relative to ``folder``.
        what: they are, plural.
        pictures: whether they are pictures. Of these the bare name may be enough, and relative ones may lie outside of
            the folder: other programs write ``../images``.
    """

    def __init__(
        self,
        folder: Path,
        names: Iterable[object],
        *,
        tops: Sequence[str] = ("",),
        what: str = "pictures",
        pictures: bool = True,
    ) -> None:
        self.folder, self.tops, self.what, self.pictures = folder, [folder / top for top in tops], what, pictures
        given = {_parts(name) for name in names if isinstance(name, str) and not _too_long(name)}
        ends = (parts[-1 - n :] for parts in given for n in range(len(parts)))
        self._meant = Counter(tuple(part.lower() for part in end) for end in ends)
        self._found: dict[str, Path] = {}
        self._moved: list[str] = []
        self._outside: list[str] = []
        self._index: dict[tuple[str, ...], list[Path]] | None = None

    @property
    def notes(self) -> list[str]:
        """What there is to say of those that :meth:`find` was asked for."""
        told = []
        if self._moved:
            there = self._found[self._moved[0]]
            place = there.relative_to(self.folder) if there.is_relative_to(self.folder) else there
            told.append(
                f"{len(self._moved)} {self.what} are not where the capture says ({self._moved[0]} is the first): the "
                f"files of these names here were read ({place.as_posix()})"
            )
        if self._outside:
            told.append(f"{len(self._outside)} {self.what} lie outside of the capture's folder ({self._outside[0]})")
        return told

    def find(self, name: object, key: str, where: str) -> Path:
        """The file of a name; where there is none, the one that should be there.

        Args:
            name: as the capture has it.
            key: what the capture calls it, for errors.
            where: what errors name.

        Raises:
            InputError: it names nothing, or what is not in the capture's folder.
        """
        if not isinstance(name, str) or not PurePosixPath(name.replace("\\", "/")).name or "\0" in name:
            raise InputError(f"{key} is missing or names no file", where=where)
        if _too_long(name):
            raise InputError(f"{key} is a name of {len(name)} letters, which no file has", where=where)
        if name not in self._found:
            self._found[name] = self._sought(name, where)
        return self._found[name]

    def _sought(self, name: str, where: str) -> Path:
        slashed = name.replace("\\", "/")
        absolute, leaves = bool(_ABSOLUTE.match(slashed)), ".." in PurePosixPath(slashed).parts
        if absolute:
            own = Path(os.path.abspath(self.folder))
            path = picture_of(Path(os.path.normpath(slashed)))
            if path.is_relative_to(own) and path.is_file():
                return self.folder / path.relative_to(own)
        elif leaves:
            path = picture_of(Path(os.path.normpath(self.folder / slashed)))
            own = Path(os.path.normpath(self.folder))
            if path.is_relative_to(own) and path.is_file():
                return path
            if self.pictures and path.suffix.lower() in picture_endings() and path.is_file():
                self._outside.append(name)
                return path
        else:
            plain = [picture_of(top / slashed) for top in self.tops]
            for path in plain:
                if path.is_file():
                    return path
        moved = self._moved_to(_parts(name))
        if moved is not None:
            self._moved.append(name)
            return moved
        if absolute or leaves:
            raise InputError(
                f"the path {name!r} leaves the capture folder, and no file of this name lies in it",
                where=where,
                fix="Put the files into the capture's folder, or use paths relative to the capture file.",
            )
        return plain[0]

    def _moved_to(self, parts: tuple[str, ...]) -> Path | None:
        """The one file that ends like a name, of the longest ending that any has."""
        for first in range(len(parts)):
            end = tuple(part.lower() for part in parts[first:])
            if self._meant[end] > 1 or (len(end) < 2 and not self.pictures):
                return None
            hits = self._indexed.get(end, [])
            exact = [hit for hit in hits if hit.parts[-len(end) :] == parts[first:]]
            if len(exact or hits) == 1:
                return (exact or hits)[0]
            if hits:
                return None
        return None

    @property
    def _indexed(self) -> dict[tuple[str, ...], list[Path]]:
        """Files by the endings of their paths, lower case: those in the folder, in its folders, and in theirs."""
        if self._index is None:
            self._index = {}
            near = {self.folder, *(top for top in self.tops if top.is_dir())}
            # No deeper, and not all of them: results of other programs, and ours, lie in captures' folders too.
            near |= {top / "images" for top in near if self.pictures and (top / "images").is_dir()}
            near |= {sub for top in near for sub in _folders(top) if top != self.folder or not self.pictures}
            for path in sorted(path for folder in near for path in folder.iterdir()):
                if path.suffix.lower() in picture_endings() or not self.pictures:
                    below = path.relative_to(self.folder).parts if path.is_relative_to(self.folder) else path.parts[-2:]
                    for n in range(len(below)):
                        end = tuple(part.lower() for part in below[-1 - n :])
                        self._index.setdefault(end, []).append(path)
        return self._index


def picture_of(path: Path) -> Path:
    """The path itself, or with the ending that its file has (NeRF-synthetic files leave it out)."""
    if path.is_file():
        return path
    return next((full for end in _LEFT_OUT if (full := path.with_name(path.name + end)).is_file()), path)


def _parts(name: str) -> tuple[str, ...]:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return tuple(part for part in parts if part not in ("/", "..") and not part.endswith(":"))


def _too_long(name: str) -> bool:
    """Whether no system has such a path; to ask for it would be an error of the system."""
    if len(name) > _LONGEST_PATH:
        return True
    return any(len(part.encode("utf-8", "surrogatepass")) > NAME_BYTES for part in re.split(r"[/\\]", name))


def _folders(top: Path) -> list[Path]:
    return [path for path in top.iterdir() if path.is_dir() and not path.name.startswith(".")]
