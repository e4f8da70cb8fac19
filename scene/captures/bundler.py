"""Bundler's ``bundle.out``: focal length and two radial coefficients per camera, OpenGL axes, origin in the middle."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scene.captures.folders import pictures_in
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, Sieve, pose_from_w2c, with_files
from scene.lens import Intrinsics, Lens
from scene.maps import picture_head
from scene.named_files import NamedFiles
from scene.viewset import ViewSet


def find_bundle(folder: Path) -> Path | None:
    """The bundle file of a folder: ``bundle.out``, or the only ``NAME.out`` that begins like one."""
    usual = next((path for name in ("bundle.out", "bundle/bundle.out") if (path := folder / name).is_file()), None)
    if usual is not None or not folder.is_dir():
        return usual
    found = [path for path in sorted(folder.glob("*.out")) if is_bundle(path)]
    return found[0] if len(found) == 1 else None


def is_bundle(file: Path) -> bool:
    """Whether a file begins as Bundler's do."""
    try:
        with file.open("rb") as opened:
            return opened.read(64).lstrip().lower().startswith(b"# bundle file")
    except OSError:
        return False


def read_bundler(path: Path) -> ViewSet:
    """Read a Bundler capture: its folder, or its ``bundle.out``; cameras that were not placed are left out.

    Pictures are those of a list: ``list.txt``, RealityCapture's ``imagelist.lst``, or ``NAME.list.txt`` beside
    ``NAME.bundle.out``. Without one they are all in the folder (or its ``images/``) in order of their names, if they
    are as many as the cameras, and this is told. The world is turned z up as the cameras tell; points come along.

    Raises:
        InputError: the file is truncated or holds something else, or cameras and pictures do not belong together.
    """
    file = path if path.is_file() else find_bundle(path)
    if file is None:
        raise InputError("no bundle.out here", where=path)
    try:
        text = file.read_text(encoding="utf-8")
        words = [word for line in text.splitlines() if not line.startswith("#") for word in line.split()]
        numbers = np.array([float(word) for word in words])
    except (OSError, ValueError) as error:
        raise InputError(f"is not a bundle file ({error})", where=file) from error
    if numbers.size < 2 or min(numbers[:2]) < 0 or not np.isfinite(numbers[:2]).all():
        raise InputError("does not begin with the numbers of cameras and points", where=file)
    cameras, points = int(numbers[0]), int(numbers[1])
    if numbers.size < 2 + 15 * cameras:
        raise InputError(f"is truncated in camera {(numbers.size - 2) // 15} of {cameras}", where=file)
    sieve, frames = Sieve(file), list[Frame]()
    pictures = _pictures(file, cameras, sieve)
    placed = [k for k in range(cameras) if numbers[2 + 15 * k] != 0]
    if not placed:
        raise InputError("holds no camera that was placed", where=file)
    there = with_files([_Named(k, pictures[k]) for k in placed], "picture", "pictures", sieve)
    for k, picture in there:
        found = sieve.keep(partial(_frame, numbers[2 + 15 * k : 17 + 15 * k], picture, f"{file}, camera {k}", sieve))
        frames += [] if found is None else [found]
    sieve.settle(len(frames))
    if len(placed) < cameras:
        sieve.notes.append(f"{cameras - len(placed)} pictures have no pose and were left out")
    cloud = _points(numbers[2 + 15 * cameras :], points, file, sieve.notes)
    metadata = {"format": "bundler", "notes": list(dict.fromkeys(sieve.notes))}
    return align_up(ViewSet.of_frames(frames, file, metadata, cloud))


class _Named(NamedTuple):
    """A camera's number and its picture."""

    number: int
    picture: Path


def _frame(values: Float[np.ndarray, "15"], picture: Path, where: str, sieve: Sieve) -> Frame:
    if not np.isfinite(values).all():
        raise InputError("holds NaN or infinity", where=where)
    # World-to-camera in OpenGL axes; turned by pi about x it is the OpenCV one that the helper wants.
    flip = np.diag([1.0, -1.0, -1.0])
    c2w = pose_from_w2c(flip @ values[3:12].reshape(3, 3), flip @ values[12:15], where, sieve.notes)
    width, height = picture_head(picture).size
    focal, k1, k2 = (float(value) for value in values[:3])
    intrinsics = Intrinsics(focal, focal, width / 2, height / 2, width, height)
    return Frame(picture, where, c2w, intrinsics, Lens(k1, k2))


def _pictures(file: Path, count: int, sieve: Sieve) -> list[Path]:
    tops = (file.parent, file.parent.parent) if file.parent.name == "bundle" else (file.parent,)
    for top in tops:
        listing = _listing(file, top)
        if listing is None:
            continue
        lines = listing.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [_name(line) for line in lines if line.strip()]
        if len(names) != count:
            raise InputError(f"lists {len(names)} pictures, {file.name} has {count} cameras", where=listing)
        named = NamedFiles(top, names, tops=("", "images", "visualize"))
        paths = [named.find(name, "the name", f"{listing}, line {k + 1}") for k, name in enumerate(names)]
        sieve.notes += named.notes
        return paths
    for top in tops:
        for folder in (top, top / "images"):
            found = pictures_in(folder)
            if len(found) == count:
                sieve.notes.append(
                    f"no list says which picture belongs to which camera: they were paired in order of their names, "
                    f"from {found[0].name} to {found[-1].name}"
                )
                return found
    raise InputError(
        f"no list.txt, and not {count} pictures beside it",
        where=file,
        fix="Add list.txt with the pictures' names in the order of the cameras.",
    )


def _listing(file: Path, top: Path) -> Path | None:
    """The file that names the pictures of a bundle, in the cameras' order."""
    stem = file.name.removesuffix(".out").removesuffix(".bundle")
    names = (f"{stem}.list.txt", f"{stem}.lst", "list.txt", "imagelist.lst", "imagelist.txt", f"{file.name}.list.txt")
    return next((path for name in names if (path := top / name).is_file()), None)


def _name(line: str) -> str:
    """The name in a line of a list; Bundler writes two numbers behind it, and names may hold spaces."""
    return re.sub(r"(\s+-?[\d.]+(e[-+]?\d+)?){1,2}$", "", line.strip(), flags=re.IGNORECASE).strip('"')


def _points(numbers: np.ndarray, count: int, file: Path, notes: list[str]) -> np.ndarray:
    """Positions of points: each is three coordinates, three colours, and a list of (camera, key, x, y)."""
    points, at = [], 0
    for k in range(count):
        views = numbers[at + 6] if at + 6 < numbers.size else np.nan
        end = at + 7 + 4 * views
        if not end <= numbers.size or views < 0:
            raise InputError(f"is truncated in point {k} of {count}", where=file)
        points.append(numbers[at : at + 3])
        at = int(end)
    if at < numbers.size:
        notes.append(f"{numbers.size - at} numbers are left over at the end of {file.name}: its head promises less")
    cloud = np.array(points).reshape(-1, 3)
    return cloud[np.isfinite(cloud).all(axis=1)]
