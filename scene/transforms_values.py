"""Single values of ``transforms.json``: intrinsics, lens and region, with the dialects that programs have for them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from scene.documents import shown
from scene.errors import InputError
from scene.lens import Intrinsics, Lens

_PERSPECTIVE = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "FULL_OPENCV", "RADIAL", "SIMPLE_RADIAL", "PERSPECTIVE")
_FISHEYE = ("OPENCV_FISHEYE", "FISHEYE", "SIMPLE_FISHEYE", "RADIAL_FISHEYE", "SIMPLE_RADIAL_FISHEYE")
_OTHER_LENSES = ("ftheta_p0", "latlong", "equirectangular")
"""Keys with which instant-ngp names lenses that are none of these."""
_PARAMETERS = ("k1", "k2", "k3", "k4", "p1", "p2")
"""Order of nerfstudio's ``distortion_params``."""
_NOT_USED = ("render_aabb", "sk_x", "sk_y", "rolling_shutter")
"""What other programs say of what is rendered or seen, and has no meaning here."""

_LARGEST = 1_000_000
"""Pixels along a side: no picture that can be decoded has more."""


class NamedDepth(NamedTuple):
    """A frame's depth map: its name, the key that says it, and the world units of one count."""

    name: object
    key: str
    scale: float


class Region(NamedTuple):
    """A sphere about what a capture is of, in the file's world, and which keys say so."""

    centre: tuple[float, float, float]
    radius: float
    keys: str


def region_in(content: dict[str, Any], notes: list[str]) -> Region | None:
    """The region of interest that a file states, in the words of Neuralangelo, instant-ngp or NeuS2.

    Keys that say nothing of use are noted.
    """
    unused = [key for key in _NOT_USED if _says_something(content, key)]
    found: Region | None = None
    readers = (
        (("sphere_center", "sphere_radius"), _sphere),
        (("aabb_range",), _range),
        (("aabb",), _box),
        (("scale", "offset"), _unit_cube),
    )
    for keys, read in readers:
        there = [key for key in keys if content.get(key) is not None]
        if not there:
            continue
        sphere = None if found else read(content)
        if sphere is None:
            unused += there
        else:
            found = Region(*sphere, " and ".join(there))
    if content.get("aabb_scale") is not None and (found is None or found.keys[:5] != "scale"):
        unused.append("aabb_scale")
    if found is not None:
        give = "give" if " and " in found.keys else "gives"
        notes.append(f"{found.keys} {give} the region of interest, where no masks tell the object")
    if unused:
        notes.append(f"{', '.join(unused)} {'was' if len(unused) == 1 else 'were'} not used")
    return found


def depth_in(values: dict[str, Any], entry: dict[str, Any], usual: float, where: str) -> NamedDepth:
    """A frame's depth map, in the words of nerfstudio or instant-ngp; without a name if there is none of use.

    instant-ngp reads ``depth_path`` where ``integer_depth_scale`` says what a count is, unless ``enable_depth_loading``
    is false.

    Args:
        values: what the file says of the frame, in it or for all.
        entry: the frame's own part of it.
        usual: world units of a count where nerfstudio's file does not say.
        where: what errors name.

    Raises:
        InputError: a scale is no number, or nerfstudio's is not positive.
    """
    if entry.get("depth_file_path"):
        unit = positive(values, "depth_unit_scale_factor", where, usual)
        return NamedDepth(entry["depth_file_path"], "depth_file_path", unit)
    wanted = entry.get("depth_path") and values.get("enable_depth_loading") is not False
    scale = number(values, "integer_depth_scale", where, 0.0) if wanted else 0.0
    if wanted and scale > 0:
        return NamedDepth(entry["depth_path"], "depth_path", scale)
    return NamedDepth(None, "depth_file_path", positive(values, "depth_unit_scale_factor", where, usual))


