"""Reading photos of any kind: orientation, odd modes, large sizes, masks."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from scene.errors import InputError

MAX_SIDE = 4096
"""Photos are reduced to this side while decoding, which bounds memory."""

_BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    NotImplementedError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What Pillow's readers raise when a file is not what its head promises."""

_BLOCK = 1 << 18
"""Pixels of a picture that are converted at a time."""

Size = tuple[int, int]
"""Width and height."""


def load_rgba(path: Path, max_side: int | None = None) -> UInt8[np.ndarray, "h w 4"]:
    """Read a picture as 8-bit straight-alpha RGBA, upright.

    Applies the EXIF orientation; converts grey, palette, CMYK and 16-bit pictures; takes an animation's first frame.

    Args:
        path: any format Pillow reads.
        max_side: reduce larger pictures to this longest side.

    Raises:
        InputError: the file is missing, no picture, damaged, or too large to decode safely.
    """
    return _load(path, max_side)[0]


def load_masked(path: Path, mask_path: Path, max_side: int | None = None) -> UInt8[np.ndarray, "h w 4"]:
    """Read a picture as :func:`load_rgba` does, with a mask of its size as stored for its alpha.

    Args:
        path: the picture.
        mask_path: its mask, see :func:`load_mask`.
        max_side: reduce both to this longest side if they are larger.

    Raises:
        InputError: a file cannot be read, or their sizes differ.
    """
    rgba, size = _load(path, max_side)
    rgba[..., 3] = load_mask(mask_path, size, rgba.shape[1::-1])
    return rgba


def load_mask(path: Path, size: Size, reduced: Size | None = None) -> UInt8[np.ndarray, "h w"]:
    """Read a mask for a picture of ``size`` (width, height): its alpha if it has one that varies, else its brightness.

    Args:
        path: the mask.
        size: of the picture as stored.
        reduced: the size to give the mask, if the picture has been reduced.

    Raises:
        InputError: the file cannot be read, or its size differs from the picture's.
    """
    rgba, own = _load(path, reduced=reduced)
    if own != size:
        raise InputError(
            f"the mask is {own[0]}x{own[1]}, its picture {size[0]}x{size[1]}",
            where=path,
            fix="Save the mask at the picture's size.",
        )
    if rgba[..., 3].min() < 255:
        return rgba[..., 3]
    return np.round(rgba[..., :3].mean(axis=-1)).astype(np.uint8)


def _load(
    path: Path, max_side: int | None = None, reduced: Size | None = None
) -> tuple[UInt8[np.ndarray, "h w 4"], Size]:
    """A picture as :func:`load_rgba` gives it, or of the size ``reduced``; and its upright size as stored."""
    if not path.is_file():
        raise InputError("there is no such file" if not path.exists() else "is a folder, not a picture", where=path)
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            if max_side is not None:
                opened.draft(None, (max_side, max_side))  # JPEG: decode at a fraction of the size
            opened.load()
            lying = opened.size
            ImageOps.exif_transpose(opened, in_place=True)  # upright pictures are not copied: large ones take 700 MB
            size = (width, height) if opened.size == lying else (height, width)
            image = _eight_bit(opened)
            if max_side is not None and max(image.size) > max_side:
                image.thumbnail((max_side, max_side), Image.Resampling.BOX)
            elif reduced is not None and image.size != reduced:
                image = image.resize(reduced, Image.Resampling.BOX)
            return np.array(image.convert("RGBA")), size
    except Image.DecompressionBombError as error:
        raise InputError(
            "the picture has too many pixels", where=path, fix="Reduce it below 170 megapixels."
        ) from error
    except _BROKEN as error:
        raise InputError(
            f"cannot be read as a picture ({error})", where=path, fix="Save it again as PNG, JPEG or WebP."
        ) from error


def _eight_bit(image: Image.Image) -> Image.Image:
    """The picture in a mode that Pillow can both reduce by averaging and convert to RGBA."""
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        most = max(int(rows.max()) for _, rows in _blocks(image))
        scale = 65535 if most > 255 else 255
        return _grey(image, lambda rows: (rows.astype(np.float64) / scale * 255).round())
    if image.mode == "F":
        factor = 255 if max(float(np.nan_to_num(rows).max()) for _, rows in _blocks(image)) <= 1 else 1
        return _grey(image, lambda rows: np.nan_to_num(rows) * factor)
    plain = image.mode in ("L", "LA", "RGB", "CMYK") and "transparency" not in image.info
    return image if plain else image.convert("RGBA")


def _grey(image: Image.Image, shade: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """The picture in shades of grey, made of its values by a function."""
    grey = np.empty(image.size[::-1], np.uint8)
    for first, rows in _blocks(image):
        grey[first : first + len(rows)] = np.clip(shade(rows), 0, 255).astype(np.uint8)
    return Image.fromarray(grey)


def _blocks(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """The picture's values, some rows at a time, each block with its first row: large ones take gigabytes as floats."""
    width, height = image.size
    count = max(1, _BLOCK // width)
    for first in range(0, height, count):
        yield first, np.asarray(image.crop((0, first, width, min(height, first + count))))
