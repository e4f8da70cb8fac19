"""Bundler's ``bundle.out``: focal length and two radial coefficients per camera, OpenGL axes, origin in the middle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scene.captures.folders import pictures_in, subfolder
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, inside, pose_from_w2c, require_files
from scene.lens import Intrinsics, Lens
from scene.maps import picture_head
from scene.viewset import ViewSet


def find_bundle(folder: Path) -> Path | None:
    """The bundle file of a folder."""
    return next((path for name in ("bundle.out", "bundle/bundle.out") if (path := folder / name).is_file()), None)


def read_bundler(path: Path) -> ViewSet:
    """Read a Bundler capture: its folder, or its ``bundle.out``; cameras that were not placed are left out.

    Pictures are those of ``list.txt``, else all in the folder (or its ``images/``) if they are as many as the cameras.
    The world is turned z up as the cameras tell; points come along.

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
    pictures = _pictures(file, cameras)
    placed = [k for k in range(cameras) if numbers[2 + 15 * k] != 0]
    if not placed:
        raise InputError("holds no camera that was placed", where=file)
    require_files([pictures[k] for k in placed], "pictures", file)
    frames = []
    for k in placed:
        where = f"{file}, camera {k}"
        values = numbers[2 + 15 * k : 17 + 15 * k]
        if not np.isfinite(values).all():
            raise InputError("holds NaN or infinity", where=where)
        # World-to-camera in OpenGL axes; turned by pi about x it is the OpenCV one that the helper wants.
        flip = np.diag([1.0, -1.0, -1.0])
        c2w = pose_from_w2c(flip @ values[3:12].reshape(3, 3), flip @ values[12:15], where)
        width, height = picture_head(pictures[k]).size
        focal, k1, k2 = (float(value) for value in values[:3])
        intrinsics = Intrinsics(focal, focal, width / 2, height / 2, width, height)
        frames.append(Frame(pictures[k], where, c2w, intrinsics, Lens(k1, k2)))
    left_out = [f"{cameras - len(placed)} pictures have no pose and were left out"] if len(placed) < cameras else []
    cloud = _points(numbers[2 + 15 * cameras :], points, file)
    return align_up(ViewSet.of_frames(frames, file, {"format": "bundler", "notes": left_out}, cloud))


def _pictures(file: Path, count: int) -> list[Path]:
    tops = (file.parent, file.parent.parent) if file.parent.name == "bundle" else (file.parent,)
    for top in tops:
        listing = top / "list.txt"
        if not listing.is_file():
            continue
        lines = [line.split() for line in listing.read_text(encoding="utf-8", errors="replace").splitlines()]
        names = [words[0] for words in lines if words]
        if len(names) != count:
            raise InputError(f"lists {len(names)} pictures, {file.name} has {count} cameras", where=listing)
        paths = [inside(top, name, "the name", f"{listing}, line {k + 1}") for k, name in enumerate(names)]
        images = subfolder(top, ("images", "visualize"))
        if images is not None and not any(path.is_file() for path in paths):
            paths = [images / path.name for path in paths]
        return paths
    for top in tops:
        for folder in (top, top / "images"):
            found = pictures_in(folder)
            if len(found) == count:
                return found
    raise InputError(
        f"no list.txt, and not {count} pictures beside it",
        where=file,
        fix="Add list.txt with the pictures' names in the order of the cameras.",
    )


def _points(numbers: np.ndarray, count: int, file: Path) -> np.ndarray:
    """Positions of points: each is three coordinates, three colours, and a list of (camera, key, x, y)."""
    points, at = [], 0
    for k in range(count):
        views = numbers[at + 6] if at + 6 < numbers.size else np.nan
        end = at + 7 + 4 * views
        if not end <= numbers.size or views < 0:
            raise InputError(f"is truncated in point {k} of {count}", where=file)
        points.append(numbers[at : at + 3])
        at = int(end)
    cloud = np.array(points).reshape(-1, 3)
    return cloud[np.isfinite(cloud).all(axis=1)]
