"""``transforms.json`` as nerfstudio, instant-ngp and Blender's NeRF-synthetic scripts write it, and as we do."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from PIL import Image

from scene.documents import read_object, shown
from scene.errors import InputError
from scene.files import write_text, written_aside
from scene.frames import DEPTH_UNIT, Contents, Frame, assemble, inside, picture_of, pose, require_files
from scene.lens import Intrinsics, Lens
from scene.maps import picture_head, save_array
from scene.metadata import affine, checked_metadata
from scene.ply import read_points, write_points
from scene.view import Origin, View

_PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "FULL_OPENCV", "RADIAL", "SIMPLE_RADIAL", "PERSPECTIVE")
_FISHEYE = ("OPENCV_FISHEYE", "FISHEYE", "RADIAL_FISHEYE", "SIMPLE_RADIAL_FISHEYE")
_PARAMETERS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""Order of nerfstudio's ``distortion_params``."""
_HEAVIEST = 1e6
_LARGEST = 1_000_000
"""Pixels along a side: no picture that can be decoded has more."""


def read_transforms(path: Path, *, splits: Sequence[str] = ("train",)) -> Contents:
    """Read a capture folder with ``transforms.json``, else ``transforms_SPLIT.json``, or such a file.

    What other programs say that has no meaning here (``aabb_scale``, ``train_filenames``, ...) is ignored.
    ``applied_transform`` and ``applied_scale`` are kept in the metadata: the set stays in the world of the file.

    Raises:
        InputError: no file, or a fault in it; the message names file and frame.
    """
    files = [path]
    if path.is_dir() or not path.suffix:
        files = [path / "transforms.json"]
        if not files[0].is_file():
            files = [file for split in splits if (file := path / f"transforms_{split}.json").is_file()]
    if not files or not files[0].is_file():
        folder = path if path.is_dir() or not path.suffix else path.parent
        name = path.name if path.suffix else "transforms.json"
        raise InputError(f"no capture here: {name} is missing", where=folder)
    frames: list[Frame] = []
    notes: list[str] = []
    contents = [_content(file) for file in files]
    for file, content in zip(files, contents):
        frames += _frames(file, content, notes)
    first = contents[0]
    metadata = first.get("viewloom")
    if metadata is not None:
        metadata = checked_metadata(metadata, files[0])
    else:
        metadata = {"format": _dialect(files[0], first), "up": "given", **_applied(first, files[0])}
    if notes:
        metadata = {**metadata, "notes": list(dict.fromkeys([*metadata.get("notes", []), *notes]))}
    points = None
    if first.get("ply_file_path"):
        ply = inside(files[0].parent, first["ply_file_path"], "ply_file_path", str(files[0]))
        if ply.is_file():
            points = read_points(ply)
    return assemble(frames, files[0], metadata, points)


def write_transforms(folder: Path, contents: Contents) -> None:
    """Write a capture folder: ``transforms.json``, ``images/`` (RGBA if there are masks), ``masks/``, and, if every
    view has them, ``depths/`` and ``normals/``.

    The JSON is written last, so that a folder with one is complete.

    Raises:
        InputError: some views only have depths or normals.
    """
    views = contents.views
    depths, normals = _all_or_none(views, "depth", "depth_source"), _all_or_none(views, "normals", "normal_source")
    frames = []
    for view in views:
        rgba = view.rgba()
        camera = view.camera
        frame: dict[str, Any] = {
            "file_path": f"images/{view.name}.png",
            "fl_x": camera.fx,
            "fl_y": camera.fy,
            "cx": camera.cx,
            "cy": camera.cy,
            "w": camera.width,
            "h": camera.height,
            "transform_matrix": camera.c2w.tolist(),
            "viewloom_weight": view.weight,
        }
        if view.origin != "photo":
            frame["viewloom_origin"] = view.origin
        with written_aside(folder / frame["file_path"]) as path:
            Image.fromarray(rgba if contents.has_masks else rgba[..., :3]).save(path)
        if contents.has_masks:
            frame["mask_path"] = f"masks/{view.name}.png"
            with written_aside(folder / frame["mask_path"]) as path:
                Image.fromarray(rgba[..., 3]).save(path)
        depth = view.depth() if depths else None
        if depth is not None:
            frame["depth_file_path"] = f"depths/{view.name}.npy"
            save_array(folder / frame["depth_file_path"], (depth / DEPTH_UNIT).astype(np.float32))
        vectors = view.normals() if normals else None
        if vectors is not None:
            frame["viewloom_normal_path"] = f"normals/{view.name}.npy"
            save_array(folder / frame["viewloom_normal_path"], vectors)
        frames.append(frame)
    content: dict[str, Any] = {"camera_model": "OPENCV", "frames": frames, "viewloom": contents.metadata}
    if contents.points is not None:
        content["ply_file_path"] = "points.ply"
        write_points(folder / "points.ply", contents.points)
    write_text(folder / "transforms.json", json.dumps(content, indent=1) + "\n")


