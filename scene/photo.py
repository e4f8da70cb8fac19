"""Reading photos of any kind: colours and ranges, orientation, odd modes, large sizes, masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from scene.errors import InputError
from scene.pictures.colour import ColourFacts, colour_facts, to_srgb
from scene.pictures.levels import Levelled, colours_of, deep_colours, depth_of, to_eight_bit
from scene.pictures.opening import BROKEN, ORIENTATION, head_of, opened, orientation_of, stored_size, tiff_tags
from scene.pictures.turns import as_stored, better_laid, upright

MAX_SIDE = 4096
"""Photos are reduced to this side while decoding, which bounds memory."""

Size = tuple[int, int]
"""Width and height."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as it was read.

    Args:
        rgba: sRGB with straight alpha, upright; reduced if that was asked for.
        size: width and height before that, upright.
        orientation: that the file's EXIF data ask for; 1 to 8.
        notes: what of the file was guessed, not believed or left out, as sentences.
    """

    rgba: UInt8[np.ndarray, "h w 4"]
    size: Size
    orientation: int = 1
    notes: tuple[str, ...] = ()


def load_rgba(path: Path, max_side: int | None = None) -> UInt8[np.ndarray, "h w 4"]:
    """Read a picture's pixels, see :func:`read_picture`."""
    return read_picture(path, max_side).rgba


def read_picture(path: Path, max_side: int | None = None) -> Picture:
    """Read a picture as 8-bit straight-alpha sRGB, upright.

    Applies the EXIF orientation and the colour profile; converts grey, palette, CMYK, 16-bit and floating-point
    pictures; takes an animation's first frame.

    Args:
        path: of a format in :data:`scene.pictures.opening.FORMATS`.
        max_side: reduce larger pictures to this longest side.

    Raises:
        InputError: the file is missing, no picture, damaged, or too large to decode safely.
    """

    def reduced(size: Size) -> Size | None:
        return None if max_side is None or max(size) <= max_side else (max_side, max_side)

    return _read(path, reduced, keep_shape=True)


def read_masked(path: Path, mask_path: Path, max_side: int | None = None) -> Picture:
    """Read a picture as :func:`read_picture` does, with a mask for its alpha.

    The mask may fit the picture upright or as stored. Where its size does not tell, that is taken whose outline clearly
    follows the picture's edges better, or else upright; a note says so.

    Args:
        path: the picture.
        mask_path: its mask, see :func:`load_mask`.
        max_side: reduce both to this longest side if they are larger.

    Raises:
        InputError: a file cannot be read, or their sizes differ.
    """
    picture = read_picture(path, max_side)
    rgba, size = picture.rgba, picture.size
    mask, own, mask_notes = _read_mask(mask_path, size, picture.orientation, rgba.shape[1::-1])
    notes = [*picture.notes, *mask_notes]
    if picture.orientation > 1 and own.orientation == 1:
        stored = size[::-1] if picture.orientation >= 5 else size
        if own.size != size:
            notes.append(_TURNED_MASK)
        elif stored == size:
            turned = upright(mask, picture.orientation)
            fits = better_laid(rgba[..., :3], mask, turned)
            if not np.array_equal(mask, turned):
                notes.append((_UNSURE_MASK, _UPRIGHT_MASK, _BETTER_TURNED_MASK)[fits + 1])
            mask = turned if fits == 1 else mask
    rgba[..., 3] = mask
    return replace(picture, notes=tuple(notes))


_TURNED_MASK = "The photo is turned by its EXIF data and the mask fits it as stored: the mask was turned with it."
_BETTER_TURNED_MASK = (
    "The photo is turned by its EXIF data, and the mask follows its edges better as stored: it was turned with it."
)
_UPRIGHT_MASK = "The photo is turned by its EXIF data; the mask fits it upright, and was not turned."
_UNSURE_MASK = (
    "The photo is turned by its EXIF data, and nothing says whether the mask is: it is taken to fit the photo upright. "
    "Look at cutout.png."
)


def load_mask(
    path: Path, size: Size, reduced: Size | None = None, *, orientation: int = 1, stored: bool = False
) -> UInt8[np.ndarray, "h w"]:
    """Read a mask for a picture of ``size`` (width, height): its alpha if it has one that varies, else its brightness.

    Args:
        path: the mask.
        size: of the picture, not reduced.
        reduced: the size to give the mask, if the picture has been reduced.
        orientation: of the picture's EXIF data; a mask that fits it the other way only is turned.
        stored: whether ``size`` is that of the pixels as stored, and not upright.

    Raises:
        InputError: the file cannot be read, or its size differs from the picture's.
    """
    return _read_mask(path, size, orientation, reduced, stored=stored)[0]


