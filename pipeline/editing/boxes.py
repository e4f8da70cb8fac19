"""Boxes as the target of an edit: each as it is around a part of the object, and as it is to become.

The file is JSON and strict, in the world of the capture::

    {"layout": "boxes", "boxes": [{"before": [[..4], [..4], [..4], [0, 0, 0, 1]], "after": ...}, ...]}

A matrix brings the cube [-1, 1]^3 to its place: its columns are a box's half axes and its middle.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pipeline.editing.controls import box_mesh
from scene.camera import Mat4
from scene.documents import is_number, read_object
from scene.errors import InputError
from scene.files import write_text

_LAYOUT = "boxes"
_FARTHEST = 1e9


@dataclass(frozen=True, eq=False)
class BoxTarget:
    """Boxes before and after an edit.

    Args:
        before, after: as many frames, in the same order, world frame.

    Raises:
        InputError: there are none, they differ in number, or one is flat, mirrored or not finite.
    """

    before: Float[np.ndarray, "b 4 4"]
    after: Float[np.ndarray, "c 4 4"]

    def __post_init__(self) -> None:
        if len(self.before) != len(self.after):
            raise InputError(f"there are {len(self.before)} boxes before and {len(self.after)} after")
        for frames in (self.before, self.after):
            box_mesh(frames)

    def transformed(self, matrix: Mat4) -> BoxTarget:
        """The boxes under a similarity of the world."""
        return BoxTarget(matrix @ self.before, matrix @ self.after)

    def save(self, path: Path) -> None:
        """Write the file aside and rename it."""
        pairs = [{"before": b.tolist(), "after": a.tolist()} for b, a in zip(self.before, self.after, strict=True)]
        write_text(path, json.dumps({"layout": _LAYOUT, "boxes": pairs}, indent=1, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> BoxTarget:
        """Read the file.

        Raises:
            InputError: it cannot be read, or holds no boxes; what is wrong is named.
        """
        content = read_object(path, unique=True)
        if set(content) != {"layout", "boxes"} or content["layout"] != _LAYOUT:
            raise InputError(f"is no file of boxes (keys layout: {_LAYOUT!r}, boxes)", where=path)
        pairs = content["boxes"]
        if not isinstance(pairs, list) or not pairs:
            raise InputError("holds no boxes", where=path)
        frames: dict[str, list[Mat4]] = {"before": [], "after": []}
        for index, pair in enumerate(pairs):
            if not isinstance(pair, dict) or set(pair) != set(frames):
                raise InputError(f"box {index} needs before and after, and nothing else", where=path)
            for name in frames:
                frames[name].append(_frame(pair[name], f"{name} of box {index}", path))
        try:
            return cls(np.stack(frames["before"]), np.stack(frames["after"]))
        except InputError as error:
            raise type(error)(error.what, where=path, fix=error.fix) from None


def _frame(value: Any, name: str, path: Path) -> Float[np.ndarray, "4 4"]:
    """A matrix as JSON holds it."""
    right = isinstance(value, list) and len(value) == 4
    right = right and all(isinstance(row, list) and len(row) == 4 for row in value)
    if not right or not all(is_number(x, -_FARTHEST, _FARTHEST) for row in value for x in row):
        raise InputError(f"{name} is no 4x4 matrix of numbers", where=path)
    matrix = np.array(value, np.float64)
    if not np.array_equal(matrix[3], (0, 0, 0, 1)):
        raise InputError(f"the last row of {name} must be 0, 0, 0, 1", where=path)
    return matrix
