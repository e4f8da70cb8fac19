"""Colours of picture files to sRGB: ICC profiles, codes, primaries and gamma of PNG, Adobe RGB in EXIF data."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms

from scene.pictures.opening import BROKEN
from scene.pictures.png_colours import SRGB, Chromaticities, cicp_of, to_srgb_matrix

Curve = Callable[[Float[np.ndarray, "..."]], Float[np.ndarray, "..."]]
"""From a file's values in [0, 1] to sRGB's."""

_SAME = 3
"""A profile that moves no colour by more than this, of 255, is sRGB: its pictures stay as they are, bit for bit."""
_SPACES = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
_SRGB_GAMMA = 0.45455
_ADOBE_GAMMA = 2.19921875
_SRGB_FROM_ADOBE = np.array([[1.398357, -0.398357, 0.0], [0.0, 1.0, 0.0], [0.0, -0.042930, 1.042930]])
"""Linear light; both have the white of D65."""
_ROWS = 1 << 18
_RAMP = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
_NOT_SRGB = "The colours are taken as sRGB."
_INKS = "The picture is of inks (CMYK) and has no colour profile: its colours are approximate."


@dataclass(frozen=True)
class ColourFacts:
    """What a file says of its colours.

    Args:
        profile: its ICC profile.
        gamma: exponent that made its values of linear light (PNG), if that is not sRGB's.
        primaries: chromaticities of its red, green, blue and white (PNG), if they are not sRGB's.
        adobe: whether the camera says that they are Adobe RGB.
        notes: what in it is not believed.
    """

    profile: bytes | None = None
    gamma: float | None = None
    primaries: Chromaticities | None = None
    adobe: bool = False
    notes: tuple[str, ...] = ()

    @property
    def curve(self) -> Curve | None:
        """The file's own curve to sRGB's, where no profile says it: of all channels alike, whatever their primaries."""
        gamma = self.gamma
        return None if gamma is None else lambda values: encoded(np.power(np.clip(values, 0, 1), 1 / gamma))


def colour_facts(image: Image.Image, path: Path) -> ColourFacts:
    """Read them from an opened picture and its file; damaged ones count as none.

    Raises:
        InputError: it is a PNG of high dynamic range.
    """
    coded, unknown = cicp_of(path) if image.format == "PNG" else (None, ())
    if coded is not None:
        gamma = None if coded.exponent is None else 1 / coded.exponent
        return ColourFacts(gamma=gamma, primaries=None if coded.primaries == SRGB else coded.primaries)
    facts = _facts_beside(image)
    return replace(facts, notes=(*unknown, *facts.notes)) if unknown else facts


def _facts_beside(image: Image.Image) -> ColourFacts:
    """What is said in other words than by code."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return ColourFacts(profile=profile)
    gamma = image.info.get("gamma") if "srgb" not in image.info else None
    primaries = _primaries_of(image) if isinstance(gamma, float) else None
    if isinstance(gamma, float) and abs(gamma / _SRGB_GAMMA - 1) > 0.05:
        if 0.2 < gamma < 2:
            return ColourFacts(gamma=gamma, primaries=primaries)
        return ColourFacts(notes=(f"The picture's gamma of {gamma:g} cannot be. {_NOT_SRGB}",))
    if primaries is not None:
        return ColourFacts(primaries=primaries)
    return ColourFacts(adobe=_says_adobe(image))


def _primaries_of(image: Image.Image) -> Chromaticities | None:
    """The chromaticities of a PNG's cHRM chunk, if they are others than sRGB's and make sense."""
    found = image.info.get("chromaticity")
    if not isinstance(found, tuple) or len(found) != 8:
        return None
    numbers = cast(Chromaticities, tuple(map(float, found)))
    same = np.abs(np.subtract(numbers, SRGB)).max() < 0.005
    return None if same or to_srgb_matrix(numbers) is None else numbers


def to_srgb(image: Image.Image, facts: ColourFacts, *, curved: bool = False) -> tuple[Image.Image, tuple[str, ...]]:
    """An 8-bit picture (L, LA, RGB, RGBA or CMYK) in sRGB, and what of its colours could not be believed.

    Args:
        curved: the file's curve has been applied already.
    """
    if facts.profile is not None:
        return _from_profile(image, facts.profile)
    if facts.primaries is not None and image.mode in ("RGB", "RGBA"):
        return _from_primaries(image, facts.primaries, None if curved else facts.gamma), facts.notes
    if facts.curve is not None and not curved:
        table = np.round(255 * facts.curve(np.arange(256) / 255)).astype(int).tolist()
        bands = len(image.getbands())
        alpha = image.mode in ("LA", "RGBA")
        return image.point([*table * (bands - alpha), *range(256 * alpha)]), facts.notes
    if image.mode == "CMYK":
        return image, (_INKS, *facts.notes)
    if facts.adobe and image.mode in ("RGB", "RGBA"):
        light = np.power(np.arange(256) / 255, _ADOBE_GAMMA)
        return _from_light(image, light, _SRGB_FROM_ADOBE), facts.notes
    return image, facts.notes