def _read_mask(
    path: Path, size: Size, orientation: int, reduced: Size | None, *, stored: bool = False
) -> tuple[UInt8[np.ndarray, "h w"], Picture, tuple[str, ...]]:
    """A mask laid on its picture by its size, the mask as it was read, and its notes."""
    swapped = orientation >= 5

    def wanted(own: Size) -> Size | None:
        if own == size:
            return reduced
        if swapped and own == size[::-1]:
            return None if reduced is None else reduced[::-1]
        raise InputError(
            f"the mask is {own[0]}x{own[1]}, its picture {size[0]}x{size[1]}",
            where=path,
            fix="Save the mask at the picture's size.",
        )

    own = _read(path, wanted)
    if own.rgba[..., 3].min() < 255:
        mask = own.rgba[..., 3]
    else:
        mask = np.round(own.rgba[..., :3].mean(axis=-1)).astype(np.uint8)
    if own.size != size:
        mask = as_stored(mask, orientation) if stored else upright(mask, orientation)
    return mask, own, tuple(f"Of the mask: {note}" for note in own.notes)


def _read(path: Path, reduced: Callable[[Size], Size | None], *, keep_shape: bool = False) -> Picture:
    """A picture as :func:`read_picture` gives it.

    Args:
        reduced: from its upright size to the one that it is to have, or to None if it stays.
        keep_shape: keep within that size, and keep its proportions.
    """
    head = head_of(path)
    tags = tiff_tags(path, head)
    if _is_deep_tiff(tags):
        return _read_deep_tiff(path, head, tags, reduced, keep_shape)
    with opened(path) as image:
        if image.format == "PNG":
            image.load()  # its EXIF data may come last
        orientation = orientation_of(image)
        stored = stored_size(image, orientation)
        size = stored[::-1] if orientation >= 5 else stored
        target = reduced(size)
        if target is not None and keep_shape:
            image.draft(None, target)  # JPEG: decode at a fraction of the size
        image.load()
        facts, left = colour_facts(image, path), orientation_of(image)
        done = 1 if left == orientation else orientation  # Pillow turns TIFF files itself
        depth = depth_of(path, head, image.format, tags)
        made = to_eight_bit(image, path, depth, facts.curve, facts.profile is not None, done)
        if made.image is image:
            ImageOps.exif_transpose(image, in_place=True)  # upright ones are not copied: large ones take 700 MB
        elif left in _TURNS:
            made = made._replace(image=made.image.transpose(_TURNS[left]))
        rgba, notes = _finished(made, facts, target, keep_shape)
        return Picture(rgba, size, orientation, (*notes, *_frames(image)))


def _finished(
    made: Levelled, facts: ColourFacts, target: Size | None, keep_shape: bool
) -> tuple[UInt8[np.ndarray, "h w 4"], tuple[str, ...]]:
    """An upright picture reduced and in sRGB, with what was noted so far."""
    image = made.image
    if target is not None and keep_shape:
        if max(image.size) > max(target):
            image.thumbnail(target, Image.Resampling.BOX)
    elif target is not None and image.size != target:
        image = image.resize(target, Image.Resampling.BOX)
    image, notes = to_srgb(image, facts, curved=made.curved)
    return np.array(image.convert("RGBA")), (*made.notes, *notes)


def _is_deep_tiff(tags: dict[int, object]) -> bool:
    """Whether a TIFF has floating-point values of a kind that Pillow does not know: colours, or not of 32 bits."""
    kind, bands, bits = tags.get(339), tags.get(277, 1), tags.get(258)
    floating = kind == 3 or (isinstance(kind, tuple) and 3 in kind)
    return floating and ((isinstance(bands, int) and bands >= 3) or bits not in (32, (32,)))


def _read_deep_tiff(
    path: Path, head: bytes, tags: dict[int, object], reduced: Callable[[Size], Size | None], keep_shape: bool
) -> Picture:
    orientation = turn if isinstance(turn := tags.get(ORIENTATION), int) and turn in _TURNS else 1
    width, height = tags.get(256), tags.get(257)
    most = 2 * (Image.MAX_IMAGE_PIXELS or 1 << 30)
    if not (isinstance(width, int) and isinstance(height, int) and 0 < width * height < most):
        raise InputError("the picture has too many pixels", where=path, fix="Reduce it below 170 megapixels.")
    size = (height, width) if orientation >= 5 else (width, height)
    target = reduced(size)
    profile = tags.get(34675)
    facts = ColourFacts(profile if isinstance(profile, bytes) and profile else None)
    try:
        depth = depth_of(path, head, None, tags)
        made = colours_of(upright(deep_colours(path, depth), orientation), depth, None, facts.profile is not None)
        rgba, notes = _finished(made, facts, target, keep_shape)
    except BROKEN as error:
        raise InputError(
            f"is a TIFF of floating-point numbers that cannot be read ({error})",
            where=path,
            fix="Save it again as PNG or JPEG, in sRGB.",
        ) from error
    return Picture(rgba, size, orientation, notes)


def _frames(image: Image.Image) -> tuple[str, ...]:
    """Which of several pictures in one file was taken."""
    if image.format == "MPO":  # phones put previews and depths behind the photo
        return ()
    try:
        count = int(getattr(image, "n_frames", 1))
    except BROKEN:  # of a frame that is not used
        return ()
    if image.format == "PSD":
        return (f"The file has {count} layers: the picture of all that are visible was taken.",) if count > 1 else ()
    if count < 2:
        return ()
    if image.format == "TIFF":
        return (f"The file has {count} pages: the first was taken.",)
    if image.format == "HEIF":
        return (f"The file has {count} pictures: the one that it names as main was taken.",)
    return (f"The file is an animation of {count} frames: the first was taken.",)
