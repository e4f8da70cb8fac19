"""The six files of a COLMAP model, text and binary, without COLMAP's own library."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from scene.errors import InputError
from scene.lens import Intrinsics, Lens
from scene.lens_models import DivisionLens, FovLens, PrismFisheyeLens, UnifiedLens


@dataclass(frozen=True)
class Model:
    """One of COLMAP's camera models.

    Args:
        number: its id in binary files.
        name: its name in text files.
        parameters: names of its parameters in order; ``f`` is both focal lengths.
        fisheye: whether the lens's polynomial is in the angle from the axis.
        lens: makes the lens of the values behind the centre, where it is none of OpenCV's.
    """

    number: int
    name: str
    parameters: tuple[str, ...]
    fisheye: bool = False
    lens: Callable[..., Lens] | None = None

    def camera(self, size: tuple[int, int], values: Sequence[float], where: str) -> tuple[Intrinsics, Lens]:
        """Intrinsics and lens.

        Raises:
            InputError: there are more or fewer values than parameters, or one is not finite.
        """
        if len(values) != len(self.parameters):
            text = f"a camera of model {self.name} has {len(self.parameters)} parameters, here are {len(values)}"
            raise InputError(text, where=where)
        if not np.isfinite(values).all():
            raise InputError("a parameter is NaN or infinite", where=where)
        given = dict(zip(self.parameters, map(float, values)))
        fx, fy = given.get("fx", given.get("f", 0.0)), given.get("fy", given.get("f", 0.0))
        k1, k2, k3, k4, k5, k6, p1, p2 = (
            given.get(key, 0.0) for key in ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")
        )
        intrinsics = Intrinsics(fx, fy, given["cx"], given["cy"], *size)
        if self.lens is not None:
            return intrinsics, self.lens(*list(given.values())[self.parameters.index("cy") + 1 :])
        return intrinsics, Lens(k1, k2, k3, k4, k5, k6, p1, p2, fisheye=self.fisheye)


def _division(k: float) -> Lens:
    return DivisionLens(k=k)


def _fov(omega: float) -> Lens:
    return FovLens(omega=omega)


def _unified(alpha: float, beta: float) -> Lens:
    return UnifiedLens(alpha=alpha, beta=beta)


def _thin_prism(k1: float, k2: float, p1: float, p2: float, k3: float, k4: float, sx: float, sy: float) -> Lens:
    # The second tangential coefficient is that of x, as OpenCV has it.
    return PrismFisheyeLens(angular=(k1, k2, k3, k4), tangential=(p2, p1), prism=(sx, 0.0, sy, 0.0))


def _rad_tan_thin_prism(*values: float) -> Lens:
    prism = values[8], values[9], values[10], values[11]
    return PrismFisheyeLens(angular=values[:6], tangential=(values[6], values[7]), prism=prism, after=True)


_SIX, _PRISM = ("k0", "k1", "k2", "k3", "k4", "k5"), ("p0", "p1", "s0", "s1", "s2", "s3")
_CENTRE, _TANGENTIAL = ("cx", "cy"), ("k1", "k2", "p1", "p2")
MODELS = (
    Model(0, "SIMPLE_PINHOLE", ("f", *_CENTRE)),
    Model(1, "PINHOLE", ("fx", "fy", *_CENTRE)),
    Model(2, "SIMPLE_RADIAL", ("f", *_CENTRE, "k1")),
    Model(3, "RADIAL", ("f", *_CENTRE, "k1", "k2")),
    Model(4, "OPENCV", ("fx", "fy", *_CENTRE, *_TANGENTIAL)),
    Model(5, "OPENCV_FISHEYE", ("fx", "fy", *_CENTRE, "k1", "k2", "k3", "k4"), fisheye=True),
    Model(6, "FULL_OPENCV", ("fx", "fy", *_CENTRE, *_TANGENTIAL, "k3", "k4", "k5", "k6")),
    Model(7, "FOV", ("fx", "fy", *_CENTRE, "omega"), lens=_fov),
    Model(8, "SIMPLE_RADIAL_FISHEYE", ("f", *_CENTRE, "k1"), fisheye=True),
    Model(9, "RADIAL_FISHEYE", ("f", *_CENTRE, "k1", "k2"), fisheye=True),
    Model(10, "THIN_PRISM_FISHEYE", ("fx", "fy", *_CENTRE, *_TANGENTIAL, "k3", "k4", "sx1", "sy1"), lens=_thin_prism),
    Model(11, "RAD_TAN_THIN_PRISM_FISHEYE", ("fx", "fy", *_CENTRE, *_SIX, *_PRISM), lens=_rad_tan_thin_prism),
    Model(12, "SIMPLE_DIVISION", ("f", *_CENTRE, "k"), lens=_division),
    Model(13, "DIVISION", ("fx", "fy", *_CENTRE, "k"), lens=_division),
    Model(14, "SIMPLE_FISHEYE", ("f", *_CENTRE), fisheye=True),
    Model(15, "FISHEYE", ("fx", "fy", *_CENTRE), fisheye=True),
    Model(16, "EUCM", ("fx", "fy", *_CENTRE, "alpha", "beta"), lens=_unified),
)
"""In the order of their numbers; as of COLMAP 4.2."""
_PANORAMAS = {17: "EQUIRECTANGULAR"}
"""No pinhole sees what they see."""


class Image(NamedTuple):
    """A posed picture: unit quaternion (w, x, y, z) and translation from world to camera."""

    name: str
    camera: int
    quaternion: Float[np.ndarray, "4"]
    translation: Float[np.ndarray, "3"]


Cameras = dict[int, tuple[Intrinsics, Lens]]


class _Cursor:
    """Reads records off a binary file; its end where a record should be is an error that names the record."""

    def __init__(self, path: Path) -> None:
        self.path, self.data, self.at = path, path.read_bytes(), 0

    def take(self, layout: str, record: str) -> tuple[Any, ...]:
        """The next values, little endian, as :mod:`struct` describes them."""
        start, self.at = self.at, self.at + struct.calcsize("<" + layout)
        if self.at > len(self.data):
            raise self._truncated(record)
        return struct.unpack_from("<" + layout, self.data, start)

    def skip(self, count: int, record: str) -> None:
        self.at += count
        if self.at > len(self.data):
            raise self._truncated(record)

    def text(self, record: str) -> str:
        """The next string, up to a zero byte."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise self._truncated(record)
        start, self.at = self.at, end + 1
        return self.data[start:end].decode("utf-8", "surrogateescape")

    def records(self, what: str) -> Iterator[str]:
        """The names of as many records as the file's first number says."""
        (count,) = self.take("Q", f"number of {what}s")
        for k in range(count):
            yield f"{what} {k} of {count}"

    def _truncated(self, record: str) -> InputError:
        return InputError(
            f"is truncated in {record} (after {len(self.data)} bytes)",
            where=self.path,
            fix="Copy the model again, or export it anew from COLMAP.",
        )


