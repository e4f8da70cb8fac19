"""The one reader of JSON and of YAML: files that come from anywhere end as plain values or as a sentence.

What is well-formed and still does harm is refused here, at the boundary: files of hundreds of megabytes, numbers of
thousands of digits, nesting deeper than Python's stack, and YAML aliases that stand for more than a file can hold. What
the values mean is left to whoever asks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scene.errors import InputError, ViewloomError
from scene.files import require_regular, unreadable

_MOST_BYTES = 200_000_000
"""Of a JSON file: some hundred thousand cameras."""
_MOST_YAML_BYTES = 256_000
"""Of a YAML file; pyyaml reads about 100 kB in a second."""
_MOST_DIGITS = 64
"""Of a whole number; states of random generators have 39."""
_DEEPEST = 64
"""Nesting of lists and objects."""
_MOST_NODES = 20_000
"""Values of a YAML file, with those that aliases repeat counted each time."""


def read_json(path: Path, kind: type[ViewloomError] = InputError, *, finite: bool = False, unique: bool = False) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        kind: of the error.
        finite: whether NaN and infinity, which Python's writer makes and JSON does not have, are refused.
        unique: whether an object that gives one name twice is refused; else the last counts.

    Raises:
        ViewloomError: of the given kind: the file is not there, cannot be read, is no JSON, or is not meant to be read.
    """
    return parse_json(_bytes_of(path, _MOST_BYTES, kind), path, kind, finite=finite, unique=unique)


def parse_json(
    data: bytes | str,
    where: str | Path,
    kind: type[ViewloomError] = InputError,
    *,
    finite: bool = False,
    unique: bool = False,
) -> Any:
    """The content of a JSON text; see :func:`read_json`."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8-sig")
        content = json.loads(
            text,
            parse_int=_whole,
            parse_constant=_no_constant if finite else float,
            object_pairs_hook=_without_doubles if unique else None,
        )
    except RecursionError as error:
        raise kind("cannot be read as JSON (it is nested too deeply)", where=where) from error
    except ValueError as error:
        raise kind(f"cannot be read as JSON ({error})", where=where) from error
    if finite and any(isinstance(value, float) and not math.isfinite(value) for value, _ in _nodes(content)):
        raise kind("cannot be read as JSON (it holds a number beyond all measure)", where=where)
    if any(depth > _DEEPEST for _, depth in _nodes(content)):
        raise kind("cannot be read as JSON (it is nested too deeply)", where=where)
    return content


def read_object(
    path: Path, kind: type[ViewloomError] = InputError, *, finite: bool = False, unique: bool = False
) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        ViewloomError: as :func:`read_json`, or it holds something else.
    """
    content = read_json(path, kind, finite=finite, unique=unique)
    if not isinstance(content, dict):
        raise kind(f"cannot be read (it holds {named_type(content)}, not an object)", where=path)
    return content


def read_yaml(path: Path, kind: type[ViewloomError] = InputError) -> Any:
    """The plain values of a YAML file; no tag of it makes anything else, or runs anything.

    Raises:
        ViewloomError: of the given kind, as :func:`read_json`.
    """
    data = _bytes_of(path, _MOST_YAML_BYTES, kind)
    try:
        content = yaml.safe_load(data.decode("utf-8-sig"))
    except RecursionError as error:
        raise kind("cannot be read as YAML (it is nested too deeply)", where=path) from error
    # pyyaml's constructors stumble over dates that no calendar has, numbers of too many digits, and odd mappings.
    except (yaml.YAMLError, ValueError, ArithmeticError, LookupError, AttributeError, TypeError) as error:
        said = " ".join(str(error).split())[:300]
        raise kind(f"cannot be read as YAML ({said})", where=path) from error
    for count, (_, depth) in enumerate(_nodes(content)):
        if depth > _DEEPEST:
            raise kind("cannot be read as YAML (it is nested too deeply, or within itself)", where=path)
        if count > _MOST_NODES:
            raise kind(
                f"cannot be read as YAML (it stands for more than {_MOST_NODES:,} values)",
                where=path,
                fix="Write the values out in place of aliases.",
            )
    return content


def shown(value: object, most: int = 40) -> str:
    """A value as a message shows it: its beginning, whatever it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 10**most:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    if isinstance(value, dict | list | tuple | set | frozenset) and len(value) > 8:
        return f"{named_type(value)} of {len(value)}"
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # digits beyond Python's limit, somewhere inside
        return named_type(value)
    return text if len(text) <= most else f"{text[:most]}..."


def named_type(value: object) -> str:
    """The kind of a plain value in words."""
    kinds = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return "nothing" if value is None else kinds.get(type(value), f"a value of type {type(value).__name__}")


def matrix4(value: object) -> list[list[float]] | None:
    """Four rows of four finite numbers, or None if the value is anything else."""
    if (
        not isinstance(value, list)
        or len(value) != 4
        or not all(isinstance(row, list) and len(row) == 4 for row in value)
    ):
        return None
    return value if all(is_number(entry) for row in value for entry in row) else None


def is_number(value: object, low: float | int = -math.inf, high: float | int = math.inf) -> bool:
    """Whether a plain value is a finite number within bounds; neither true nor a text is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        number = float(value)
    except OverflowError:
        return False
    return math.isfinite(number) and low <= number <= high


def is_whole(value: object, low: int, high: int) -> bool:
    """Whether a plain value is a whole number within bounds."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _bytes_of(path: Path, most: int, kind: type[ViewloomError]) -> bytes:
    try:
        require_regular(path)
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        said = unreadable(error, path)
        raise kind(said.what, where=said.where, fix=said.fix) from error
    except ValueError as error:  # a zero byte in the name
        raise kind(f"cannot be read ({error})", where=repr(str(path))) from error
    if len(data) > most:
        raise kind(f"is larger than {most / 1e6:g} MB, which no such file is", where=path)
    return data


def _whole(digits: str) -> int | float:
    # Beyond that it is a measure of nothing, and Python refuses to read or to print it: as a float it is infinite, or
    # at least as large, and falls through every check of a range.
    return float(digits) if len(digits) > _MOST_DIGITS else int(digits)


def _no_constant(word: str) -> float:
    raise ValueError(f"{word} is not JSON")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{shown(name)} is given twice")
        found[name] = value
    return found


def _nodes(content: object) -> Iterator[tuple[object, int]]:
    """Every value with its depth; those that are within themselves go on for ever."""
    stack: list[tuple[object, int]] = [(content, 0)]
    while stack:
        value, depth = stack.pop()
        yield value, depth
        if isinstance(value, dict):
            stack += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            stack += [(item, depth + 1) for item in value]
