"""``cameras.json`` of 3D Gaussian Splatting: a list of cameras, of pictures that lie in ``images/`` or beside it.

Poses are camera-to-world in OpenCV axes, ``position`` and ``rotation`` apart. There is no principal point. The world is
that of the COLMAP model that the splats were trained on.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scene.camera import c2w_from_opencv
from scene.captures.folders import read_json
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, Sieve, pose
from scene.lens import Intrinsics
from scene.named_files import NamedFiles
from scene.viewset import ViewSet

_KEYS = {"img_name", "width", "height", "position", "rotation", "fx", "fy"}


def is_gaussians(content: Any) -> bool:
    """Whether JSON is such a list."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and {*content[0]} >= _KEYS


def read_gaussians(path: Path) -> ViewSet:
    """Read a folder with such a file, or the file.

    The principal point is taken in the middle of the pictures, and the world is turned z up as the cameras tell.

    Raises:
        InputError: the file is not of this form, or its pictures are missing.
    """
    file = path / "cameras.json" if path.is_dir() else path
    content = read_json(file)
    if not is_gaussians(content):
        raise InputError(f"is not a list of cameras with {', '.join(sorted(_KEYS))}", where=file)
    entries = [entry if isinstance(entry, dict) else {} for entry in content]
    names = NamedFiles(file.parent, [entry.get("img_name") for entry in entries], tops=("images", "", "input"))
    sieve, frames = Sieve(file), list[Frame]()
    for k, entry in enumerate(entries):
        frame = sieve.keep(partial(_frame, entry, names, f"{file}, camera {k}", sieve.notes))
        frames += [] if frame is None else [frame]
    sieve.settle(len(frames))
    middle = "the principal point is not given: taken in the middle of the pictures"
    notes = [middle, *dict.fromkeys(sieve.notes), *names.notes]
    return align_up(ViewSet.of_frames(frames, file, {"format": "gaussians", "notes": notes}))


def _frame(entry: dict[str, Any], names: NamedFiles, where: str, notes: list[str]) -> Frame:
    picture = names.find(entry.get("img_name"), "img_name", where)
    try:
        rotation, position = (np.asarray(entry[key], dtype=np.float64) for key in ("rotation", "position"))
        width, height, fx, fy = (float(entry[key]) for key in ("width", "height", "fx", "fy"))
        rows = np.concatenate([rotation.reshape(3, 3), position.reshape(3, 1)], axis=1)
        size = int(width), int(height)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"is no camera ({error!r})", where=where) from error
    c2w = c2w_from_opencv(pose(rows, where, "rotation and position", notes))
    return Frame(picture, where, c2w, Intrinsics(fx, fy, size[0] / 2, size[1] / 2, *size))
