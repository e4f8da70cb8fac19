"""The range of a picture's values: pictures of more than 8 bits, and of floating-point numbers, to 8 bits of sRGB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from scene.pictures.colour import Curve, encoded, srgb_from_lab
from scene.pictures.opening import BROKEN
from scene.pictures.turns import upright

DEEP_GREY = ("I;16", "I;16L", "I;16B", "I", "F")
"""Pillow's modes of grey pictures with more than 8 bits."""

_BLOCK = 1 << 18
"""Pixels of a picture that are converted at a time."""
_SCALED = ("PPM", "JPEG2000")
"""Formats whose readers bring what the file says is white to 16 bits."""
_BITS, _PHOTOMETRIC, _MOST, _PLANAR, _FORMAT = 258, 262, 281, 284, 339
"""TIFF's tags BitsPerSample, PhotometricInterpretation, MaxSampleValue, PlanarConfiguration and SampleFormat."""
_TURN = 274


@dataclass(frozen=True)
class Depth:
    """What a file says of its values.

    Args:
        bits: of one value.
        white: the value of white, if the file says it.
        floating: whether values are floating-point numbers.
        inverted: whether 0 is white.
        significant: bits that were measured, if the file says it; they may lie at either end of a value.
        in_planes: whether each colour is stored by itself.
    """

    bits: int = 8
    white: float | None = None
    floating: bool = False
    inverted: bool = False
    significant: int | None = None
    in_planes: bool = False


class Levelled(NamedTuple):
    """A picture with 8 bits a channel.

    Args:
        image: of mode L, LA, RGB, RGBA or CMYK.
        notes: what was guessed.
        curved: whether the file's own curve has been applied.
    """

    image: Image.Image
    notes: tuple[str, ...] = ()
    curved: bool = False


def depth_of(path: Path, head: bytes, format: str | None, tags: dict[int, object]) -> Depth:
    """Read it from a file.

    Args:
        head: the file's first bytes, 32 at least.
        format: Pillow's name of its format; None for a TIFF whose pixels Pillow does not know.
        tags: of a TIFF.
    """
    if tags:
        bits, kind = _most_of(tags.get(_BITS)) or 1, _most_of(tags.get(_FORMAT))
        inverted = _most_of(tags.get(_PHOTOMETRIC)) == 0 and bits > 8
        depth = Depth(int(bits), floating=kind == 3, inverted=inverted, in_planes=tags.get(_PLANAR) == 2)
        most = _most_of(tags.get(_MOST))
        if most is not None and most > 0 and not depth.floating:
            return replace(depth, white=most)
        return replace(depth, white=float(2**bits - 1)) if 8 < bits < 16 else depth
    if format == "PNG" and len(head) > 24:
        return Depth(head[24], significant=_significant_bits(path) if head[24] == 16 else None)
    return Depth(16, white=65535.0) if format in _SCALED else Depth()


def to_eight_bit(
    image: Image.Image, path: Path, depth: Depth, curve: Curve | None, has_profile: bool, turned: int = 1
) -> Levelled:
    """A decoded picture with 8 bits a channel, in a mode that Pillow can reduce by averaging and convert to RGBA.

    Args:
        image: of any mode.
        path: its file.
        depth: what that says of its values.
        curve: from its values in [0, 1] to sRGB's.
        has_profile: whether an ICC profile, which is applied later, says what they mean.
        turned: the EXIF orientation that has been applied to the picture already.
    """
    if image.mode in DEEP_GREY:
        floating = image.mode == "F"
        shade, notes = _shade(lambda: (rows for _, rows in _blocks(image)), depth, curve, has_profile, floating)
        return Levelled(_grey(image, shade), notes, True)
    if depth.bits > 8 and image.mode in ("RGB", "RGBA", "RGBX", "LA"):
        # Pillow keeps the upper 8 bits, which is right if all 16 are used.
        if depth.in_planes:  # neither Pillow nor OpenCV reads these right
            raise ValueError("deep colours in separate planes are not read")
        values = _all_bits(path)
        if values is not None and values.dtype == np.uint16:
            values = upright(values, turned)
            white, _ = _white_of(float(values[..., :3].max()), depth)
            if values.shape[1::-1] == image.size and (white != 65535 or curve is not None):
                return colours_of(values, depth, curve, has_profile)
    if image.mode == "LAB":
        return Levelled(srgb_from_lab(image))
    plain = image.mode in ("L", "LA", "RGB", "CMYK") and "transparency" not in image.info
    return Levelled(image if plain else image.convert("RGBA"))