def _origin(values: dict[str, Any], where: str) -> Origin:
    origin = values.get("viewloom_origin", "photo")
    if origin not in get_args(Origin):
        raise InputError(f"viewloom_origin {origin!r} is none of {', '.join(get_args(Origin))}", where=where)
    return cast(Origin, origin)


def _all_or_none(views: Sequence[View], what: str, attribute: str) -> bool:
    count = sum(getattr(view, attribute) is not None for view in views)
    if count not in (0, len(views)):
        raise InputError(
            f"{count} of {len(views)} views have {what}", fix=f"Give {what} to all views of a set or to none."
        )
    return count > 0


def _content(path: Path) -> dict[str, Any]:
    try:
        content = read_object(path)
        frames = content["frames"]
        metadata = content.get("viewloom", {})
    except InputError as error:
        raise InputError(f"is not a capture file ({error.what})", where=path, fix=error.fix) from error
    except KeyError as error:
        raise InputError(f"is not a capture file ({error!r})", where=path) from error
    if not frames:
        raise InputError("lists no frames", where=path)
    if not isinstance(frames, list) or not isinstance(metadata, dict | None):
        name, kind = ("viewloom", "object") if isinstance(frames, list) else ("frames", "list")
        raise InputError(f"is not a capture file ({name} is not a JSON {kind})", where=path)
    return content


def _frames(path: Path, content: dict[str, Any], notes: list[str]) -> list[Frame]:
    entries = content["frames"]
    images = []
    for k, entry in enumerate(entries):
        where = f"{path}, frame {k}"
        if not isinstance(entry, dict):
            raise InputError("is not an object with file_path and transform_matrix", where=where)
        images.append(picture_of(inside(path.parent, entry.get("file_path"), "file_path", where)))
    frames = []
    for k, (entry, image) in enumerate(zip(entries, images)):
        where = f"{path}, frame {k}"
        if entry.get("transform_matrix") is None:
            raise InputError("transform_matrix is missing", where=where)
        # A frame's own values win over those at the top.
        values = {**content, **{key: value for key, value in entry.items() if value is not None}}
        others = {
            name: inside(path.parent, entry[key], key, where) if entry.get(key) else None
            for name, key in (("mask", "mask_path"), ("depth", "depth_file_path"), ("normals", "viewloom_normal_path"))
        }
        if values.get("w") is None or values.get("h") is None:
            require_files(images, "pictures", path)
            size = picture_head(image).size
        else:
            size = (_whole(values, "w", where), _whole(values, "h", where))
        frames.append(
            Frame(
                image,
                where,
                pose(entry["transform_matrix"], where),
                _intrinsics(values, size, where, notes),
                _lens(values, where),
                **others,
                depth_scale=_positive(values, "depth_unit_scale_factor", where, DEPTH_UNIT),
                weight=_weight(values, where),
                origin=_origin(values, where),
            )
        )
    return frames


