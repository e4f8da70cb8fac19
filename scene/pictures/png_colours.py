"""What a PNG says of its colours by numbers: the chunk cICP, which stands above all profiles, and primaries (cHRM).

Source: PNG specification, third edition, sections 4.3 and 11.3.2; codes of ITU-T H.273, tables 2 and 3.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from scene.errors import InputError
from scene.files import reading

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue."""

_D65 = (0.3127, 0.3290)
SRGB: Chromaticities = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: dict[int, Chromaticities] = {
    1: SRGB,
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_CURVES = {1: 2.4, 6: 2.4, 14: 2.4, 15: 2.4, 4: 2.2, 5: 2.8, 8: 1.0, 13: None}
"""Exponent to linear light by code, None for sRGB's curve. Television's (1, 6, 14, 15) are meant for screens of 2.4."""
_HIGH_RANGE = {16: "PQ", 18: "HLG"}
_MOST_CHUNKS = 1000
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


class Cicp(NamedTuple):
    """Colours as a cICP chunk names them.

    Args:
        primaries: chromaticities.
        exponent: from values to linear light; None for sRGB's curve.
    """

    primaries: Chromaticities
    exponent: float | None


def cicp_of(path: Path) -> tuple[Cicp | None, tuple[str, ...]]:
    """What the cICP chunk of a PNG says, if it has one that is understood, and else what is not.

    Raises:
        InputError: the picture is of high dynamic range (PQ, HLG), which has no one reading in 8 bits.
    """
    content = _chunk(path, b"cICP")
    if content is None:
        return None, ()
    primaries, curve, matrix, full = content if len(content) == 4 else (0, 0, 0, 0)
    if curve in _HIGH_RANGE:
        raise InputError(
            f"is a picture of high dynamic range ({_HIGH_RANGE[curve]}), whose brightness does not fit into sRGB",
            where=path,
            fix="Export it in standard range, as sRGB or Display P3.",
        )
    if primaries not in _PRIMARIES or curve not in _CURVES or matrix != 0 or full != 1:
        said = " ".join(str(number) for number in content[:4])
        return None, (f"The picture's colour code (cICP {said}) is not known here. The colours are taken as sRGB.",)
    return Cicp(_PRIMARIES[primaries], _CURVES[curve]), ()


def to_srgb_matrix(primaries: Chromaticities) -> Float[np.ndarray, "3 3"] | None:
    """From linear light of such primaries to that of sRGB, white to white (Bradford); None if they span no colours."""
    numbers = np.array(primaries, dtype=np.float64)
    if not np.isfinite(numbers).all() or numbers[1::2].min() <= 1e-3 or np.abs(numbers).max() > 2:
        return None
    own, standard = _xyz_from(numbers), _xyz_from(np.array(SRGB))
    if own is None or standard is None:
        return None
    whites = [_BRADFORD @ matrix.sum(axis=1) for matrix in (own, standard)]
    if min(whites[0].min(), whites[1].min()) <= 0:
        return None
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(whites[1] / whites[0]) @ _BRADFORD
    return np.asarray(np.linalg.inv(standard) @ adapted @ own)


def _xyz_from(numbers: Float[np.ndarray, "8"]) -> Float[np.ndarray, "3 3"] | None:
    x, y = numbers[::2], numbers[1::2]
    columns = np.stack([x / y, np.ones(4), (1 - x - y) / y])
    if abs(np.linalg.det(columns[:, 1:])) < 1e-6:
        return None
    return np.asarray(columns[:, 1:] * np.linalg.solve(columns[:, 1:], columns[:, 0]))


def _chunk(path: Path, wanted: bytes) -> bytes | None:
    """The content of a PNG's chunk before its pixels, of a few bytes; None if it has none."""
    with reading(path), path.open("rb") as file:
        file.seek(8)
        for _ in range(_MOST_CHUNKS):
            head = file.read(8)
            if len(head) < 8:
                return None
            length, kind = struct.unpack(">I4s", head)
            if kind == wanted:
                return file.read(min(length, 16))
            if kind in (b"IDAT", b"IEND"):
                return None
            file.seek(length + 4, 1)
    return None
