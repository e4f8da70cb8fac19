"""What a capture file says under ``viewloom``: our own keys, which anyone may have edited, checked where they are read.

A key that is there has the type, shape and range that the code relies on, or the file is refused with the key's name.
Keys that nothing here reads are carried along as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scene.camera import Mat4
from scene.documents import is_number, matrix4, shown
from scene.errors import InputError

_FARTHEST = 1e9
"""World units, times or parts, beyond which single precision has nothing left to tell."""
_FIX = "Mend the key, or take it out of the file."


def checked_metadata(metadata: Mapping[str, Any], where: Path) -> dict[str, Any]:
    """The metadata of a capture file, without the keys that hold nothing.

    Args:
        metadata: the object under ``viewloom``.
        where: the file.

    Raises:
        InputError: a key that is read somewhere holds something else, or any holds NaN or infinity.
    """
    kept = {key: value for key, value in metadata.items() if value is not None}
    for key, (fits, wanted) in _KEYS.items():
        if key in kept and not fits(kept[key]):
            raise InputError(f"viewloom.{key} is {shown(kept[key])}, not {wanted}", where=where, fix=_FIX)
    for key in ("world_from_file", "normalised_from_world", "applied_transform"):
        if key in kept:
            affine(kept[key], f"viewloom.{key}", where)
    odd = next((key for key, value in kept.items() if not _is_json(value)), None)
    if odd is not None:
        raise InputError(f"viewloom.{odd} holds NaN or infinity", where=where, fix=_FIX)
    return kept


def affine(rows: object, key: str, where: Path) -> Mat4:
    """A matrix of 3 or 4 rows that maps points and can be undone.

    Raises:
        InputError: it is none, or its numbers are beyond all measure.
    """
    try:
        matrix = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{key} is not a matrix of numbers", where=where) from error
    if matrix.shape == (3, 4):
        matrix = np.concatenate([matrix, [[0, 0, 0, 1]]])
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not _invertible(matrix):
        raise InputError(f"{key} must be 3 or 4 rows of 4 finite numbers, and invertible", where=where)
    return matrix


def _invertible(matrix: Mat4) -> bool:
    largest = float(np.abs(matrix[:3, :3]).max())
    if not 1 / _FARTHEST <= largest <= _FARTHEST or np.abs(matrix[:3, 3]).max() > _FARTHEST:
        return False
    return bool(np.linalg.cond(matrix[:3, :3] / largest) < 1e9 and np.abs(matrix[3] - [0, 0, 0, 1]).max() < 1e-6)


def _is_region(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    centre = value.get("centre")
    placed = isinstance(centre, list) and len(centre) == 3
    sizes = (value.get("radius"), value.get("shown", 1.0))
    return placed and all(is_number(size, 1 / _FARTHEST, _FARTHEST) for size in sizes) and _all_near(centre)


def _all_near(values: Any) -> bool:
    return all(is_number(value, -_FARTHEST, _FARTHEST) for value in values)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _is_symmetry(value: object) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("reason"), str):
        return False
    if not isinstance(value.get("used"), bool):
        return False
    needed = ("heading_deg", "confidence") if value["used"] else ()
    numbers = ("heading_deg", "confidence", "lettering")
    return all(is_number(value.get(name) if name in needed else value.get(name, 0)) for name in numbers)


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_json, value.values()))
    if isinstance(value, list):
        return all(map(_is_json, value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_matrix(value: object) -> bool:
    return matrix4(value) is not None


_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "normalised": (lambda value: isinstance(value, bool), "true or false"),
    "region": (_is_region, "an object with centre (three numbers) and radius (positive; so is shown, if it is there)"),
    "world_from_file": (_is_matrix, "4 rows of 4 finite numbers"),
    "normalised_from_world": (_is_matrix, "4 rows of 4 finite numbers"),
    "applied_transform": (_is_matrix, "4 rows of 4 finite numbers"),
    "applied_scale": (lambda value: is_number(value, 1 / _FARTHEST, _FARTHEST), "a positive number"),
    "warnings": (_is_texts, "a list of sentences"),
    "notes": (_is_texts, "a list of sentences"),
    "cutout_confidence": (lambda value: is_number(value, 0, 1), "a number from 0 to 1"),
    "symmetry": (_is_symmetry, "what became of a photo's symmetry"),
}
"""What each key that is read must be: a check, and the same in words."""