def depth_notes(content: dict[str, Any]) -> list[str]:
    """Why depth maps that instant-ngp's files name are not used, if they are not."""
    frames = [frame for frame in content["frames"] if isinstance(frame, dict) and frame.get("depth_path")]
    if not frames or any(frame.get("depth_file_path") for frame in frames):
        return []
    if content.get("enable_depth_loading") is False:
        return ["depth_path was not used: enable_depth_loading is false"]
    scales = [values.get("integer_depth_scale") for values in (content, *frames)]
    given = any(isinstance(scale, int | float) and scale > 0 for scale in scales)
    return [] if given else ["depth_path was not used: no integer_depth_scale says what a count is"]


def intrinsics_in(
    values: dict[str, Any], entry: dict[str, Any], size: tuple[int, int], where: str, notes: list[str]
) -> Intrinsics:
    """Intrinsics of a frame.

    Args:
        values: what the file says of it, in the frame or for all.
        entry: the frame's own part of it.
        size: width and height of its picture.
        where: what errors name.
        notes: told what was assumed.

    Raises:
        InputError: the focal length is missing, or a value is none.
    """
    width, height = size
    if entry.get("intrinsic_matrix") is not None and entry.get("fl_x") is None:
        return _of_matrix(entry["intrinsic_matrix"], size, where)
    if values.get("fl_x") is not None:
        fx = number(values, "fl_x", where)
        fy = number(values, "fl_y", where, fx)
        if values.get("cx") is None or values.get("cy") is None:
            notes.append("the principal point is not given: taken in the middle of the pictures")
    elif values.get("camera_angle_x") is not None:
        fx = fy = _focal(values, "camera_angle_x", width, where)
        if values.get("camera_angle_y") is not None:
            fy = _focal(values, "camera_angle_y", height, where)
    elif values.get("intrinsic_matrix") is not None:
        return _of_matrix(values["intrinsic_matrix"], size, where)
    else:
        raise InputError(
            "fl_x is missing",
            where=where,
            fix="Give fl_x (pixels) or camera_angle_x (radians), globally or for every frame.",
        )
    cx, cy = number(values, "cx", where, width / 2), number(values, "cy", where, height / 2)
    return Intrinsics(fx, fy, cx, cy, width, height)


def lens_in(values: dict[str, Any], where: str, notes: list[str]) -> Lens:
    """The lens of a frame.

    Args:
        values: what the file says of it, in the frame or for all.
        where: what errors name.
        notes: told what was assumed.

    Raises:
        InputError: the model is not supported, or has no such coefficients.
    """
    model = values.get("camera_model")
    other = next((key for key in _OTHER_LENSES if _says_something(values, key)), None)
    if other is not None or (model is not None and model not in (*_PERSPECTIVE, *_FISHEYE)):
        raise InputError(
            f"camera model {str(model if other is None else other)[:40]!r} is not supported",
            where=where,
            fix="Undistort the pictures to a pinhole camera first, and describe that.",
        )
    listed = values.get("distortion_params")
    if listed is not None:
        if not isinstance(listed, list) or len(listed) != len(_PARAMETERS):
            raise InputError("distortion_params must be a list of k1, k2, k3, k4, p1, p2", where=where)
        values = {**values, **dict(zip(_PARAMETERS, listed))}
    k1, k2, k3, k4, p1, p2 = (number(values, key, where, 0.0) for key in _PARAMETERS)
    if model in _FISHEYE or ((model is None or model in _PERSPECTIVE) and values.get("is_fisheye") in (True, 1)):
        if p1 or p2:
            notes.append("p1 and p2 have no meaning for a fisheye lens: they were not used")
        return Lens(k1, k2, k3, k4, fisheye=True)
    k5, k6 = (number(values, key, where, 0.0) for key in ("k5", "k6"))
    if model == "FULL_OPENCV":
        return Lens(k1, k2, k3, k4, k5, k6, p1, p2)
    if k5 or k6:
        raise InputError(
            f"k5 and k6 have no meaning for camera model {model or 'OPENCV'}",
            where=where,
            fix="If the camera was calibrated with OpenCV's rational model, name camera_model FULL_OPENCV.",
        )
    if k4:
        notes.append(
            "k4 was taken for the coefficient of the radius's eighth power, as nerfstudio and Metashape mean it "
            "(in camera_model FULL_OPENCV it is another, in OPENCV_FISHEYE that of the angle)"
        )
    return Lens(k1, k2, k3, p1=p1, p2=p2, r8=k4)


