"""Lower and upper ends of settings: what is beyond them is a slip, and would end in a crash or never."""

from __future__ import annotations

from collections.abc import Mapping

from scene.errors import SettingsError

Range = tuple[float | int, float | int]
"""The least and the most that a number may be."""


def require_ranges(settings: object, ranges: Mapping[str, Range]) -> None:
    """Raise unless the named fields of settings lie within their ranges; NaN lies in none.

    Args:
        settings: their dataclass. A field may hold a number, a tuple of numbers, or None, which stands for a default.
        ranges: of each field.

    Raises:
        SettingsError: a number is out of its range, or no number.
    """
    for name, (least, most) in ranges.items():
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else (value,):
            if number is None or least <= number <= most:
                continue
            raise SettingsError(f"{name} cannot be {_shown(number)}", fix=f"Give {least:g} to {most:g}.")


def _shown(number: float | int) -> str:
    try:
        return f"{float(number):g}"
    except OverflowError:
        return "so large"


def require_length(settings: object, name: str, most: int) -> None:
    """Raise if a field holds more entries than it may.

    Raises:
        SettingsError: it does.
    """
    if len(getattr(settings, name)) > most:
        raise SettingsError(f"{name} has {len(getattr(settings, name))} entries", fix=f"Give {most} at most.")
