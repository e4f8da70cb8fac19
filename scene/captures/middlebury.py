"""Middlebury multi-view sets: ``*_par.txt`` with K, R and t of every picture, world-to-camera, OpenCV axes."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np

from scene.captures.projections import intrinsics_of
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, Sieve, pose_from_w2c
from scene.maps import picture_head
from scene.named_files import NamedFiles
from scene.viewset import ViewSet


def read_middlebury(path: Path) -> ViewSet:
    """Read a Middlebury folder or its ``*_par.txt``; pictures that it does not list are left out.

    The world is turned z up as the cameras tell. The pictures have no masks; see
    :func:`scene.captures.masks.threshold_masks`.

    Raises:
        InputError: the file is not of this form, or a camera in it is none.
    """
    files = [path] if path.is_file() else sorted(path.glob("*_par.txt"))
    if len(files) != 1:
        raise InputError(f"{len(files)} files *_par.txt here, one is needed", where=path)
    file = files[0]
    try:
        lines = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        count = int(lines[0][0])
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"does not begin with the number of pictures ({error})", where=file) from error
    if len(lines) - 1 != count:
        raise InputError(f"lists {len(lines) - 1} pictures, its first line promises {count}", where=file)
    names = NamedFiles(file.parent, [line[0] for line in lines[1:]])
    sieve, frames = Sieve(file), list[Frame]()
    for k, line in enumerate(lines[1:]):
        where = f"{file}, picture {k}"
        if len(line) != 22:
            raise InputError(f"a picture has a name and 21 numbers, here are {len(line)} words", where=where)
        frame = sieve.keep(partial(_frame, line, names, where, sieve.notes))
        frames += [] if frame is None else [frame]
    sieve.settle(len(frames))
    return align_up(ViewSet.of_frames(frames, file, {"format": "middlebury", "notes": [*sieve.notes, *names.notes]}))


def _frame(words: list[str], names: NamedFiles, where: str, notes: list[str]) -> Frame:
    try:
        numbers = np.array([float(word) for word in words[1:]])
    except ValueError as error:
        raise InputError(f"holds something else than numbers ({error})", where=where) from error
    if not np.isfinite(numbers).all():
        raise InputError("holds NaN or infinity", where=where)
    calibration, rotation = numbers[:9].reshape(3, 3), numbers[9:18].reshape(3, 3)
    if not math.isclose(calibration[2, 2], 1, rel_tol=1e-6) or abs(calibration[0, 1]) >= 1:
        raise InputError("its calibration matrix has a skew or does not end with 1", where=where)
    image = names.find(words[0], "the name", where)
    if not image.is_file():
        raise InputError(f"the picture {words[0]} is missing: there is no such file", where=where)
    c2w = pose_from_w2c(rotation, numbers[18:], where, notes)
    return Frame(image, where, c2w, intrinsics_of(calibration, picture_head(image).size, first_centre=0.0))
