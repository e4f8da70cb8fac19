"""The one noun of the pipeline: a set of posed pictures, on disk a capture folder in nerfstudio's format."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from scene.camera import Camera
from scene.errors import InputError
from scene.files import write_text, written_aside
from scene.photo import load_mask, load_rgba

RGBA = UInt8[np.ndarray, "h w 4"]
_PINHOLES = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV", "FULL_OPENCV", "RADIAL", "SIMPLE_RADIAL", "PERSPECTIVE")
"""Camera models that are pinholes once their distortion is zero."""


@dataclass(frozen=True, eq=False)
class View:
    """One posed picture.

    Args:
        name: unique within its set, without directory or ending.
        camera: the camera; its size is the picture's size.
        pixels: the picture, if it is in memory.
        image_path: otherwise where it is read from, each time it is asked for.
        mask_path: a separate mask, white where the object is; it replaces the picture's alpha.
        weight: confidence in [0, 1]; generated views have less than photos.
    """

    name: str
    camera: Camera
    pixels: RGBA | None = None
    image_path: Path | None = None
    mask_path: Path | None = None
    weight: float = 1.0

    def rgba(self) -> RGBA:
        """The picture, straight alpha; alpha is 255 everywhere if there is no mask.

        Raises:
            InputError: the file is missing or unreadable, or its size is not the camera's.
        """
        if self.pixels is not None:
            return self.pixels
        if self.image_path is None:
            raise InputError("a view has neither pixels nor a file", where=self.name)
        rgba = load_rgba(self.image_path)
        size = (self.camera.width, self.camera.height)
        if rgba.shape[1::-1] != size:
            raise InputError(
                f"the picture is {rgba.shape[1]}x{rgba.shape[0]}, its camera says {size[0]}x{size[1]}",
                where=self.image_path,
                fix="Correct w and h (and the intrinsics) in transforms.json.",
            )
        if self.mask_path is not None:
            rgba[..., 3] = load_mask(self.mask_path, size)
        return rgba


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Posed pictures of one object or scene; the world is z up.

    Args:
        views: the pictures, in order.
        has_masks: whether alpha tells object from background.
        facts: where the set comes from; written to and read from the capture file.
    """

    views: tuple[View, ...]
    has_masks: bool
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if len(set(names)) != len(names):
            raise InputError(f"two views have the same name {max(names, key=names.count)!r}")

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[View]:
        return iter(self.views)

    def save(self, folder: Path) -> None:
        """Write a capture folder: ``transforms.json``, ``images/`` (RGBA if there are masks) and ``masks/``.

        The JSON is written last, so that a folder with one is complete.
        """
        frames = []
        for view in self.views:
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
            with written_aside(folder / frame["file_path"]) as path:
                Image.fromarray(rgba if self.has_masks else rgba[..., :3]).save(path)
            if self.has_masks:
                frame["mask_path"] = f"masks/{view.name}.png"
                with written_aside(folder / frame["mask_path"]) as path:
                    Image.fromarray(rgba[..., 3]).save(path)
            frames.append(frame)
        content = {"camera_model": "OPENCV", "frames": frames, "viewloom": self.facts}
        write_text(folder / "transforms.json", json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> ViewSet:
        """Read a capture folder (or its ``transforms.json``); pictures stay on disk until asked for.

        Raises:
            InputError: the file is not valid, a value is not finite, or a path leaves the folder.
        """
        path = path / "transforms.json" if path.is_dir() else path
        if not path.is_file():
            raise InputError("no capture here: transforms.json is missing", where=path.parent)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            frames = content["frames"]
            facts = content.get("viewloom") or {}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"is not a capture file ({error!r})", where=path) from error
        if not frames:
            raise InputError("lists no frames", where=path)
        if not isinstance(frames, list) or not isinstance(facts, dict):
            name, kind = ("viewloom", "object") if isinstance(frames, list) else ("frames", "list")
            raise InputError(f"is not a capture file ({name} is not a JSON {kind})", where=path)
        views, masked = [], 0
        for k, frame in enumerate(frames):
            where = f"{path}, frame {k}"
            if not isinstance(frame, dict):
                raise InputError("is not an object with file_path and transform_matrix", where=where)
            image = _inside(path.parent, frame, "file_path", where)
            mask = _inside(path.parent, frame, "mask_path", where) if frame.get("mask_path") else None
            masked += mask is not None
            views.append(
                View(
                    image.stem,
                    _camera(content, frame, where),
                    image_path=image,
                    mask_path=mask,
                    weight=_number(frame, content, "viewloom_weight", where, 1.0),
                )
            )
        if masked not in (0, len(views)):
            raise InputError(
                f"{masked} of {len(views)} frames have a mask",
                where=path,
                fix="Give a mask_path for all frames or for none.",
            )
        return cls(tuple(views), bool(masked) or _has_alpha(views[0]), facts)


def _inside(folder: Path, frame: dict[str, Any], key: str, where: str) -> Path:
    name = frame.get(key)
    if not isinstance(name, str) or not PurePosixPath(name).name:
        raise InputError(f"{key} is missing or names no file", where=where)
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise InputError(
            f"the path {name!r} leaves the capture folder", where=where, fix="Use paths relative to transforms.json."
        )
    path = folder / pure
    if not path.is_file() and path.with_suffix(".png").is_file():
        return path.with_suffix(".png")  # NeRF-synthetic files leave the ending out
    return path


def _number(
    frame: dict[str, Any], content: dict[str, Any], key: str, where: str, default: float | None = None
) -> float:
    value = frame.get(key, content.get(key, default))
    if value is None:
        raise InputError(f"{key} is missing", where=where, fix="Give it globally or for every frame.")
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{key} is not a finite number but {repr(value)[:40]}", where=where)
    return number


def _camera(content: dict[str, Any], frame: dict[str, Any], where: str) -> Camera:
    matrix = frame.get("transform_matrix")
    if matrix is None:
        raise InputError("transform_matrix is missing", where=where)
    try:
        c2w = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("transform_matrix is not a matrix of numbers", where=where) from error
    if c2w.shape == (3, 4):
        c2w = np.concatenate([c2w, [[0, 0, 0, 1]]])
    if c2w.shape != (4, 4):
        raise InputError(f"transform_matrix must have 4 rows of 4 numbers, its shape is {c2w.shape}", where=where)
    model = frame.get("camera_model", content.get("camera_model"))
    if model is not None and model not in _PINHOLES:
        raise InputError(
            f"camera model {model!r} is not supported",
            where=where,
            fix="Undistort the pictures to a pinhole camera first.",
        )
    distortion = [abs(_number(frame, content, key, where, 0.0)) for key in ("k1", "k2", "k3", "k4", "p1", "p2")]
    if max(distortion) > 0:
        raise InputError("lens distortion is not supported yet", where=where, fix="Undistort the pictures first.")
    values = {key: _number(frame, content, key, where) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
    try:
        return Camera(
            c2w, values["fl_x"], values["fl_y"], values["cx"], values["cy"], int(values["w"]), int(values["h"])
        )
    except InputError as error:
        raise InputError(error.what, where=where, fix=error.fix) from error


def _has_alpha(view: View) -> bool:
    if view.image_path is None:
        return True
    try:
        with Image.open(view.image_path) as image:
            return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except OSError as error:
        raise InputError(f"cannot be read ({error})", where=view.image_path) from error
