"""What numbers in an asset's file mean, and how large it is to be; light to import, as commands use it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scene.errors import InputError

Unit = Literal["m", "mm"]
Up = Literal["y", "z"]
Point = tuple[float, float, float]
_WORDS = {"m": "metres", "mm": "millimetres", "y": "+Y up, front to +Z", "z": "+Z up, front to -Y"}


@dataclass(frozen=True)
class FileFrame:
    """What numbers in a file mean, where the format itself does not say it.

    Args:
        unit: of lengths.
        up: the axis that points upwards.
    """

    unit: Unit = "m"
    up: Up = "y"

    def __str__(self) -> str:
        return f"{_WORDS[self.unit]}, {_WORDS[self.up]}"


PRINTING = FileFrame("mm", "z")
"""What slicers take for granted."""


@dataclass(frozen=True)
class AssetSize:
    """How large an asset becomes; unless one of them is given, as large as it is.

    Args:
        longest_side: metres.
        capture: the size that the capture's own units say, taken as metres.
        length: two points in the capture's world and their true distance in metres.
    """

    longest_side: float | None = None
    capture: bool = False
    length: tuple[Point, Point, float] | None = None

    def __post_init__(self) -> None:
        if (self.longest_side is not None) + self.capture + (self.length is not None) > 1:
            raise InputError("one size is enough", fix="Give one of --longest-side, --scale and --length.")
