"""OpenSfM's and OpenDroneMap's ``reconstruction.json``.

Rotations are world-to-camera as axis times angle, in OpenCV axes. Focal lengths and principal points are fractions of
the picture's longer side, the latter from its middle (OpenSfM documentation, "Geometric Models"). The world is z up.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scipy.spatial.transform import Rotation

from scene.captures.folders import first_json, read_json
from scene.captures.listed import (
    Listed,
    fisheye_lens,
    items,
    mapping,
    number,
    numbers,
    picture_size,
    radial_lens,
    views_of,
)
from scene.errors import InputError
from scene.frames import Frame, pose_from_w2c
from scene.lens import Intrinsics, Lens
from scene.viewset import ViewSet

_PLAIN = {"perspective", "simple_radial", "radial", "brown", "fisheye", "fisheye_opencv"}


def find_opensfm(path: Path) -> Path | None:
    """The ``reconstruction.json`` of a folder or of its ``opensfm/``, or the file given."""
    for place in (path, path / "opensfm") if path.is_dir() else (path,):
        if (found := first_json(place, "reconstruction.json", _is_opensfm)) is not None:
            return found
    return None


def read_opensfm(path: Path) -> ViewSet:
    """Read such a file; of several reconstructions the largest, and this is told.

    Raises:
        InputError: the file is not of this form, or pictures are missing.
    """
    file = find_opensfm(path)
    if file is None:
        raise InputError("no reconstruction.json of OpenSfM here", where=path)
    every = [r for r in items(read_json(file), str(file), "the list of reconstructions") if _is_reconstruction(r)]
    if not every:
        raise InputError("holds no reconstruction with cameras and shots", where=file)
    best = max(every, key=lambda one: len(one["shots"]))
    notes = []
    if len(every) > 1:
        others = sum(len(one["shots"]) for one in every) - len(best["shots"])
        notes.append(f"of {len(every)} separate reconstructions the largest was read: {others} pictures are in others")
    shots = list(best["shots"].items())

    def frame(one: Listed, said: list[str]) -> Frame:
        shot = mapping(one.entry[1], one.where, "the shot")
        turn = Rotation.from_rotvec(numbers(shot.get("rotation"), 3, one.where, "its rotation")).as_matrix()
        c2w = pose_from_w2c(turn, numbers(shot.get("translation"), 3, one.where, "its translation"), one.where, said)
        intrinsics, lens = _camera(
            mapping(best["cameras"].get(str(shot.get("camera"))), one.where, "its camera"), one.where
        )
        return Frame(one.image, one.where, c2w, intrinsics, lens)

    points = best.get("points")
    found = [p.get("coordinates") for p in points.values() if isinstance(p, dict)] if isinstance(points, dict) else []
    cloud = numbers(found, 3 * len(found), str(file), "the points").reshape(-1, 3) if found else None
    return views_of(
        file,
        "opensfm",
        shots,
        lambda shot: shot[0],
        frame,
        up="z",
        tops=("images", "", "../images"),
        notes=notes,
        points=cloud,
    )


def _camera(camera: dict[str, Any], where: str) -> tuple[Intrinsics, Lens]:
    kind = camera.get("projection_type")
    if kind not in _PLAIN:
        raise InputError(f"its camera is of type {kind!r}", where=where, fix=f"Use one of {', '.join(sorted(_PLAIN))}.")
    width, height = picture_size(camera.get("width"), camera.get("height"), where)
    side = max(width, height)

    def value(name: str, default: float = 0.0) -> float:
        return default if camera.get(name) is None else number(camera[name], where, name)

    fx = value("focal_x", value("focal"))
    fy = value("focal_y", fx)
    if not (fx > 0 and fy > 0):
        raise InputError("its camera has no focal length", where=where)
    cx, cy = width / 2 + value("c_x") * side, height / 2 + value("c_y") * side
    k = [value(f"k{n}") for n in (1, 2, 3, 4)]
    intrinsics = Intrinsics(fx * side, fy * side, cx, cy, width, height)
    if kind.startswith("fisheye"):
        return intrinsics, fisheye_lens(k)
    return intrinsics, radial_lens(k, value("p1"), value("p2"))


def _is_opensfm(content: Any) -> bool:
    return isinstance(content, list) and any(_is_reconstruction(one) for one in content)


def _is_reconstruction(one: Any) -> bool:
    return (
        isinstance(one, dict)
        and isinstance(one.get("shots"), dict)
        and isinstance(one.get("cameras"), dict)
        and bool(one["shots"])
    )
