"""Renders with one calibration for all: ``cameras.json`` with K and poses, ``000.png``, perhaps ``000-depth.png``.

This is how SyncDreamer's evaluation renders come. Poses are world-to-camera, 3x4, OpenCV
axes, the world is z up, and the principal point counts pixels from the corner of the first one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from scene.camera import c2w_from_colmap
from scene.captures.folders import numbered, pictures_in
from scene.captures.projections import factor_notes, fitting_factor, intrinsics_of
from scene.documents import read_object
from scene.errors import InputError
from scene.frames import Frame, pose
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
    sizes = [picture_head(picture).size for picture in pictures]
    factor = fitting_factor([k] * len(sizes), sizes, where=file)
    frames = []
    for index, picture, size in zip(numbered(pictures, len(poses), file), pictures, sizes):
        where = f"{file}, pose {index}"
        w2c = pose(poses[index], where, "its matrix")
        frames.append(Frame(picture, where, c2w_from_colmap(w2c[:3, :3], w2c[:3, 3]), intrinsics_of(k, size, factor)))
    metadata = {"format": "cameras_json", "up": "given", "notes": factor_notes(factor)}
    views = ViewSet.of_frames(frames, file, metadata)
    depths = [picture.with_name(f"{picture.stem}-depth.png") for picture in pictures]
    if not any(depth.is_file() for depth in depths):
        return views
    scale, offset = _depth_unit(content, file)
    deep = [_with_depth(view, depth, scale, offset) for view, depth in zip(views, depths)]
    return ViewSet(tuple(deep), views.has_masks, views.metadata)


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


def _with_depth(view: View, file: Path, scale: float, offset: float) -> View:
    values = load_depth(file, (view.camera.width, view.camera.height))
    seen = (values > 0) & (values < values.max()) & (view.rgba()[..., 3] > 127)
    depth = np.where(seen, values.astype(np.float64) * scale + offset, 0).astype(np.float32)
    return View(view.name, view.camera, view.pixels, view.image_path, depth_source=depth, as_stored=view.as_stored)
