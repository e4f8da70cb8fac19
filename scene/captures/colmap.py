"""COLMAP reconstructions: ``cameras``, ``images`` and ``points3D`` as ``.bin`` or ``.txt``, beside the pictures.

World-to-camera poses in OpenCV axes; pixels counted from the corner of the first one. COLMAP's world has any heading:
it is turned z up as the cameras tell.
Source: COLMAP's documentation, "Output Format" and its camera models.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scene.captures.colmap_files import (
    Cameras,
    Image,
    binary_cameras,
    binary_images,
    binary_points,
    text_cameras,
    text_images,
    text_points,
)
from scene.captures.folders import subfolder
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, Sieve, pose_from_w2c
from scene.named_files import NamedFiles
from scene.viewset import ViewSet

_PLACES = (".", "sparse", "colmap/sparse", "dense/sparse", "colmap")


def find_model(folder: Path) -> Path | None:
    """Where the COLMAP model of a capture folder lies: of several (``sparse/0``, ``sparse/1``) the largest."""
    for place in _PLACES:
        top = folder / place
        if not top.is_dir():
            continue
        numbered = [path for path in sorted(top.iterdir()) if path.is_dir() and path.name.isdigit()]
        models = [path for path in (top, *numbered) if _file(path, "cameras") and _file(path, "images")]
        if models:
            return max(models, key=lambda path: _images_file(path).stat().st_size)
    return None


def read_colmap(folder: Path) -> ViewSet:
    """Read a capture folder with a COLMAP model in it; sparse points come along.

    Pictures are looked for in ``images/``, beside the model, and in the folder itself; masks in ``masks/`` as
    ``NAME.png`` or ``NAME.jpg.png``. Images that are of no use are left out, and told.

    Raises:
        InputError: a file is damaged (which, and in which record), pictures are missing, or a lens model is unknown.
    """
    model = find_model(folder)
    if model is None:
        raise InputError("no COLMAP model (cameras.bin and images.bin, or .txt) here", where=folder)
    cameras, images, points, notes = _model(model)
    file = _images_file(model)
    if not images:
        raise InputError("lists no images", where=file)
    tops = ["images", *(_relative(top / "images", folder) for top in (model, model.parent, model.parent.parent)), ""]
    names = NamedFiles(folder, [image.name for image in images], tops=tops)
    masks = subfolder(folder, ("masks", "mask"))
    sieve, frames = Sieve(file, notes=notes), list[Frame]()
    for image in sorted(images, key=lambda image: image.name):
        frame = sieve.keep(partial(_frame, image, cameras, names, masks, file, sieve.notes))
        frames += [] if frame is None else [frame]
    sieve.settle(len(frames))
    metadata = {
        "format": "colmap",
        "model": model.relative_to(folder).as_posix(),
        "notes": [*dict.fromkeys(sieve.notes), *names.notes],
    }
    if points is not None:
        points = points[np.isfinite(points).all(axis=1)]
    return align_up(ViewSet.of_frames(frames, file, metadata, points))


def _frame(
    image: Image, cameras: Cameras, names: NamedFiles, masks: Path | None, file: Path, notes: list[str]
) -> Frame:
    where = f"{file}, image {image.name}"
    if image.camera not in cameras:
        raise InputError(f"its camera {image.camera} is not in the list of cameras", where=where)
    intrinsics, lens = cameras[image.camera]
    picture = names.find(image.name, "the name", where)
    c2w = pose_from_w2c(_rotation(image, where, notes), image.translation, where)
    return Frame(picture, where, c2w, intrinsics, lens, mask=_mask(masks, image.name))


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()


def _model(model: Path) -> tuple[Cameras, list[Image], Float[np.ndarray, "n 3"] | None, list[str]]:
    """Cameras, images, points, and what there is to say of them."""
    notes: list[str] = []
    try:
        # Both kinds may lie there: COLMAP itself prefers the binary one.
        if _images_file(model).suffix == ".bin":
            points = model / "points3D.bin"
            return (
                binary_cameras(model / "cameras.bin"),
                binary_images(model / "images.bin"),
                binary_points(points) if points.is_file() else None,
                notes,
            )
        points = model / "points3D.txt"
        return (
            text_cameras(model / "cameras.txt"),
            text_images(model / "images.txt", notes),
            text_points(points) if points.is_file() else None,
            notes,
        )
    except OSError as error:
        raise InputError(f"cannot be read ({error})", where=model) from error


def _file(model: Path, name: str) -> Path | None:
    return next((path for end in (".bin", ".txt") if (path := model / (name + end)).is_file()), None)


def _images_file(model: Path) -> Path:
    whole = all((model / f"{name}.bin").is_file() for name in ("cameras", "images"))
    return model / ("images.bin" if whole else "images.txt")


def _mask(masks: Path | None, name: str) -> Path | None:
    if masks is None:
        return None
    candidates = (masks / f"{name}.png", (masks / name).with_suffix(".png"), masks / name)
    return next((path for path in candidates if path.is_file()), None)


def _rotation(image: Image, where: str, notes: list[str]) -> Float[np.ndarray, "3 3"]:
    """The rotation matrix of a quaternion (w, x, y, z), which is normalised first."""
    length = float(np.linalg.norm(image.quaternion)) if np.isfinite(image.quaternion).all() else 0.0
    if not 1e-3 < length < 1e3:
        raise InputError("its quaternion has no sensible length", where=where)
    if abs(length - 1) > 1e-2:
        notes.append("quaternions are not of length one: they were taken for rotations all the same")
    w, x, y, z = image.quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
