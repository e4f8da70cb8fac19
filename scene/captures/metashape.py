"""Agisoft Metashape's ``cameras.xml`` (Export Cameras, Agisoft XML).

Poses are camera-to-chunk, 4x4, OpenCV axes. Calibrations are in pixels, principal points from the picture's middle;
the lens is Brown's with four radial terms, whose tangential ones are OpenCV's in the other order (user manual of
Metashape Professional, "Camera models"). The chunk's own scale and turn are applied; where a component has one, that.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from scene.camera import Mat4, c2w_from_opencv
from scene.captures.listed import Listed, fisheye_lens, number, numbers, picture_size, radial_lens, views_of
from scene.captures.worlds import align_up
from scene.errors import InputError
from scene.frames import Frame, pose
from scene.lens import Intrinsics, Lens
from scene.pictures.opening import picture_endings
from scene.viewset import ViewSet


@dataclass(frozen=True)
class _Camera:
    name: str
    sensor: str | None
    component: str | None
    transform: str


def find_metashape(path: Path) -> Path | None:
    """The first XML file that is one of Metashape's, or the file given."""
    files = [path] if path.is_file() else sorted(path.glob("*.xml"))
    return next((file for file in files if file.suffix.lower() == ".xml" and _chunk(file) is not None), None)


def read_metashape(path: Path) -> ViewSet:
    """Read such a file, or a folder with one; cameras that were not aligned are left out and told.

    Raises:
        InputError: the file is not of this form, no camera is aligned, or pictures are missing.
    """
    file = find_metashape(path)
    chunk = None if file is None else _chunk(file)
    if file is None or chunk is None:
        raise InputError("no cameras.xml of Metashape here", where=path)
    sensors = {sensor.get("id"): sensor for sensor in chunk.iter("sensor")}
    every = [camera for camera in chunk.iter("camera") if camera.get("label")]
    posed = [
        _Camera(str(camera.get("label")), camera.get("sensor_id"), camera.get("component_id"), text)
        for camera in every
        if (text := camera.findtext("transform"))
    ]
    if not posed:
        raise InputError("holds no camera that was aligned", where=file, fix="Align the photos, then export again.")
    notes = []
    if len(posed) < len(every):
        notes.append(f"{len(every) - len(posed)} of {len(every)} cameras were not aligned and were left out")

    def frame(one: Listed, said: list[str]) -> Frame:
        camera: _Camera = one.entry
        sensor = sensors.get(camera.sensor)
        if sensor is None:
            raise InputError("names no sensor of the file", where=one.where)
        matrix = pose(numbers(camera.transform, 16, one.where, "its transform").reshape(4, 4), one.where, notes=said)
        intrinsics, lens = _calibration(sensor, one.where)
        return Frame(one.image, one.where, c2w_from_opencv(matrix), intrinsics, lens)

    views = views_of(file, "metashape", posed, lambda c: _file_name(c.name, file), frame, up="z", notes=notes)
    return align_up(views, _chunk_transform(chunk, posed, str(file)))


def _chunk(file: Path) -> ET.Element | None:
    """The first chunk of a document; None if it is no such document."""
    try:
        with file.open("rb") as opened:
            # Entities could grow without bound; Metashape writes none.
            if b"<!DOCTYPE" in opened.read(4096):
                return None
        root = ET.parse(file).getroot()
    except (OSError, ET.ParseError, ValueError, LookupError):
        return None
    chunk = root.find("chunk") if root.tag == "document" else None
    return chunk if chunk is not None and chunk.find("cameras") is not None else None


def _file_name(label: str, file: Path) -> str:
    """The picture of a label, which mostly lacks its ending."""
    if PurePosixPath(label).suffix:
        return label
    for folder in (file.parent, file.parent / "images"):
        found = sorted(folder.glob(f"{_literal(label)}.*")) if folder.is_dir() else []
        pictures = [path for path in found if path.suffix.lower() in picture_endings()]
        if pictures:
            return pictures[0].name
    return label


def _literal(text: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in text)


def _calibration(sensor: ET.Element, where: str) -> tuple[Intrinsics, Lens]:
    kind = sensor.get("type", "frame")
    if kind not in ("frame", "fisheye"):
        raise InputError(f"its sensor is of type {kind!r}", where=where, fix="Export undistorted frame pictures.")
    resolution = sensor.find("resolution")
    choices = sensor.findall("calibration")
    if resolution is None or not choices:
        raise InputError("its sensor has no resolution or calibration", where=where)
    # What the alignment found counts before what it began with.
    chosen = next((c for c in choices if c.get("class") == "adjusted"), choices[0])
    width, height = picture_size(resolution.get("width"), resolution.get("height"), where)

    def value(name: str) -> float:
        text = chosen.findtext(name)
        return 0.0 if text is None else number(text, where, name)

    focal = value("f") or value("fx")
    fx, fy = focal + value("b1"), value("fy") or focal
    if not (fx > 0 and fy > 0):
        raise InputError("its sensor has no focal length", where=where)
    middle = (0.0, 0.0) if chosen.find("f") is not None else (width / 2, height / 2)
    cx, cy = value("cx") + width / 2 - middle[0], value("cy") + height / 2 - middle[1]
    intrinsics = Intrinsics(fx, fy, cx, cy, width, height)
    if kind == "fisheye":
        return intrinsics, fisheye_lens([value(f"k{n}") for n in (1, 2, 3, 4)])
    radial = [value(f"k{n}") for n in (1, 2, 3)]
    return intrinsics, radial_lens(radial, value("p2"), value("p1"), value("k4"))


def _chunk_transform(chunk: ET.Element, posed: list[_Camera], where: str) -> Mat4:
    """Turn and scale from the chunk's frame to the world's.

    The shift stays out: of georeferenced chunks it is that of the Earth's middle, six million metres away.
    """
    used = {camera.component for camera in posed}
    components = [c for c in chunk.iter("component") if c.get("id") in used and c.find("transform") is not None]
    element = components[0].find("transform") if len(components) == 1 else chunk.find("transform")
    out = np.eye(4)
    if element is None:
        return out
    rotation, scale = element.findtext("rotation"), element.findtext("scale")
    if rotation is not None:
        turn = np.eye(4)
        turn[:3, :3] = numbers(rotation, 9, where, "the chunk's rotation").reshape(3, 3)
        out[:3, :3] = pose(turn, where, "the chunk's rotation")[:3, :3]
    if scale is not None:
        factor = number(scale, where, "the chunk's scale")
        if not factor > 0:
            raise InputError(f"the chunk's scale is {factor:g}", where=where)
        out[:3, :3] *= factor
    return out