def srgb_from_lab(image: Image.Image) -> Image.Image:
    """A picture of mode LAB as RGB."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    return ImageCms.applyTransform(image, ImageCms.buildTransform(lab, _srgb(), "LAB", "RGB")) or image


def encoded(linear: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Linear light in [0, 1] to sRGB values in [0, 1]."""
    light = np.clip(linear, 0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * np.power(light, 1 / 2.4) - 0.055)


def linear(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """sRGB values in [0, 1] to linear light; the inverse of :func:`encoded`."""
    return np.where(values <= 0.04045, values / 12.92, np.power((np.maximum(values, 0) + 0.055) / 1.055, 2.4))


def _from_profile(image: Image.Image, content: bytes) -> tuple[Image.Image, tuple[str, ...]]:
    colours = image.convert(image.mode[:-1]) if image.mode in ("RGBA", "LA") else image
    if colours.mode == "L" and content[16:20] == b"RGB ":
        colours = colours.convert("RGB")
    try:
        transform = _transform(content, colours.mode)
        converted = colours if transform is None else _applied(colours, transform)
    except (ImageCms.PyCMSError, *BROKEN) as error:
        return image, (f"The picture's colour profile is of no use ({_first_line(error)}). {_NOT_SRGB}",)
    if transform is None:
        return image, ()
    if image.mode in ("RGBA", "LA"):
        converted.putalpha(image.getchannel("A"))
    return converted, ()


def _applied(colours: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    if colours.mode == "L":
        return colours.point(np.asarray(ImageCms.applyTransform(_RAMP, transform))[0, :, 1].tolist())
    converted = ImageCms.applyTransform(colours, transform)
    assert converted is not None  # it is, if done in place
    return converted


@functools.lru_cache(maxsize=8)
def _transform(content: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB; None if it is sRGB.

    Raises:
        ValueError: the profile is of another kind of picture.
        PyCMSError: it is damaged.
    """
    profile = ImageCms.ImageCmsProfile(io.BytesIO(content))
    space = profile.profile.xcolor_space
    if space != _SPACES[mode]:
        raise ValueError(f"it is for {space.strip() or 'no known'} colours, the picture has {mode}")
    # Curves of grey are kept whole: the table that would stand for them is coarse where they are steep.
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | (ImageCms.Flags.NOOPTIMIZE if mode == "L" else 0)
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    transform = ImageCms.buildTransform(profile, _srgb(), mode, "RGB", intent, ImageCms.Flags(flags))
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    asked = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
    probe = _RAMP if mode == "L" else Image.fromarray(asked)
    answer = np.asarray(ImageCms.applyTransform(probe, transform)).astype(int)
    return None if np.abs(answer - np.asarray(probe.convert("RGB"))).max() <= _SAME else transform


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _from_primaries(image: Image.Image, primaries: Chromaticities, gamma: float | None) -> Image.Image:
    values = np.arange(256) / 255
    light = linear(values) if gamma is None else np.power(values, 1 / gamma)
    matrix = to_srgb_matrix(primaries)
    return image if matrix is None else _from_light(image, light, matrix)


def _from_light(image: Image.Image, light: Float[np.ndarray, "256"], matrix: Float[np.ndarray, "3 3"]) -> Image.Image:
    """To sRGB by a table to linear light and a matrix, some rows at a time: large pictures take gigabytes as floats."""
    pixels = np.array(image)
    count = max(1, _ROWS // image.width)
    for first in range(0, image.height, count):
        rows = pixels[first : first + count, :, :3]
        rows[:] = np.round(255 * encoded(light[rows] @ matrix.T)).astype(np.uint8)
    return Image.fromarray(pixels)


def _says_adobe(image: Image.Image) -> bool:
    """Whether EXIF data name Adobe RGB, as cameras do that embed no profile."""
    try:
        if image.format == "PNG" and "exif" not in image.info:
            return False  # Pillow would decode the whole picture in search of them
        exif = image.getexif()
        index = exif.get_ifd(ExifTags.IFD.Interop).get(1) if exif else None
        space = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace) if exif else None
    except BROKEN:
        return False
    return str(index or "").strip("\0 ") == "R03" and space != 1


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