def binary_cameras(path: Path) -> Cameras:
    """Read ``cameras.bin``."""
    cursor, cameras = _Cursor(path), {}
    for record in cursor.records("camera"):
        key, number, width, height = cursor.take("IiQQ", record)
        where = f"{path}, {record}"
        model = next((model for model in MODELS if model.number == number), None)
        if model is None:
            raise _unsupported(_PANORAMAS.get(number, f"number {number}"), where)
        values = cursor.take("d" * len(model.parameters), record)
        cameras[key] = model.camera((width, height), values, where)
    return cameras


def binary_images(path: Path) -> list[Image]:
    """Read ``images.bin``; what was seen where in the pictures is skipped."""
    cursor, images = _Cursor(path), []
    for record in cursor.records("image"):
        values = cursor.take("I7dI", record)
        name = cursor.text(f"the name of {record}")
        (count,) = cursor.take("Q", f"number of points in {record}")
        cursor.skip(24 * count, f"the points in {record}")
        images.append(Image(name, values[8], np.array(values[1:5]), np.array(values[5:8])))
    return images


def binary_points(path: Path) -> Float[np.ndarray, "n 3"]:
    """Read ``points3D.bin``: positions only."""
    cursor, points = _Cursor(path), []
    for record in cursor.records("point"):
        values = cursor.take("Q3d3BdQ", record)
        cursor.skip(8 * values[8], f"the track of {record}")
        points.append(values[1:4])
    return np.array(points, dtype=np.float64).reshape(-1, 3)


