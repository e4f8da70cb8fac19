"""RealityCapture's cameras: the CSV of internal and external parameters, or an ``.xmp`` beside each picture.

Lengths of the lens are those of a 36 mm wide picture. In the CSV heading, pitch and roll turn a camera that looks down
with its top to the north; x, y and alt are in an east-north-up world. In XMP files the rotation is world-to-camera in
OpenCV axes, row by row, and the principal point is a fraction of the picture's longer side. Distortion is Brown's, of
which the formats' public descriptions do not say more; small as it is, it is taken as OpenCV's.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scene.captures.folders import pictures_in
from scene.captures.listed import Listed, number, numbers, views_of
from scene.errors import InputError
from scene.frames import Frame, pose, pose_from_w2c
from scene.lens import Intrinsics, Lens
from scene.maps import picture_head
from scene.viewset import ViewSet

_COLUMNS = {"x", "y", "alt", "heading", "pitch", "roll", "f"}
_FILM = 36.0
"""Width in mm of the film that focal lengths belong to."""
_XMP = re.compile(rb"xcr:|xmlns:xcr")


def find_csv(path: Path) -> Path | None:
    """The first CSV file with such columns, or the file given."""
    files = [path] if path.is_file() else sorted(path.glob("*.csv"))
    return next((file for file in files if file.suffix.lower() == ".csv" and _is_csv(file)), None)


def find_xmp(path: Path) -> Path | None:
    """The first XMP file of RealityCapture's in a folder or its ``images/``, or the file given."""
    return next(iter(_xmp_files(path)), None)


def read_csv(path: Path) -> ViewSet:
    """Read such a CSV file, or a folder with one.

    Raises:
        InputError: the file is not of this form, or pictures are missing.
    """
    file = find_csv(path)
    if file is None:
        raise InputError("no CSV of RealityCapture's camera parameters here", where=path)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = [{(k or "").strip().lstrip("#"): v for k, v in row.items()} for row in csv.DictReader(opened)]
    except (OSError, ValueError, csv.Error, AttributeError) as error:
        raise InputError(f"cannot be read as CSV ({error})", where=file) from error

    def frame(one: Listed, said: list[str]) -> Frame:
        row: dict[str, str | None] = one.entry

        def value(name: str) -> float:
            text = row.get(name)
            return 0.0 if text in (None, "") else number(text, one.where, name)

        heading, pitch, roll = (np.radians(value(name)) for name in ("heading", "pitch", "roll"))
        c2w = np.eye(4)
        c2w[:3, :3] = _about("z", -heading) @ _about("x", pitch) @ _about("y", roll)
        c2w[:3, 3] = value("x"), value("y"), value("alt")
        width, height = picture_head(one.image).size
        unit = max(width, height) / _FILM
        focal = value("f") * unit
        if not focal > 0:
            raise InputError("has no focal length", where=one.where)
        intrinsics = Intrinsics(
            focal, focal, width / 2 + value("px") * unit, height / 2 + value("py") * unit, width, height
        )
        lens = Lens(k1=value("k1"), k2=value("k2"), k3=value("k3"), p1=value("t1"), p2=value("t2"), r8=value("k4"))
        return Frame(one.image, one.where, pose(c2w, one.where, notes=said), intrinsics, lens)

    return views_of(file, "realitycapture", rows, lambda row: row.get("name"), frame, up="z")


def read_xmp(path: Path) -> ViewSet:
    """Read a folder of pictures with such files beside them.

    Raises:
        InputError: files are not of this form, or pictures are missing.
    """
    files = _xmp_files(path.parent if path.is_file() else path)
    if not files:
        raise InputError("no XMP files of RealityCapture here", where=path)
    folder = files[0].parent
    pictures = {picture.stem: picture.name for picture in pictures_in(folder)}
    entries = [_Xmp(file, pictures.get(file.stem, f"{file.stem}.jpg")) for file in files]

    def frame(one: Listed, said: list[str]) -> Frame:
        text = one.entry.file.read_text(encoding="utf-8", errors="replace")
        where = str(one.entry.file)

        def found(name: str) -> str | None:
            match = re.search(rf'<xcr:{name}[^>]*>([^<]*)</xcr:{name}>|xcr:{name}="([^"]*)"', text)
            return None if match is None else (match[1] if match[1] is not None else match[2])

        rotation = numbers(found("Rotation") or "", 9, where, "Rotation").reshape(3, 3)
        centre = numbers(found("Position") or "", 3, where, "Position")
        width, height = picture_head(one.image).size
        side = max(width, height)
        focal = number(found("FocalLength35mm") or "", where, "FocalLength35mm") * side / _FILM
        if not focal > 0:
            raise InputError("has no focal length", where=where)
        shift = [number(found(f"PrincipalPoint{axis}") or "0", where, "the principal point") for axis in "UV"]
        # The format's own spelling.
        bends = numbers(found("DistortionCoeficients") or "0 0 0 0 0 0", 6, where, "DistortionCoeficients")
        intrinsics = Intrinsics(focal, focal, width / 2 + shift[0] * side, height / 2 + shift[1] * side, width, height)
        k1, k2, k3, k4, t1, t2 = map(float, bends)
        lens = Lens(k1=k1, k2=k2, k3=k3, p1=t1, p2=t2, r8=k4)
        c2w = pose_from_w2c(rotation, -rotation @ centre, where, said)
        return Frame(one.image, where, c2w, intrinsics, lens)

    return views_of(files[0], "realitycapture", entries, lambda entry: entry.picture, frame, up="z", folder=folder)


@dataclass(frozen=True)
class _Xmp:
    file: Path
    picture: str


def _is_csv(file: Path) -> bool:
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as opened:
            head = opened.readline(4096)
    except OSError:
        return False
    names = {name.strip().lstrip("#") for name in head.split(",")}
    return names >= _COLUMNS and "name" in names


def _xmp_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".xmp" and _is_xmp(path) else []
    for folder in (path, path / "images"):
        found = sorted(folder.glob("*.xmp")) if folder.is_dir() else []
        # Other programs write such files too: photo editors, for instance.
        if mine := [file for file in found if _is_xmp(file)]:
            return mine
    return []


def _is_xmp(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return _XMP.search(opened.read(65536)) is not None
    except OSError:
        return False


def _about(axis: str, angle: float) -> np.ndarray:
    """Rotation about an axis, right-handed."""
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    out = np.eye(3)
    out[a, a] = out[b, b] = cos
    out[a, b], out[b, a] = -sin, sin
    return out
