"""Opening picture files: formats that photos come in, and by name what is something else."""

from __future__ import annotations

import contextlib
import functools
import struct
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError, features

from scene.backends import import_failure, optional_module
from scene.errors import InputError, MissingBackendError
from scene.files import reading, unreadable

FORMATS = [
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "HEIF",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PNG",
    "PPM",
    "PSD",
    "QOI",
    "SGI",
    "TGA",
    "TIFF",
    "WEBP",
]
"""What Pillow is asked for. Not all that it knows: for an EPS named photo.jpg it would start Ghostscript."""
READABLE = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, and HEIC with the package pillow-heif"
"""The same for people."""
BROKEN = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What readers of picture files raise when a file is not what its head promises."""

ORIENTATION = 0x0112
_HEAD = 64
_SAVE_AGAIN = "Save it again as PNG, JPEG or WebP."
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_FILM_BRANDS = {b"isom", b"iso2", b"mp41", b"mp42", b"qt  ", b"M4V ", b"avc1"}
_OTHERS = (
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"#?RGBE", "Radiance HDR"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (b"FUJIFILMCCD-RAW", "raw camera"),
    (b"IIRO", "raw camera"),
    (b"IIU\x00", "raw camera"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML or SVG"),
    (b"<!DOCTYPE html", "HTML"),
    (b"<html", "HTML"),
)
"""First bytes of files that are mistaken for photos."""
_TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_DNG_VERSION = 50706
_RAW_ENDINGS = {".nef", ".nrw", ".arw", ".sr2", ".cr2", ".cr3", ".pef", ".orf", ".rw2", ".raf", ".dng"}


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """A picture file, not decoded yet; the block may decode it.

    Raises:
        InputError: the file is missing, is no picture or of a kind that is not read, is damaged (also if that shows in
            the block), or has too many pixels; the message says which.
        MissingBackendError: it is HEIC or AVIF and what reads that is not installed.
    """
    head = head_of(path)
    _refuse_by_name(path, head)
    try:
        with Image.open(path, formats=_known_formats()) as image:
            yield image
    except Image.DecompressionBombError as error:
        raise InputError(
            "the picture has too many pixels", where=path, fix="Reduce it below 170 megapixels."
        ) from error
    except UnidentifiedImageError as error:
        what = f"cannot be read as a picture (it is none of {READABLE})"
        raise InputError(what, where=path, fix=_SAVE_AGAIN) from error
    except BROKEN as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(error, path) from error
        raise InputError(f"cannot be read as a picture ({error})", where=path, fix=_SAVE_AGAIN) from error


def head_of(path: Path) -> bytes:
    """A file's first bytes.

    Raises:
        InputError: there is no such file, it is a folder, or the system does not let it be read.
    """
    with reading(path):
        if not path.is_file():
            raise InputError("there is no such file" if not path.exists() else "is a folder, not a picture", where=path)
        with path.open("rb") as file:
            return file.read(_HEAD)


def orientation_of(image: Image.Image) -> int:
    """The EXIF orientation (1 to 8) that an opened picture is still to be turned by."""
    # Pillow decodes a whole PNG in search of EXIF data that are not in its head.
    if isinstance(image, PngImagePlugin.PngImageFile) and image.fp is not None and "exif" not in image.info:
        return 1
    orientation = image.getexif().get(ORIENTATION, 1)
    return int(orientation) if orientation in range(1, 9) else 1


def stored_size(image: Image.Image, orientation: int) -> tuple[int, int]:
    """Width and height of the pixels as stored, of an opened picture that is neither loaded nor reduced."""
    # Pillow gives the size of a turned TIFF upright, that of all others as stored.
    swapped = orientation >= 5 and image.format == "TIFF" and image.tag_v2.get(256) == image.height  # type: ignore[attr-defined]
    return (image.height, image.width) if swapped else image.size


@functools.cache
def picture_endings() -> frozenset[str]:
    """Endings of the names of files that :func:`opened` takes, and of HEIC, which it may say how to read."""
    Image.init()
    named = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}
    return frozenset({*named, ".heic", ".heif", ".avif"})


def tiff_tags(path: Path, head: bytes) -> dict[int, object]:
    """The tags of a TIFF's first page, also of one whose pixels Pillow does not know; none of what is no TIFF."""
    if head[:4] not in _TIFF:
        return {}
    try:
        directory = TiffImagePlugin.ImageFileDirectory_v2(head[: 16 if b"+" in head[:4] else 8])
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about tags that it skips
            file.seek(directory.next)
            directory.load(file)
            return dict(directory)
    except BROKEN:
        return {}


@functools.cache
def _known_formats() -> list[str]:
    Image.init()
    if (heif := optional_module("pillow_heif")) is not None:
        heif.register_heif_opener()
    return [name for name in FORMATS if name in Image.OPEN]


def _refuse_by_name(path: Path, head: bytes) -> None:
    """Raise if the first bytes are of something that is no photo, or of one that needs a package."""
    start = head.lstrip()
    kind = next((name for magic, name in _OTHERS if start.startswith(magic)), None)
    brands = _brands(head)
    if kind is None and (b"crx " in brands or (path.suffix.lower() in _RAW_ENDINGS and head[:4] in _TIFF)):
        kind = "raw camera"
    if kind is None and _DNG_VERSION in tiff_tags(path, head):
        kind = "raw camera"
    if kind is not None:
        article = "an" if kind.startswith(("O", "SVG", "XML", "HTML")) else "a"
        raise InputError(f"is {article} {kind} file, which is not read as a photo", where=path, fix=_SAVE_AGAIN)
    if brands & _AVIF_BRANDS:
        if not features.check("avif"):
            raise MissingBackendError(
                "is an AVIF picture, which this version of Pillow does not read",
                where=path,
                fix='Run: pip install "pillow>=11.3"; or save the photo as PNG or JPEG.',
            )
    elif brands & _HEIC_BRANDS:
        if "HEIF" not in _known_formats():
            broken = import_failure("pillow_heif")
            raise MissingBackendError(
                "is a HEIC picture, and reading it needs the package pillow-heif"
                + ("" if broken is None else f"; the one that is installed cannot load ({broken})"),
                where=path,
                fix="Run: pip install viewloom[heic]; or save the photo as JPEG.",
            )
    elif brands & _FILM_BRANDS:
        raise InputError("is a film, not a photo", where=path, fix="Save one of its frames as PNG or JPEG.")


def _brands(head: bytes) -> set[bytes]:
    """What an ISO media file (HEIC, AVIF, MP4) says it is."""
    if head[4:8] != b"ftyp":
        return set()
    length = min(len(head), int.from_bytes(head[:4], "big"))
    return {head[8:12], *(head[k : k + 4] for k in range(16, length - 3, 4))}