def text_cameras(path: Path) -> Cameras:
    """Read ``cameras.txt``: id, model, width, height, parameters."""
    cameras = {}
    for number, words in _lines(path):
        where = f"{path}, line {number}"
        model = next((model for model in MODELS if len(words) > 1 and model.name == words[1]), None)
        if model is None:
            raise _unsupported(words[1] if len(words) > 1 else "", where)
        try:
            key, width, height = int(words[0]), int(words[2]), int(words[3])
            values = [float(word) for word in words[4:]]
        except (ValueError, IndexError) as error:
            raise InputError(f"is no camera ({error})", where=where) from error
        cameras[key] = model.camera((width, height), values, where)
    return cameras


def text_images(path: Path, notes: list[str]) -> list[Image]:
    """Read ``images.txt``: of every image two lines, its pose and what was seen where (which may be empty).

    Other programs leave the second lines out: a line that can be no list of points is the next image's, and ``notes``
    say so.
    """
    images, single, last = [], 0, False
    lines = [pair for pair in enumerate(_text(path).splitlines(), 1) if not pair[1].lstrip().startswith("#")]
    at = 0
    while at < len(lines):
        number, line = lines[at]
        at += 1
        words = line.split(maxsplit=9)
        if not words:
            continue
        try:
            numbers = np.array([float(word) for word in words[:9]])
            images.append(Image(words[9].strip(), int(words[8]), numbers[1:5], numbers[5:8]))
        except (ValueError, IndexError) as error:
            raise InputError(
                f"is no image ({error})", where=f"{path}, line {number}", fix="Every image needs two lines."
            ) from error
        last = at == len(lines)
        if not last and not _names_an_image(lines[at][1]):
            at += 1
        elif not last:
            single += 1
    if single:
        notes.append(f"{path.name} has no line of points for {single + last} of {len(images)} images: all were read")
    return images


def _names_an_image(line: str) -> bool:
    """Whether a line is that of an image: ten words that are a number, a pose, a camera, and a name."""
    words = line.split(maxsplit=9)
    try:
        int(words[0]), int(words[8]), [float(word) for word in words[1:8]]
    except (ValueError, IndexError):
        return False
    # Points are numbers throughout, three to each; a name may be a number too.
    return len(words) == 10 and (not _numeric(words[9]) or len(line.split()) % 3 > 0)


def _numeric(text: str) -> bool:
    try:
        return bool([float(word) for word in text.split()])
    except ValueError:
        return False


def text_points(path: Path) -> Float[np.ndarray, "n 3"]:
    """Read ``points3D.txt``: positions only."""
    points = []
    for number, words in _lines(path):
        try:
            points.append([float(word) for word in (words[1], words[2], words[3])])
        except (ValueError, IndexError) as error:
            raise InputError(f"is no point ({error})", where=f"{path}, line {number}") from error
    return np.array(points, dtype=np.float64).reshape(-1, 3)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_text(path).splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield number, words


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise InputError("is not a text file", where=path) from error


def _unsupported(model: str, where: str) -> InputError:
    if model in _PANORAMAS.values():
        return InputError(
            f"camera model {model} is not supported: a panorama is no picture of a pinhole camera",
            where=where,
            fix="Cut the panoramas into perspective pictures (COLMAP's panorama_sfm example does) and use their model.",
        )
    return InputError(
        f"camera model {model} is not supported",
        where=where,
        fix=f"Use one of {', '.join(model.name for model in MODELS)}, or COLMAP's image_undistorter.",
    )