def deep_colours(path: Path, depth: Depth) -> Shaped[np.ndarray, "h w c"]:
    """The values of a TIFF whose pixels Pillow does not know, such as floating-point colours; not turned.

    Raises:
        ValueError: this reader does not know them either.
    """
    values = None if depth.in_planes or (depth.floating and depth.bits < 32) else _all_bits(path)
    if values is None or values.dtype.kind not in "uf":
        raise ValueError("pixels of a kind that is not read")
    return values


def colours_of(values: Shaped[np.ndarray, "h w c"], depth: Depth, curve: Curve | None, has_profile: bool) -> Levelled:
    """A picture of deep colours, with straight alpha last if there is any, with 8 bits a channel."""
    colours = values[..., :3]
    count = max(1, _BLOCK // values.shape[1])
    starts = range(0, len(values), count)
    floating = values.dtype.kind == "f"
    shade, notes = _shade(lambda: (colours[k : k + count] for k in starts), depth, curve, has_profile, floating)
    out = np.empty(values.shape, np.uint8)
    for k in starts:
        out[k : k + count, :, :3] = _bytes_of(shade(colours[k : k + count]))
    if values.shape[2] == 4:
        alpha = values[..., 3].astype(np.float32)
        # Alpha has the range of the colours, or all of the file's.
        full = 1.0 if floating else float(np.iinfo(values.dtype).max)
        white = full if floating else _white_of(float(colours.max()), depth)[0]
        out[..., 3] = _bytes_of(255 * alpha / (white if float(alpha.max()) <= white else full))
    return Levelled(Image.fromarray(out), notes, True)


def _shade(
    blocks: Callable[[], Iterator[np.ndarray]], depth: Depth, curve: Curve | None, has_profile: bool, floating: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[str, ...]]:
    """From a picture's values to shades in [0, 255], and what was guessed."""
    if floating:
        return _float_shade(blocks, has_profile)
    white, note = _white_of(max(float(rows.max()) for rows in blocks()), depth)

    def shade(rows: np.ndarray) -> np.ndarray:
        part = rows.astype(np.float64) / white
        part = 1 - part if depth.inverted else part
        return (255 * (part if curve is None else curve(part))).round()

    return shade, () if note is None else (note,)


def _white_of(most: float, depth: Depth) -> tuple[float, str | None]:
    """The value of white, and a note if that is a guess.

    Args:
        most: the largest value.
        depth: what the file says.
    """
    if depth.white is not None and most <= depth.white:
        return depth.white, None
    full = 65535.0 if most < 65536 else float(2 ** int(most).bit_length() - 1)
    if depth.significant is not None:
        # The standard asks for measured bits at the upper end; who wrote them at the lower end left the others 0.
        lower = float(2**depth.significant - 1)
        return (lower if most <= lower else full), None
    bits = max(8, int(most).bit_length())
    if bits == 16:
        return full, None
    return float(2**bits - 1), (
        f"The picture's largest value is {most:.0f} and the file does not say what white is: "
        f"its values are read as of {bits} bits."
    )


def _float_shade(
    blocks: Callable[[], Iterator[np.ndarray]], has_profile: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], tuple[str, ...]]:
    """Floating-point pictures are of linear light, unless their values look like those of 8 or 16 bits."""
    most, whole, typical = 0.0, True, []
    for rows in blocks():
        finite = np.nan_to_num(rows, posinf=0, neginf=0)
        most = max(most, float(finite.max()))
        whole = whole and bool((finite == np.round(finite)).all())
        typical.append(float(np.median(finite)))
    if most > 1 and (whole or float(np.median(typical)) > 1.5):
        white = 255.0 if most <= 255 else float(2 ** max(9, int(most).bit_length()) - 1)
        note = f"The picture's floating-point values reach {most:g}: white is taken to be {white:.0f}."
        return lambda rows: np.nan_to_num(rows) / white * 255, (note,)
    bright = f"The picture is brighter than white (up to {most:g}), which is cut off." if most > 1.001 else None
    notes = () if bright is None else (bright,)
    if has_profile:
        return lambda rows: np.nan_to_num(rows) * 255, notes
    linear = "The picture's floating-point values are taken as linear light, and brought to sRGB."
    return lambda rows: 255 * encoded(np.nan_to_num(rows)), (linear, *notes)


