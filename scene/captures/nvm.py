"""VisualSFM's ``.nvm`` files: focal length, quaternion, centre and one radial coefficient for each picture.

The coefficient undoes the lens: undistorted = distorted (1 + c r^2) in units of the focal length (VisualSFM
documentation, "camera model"). The lens itself bends, to the first order, by -c.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from scene.captures.listed import Listed, numbers, views_of
from scene.documents import shown
from scene.errors import InputError
from scene.frames import Frame, pose_from_w2c
from scene.lens import Intrinsics, Lens
from scene.maps import picture_head
from scene.viewset import ViewSet

_HEAD = "NVM_V3"


class _Camera(NamedTuple):
    name: str
    values: list[str]


def find_nvm(path: Path) -> Path | None:
    """The first ``.nvm`` file of a folder, or the file given."""
    files = [path] if path.is_file() else sorted(path.glob("*.nvm"))
    return next((file for file in files if file.suffix.lower() == ".nvm"), None)


def read_nvm(path: Path) -> ViewSet:
    """Read the first model of such a file, or of a folder with one; points come along.

    Raises:
        InputError: the file is truncated or of another form, or pictures are missing.
    """
    file = find_nvm(path)
    if file is None:
        raise InputError("no .nvm file here", where=path)
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error})", where=file) from error
    if len(lines) < 2 or not lines[0].startswith(_HEAD):
        raise InputError(f"does not begin with {_HEAD}", where=file)
    count = _count(lines[1], file)
    if len(lines) < 2 + count:
        raise InputError(f"is truncated: {len(lines) - 2} of {count} cameras", where=file)
    cameras = [_camera(line, file) for line in lines[2 : 2 + count]]
    rest = lines[2 + count :]
    points = None
    if rest and (total := _count(rest[0], file)):
        if len(rest) < 1 + total:
            raise InputError(f"is truncated: {len(rest) - 1} of {total} points", where=file)
        points = np.array([numbers(line.split()[:3], 3, str(file), "a point") for line in rest[1 : 1 + total]])

    def frame(one: Listed, said: list[str]) -> Frame:
        values = numbers(one.entry.values[:9], 9, one.where, "its camera")
        focal, quaternion, centre, bend = float(values[0]), values[1:5], values[5:8], float(values[8])
        length = float(np.linalg.norm(quaternion))
        if not (focal > 0 and length > 0):
            raise InputError("has no focal length or no rotation", where=one.where)
        rotation = Rotation.from_quat(np.roll(quaternion / length, -1)).as_matrix()  # w comes first here
        c2w = pose_from_w2c(rotation, -rotation @ centre, one.where, said)
        width, height = picture_head(one.image).size
        return Frame(
            one.image, one.where, c2w, Intrinsics(focal, focal, width / 2, height / 2, width, height), Lens(k1=-bend)
        )

    return views_of(file, "nvm", cameras, lambda camera: camera.name, frame, up="cameras", points=points)


def _count(line: str, file: Path) -> int:
    text = line.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 8):
        raise InputError(f"says {shown(text)} where a count should be", where=file)
    return int(text)


def _camera(line: str, file: Path) -> _Camera:
    """Names with blanks are quoted, or told from the numbers by a tab."""
    if "\t" in line:
        name, _, rest = line.partition("\t")
        return _Camera(name.strip().strip('"'), rest.split())
    try:
        name, *values = shlex.split(line, posix=True)
    except ValueError as error:
        raise InputError(f"holds a line that cannot be read ({error})", where=file) from error
    return _Camera(name, values)
