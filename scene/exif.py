"""What a photo's file tells about the camera that took it."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import ExifTags

from scene.pictures.opening import opened, orientation_of, stored_size

_FULL_FRAME_DIAGONAL = math.hypot(36, 24)
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""Millimetres in the units of FocalPlaneResolutionUnit."""


@dataclass(frozen=True)
class PhotoMetadata:
    """Metadata of a photo's file; what it does not say is None or empty.

    Args:
        size: width and height of the picture once it is upright, pixels.
        format: Pillow's name of the file format.
        focal: focal length divided by the picture's longest side.
        body: maker and model of the camera.
        upright: whether the pixels are stored as they are to be seen.
    """

    size: tuple[int, int] = (0, 0)
    format: str = ""
    focal: float | None = None
    body: str = ""
    upright: bool = True


def photo_metadata(path: Path) -> PhotoMetadata:
    """Read a photo's EXIF data; damaged data count as none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about tags that it skips
            with opened(path) as image:
                turn = orientation_of(image)
                size, format, exif = stored_size(image, turn), image.format or "", image.getexif()
                lens = dict(exif.get_ifd(ExifTags.IFD.Exif))
                words = [str(exif.get(tag) or "").strip(" \0") for tag in (ExifTags.Base.Make, ExifTags.Base.Model)]
    except Exception:  # noqa: BLE001 - Pillow's readers raise anything on damaged files; the picture is judged elsewhere
        return PhotoMetadata()
    upright_size = (size[1], size[0]) if turn >= 5 else size
    return PhotoMetadata(upright_size, format, _focal(lens, size), " ".join(w for w in words if w), turn == 1)


def _focal(lens: dict[int, Any], size: tuple[int, int]) -> float | None:
    """Focal length over the longest side.

    The 35 mm equivalent is defined by the diagonal; else the length in millimetres counts with the sensor's resolution.
    """
    equivalent = _positive(lens.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if equivalent is not None:
        return _sane(equivalent / _FULL_FRAME_DIAGONAL * math.hypot(*size) / max(size))
    millimetres = _positive(lens.get(ExifTags.Base.FocalLength))
    density = _positive(lens.get(ExifTags.Base.FocalPlaneXResolution))
    unit = _UNIT_MM.get(lens.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
    width = _positive(lens.get(ExifTags.Base.ExifImageWidth)) or float(max(size))
    if millimetres is None or density is None or unit is None:
        return None
    height = _positive(lens.get(ExifTags.Base.ExifImageHeight)) or 0.0
    return _sane(millimetres * density / unit / max(width, height))


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _sane(focal: float) -> float | None:
    """A focal length between fisheye and telescope, or None: cameras write zeros and nonsense."""
    return focal if 0.3 < focal < 15 else None