def _of_matrix(rows: object, size: tuple[int, int], where: str) -> Intrinsics:
    try:
        k = np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("intrinsic_matrix is not a matrix of numbers", where=where) from error
    if k.shape not in ((3, 3), (3, 4), (4, 4)) or not np.isfinite(k).all() or abs(k[2, 2] - 1) > 1e-6:
        raise InputError(
            "intrinsic_matrix must be 3 or 4 finite rows, of which the third ends the calibration with 1", where=where
        )
    if abs(k[0, 1]) >= 1:
        raise InputError(f"intrinsic_matrix has a skew of {k[0, 1]:.3g} pixels", where=where)
    return Intrinsics(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2]), *size)


def _says_something(values: dict[str, Any], key: str) -> bool:
    value = values.get(key)
    return bool(any(value) if isinstance(value, list) and not any(isinstance(v, list) for v in value) else value)


_Sphere = tuple[tuple[float, float, float], float]


def _sphere(content: dict[str, Any]) -> _Sphere | None:
    centre = _numbers(content.get("sphere_center", [0.0, 0.0, 0.0]), (3,))
    radius = _numbers(content.get("sphere_radius", 1.0), ())
    return None if centre is None or radius is None else _sound(centre, float(radius))


def _range(content: dict[str, Any]) -> _Sphere | None:
    box = _numbers(content["aabb_range"], (3, 2))
    return None if box is None else _about(box[:, 0], box[:, 1])


def _box(content: dict[str, Any]) -> _Sphere | None:
    box = _numbers(content["aabb"], (2, 3))
    return None if box is None else _about(box[0], box[1])


def _unit_cube(content: dict[str, Any]) -> _Sphere | None:
    """The sphere in the cube from 0 to 1 of instant-ngp, to which ``scale`` and ``offset`` lead from the file."""
    scale = _numbers(content.get("scale", 0.33), ())
    offset = content.get("offset", 0.5)
    shift = _numbers(offset if isinstance(offset, list) else [offset] * 3, (3,))
    if scale is None or shift is None or not scale > 0:
        return None
    return _sound((0.5 - shift) / float(scale), 0.5 / float(scale))


def _about(low: np.ndarray, high: np.ndarray) -> _Sphere | None:
    return _sound((low + high) / 2, float(np.linalg.norm(high - low)) / 2)


def _sound(centre: np.ndarray, radius: float) -> _Sphere | None:
    x, y, z = (float(v) for v in centre)
    return ((x, y, z), radius) if 0 < radius < math.inf else None


def _numbers(value: object, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if found.shape == shape and np.isfinite(found).all() else None


def _focal(values: dict[str, Any], key: str, side: int, where: str) -> float:
    angle = number(values, key, where)
    if not 0 < angle < math.pi:
        raise InputError(f"{key} must be between 0 and pi radians, it is {angle}", where=where)
    return side / 2 / math.tan(angle / 2)


def whole(values: dict[str, Any], key: str, where: str) -> int:
    """A whole number."""
    found = number(values, key, where)
    if found != int(found) or abs(found) > _LARGEST:
        raise InputError(f"{key} must be a whole number of pixels, it is {found:g}", where=where)
    return int(found)


def positive(values: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A positive number."""
    found = number(values, key, where, default)
    if found <= 0:
        raise InputError(f"{key} must be positive, it is {found}", where=where)
    return found


def number(values: dict[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A finite number."""
    value = values.get(key)
    value = default if value is None else value
    if value is None:
        raise InputError(f"{key} is missing", where=where, fix="Give it globally or for every frame.")
    try:
        found = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise InputError(f"{key} is not a finite number but {shown(value)}", where=where)
    return found