def _grey(image: Image.Image, shade: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """The picture in shades of grey, made of its values by a function."""
    grey = np.empty(image.size[::-1], np.uint8)
    for first, rows in _blocks(image):
        grey[first : first + len(rows)] = _bytes_of(shade(rows))
    return Image.fromarray(grey)


def _bytes_of(shades: np.ndarray) -> np.ndarray:
    return np.clip(np.round(shades), 0, 255).astype(np.uint8)


def _blocks(image: Image.Image) -> Iterator[tuple[int, np.ndarray]]:
    """The picture's values, some rows at a time, each block with its first row: large ones take gigabytes as floats."""
    width, height = image.size
    count = max(1, _BLOCK // width)
    for first in range(0, height, count):
        yield first, np.asarray(image.crop((0, first, width, min(height, first + count))))


def _all_bits(path: Path) -> Shaped[np.ndarray, "h w c"] | None:
    """A picture's values with all their bits, colours in the order red, green, blue; None if they cannot be had."""
    try:
        values = cv2.imdecode(_unturned(np.fromfile(path, np.uint8)), cv2.IMREAD_UNCHANGED)
    except (cv2.error, IndexError, MemoryError, OSError, ValueError):
        return None
    if values is None:
        return None
    if values.ndim == 2:
        return values[..., None].repeat(3, axis=2)
    return np.ascontiguousarray(values[..., (2, 1, 0, 3)[: values.shape[2]]]) if values.shape[2] in (3, 4) else None


def _unturned(data: UInt8[np.ndarray, "n"]) -> UInt8[np.ndarray, "n"]:
    """A file's bytes, those of a TIFF without its orientation, which OpenCV would apply to some kinds of pixels."""
    order: Literal["little", "big"] = "little" if data[0] == ord("I") else "big"

    def number(place: int, length: int) -> int:
        return int.from_bytes(data[place : place + length].tobytes(), order)

    if data[:4].tobytes() in (b"II*\x00", b"MM\x00*"):
        first = number(4, 4)
        for entry in range(first + 2, first + 2 + 12 * number(first, 2), 12):
            if number(entry, 2) == _TURN:
                data[entry + 8 : entry + 10] = (1, 0) if order == "little" else (0, 1)
    return data


def _significant_bits(path: Path) -> int | None:
    """What a PNG's chunk sBIT says; None if there is none, or not one number for all colours."""
    try:
        with path.open("rb") as file:
            file.seek(8)
            while True:
                head = file.read(8)
                length, kind = int.from_bytes(head[:4], "big"), head[4:]
                if kind == b"sBIT" and 0 < length <= 4:
                    bits = max(file.read(length)[: 1 if length < 3 else 3])
                    return bits if 0 < bits < 17 else None
                if len(kind) < 4 or kind in (b"IDAT", b"IEND"):
                    return None
                file.seek(length + 4, 1)
    except BROKEN:
        return None


def _most_of(value: object) -> float | None:
    """The largest of a tag's numbers."""
    numbers = value if isinstance(value, tuple) else (value,)
    try:
        return max(float(number) for number in numbers)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
