"""Renders with one calibration for all: ``cameras.json`` with K and poses, ``000.png``, perhaps ``000-depth.png``.

This is how SyncDreamer's evaluation renders come. Poses are world-to-camera, 3x4, OpenCV
axes, the world is z up, and the principal point counts pixels from the corner of the first one.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scene.camera import Mat4, c2w_from_colmap
from scene.captures.folders import numbered, pictures_in
from scene.captures.projections import factor_notes, fitting_factor, intrinsics_of
from scene.documents import read_object
from scene.errors import InputError
from scene.frames import Frame, Sieve, pose
from scene.maps import load_depth, picture_head
from scene.view import View
from scene.viewset import ViewSet

_FORMULA = re.compile(r"z\s*=\s*v\s*/\s*([\d.e+-]+)\s*\*\s*([\d.e+-]+)\s*\+\s*([\d.e+-]+)")


def read_cameras_json(path: Path) -> ViewSet:
    """Read such a folder, or its ``cameras.json``.

    The key ``depth`` says how 16-bit depths are meant: a formula ``z = v/65535*1.8+0.6``, or a number that multiplies;
    depth is unknown where the file holds its largest value or the picture is transparent.

    Raises:
        InputError: the file is not of this form, or cameras and pictures do not belong together.
    """
    file = path / "cameras.json" if path.is_dir() else path
    folder = file.parent
    try:
        content = read_object(file)
        k = np.asarray(content["K"], dtype=np.float64)
        poses = content["poses"]
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"is not a camera file with K and poses ({error!r})", where=file) from error
    if k.shape != (3, 3) or not np.isfinite(k).all() or abs(k[2, 2] - 1) > 1e-6 or abs(k[0, 1]) >= 1:
        raise InputError("K is not a finite calibration matrix of 3 rows of 3 numbers", where=file)
    if not isinstance(poses, list) or not poses:
        raise InputError("poses is not a list of matrices", where=file)
    pictures = [picture for picture in pictures_in(folder) if picture.stem.isdigit()]
    if not pictures:
        raise InputError("no pictures 000.png, 001.png, ... beside it", where=file)
    sieve, posed = Sieve(file), list[tuple[Path, str, Mat4, tuple[int, int]]]()
    for index, picture in zip(numbered(pictures, len(poses), file, sieve.notes), pictures):
        found = sieve.keep(partial(_posed, poses[index], picture, f"{file}, pose {index}", sieve.notes))
        posed += [] if found is None else [found]
    sieve.settle(len(posed))
    factor = fitting_factor([k] * len(posed), [size for *_, size in posed], where=file)
    frames = [Frame(picture, where, c2w, intrinsics_of(k, size, factor)) for picture, where, c2w, size in posed]
    metadata = {"format": "cameras_json", "up": "given", "notes": [*sieve.notes, *factor_notes(factor)]}
    views = ViewSet.of_frames(frames, file, metadata)
    depths = {picture: picture.with_name(f"{picture.stem}-depth.png") for picture in pictures}
    there = {picture: depth for picture, depth in depths.items() if depth.is_file()}
    if not there:
        return views
    scale, offset = _depth_unit(content, file)
    deep = tuple(_with_depth(view, there.get(view.image_path or file), scale, offset) for view in views)
    lost = sum(view.image_path not in there for view in views)
    notes = [*views.metadata.get("notes", []), f"{lost} of {len(views)} depth maps are missing"]
    return ViewSet(deep, views.has_masks, {**views.metadata, "notes": notes} if lost else views.metadata)


def _posed(matrix: object, picture: Path, where: str, notes: list[str]) -> tuple[Path, str, Mat4, tuple[int, int]]:
    w2c = pose(matrix, where, "its matrix", notes)
    return picture, where, c2w_from_colmap(w2c[:3, :3], w2c[:3, 3]), picture_head(picture).size


def _depth_unit(content: dict[str, Any], file: Path) -> tuple[float, float]:
    """Scale and offset from a file's value to a depth."""
    said = content.get("depth", 1e-3)
    if isinstance(said, str) and (match := _FORMULA.search(said)):
        try:
            divisor, scale, offset = (float(word) for word in match.groups())
            said = scale / divisor
        except (ValueError, ZeroDivisionError):
            said = None
    else:
        offset = 0.0
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not (0 < said < 1e6 and abs(offset) < 1e6):
        raise InputError(
            "depth is neither a positive number nor a formula", where=file, fix='Write "z = v/65535*1.8+0.6", or 0.001.'
        )
    return float(said), offset


def _with_depth(view: View, file: Path | None, scale: float, offset: float) -> View:
    """The view with its depth map; one that says nothing if it has no file."""
    size = view.camera.width, view.camera.height
    values = np.zeros(size[::-1], np.float32) if file is None else load_depth(file, size)
    seen = (values > 0) & (values < values.max()) & (view.rgba()[..., 3] > 127)
    depth = np.where(seen, values.astype(np.float64) * scale + offset, 0).astype(np.float32)
    return View(view.name, view.camera, view.pixels, view.image_path, depth_source=depth, as_stored=view.as_stored)
