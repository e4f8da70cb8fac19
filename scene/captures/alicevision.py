"""Meshroom's ``cameras.sfm`` (AliceVision, JSON) and OpenMVG's ``sfm_data.json``: one family.

Poses are a world-to-camera rotation and the camera's centre, in OpenCV axes. Meshroom writes matrices column by column,
OpenMVG as a list of rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

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

# --- Meshroom ---------------------------------------------------------------------------------------------------------


def find_meshroom(path: Path) -> Path | None:
    """The first ``.sfm`` or JSON file with views, poses and intrinsics, or the file given."""
    if path.is_file():
        return path if path.suffix.lower() in (".sfm", ".json") and _is_meshroom(read_json(path)) else None
    files = [*sorted(path.glob("*.sfm")), *sorted(path.glob("sfm*.json"))]
    return next((file for file in files if _is_meshroom(read_json(file))), None)


def read_meshroom(path: Path) -> ViewSet:
    """Read such a file, or a folder with one; views without a pose are left out and told.

    Raises:
        InputError: the file is not of this form, has no poses, or pictures are missing.
    """
    file = find_meshroom(path)
    if file is None:
        raise InputError("no cameras.sfm of Meshroom here", where=path)
    content, where = mapping(read_json(file), str(file), "the file"), str(file)
    poses = _by_key(items(content["poses"], where, "poses"), "poseId")
    lenses = _by_key(items(content["intrinsics"], where, "intrinsics"), "intrinsicId")
    views = [one for one in items(content["views"], where, "views") if isinstance(one, dict)]
    posed = [one for one in views if _pose_key(one) in poses]
    notes = _left_out(len(views), len(posed), file)

    def frame(one: Listed, said: list[str]) -> Frame:
        held = poses[_pose_key(one.entry)]
        transform = mapping(mapping(held.get("pose"), one.where, "pose").get("transform"), one.where, "transform")
        rotation = numbers(transform.get("rotation"), 9, one.where, "rotation").reshape(3, 3).T
        centre = numbers(transform.get("center"), 3, one.where, "center")
        intrinsics, lens = _meshroom_lens(
            mapping(lenses.get(str(one.entry.get("intrinsicId"))), one.where, "its intrinsics")
        )
        return Frame(one.image, one.where, _pose(rotation, centre, one.where, said), intrinsics, lens)

    return views_of(file, "meshroom", posed, lambda view: view.get("path"), frame, up="cameras", notes=notes)


def _meshroom_lens(held: dict[str, Any]) -> tuple[Intrinsics, Lens]:
    where = f"intrinsics {held.get('intrinsicId')}"
    width, height = picture_size(held.get("width"), held.get("height"), where)
    if held.get("pxFocalLength") is not None:  # up to 2022
        focal = held["pxFocalLength"]
        fx, fy = numbers(focal if isinstance(focal, list) else [focal] * 2, 2, where, "pxFocalLength")
    else:
        sensor = number(held.get("sensorWidth"), where, "sensorWidth")
        if not sensor > 0:
            raise InputError(f"sensorWidth is {sensor:g}", where=where)
        fx = number(held.get("focalLength"), where, "focalLength") / sensor * width
        fy = fx / (number(held["pixelRatio"], where, "pixelRatio") if held.get("pixelRatio") is not None else 1.0)
    if not (fx > 0 and fy > 0):
        raise InputError("has no focal length", where=where)
    point = numbers(held.get("principalPoint", [0, 0]), 2, where, "principalPoint")
    # Newer versions give it from the middle, older ones from the corner.
    from_corner = bool((np.abs(point) > 0.25 * np.array([width, height])).all())
    cx, cy = point if from_corner else point + np.array([width, height]) / 2
    kind = str(held.get("distortionType") or held.get("type") or "pinhole").lower()
    given = held.get("distortionParams") or []
    k = numbers(given, len(given), where, "distortionParams") if isinstance(given, list) else np.zeros(0)
    return Intrinsics(float(fx), float(fy), float(cx), float(cy), width, height), _lens_of(kind, k, where)


def _lens_of(kind: str, k: Float[np.ndarray, "n"], where: str) -> Lens:
    if not k.any():
        if "fisheye" in kind or "equidistant" in kind:
            return fisheye_lens([])
        return Lens()
    values = k.tolist()
    if kind in ("radial1", "radialk1", "radial3", "radialk3", "pinhole"):
        return radial_lens(values)
    if kind == "brown":
        return radial_lens(values[:3], *values[3:5])
    if kind in ("fisheye4", "fisheye"):
        return fisheye_lens(values)
    raise InputError(
        f"its lens is of type {kind!r}", where=where, fix="Export undistorted pictures (PrepareDenseScene), or radial3."
    )


def _pose_key(view: dict[str, Any]) -> str:
    return str(view.get("poseId", view.get("viewId")))


def _is_meshroom(content: Any) -> bool:
    return isinstance(content, dict) and {"views", "intrinsics", "poses"} <= content.keys()


# --- OpenMVG ----------------------------------------------------------------------------------------------------------


def find_openmvg(path: Path) -> Path | None:
    """The ``sfm_data.json`` of a folder, or the file given."""
    return first_json(path, "sfm_data*.json", _is_openmvg)


def read_openmvg(path: Path) -> ViewSet:
    """Read such a file, or a folder with one; views without a pose are left out and told.

    Raises:
        InputError: the file is not of this form, has no poses, or pictures are missing.
    """
    file = find_openmvg(path)
    if file is None or not _is_openmvg(read_json(file)):
        raise InputError("no sfm_data.json of OpenMVG here", where=path)
    content, where = mapping(read_json(file), str(file), "the file"), str(file)
    views = [_data(one) for one in items(content["views"], where, "views")]
    lenses = _by_key(items(content["intrinsics"], where, "intrinsics"), "key")
    kinds = _kinds(lenses.values())
    poses = _by_key(items(content.get("extrinsics"), where, "extrinsics"), "key")
    posed = [one for one in views if str(one.get("id_pose")) in poses]
    notes = _left_out(len(views), len(posed), file)

    def frame(one: Listed, said: list[str]) -> Frame:
        held = mapping(poses[str(one.entry["id_pose"])].get("value"), one.where, "its pose")
        rotation = numbers(held.get("rotation"), 9, one.where, "rotation").reshape(3, 3)
        centre = numbers(held.get("center"), 3, one.where, "center")
        key = str(one.entry.get("id_intrinsic"))
        data = _data(lenses.get(key))
        width, height = picture_size(data.get("width"), data.get("height"), one.where)
        focal = number(data.get("focal_length"), one.where, "focal_length")
        cx, cy = numbers(data.get("principal_point"), 2, one.where, "principal_point")
        intrinsics = Intrinsics(focal, focal, float(cx), float(cy), width, height)
        return Frame(
            one.image, one.where, _pose(rotation, centre, one.where, said), intrinsics, _disto(data, kinds[key])
        )

    def named(view: dict[str, Any]) -> object:
        folder, name = str(view.get("local_path") or "").strip("/"), view.get("filename")
        return f"{folder}/{name}" if folder and isinstance(name, str) else name

    return views_of(file, "openmvg", posed, named, frame, up="cameras", notes=notes, tops=("", "images", "../images"))


def _disto(data: dict[str, Any], kind: str) -> Lens:
    if "fisheye" in kind:
        return fisheye_lens(numbers(data.get("fisheye", [0] * 4), 4, kind, "fisheye").tolist())
    if "disto_t2" in data:
        k1, k2, k3, t1, t2 = map(float, numbers(data["disto_t2"], 5, kind, "disto_t2"))
        # OpenMVG's tangential terms are t1 (r^2 + 2x^2) + 2 t2 xy: OpenCV's in the other order.
        return radial_lens([k1, k2, k3], t2, t1)
    for key, count in (("disto_k3", 3), ("disto_k1", 1)):
        if key in data:
            return radial_lens(numbers(data[key], count, kind, key).tolist())
    return Lens()


def _kinds(lenses: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Kind of each lens. A name is written out where it first occurs, with a number that later ones repeat."""
    names: dict[int, str] = {}
    kinds: dict[str, str] = {}
    for lens in lenses:
        value = lens.get("value")
        value = value if isinstance(value, dict) else {}
        tag = value.get("polymorphic_id")
        tag = tag & 0x7FFFFFFF if isinstance(tag, int) else -1
        if isinstance(value.get("polymorphic_name"), str):
            names[tag] = value["polymorphic_name"]
        kinds[str(lens.get("key"))] = names.get(tag, "pinhole")
    return kinds


