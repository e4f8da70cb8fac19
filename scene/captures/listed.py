"""Captures whose file lists its pictures by name: what the readers of reconstruction programs' formats share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from scene.camera import Mat4, z_up_from_y_up
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, Sieve, with_files
from scene.lens import Lens
from scene.named_files import NamedFiles
from scene.viewset import ViewSet

Entry = TypeVar("Entry")
WorldUp = Literal["z", "y", "cameras"]
"""What points up in the file's world: an axis, as the format has it, or what the cameras tell."""


class Listed(NamedTuple):
    """One picture that a file lists.

    Args:
        image: where it should be.
        where: what errors name.
        entry: what the file says of it.
    """

    image: Path
    where: str
    entry: Any


def views_of(
    file: Path,
    kind: str,
    entries: Sequence[Entry],
    name_of: Callable[[Entry], object],
    frame_of: Callable[[Listed, list[str]], Frame],
    *,
    up: WorldUp,
    folder: Path | None = None,
    tops: Sequence[str] = ("", "images"),
    notes: Iterable[str] = (),
    points: Float[np.ndarray, "n 3"] | None = None,
) -> ViewSet:
    """The set of a file's entries; those of no use are left out and told, as long as enough are left.

    Args:
        file: that lists them.
        kind: of the capture, for the metadata.
        entries: one for each picture with a pose.
        name_of: what an entry calls its picture.
        frame_of: the frame of an entry; gets a list for notes.
        up: in the file's world.
        folder: of the capture, if it is not the file's.
        tops: where names may begin, relative to it.
        notes: sentences that stand before all others.
        points: on surfaces, file's world.

    Raises:
        InputError: too few are left; the message says what is wrong with the first.
    """
    top, sieve = file.parent if folder is None else folder, Sieve(file)
    names = NamedFiles(top, [name_of(entry) for entry in entries], tops=tops)
    listed, frames = list[Listed](), list[Frame]()
    for k, entry in enumerate(entries):
        where = f"{file}, {name_of(entry) or f'picture {k + 1}'}"
        path = sieve.keep(partial(names.find, name_of(entry), "the picture's name", where))
        listed += [] if path is None else [Listed(path, where, entry)]
    for one in with_files(listed, "image", "pictures", sieve):
        frame = sieve.keep(partial(frame_of, one, sieve.notes))
        frames += [] if frame is None else [frame]
    sieve.settle(len(frames))
    said = [*notes, *dict.fromkeys(sieve.notes), *names.notes]
    views = ViewSet.of_frames(
        frames, file, {"format": kind, "up": "given", **({"notes": said} if said else {})}, points
    )
    if up == "cameras":
        return align_up(views)
    if up == "z":
        return views
    turn = from_y_up()
    moved = views.transformed(turn)
    return ViewSet(moved.views, moved.has_masks, {**moved.metadata, "world_from_file": turn.tolist()}, moved.points)


def from_y_up() -> Mat4:
    """From a y-up world to a z-up one."""
    turn = np.eye(4)
    turn[:3, :3] = z_up_from_y_up(np.eye(3)).T
    return turn


def numbers(values: object, count: int, where: str, what: str) -> Float[np.ndarray, "n"]:
    """So many finite numbers, of a text, a list, or lists of lists.

    Raises:
        InputError: they are something else.
    """
    try:
        found = np.asarray(values.split() if isinstance(values, str) else values, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what} is not {count} numbers", where=where) from error
    if found.size != count or not np.isfinite(found).all():
        raise InputError(f"{what} is not {count} finite numbers", where=where)
    return found


def number(value: object, where: str, what: str) -> float:
    """One finite number."""
    return float(numbers([value] if not isinstance(value, str) else value, 1, where, what)[0])


def picture_size(width: object, height: object, where: str) -> tuple[int, int]:
    """A width and a height in pixels.

    Raises:
        InputError: they are none.
    """
    size = int(number(width, where, "the width")), int(number(height, where, "the height"))
    if not (0 < size[0] < 1_000_000 and 0 < size[1] < 1_000_000):
        raise InputError(f"{size[0]}x{size[1]} is no size of a picture", where=where)
    return size


def radial_lens(k: Sequence[float], p1: float = 0.0, p2: float = 0.0, r8: float = 0.0) -> Lens:
    """A lens of up to three radial and two tangential terms, in OpenCV's order."""
    k1, k2, k3 = (*map(float, k), 0.0, 0.0, 0.0)[:3]
    return Lens(k1=k1, k2=k2, k3=k3, p1=p1, p2=p2, r8=r8)


def fisheye_lens(k: Sequence[float]) -> Lens:
    """A lens of OpenCV's fisheye model, of up to four terms."""
    k1, k2, k3, k4 = (*map(float, k), 0.0, 0.0, 0.0, 0.0)[:4]
    return Lens(k1=k1, k2=k2, k3=k3, k4=k4, fisheye=True)


def mapping(value: object, where: str, what: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, dict):
        raise InputError(f"{what} is missing or no JSON object", where=where)
    return value


def items(value: object, where: str, what: str) -> list[Any]:
    """A JSON list with something in it.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, list) or not value:
        raise InputError(f"{what} is missing, empty or no list", where=where)
    return value
