"""What phones with a depth sensor write: Polycam's raw export, and Record3D's.

Both have ARKit's world: y up, metres, camera-to-world in OpenGL axes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from scene.captures.folders import by_number, pictures_in, read_json, subfolder
from scene.captures.listed import Listed, items, mapping, number, numbers, picture_size, views_of
from scene.errors import InputError
from scene.frames import Frame, pose
from scene.lens import Intrinsics
from scene.maps import picture_head
from scene.viewset import ViewSet

_POSE = [f"t_{row}{column}" for row in range(3) for column in range(4)]


class _Keyframe(NamedTuple):
    file: Path
    picture: str


def find_polycam(path: Path) -> Path | None:
    """The folder of cameras of a raw export; the corrected ones, if there are any."""
    if not path.is_dir():
        return None
    for top in (path / "keyframes", path):
        for name in ("corrected_cameras", "cameras"):
            first = next(iter(sorted((top / name).glob("*.json"))), None)
            content = None if first is None else read_json(first)
            if isinstance(content, dict) and content.keys() >= {*_POSE, "fx"}:
                return top / name
    return None


def read_polycam(path: Path) -> ViewSet:
    """Read Polycam's raw export; depth maps come along, in millimetres.

    Raises:
        InputError: there is none, or pictures are missing.
    """
    cameras = find_polycam(path)
    if cameras is None:
        raise InputError("no keyframes/cameras of Polycam here", where=path)
    top = cameras.parent
    images = subfolder(top, ["corrected_images", "images"] if cameras.name.startswith("corrected") else ["images"])
    there = {picture.stem: picture.name for picture in ([] if images is None else pictures_in(images))}
    entries = [_Keyframe(file, there.get(file.stem, f"{file.stem}.jpg")) for file in sorted(cameras.glob("*.json"))]

    def frame(one: Listed, said: list[str]) -> Frame:
        where = str(one.entry.file)
        content = mapping(read_json(one.entry.file), where, "the camera")
        matrix = numbers([content.get(key) for key in _POSE], 12, where, "its pose t_00 ... t_23").reshape(3, 4)
        fx, fy, cx, cy = (number(content.get(key), where, key) for key in ("fx", "fy", "cx", "cy"))
        width, height = picture_size(content.get("width"), content.get("height"), where)
        depth = top / "depth" / f"{one.entry.file.stem}.png"
        # Depth maps are much smaller than pictures: only those of a picture's size can be used as they are.
        fits = depth.is_file() and picture_head(depth).size == picture_head(one.image).size
        intrinsics = Intrinsics(fx, fy, cx, cy, width, height)
        return Frame(one.image, where, pose(matrix, where, "its pose", said), intrinsics, depth=depth if fits else None)

    def named(entry: _Keyframe) -> str:
        return entry.picture

    tops = [] if images is None else [images.name]
    return views_of(cameras, "polycam", entries, named, frame, up="y", folder=top, tops=[*tops, ""])


def find_record3d(path: Path) -> Path | None:
    """The ``metadata`` or ``metadata.json`` of a Record3D export, or the file given."""
    files = [path] if path.is_file() else [path / "metadata.json", path / "metadata"]
    return next((file for file in files if file.is_file() and _is_record3d(read_json(file))), None)


def read_record3d(path: Path) -> ViewSet:
    """Read Record3D's export of colours with its metadata: pose ``k`` belongs to the picture numbered ``k``.

    Raises:
        InputError: the file is not of this form, or pictures are missing.
    """
    file = find_record3d(path)
    if file is None:
        raise InputError("no metadata of Record3D here", where=path)
    content = mapping(read_json(file), str(file), "the metadata")
    poses = items(content.get("poses"), str(file), "poses")
    # Stored column by column.
    k = numbers(content.get("K"), 9, str(file), "K").reshape(3, 3).T
    size = picture_size(content.get("w"), content.get("h"), str(file))
    folder = subfolder(file.parent, ["EXR_RGBD/rgb", "rgbd", "rgb", "images"]) or file.parent
    pictures = by_number(pictures_in(folder))
    if not pictures:
        raise InputError("no pictures 0.png, 1.png, ... beside it", where=file, fix="Export with colour pictures.")
    entries = [(number, path.name) for number, path in sorted(pictures.items()) if number < len(poses)]
    notes = []
    if len(entries) < len(poses):
        notes.append(f"{len(poses) - len(entries)} of {len(poses)} cameras have no picture and were not used")

    def frame(one: Listed, said: list[str]) -> Frame:
        values = numbers(poses[one.entry[0]], 7, one.where, "its pose")
        length = float(np.linalg.norm(values[:4]))
        if not length > 0:
            raise InputError("its rotation is a quaternion of length zero", where=one.where)
        c2w = np.eye(4)
        c2w[:3, :3] = Rotation.from_quat(values[:4] / length).as_matrix()
        c2w[:3, 3] = values[4:]
        fx, fy, cx, cy = (float(k[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        return Frame(one.image, one.where, pose(c2w, one.where, notes=said), Intrinsics(fx, fy, cx, cy, *size))

    return views_of(file, "record3d", entries, lambda entry: entry[1], frame, up="y", folder=folder, notes=notes)


def _is_record3d(content: Any) -> bool:
    if not isinstance(content, dict) or not {"poses", "K", "w", "h"} <= content.keys():
        return False
    poses = content["poses"]
    return isinstance(poses, list) and bool(poses) and isinstance(poses[0], list) and len(poses[0]) == 7
