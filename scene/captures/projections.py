"""3x4 projection matrices: what camera they are, and captures that give one in ``NAME_P.txt`` beside every picture."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scene.camera import Mat4
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, Sieve, pose_from_w2c
from scene.lens import Intrinsics
from scene.maps import picture_head
from scene.viewset import ViewSet

_ENDINGS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
_FACTORS = (1.0, 1 / 2, 1 / 3, 1 / 4, 1 / 8, 2.0, 3.0, 4.0, 8.0)


def read_projections(folder: Path) -> ViewSet:
    """Read a folder of pictures with ``NAME_P.txt`` (3 rows of 4 numbers) beside each; others are left out.

    Pixels are counted from the first one's centre. The world is turned z up as the cameras tell.

    Raises:
        InputError: a file is no projection matrix, or its camera cannot belong to the picture.
    """
    files = sorted(folder.glob("*_P.txt"))
    if not files:
        raise InputError("no NAME_P.txt here", where=folder)
    sieve, cameras = Sieve(folder), list[_Camera]()
    for file in files:
        camera = sieve.keep(partial(_camera, file))
        cameras += [] if camera is None else [camera]
    sieve.settle(len(cameras))
    factor = fitting_factor([camera.calibration for camera in cameras], [c.size for c in cameras], where=folder)
    frames = [
        Frame(c.picture, str(c.file), c.c2w, intrinsics_of(c.calibration, c.size, factor, first_centre=0.0))
        for c in cameras
    ]
    metadata = {"format": "projections", "notes": [*sieve.notes, *factor_notes(factor)]}
    return align_up(ViewSet.of_frames(frames, folder, metadata))


class _Camera(NamedTuple):
    """A picture with its size, calibration, pose, and the file that holds them."""

    file: Path
    picture: Path
    size: tuple[int, int]
    calibration: Float[np.ndarray, "3 3"]
    c2w: Mat4


def _camera(file: Path) -> _Camera:
    stem = file.name[: -len("_P.txt")]
    image = next((path for end in _ENDINGS if (path := file.with_name(stem + end)).is_file()), None)
    if image is None:
        raise InputError(f"its picture {stem}.jpg (or .png) is missing", where=file)
    calibration, c2w = decomposed(_matrix(file), str(file))
    return _Camera(file, image, picture_head(image).size, calibration, c2w)


def decomposed(matrix: Float[np.ndarray, "3 4"], where: str) -> tuple[Float[np.ndarray, "3 3"], Mat4]:
    """Calibration matrix (last entry 1) and camera-to-world pose of a projection matrix for OpenCV axes, of any sign.

    Raises:
        InputError: it is not finite, singular, or skewed by a pixel or more.
    """
    if not np.isfinite(matrix).all():
        raise InputError("the projection matrix holds NaN or infinity", where=where)
    left = matrix[:, :3]
    largest = np.abs(left).max()
    if largest == 0 or np.linalg.cond(left / largest) > 1e12:
        raise InputError("the projection matrix is singular: it is no camera", where=where)
    matrix = matrix * (np.sign(np.linalg.det(left / largest)) / np.linalg.norm(left[2]))
    # RQ by QR of the matrix turned about; then signs that make focal lengths positive.
    q, r = np.linalg.qr(matrix[::-1, :3].T)
    k, rotation = r.T[::-1, ::-1], q.T[::-1]
    signs = np.where(np.diag(k) < 0, -1.0, 1.0)
    k, rotation = k * signs, rotation * signs[:, None]
    translation = np.linalg.solve(k, matrix[:, 3])
    k = k / k[2, 2]
    if abs(k[0, 1]) >= 1:
        raise InputError(
            f"the projection matrix has a skew of {k[0, 1]:.3g} pixels",
            where=where,
            fix="Only square-cornered pixels (skew below 1) are supported.",
        )
    return k, pose_from_w2c(rotation, translation, where)


def fitting_factor(
    calibrations: list[Float[np.ndarray, "3 3"]], sizes: list[tuple[int, int]], *, where: Path | str
) -> float:
    """Size of the pictures over that of the pictures that were calibrated, from where the principal points fall.

    Raises:
        InputError: no common factor brings them near the pictures' middle.
    """
    points = np.array([[k[0, 2], k[1, 2]] for k in calibrations]) / np.array(sizes)
    # The nearest to the middle, 1 unless that is clearly outside of the usual.
    off = [float(np.abs(np.median(points, axis=0) * factor - 0.5).max()) for factor in _FACTORS]
    best = 0 if off[0] < 0.2 else int(np.argmin(off))
    if off[best] > 0.35:
        at = np.median(points, axis=0)
        raise InputError(
            f"principal points lie at {at[0]:.2f}, {at[1]:.2f} of the pictures' width and height",
            where=where,
            fix="Check that these pictures belong to these cameras, at their full size or evenly reduced.",
        )
    return _FACTORS[best]


def factor_notes(factor: float) -> list[str]:
    """What the metadata say of a factor."""
    return [] if factor == 1 else [f"cameras are for larger pictures: intrinsics were scaled by {factor:.4g}"]


def intrinsics_of(
    k: Float[np.ndarray, "3 3"], size: tuple[int, int], factor: float = 1.0, *, first_centre: float = 0.5
) -> Intrinsics:
    """Intrinsics of a calibration matrix for pictures of ``size`` (width, height).

    Args:
        k: the matrix; its entries are pixels of the calibrated picture.
        size: of the picture.
        factor: its size over the calibrated one's.
        first_centre: coordinate of the first pixel's centre in the matrix's convention, 0 or 0.5.
    """
    shift = 0.5 - first_centre
    cx, cy = ((float(k[row, 2]) + shift) * factor for row in (0, 1))
    return Intrinsics(float(k[0, 0]) * factor, float(k[1, 1]) * factor, cx, cy, *size)


def _matrix(file: Path) -> Float[np.ndarray, "3 4"]:
    try:
        words = file.read_text(encoding="utf-8").split()
        words = words[1:] if words and words[0] == "CONTOUR" else words  # the head of PMVS's files
        values = np.array([float(word) for word in words])
    except (OSError, ValueError) as error:
        raise InputError(f"is not a projection matrix ({error})", where=file) from error
    if values.size != 12:
        raise InputError(f"a projection matrix has 12 numbers, this file {values.size}", where=file)
    return values.reshape(3, 4)
