"""Joints of bodies in pictures, and OpenPose's files of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from scene.documents import is_number, is_whole, read_object, shown
from scene.errors import InputError
from scene.skeleton import JOINTS

_BODY_25 = (*range(8), *range(9, 19))
"""Of the 25 points, those of COCO-18 in its order; left out are the middle of the hips and the feet."""
_LAYOUTS = {3 * len(JOINTS): tuple(range(len(JOINTS))), 75: _BODY_25}
"""By how many numbers a file has for a person."""
_KEYPOINTS = "pose_keypoints_2d"
_MOST_PEOPLE = 1000


@dataclass(frozen=True, eq=False)
class BodyJoints:
    """Where one picture shows the joints of a body.

    Args:
        pixels: in the order of COCO-18; NaN for those that are not seen.
        confidences: in [0, 1]; 0 for those that are not seen.
    """

    pixels: Float[np.ndarray, "18 2"]
    confidences: Float[np.ndarray, "18"]

    @classmethod
    def unseen(cls) -> BodyJoints:
        """No body."""
        return cls(np.full((len(JOINTS), 2), np.nan), np.zeros(len(JOINTS)))


def read_openpose(path: Path, width: int, height: int) -> list[BodyJoints]:
    """People in a file as OpenPose writes them with ``--write_json``: COCO's 18 points, or BODY_25.

    The file has ``{"people": [{"pose_keypoints_2d": [x, y, confidence, ...]}, ...]}`` in pixels, whose first has its
    centre at zero; a confidence of 0 says not seen. Where it names ``canvas_width`` and ``canvas_height``, as programs
    beside ControlNet do, its pixels are those of a picture of that size.

    Args:
        path: the file.
        width, height: of the picture that the joints are wanted in, pixels.

    Raises:
        InputError: it cannot be read, or is not of that kind.
    """
    content = read_object(path)
    people = content.get("people")
    if not isinstance(people, list) or len(people) > _MOST_PEOPLE:
        raise InputError(
            "lists no people", where=path, fix="Give a file that OpenPose wrote with --write_json, one for each view."
        )
    canvas = [content.get("canvas_width", width), content.get("canvas_height", height)]
    if not all(is_whole(side, 1, 1_000_000) for side in canvas):
        raise InputError(f"has a canvas of {shown(canvas)}", where=path, fix="Give its width and height in pixels.")
    scale = np.array([width / canvas[0], height / canvas[1]])
    return [_person(person, number, scale, path) for number, person in enumerate(people)]


def _person(person: Any, number: int, scale: Float[np.ndarray, "2"], path: Path) -> BodyJoints:
    values = person.get(_KEYPOINTS) if isinstance(person, dict) else None
    if not isinstance(values, list) or len(values) not in _LAYOUTS:
        got = f"{len(values)} numbers" if isinstance(values, list) else "none"
        raise InputError(
            f"person {number} needs {_KEYPOINTS} of 18 or 25 points, three numbers each; got {got}", where=path
        )
    wrong = [value for value in values if not is_number(value, -1e6, 1e6)]
    if wrong:
        raise InputError(f"person {number} has {shown(wrong[0])} among its {_KEYPOINTS}", where=path)
    points = np.array(values, np.float64).reshape(-1, 3)[list(_LAYOUTS[len(values)])]
    confidences = np.clip(points[:, 2], 0, 1)
    pixels = (points[:, :2] + 0.5) * scale
    return BodyJoints(np.where(confidences[:, None] > 0, pixels, np.nan), confidences)