def _data(one: Any) -> dict[str, Any]:
    """What stands inside of the wrappers that the library which writes these files puts around objects."""
    for key in ("value", "ptr_wrapper", "data"):
        one = one.get(key) if isinstance(one, dict) else None
    if not isinstance(one, dict):
        return {}
    # Lenses of several bases keep the first base's numbers in an object of their own.
    inner = one.get("value0")
    return {**inner, **one} if isinstance(inner, dict) else one


def _is_openmvg(content: Any) -> bool:
    return isinstance(content, dict) and {"sfm_data_version", "views", "intrinsics"} <= content.keys()


# --- both -------------------------------------------------------------------------------------------------------------


def _by_key(entries: list[Any], key: str) -> dict[str, dict[str, Any]]:
    """Objects by a value of theirs, which is a number in some files and a text in others."""
    return {str(one.get(key)): one for one in entries if isinstance(one, dict)}


def _pose(rotation: np.ndarray, centre: np.ndarray, where: str, notes: list[str]) -> np.ndarray:
    return pose_from_w2c(rotation, -rotation @ centre, where, notes)


def _left_out(total: int, posed: int, file: Path) -> list[str]:
    if not posed:
        raise InputError("holds no picture with a pose", where=file)
    return [f"{total - posed} of {total} pictures have no pose and were left out"] if posed < total else []
