"""Depths and normals beside the pictures, and what a picture file says of itself."""

from __future__ import annotations

import tokenize
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Float32, Shaped

from scene.errors import InputError
from scene.files import written_aside
from scene.pictures.opening import opened, orientation_of, stored_size

DepthMap = Float32[np.ndarray, "h w"]
NormalMap = Float32[np.ndarray, "h w 3"]
_BROKEN = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    tokenize.TokenError,
)
"""What numpy's and Pillow's readers raise when a file is not what its head promises."""


class PictureHead(NamedTuple):
    """What a picture file says of itself before it is decoded.

    Args:
        size: width and height of the pixels as stored.
        turned: whether its EXIF orientation asks viewers to show it in another way.
        upright: width and height after that.
        has_alpha: whether it has transparency.
        orientation: as EXIF numbers it.
    """

    size: tuple[int, int]
    turned: bool
    upright: tuple[int, int]
    has_alpha: bool
    orientation: int = 1


def picture_head(path: Path) -> PictureHead:
    """Read a picture's size and kind without decoding it.

    Raises:
        InputError: the file is missing or no picture.
    """
    with opened(path) as image:
        orientation = orientation_of(image)
        stored = stored_size(image, orientation)
        has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
        upright = stored[::-1] if orientation >= 5 else stored
        return PictureHead(stored, orientation > 1, upright, has_alpha, orientation)


def load_depth(path: Path, size: tuple[int, int]) -> DepthMap:
    """Read a depth map in the file's own unit: 16- or 32-bit PNG or TIFF, or ``.npy``; 0 is unknown.

    Maps of another resolution but the same shape (of a depth camera beside a colour camera) are resampled to ``size``
    (width, height) by the nearest value.

    Raises:
        InputError: the file is missing, damaged, no depth map, or of another shape than its picture.
    """
    values = _array(path)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "uif" or values.size == 0:
        raise InputError(
            f"is no depth map (it holds {values.dtype} of shape {values.shape})",
            where=path,
            fix="Depth needs one channel of numbers: a 16-bit grey PNG or a 2D .npy.",
        )
    depth = np.asarray(values, dtype=np.float32)
    height, width = depth.shape
    if (width, height) != size:
        # One pixel of rounding on the coarser side is allowed.
        if abs(width * size[1] - height * size[0]) > max(size):
            raise InputError(f"the depth map is {width}x{height}, its picture {size[0]}x{size[1]}", where=path)
        depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    return known(depth)


def load_normals(path: Path, size: tuple[int, int]) -> NormalMap:
    """Read normals: ``.npy`` of vectors, or an 8- or 16-bit RGB picture with 0 to full scale for -1 to 1.

    Raises:
        InputError: the file is missing, damaged, no normal map, or not of ``size`` (width, height).
    """
    values = _array(path)
    if values.ndim != 3 or values.shape[2] < 3 or values.dtype.kind not in "uif":
        raise InputError(f"is no normal map (it holds {values.dtype} of shape {values.shape})", where=path)
    if values.shape[1::-1] != size:
        shape = f"{values.shape[1]}x{values.shape[0]}"
        raise InputError(f"the normal map is {shape}, its picture {size[0]}x{size[1]}", where=path)
    normals = np.asarray(values[..., :3], dtype=np.float32)
    if values.dtype.kind in "ui":
        unknown = (values[..., :3] == 0).all(axis=-1, keepdims=True)
        normals = np.where(unknown, np.float32(0), normals / np.iinfo(values.dtype).max * 2 - 1)
    return unit(normals)


def save_array(path: Path, values: Shaped[np.ndarray, "..."]) -> None:
    """Write a ``.npy`` aside and rename it."""
    with written_aside(path) as partial:
        np.save(partial, values)


def known(depth: Float32[np.ndarray, "h w"]) -> DepthMap:
    """Depths with 0 where they are not finite or not positive."""
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))


def unit(normals: Float32[np.ndarray, "h w 3"]) -> NormalMap:
    """Normals of length 1, and 0 where they have no length to speak of."""
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    sound = np.isfinite(length) & (length > 0.1)
    return np.where(sound, normals / np.where(sound, length, 1), 0).astype(np.float32)


def _array(path: Path) -> Shaped[np.ndarray, "..."]:
    if not path.is_file():
        raise InputError("there is no such file", where=path)
    try:
        if path.suffix.lower() == ".npy":
            # Mapped first: a head that promises more than the file holds must not allocate it.
            return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        with opened(path) as image:
            depth_kinds = ("I", "F", "I;16", "I;16B", "I;16L", "L")
            if image.mode in depth_kinds:
                return np.array(image)
        values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # Pillow reduces 16-bit colour to 8
        if values is None:
            raise ValueError("pixels of a kind that is not read")
        return values[..., 2::-1] if values.ndim == 3 and values.shape[2] >= 3 else values
    except (InputError, *_BROKEN, cv2.error) as error:
        said = error.what if isinstance(error, InputError) else error
        raise InputError(
            f"cannot be read as a map ({said})", where=path, fix="Save it as 16-bit PNG or .npy."
        ) from error