def _intrinsics(values: dict[str, Any], size: tuple[int, int], where: str, notes: list[str]) -> Intrinsics:
    width, height = size
    if values.get("fl_x") is not None:
        fx = _number(values, "fl_x", where)
        fy = _number(values, "fl_y", where, fx)
        if values.get("cx") is None or values.get("cy") is None:
            notes.append("the principal point is not given: taken in the middle of the pictures")
    elif values.get("camera_angle_x") is not None:
        fx = fy = _focal(values, "camera_angle_x", width, where)
        if values.get("camera_angle_y") is not None:
            fy = _focal(values, "camera_angle_y", height, where)
    else:
        raise InputError(
            "fl_x is missing",
            where=where,
            fix="Give fl_x (pixels) or camera_angle_x (radians), globally or for every frame.",
        )
    cx, cy = _number(values, "cx", where, width / 2), _number(values, "cy", where, height / 2)
    return Intrinsics(fx, fy, cx, cy, width, height)


def _lens(values: dict[str, Any], where: str) -> Lens:
    model = values.get("camera_model")
    if model is not None and model not in (*_PERSPECTIVE, *_FISHEYE):
        raise InputError(
            f"camera model {str(model)[:40]!r} is not supported",
            where=where,
            fix="Undistort the pictures to a pinhole camera first.",
        )
    listed = values.get("distortion_params")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) != len(_PARAMETERS):
            raise InputError("distortion_params must be a list of k1, k2, k3, k4, p1, p2", where=where)
        values = {**values, **dict(zip(_PARAMETERS, listed))}
    k1, k2, k3, k4, p1, p2 = (_number(values, key, where, 0.0) for key in _PARAMETERS)
    if model in _FISHEYE or values.get("is_fisheye") is True:
        return Lens(k1, k2, k3, k4, fisheye=True)
    k5, k6 = (_number(values, key, where, 0.0) for key in ("k5", "k6"))
    if model != "FULL_OPENCV" and (k4 or k5 or k6):
        raise InputError(
            f"k4, k5 and k6 have no meaning for camera model {model or 'OPENCV'}",
            where=where,
            fix="Name the model that was calibrated: FULL_OPENCV or OPENCV_FISHEYE.",
        )
    return Lens(k1, k2, k3, k4, k5, k6, p1, p2)


def _applied(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was done to the original world before the file was written, as metadata."""
    metadata: dict[str, Any] = {}
    if content.get("applied_transform") is not None:
        metadata["applied_transform"] = affine(content["applied_transform"], "applied_transform", path).tolist()
    if content.get("applied_scale") is not None:
        metadata["applied_scale"] = _positive(content, "applied_scale", str(path))
        checked_metadata(metadata, path)
    return metadata


def _dialect(path: Path, content: dict[str, Any]) -> str:
    if "aabb_scale" in content:
        return "instant-ngp"
    blender = path.name != "transforms.json" or ("camera_angle_x" in content and "fl_x" not in content)
    return "blender" if blender else "nerfstudio"


def _focal(values: dict[str, Any], key: str, side: int, where: str) -> float:
    angle = _number(values, key, where)
    if not 0 < angle < math.pi:
        raise InputError(f"{key} must be between 0 and pi radians, it is {angle}", where=where)
    return side / 2 / math.tan(angle / 2)


def _whole(values: dict[str, Any], key: str, where: str) -> int:
    number = _number(values, key, where)
    if number != int(number) or abs(number) > _LARGEST:
        raise InputError(f"{key} must be a whole number of pixels, it is {number:g}", where=where)
    return int(number)


def _weight(values: dict[str, Any], where: str) -> float:
    number = _number(values, "viewloom_weight", where, 1.0)
    if not 0 <= number <= _HEAVIEST:
        raise InputError(f"viewloom_weight must be from 0 to {_HEAVIEST:g}, it is {number:g}", where=where)
    return number


def _positive(values: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    number = _number(values, key, where, default)
    if number <= 0:
        raise InputError(f"{key} must be positive, it is {number}", where=where)
    return number


def _number(values: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    value = values.get(key)
    value = default if value is None else value
    if value is None:
        raise InputError(f"{key} is missing", where=where, fix="Give it globally or for every frame.")
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{key} is not a finite number but {shown(value)}", where=where)
    return number
