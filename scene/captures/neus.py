"""NeuS and IDR captures: ``cameras*.npz`` with ``image/`` and perhaps ``mask/``.

``world_mat_i`` projects the world of the scan, ``scale_mat_i`` takes the unit sphere around the object to it. Pixels
are counted from the first one's centre, as NeuS casts its rays.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scene.archives import Archive, npz_archive
from scene.camera import Mat4
from scene.captures.folders import numbered, pictures_in, subfolder
from scene.captures.projections import decomposed, factor_notes, fitting_factor, intrinsics_of
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, Sieve
from scene.maps import picture_head
from scene.viewset import ViewSet


def read_neus(path: Path) -> ViewSet:
    """Read a NeuS capture: its folder, or its ``cameras*.npz``.

    The object's sphere becomes the unit sphere at the origin, and the world is turned z up as the cameras tell. Of
    several camera files ``cameras_sphere.npz`` counts, else the one whose principal points fit the pictures best.

    Raises:
        InputError: files are missing or damaged, or cameras and pictures do not belong together.
    """
    folder = path if path.is_dir() else path.parent
    images = subfolder(folder, ("image", "images", "rgb"))
    if images is None:
        raise InputError("no folder image/ with pictures here", where=folder)
    pictures = pictures_in(images)
    if not pictures:
        raise InputError("holds no pictures", where=images)
    files = [path] if path.is_file() else sorted(folder.glob("cameras*.npz"))
    if not files:
        raise InputError("no cameras*.npz here", where=folder)
    sphere = [file for file in files if file.name == "cameras_sphere.npz"]
    read = {file: _cameras(file, pictures) for file in sphere or files}

    def misfit(file: Path) -> float:
        points = np.array([camera.calibration[:2, 2] / camera.size for camera in read[file].cameras])
        return float(np.abs(np.median(points, axis=0) - 0.5).max())

    file = min(read, key=misfit)
    cameras, scale, sieve = read[file]
    factor = fitting_factor([camera.calibration for camera in cameras], [camera.size for camera in cameras], where=file)
    masks = subfolder(folder, ("mask", "masks"))
    mask_files = {} if masks is None else {mask.stem: mask for mask in pictures_in(masks)}
    if masks is not None and len(mask_files) == len(pictures) and not {p.stem for p in pictures} <= set(mask_files):
        mask_files = {picture.stem: mask for picture, mask in zip(pictures, pictures_in(masks))}
        sieve.notes.append("masks have other names than the pictures: they were paired in order of their names")
    frames = [
        Frame(
            camera.picture,
            camera.where,
            camera.c2w,
            intrinsics_of(camera.calibration, camera.size, factor, first_centre=0.0),
            mask=mask_files.get(camera.picture.stem),
        )
        for camera in cameras
    ]
    metadata = {
        "format": "neus",
        "cameras": file.name,
        "notes": [*sieve.notes, *factor_notes(factor)],
        "region": {"centre": [0.0, 0.0, 0.0], "radius": 1.0},
    }
    return align_up(ViewSet.of_frames(frames, file, metadata), np.linalg.inv(scale))


class _Camera(NamedTuple):
    """A picture with its size, calibration and pose in the scan's world."""

    picture: Path
    where: str
    size: tuple[int, int]
    calibration: Float[np.ndarray, "3 3"]
    c2w: Mat4


class _Cameras(NamedTuple):
    """What a file holds: cameras that are of use, its ``scale_mat_0``, and what is to be said of the others."""

    cameras: list[_Camera]
    scale: Mat4
    sieve: Sieve


def _cameras(file: Path, pictures: list[Path]) -> _Cameras:
    sieve, cameras = Sieve(file), list[_Camera]()
    with npz_archive(file, "cameras") as content:
        names = (re.fullmatch(r"world_mat_(\d{1,9})", key) for key in content.names)
        known = [int(found[1]) for found in names if found is not None]
        indices = numbered(pictures, max(known, default=-1) + 1, file, sieve.notes)
        scale = _matrix(content, "scale_mat_0", file)
        for index, picture in zip(indices, pictures):
            camera = sieve.keep(partial(_camera, content, index, picture, file))
            cameras += [] if camera is None else [camera]
    sieve.settle(len(cameras))
    size = float(np.abs(np.diag(scale)[:3]).mean()) if scale.shape == (4, 4) else 0.0
    if size == 0 or np.abs(scale[:3, :3] / size - np.eye(3)).max() > 1e-3 or scale[0, 0] < 0:
        raise InputError("scale_mat_0 is not a scale and a shift", where=file)
    return _Cameras(cameras, scale, sieve)


def _camera(content: Archive, index: int, picture: Path, file: Path) -> _Camera:
    where = f"{file}, world_mat_{index}"
    calibration, c2w = decomposed(_matrix(content, f"world_mat_{index}", file)[:3], where)
    return _Camera(picture, where, picture_head(picture).size, calibration, c2w)


def _matrix(content: Archive, key: str, file: Path) -> Float[np.ndarray, "_ 4"]:
    stored = content.array(key)
    if stored.shape not in ((4, 4), (3, 4)) or stored.dtype.kind not in "fiu" or not np.isfinite(stored).all():
        raise InputError(f"{key} is not a finite 4x4 matrix", where=file)
    return stored.astype(np.float64)
