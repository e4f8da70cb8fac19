"""Readers of posed captures, one module per format, and the one function that finds out which it is.

Whatever the format, the set that comes back has a z-up world, OpenGL camera axes and pinhole cameras. Its ``metadata``:

* ``format``: which reader it came through.
* ``up``: ``"given"`` by the format, or ``"estimated"`` from the cameras; then ``up_from`` says by what.
* ``world_from_file``: 4x4 similarity from the file's world to the set's; absent if they are the same.
* ``applied_transform``, ``applied_scale``: nerfstudio's, from the original world to the file's.
  :func:`world_from_original` puts the three together.
* ``region``: centre and radius of a sphere around the object, where the format tells.
* ``notes``: sentences on what was assumed or changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from scene.captures.bundler import find_bundle, read_bundler
from scene.captures.cameras_json import read_cameras_json
from scene.captures.colmap import find_model, read_colmap
from scene.captures.folders import pictures_in
from scene.captures.masks import check_masks, threshold_masks
from scene.captures.middlebury import read_middlebury
from scene.captures.named import named_pictures, read_named
from scene.captures.neus import read_neus
from scene.captures.projections import read_projections
from scene.captures.worlds import world_from_original
from scene.errors import InputError
from scene.viewset import ViewSet

__all__ = ["FORMATS", "Format", "load_capture", "threshold_masks", "world_from_original"]


@dataclass(frozen=True)
class Format:
    """A kind of capture.

    Args:
        kind: its name for :func:`load_capture`.
        looks_for: what makes a folder one of this kind, in words.
        fits: whether a folder or file is one.
        read: its reader.
    """

    kind: str
    looks_for: str
    fits: Callable[[Path], bool]
    read: Callable[[Path], ViewSet]


def _is(path: Path, *names: str) -> bool:
    """Whether a path is, or holds, a file whose name matches one of some patterns."""
    return any(path.match(name) if path.is_file() else any(path.glob(name)) for name in names)


def _is_nerfstudio(path: Path) -> bool:
    # A capture file may have any name when it is given itself.
    return _is(path, "transforms*.json") or (path.is_file() and path.suffix == ".json" and path.name != "cameras.json")


def _is_bundler(path: Path) -> bool:
    return path.name == "bundle.out" if path.is_file() else find_bundle(path) is not None


def _is_colmap(path: Path) -> bool:
    return path.is_dir() and find_model(path) is not None


FORMATS = (
    Format("nerfstudio", "transforms.json or transforms_train.json", _is_nerfstudio, ViewSet.load),
    Format("cameras_json", "cameras.json with 000.png ...", lambda path: _is(path, "cameras.json"), read_cameras_json),
    Format("neus", "cameras*.npz with image/", lambda path: _is(path, "cameras*.npz"), read_neus),
    Format("middlebury", "*_par.txt", lambda path: _is(path, "*_par.txt"), read_middlebury),
    Format("projections", "NAME_P.txt beside NAME.jpg", lambda path: _is(path, "*_P.txt"), read_projections),
    Format("bundler", "bundle.out", _is_bundler, read_bundler),
    Format("colmap", "cameras and images (.bin or .txt) here or in sparse/0", _is_colmap, read_colmap),
    Format("named", "front.png with left.png, back.png or right.png", lambda p: bool(named_pictures(p)), read_named),
)
"""In the order in which they are tried: what was made for a capture before what it was made from."""


def load_capture(path: Path, *, kind: str | None = None) -> ViewSet:
    """Read a posed capture of any known format: a folder, or the file in it that holds the cameras.

    Args:
        path: folder or file.
        kind: the format, one of :data:`FORMATS`; by default the first that fits.

    Raises:
        InputError: there is no capture, or it is faulty; the message says what was looked for and what was found.
    """
    if not path.exists():
        raise InputError("there is no such file or folder", where=path)
    if kind is not None:
        chosen = next((candidate for candidate in FORMATS if candidate.kind == kind), None)
        if chosen is None:
            raise InputError(
                f"unknown kind of capture {kind!r}", fix=f"Use one of {', '.join(f.kind for f in FORMATS)}."
            )
    else:
        chosen = next((candidate for candidate in FORMATS if candidate.fits(path)), None)
    if chosen is None:
        raise _nothing_found(path)
    _refuse_pipes(path)
    views = chosen.read(path)
    check_masks(views)
    return views


def _refuse_pipes(path: Path) -> None:
    """Raise if what would be read as text is a pipe, which would be waited for without an end."""
    beside = path if path.is_dir() else path.parent
    for folder in (beside, beside / "sparse", beside / "sparse" / "0"):
        for file in folder.iterdir() if folder.is_dir() else ():
            if file.suffix.lower() in (".txt", ".bin", ".out", ".json", ".npz", ".ply") and file.is_fifo():
                raise InputError("is a pipe, not a file", where=file)


def _nothing_found(path: Path) -> InputError:
    looked_for = "; ".join(candidate.looks_for for candidate in FORMATS)
    if path.is_file():
        return InputError(f"is not a capture. Looked for: {looked_for}", where=path, fix="Give the capture's folder.")
    photos = pictures_in(path) or pictures_in(path / "images")
    if photos:
        return InputError(
            f"{len(photos)} photos without poses. Looked for: {looked_for}",
            where=path,
            fix=f"Run `viewloom pose {path}` first, which finds out where the photos were taken from",
        )
    found = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir())
    listing = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
    return InputError(f"is not a capture. Looked for: {looked_for}. Found: {listing or 'nothing'}", where=path)
