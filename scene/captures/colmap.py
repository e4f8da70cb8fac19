"""COLMAP reconstructions: ``cameras``, ``images`` and ``points3D`` as ``.bin`` or ``.txt``, beside the pictures.

World-to-camera poses in OpenCV axes; pixels counted from the corner of the first one. COLMAP's world has any heading:
it is turned z up as the cameras tell.
Source: COLMAP's documentation, "Output Format" and its camera models.
"""

from __future__ import annotations

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
from scene.frames import Frame, inside, pose_from_w2c, require_files
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
    ``NAME.png`` or ``NAME.jpg.png``.

    Raises:
        InputError: a file is damaged (which, and in which record), pictures are missing, or a lens model is unknown.
    """
    model = find_model(folder)
    if model is None:
        raise InputError("no COLMAP model (cameras.bin and images.bin, or .txt) here", where=folder)
    cameras, images, points = _model(model)
    file = _images_file(model)
    if not images:
        raise InputError("lists no images", where=file)
    pictures = _pictures(folder, model, images, file)
    masks = subfolder(folder, ("masks", "mask"))
    frames = []
    for image, picture in sorted(zip(images, pictures), key=lambda pair: pair[0].name):
        where = f"{file}, image {image.name}"
        if image.camera not in cameras:
            raise InputError(f"its camera {image.camera} is not in the list of cameras", where=where)
        intrinsics, lens = cameras[image.camera]
        c2w = pose_from_w2c(_rotation(image, where), image.translation, where)
        frames.append(Frame(picture, where, c2w, intrinsics, lens, mask=_mask(masks, image.name)))
    metadata = {"format": "colmap", "model": model.relative_to(folder).as_posix()}
    if points is not None:
        points = points[np.isfinite(points).all(axis=1)]
    return align_up(ViewSet.of_frames(frames, file, metadata, points))


def _model(model: Path) -> tuple[Cameras, list[Image], Float[np.ndarray, "n 3"] | None]:
    try:
        # Both kinds may lie there: COLMAP itself prefers the binary one.
        if _images_file(model).suffix == ".bin":
            points = model / "points3D.bin"
            return (
                binary_cameras(model / "cameras.bin"),
                binary_images(model / "images.bin"),
                binary_points(points) if points.is_file() else None,
            )
        points = model / "points3D.txt"
        return (
            text_cameras(model / "cameras.txt"),
            text_images(model / "images.txt"),
            text_points(points) if points.is_file() else None,
        )
    except OSError as error:
        raise InputError(f"cannot be read ({error})", where=model) from error


def _file(model: Path, name: str) -> Path | None:
    return next((path for end in (".bin", ".txt") if (path := model / (name + end)).is_file()), None)


def _images_file(model: Path) -> Path:
    whole = all((model / f"{name}.bin").is_file() for name in ("cameras", "images"))
    return model / ("images.bin" if whole else "images.txt")


def _pictures(folder: Path, model: Path, images: list[Image], file: Path) -> list[Path]:
    """The pictures of a model's images, in the first folder that has any of them."""
    names = [inside(folder, image.name, "the name", f"{file}, image {k}") for k, image in enumerate(images)]
    relative = [name.relative_to(folder) for name in names]
    tops = [folder / "images", model / "images", model.parent / "images", model.parent.parent / "images", folder]
    top = next((top for top in tops if any((top / name).is_file() for name in relative)), folder / "images")
    pictures = [top / name for name in relative]
    require_files(pictures, "pictures", file)
    return pictures


def _mask(masks: Path | None, name: str) -> Path | None:
    if masks is None:
        return None
    candidates = (masks / f"{name}.png", (masks / name).with_suffix(".png"), masks / name)
    return next((path for path in candidates if path.is_file()), None)


def _rotation(image: Image, where: str) -> Float[np.ndarray, "3 3"]:
    """The rotation matrix of a quaternion (w, x, y, z), which is normalised first."""
    length = float(np.linalg.norm(image.quaternion)) if np.isfinite(image.quaternion).all() else 0.0
    if not 0.5 < length < 2:
        raise InputError("its quaternion has no sensible length", where=where)
    w, x, y, z = image.quaternion / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
