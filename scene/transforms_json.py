"""``transforms.json`` as nerfstudio, instant-ngp and Blender's NeRF-synthetic scripts write it, and as we do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from scene.camera import c2w_from_opencv
from scene.documents import read_object
from scene.errors import InputError
from scene.files import reading, write_text, written_aside
from scene.frames import DEPTH_UNIT, Contents, Frame, Sieve, assemble, pose, with_files
from scene.maps import picture_head, save_array
from scene.metadata import affine, checked_metadata
from scene.named_files import NamedFiles
from scene.ply import read_points, write_points
from scene.transforms_values import depth_in, depth_notes, intrinsics_in, lens_in, number, positive, region_in, whole
from scene.view import LARGE, Origin, View

_HEAVIEST = 1e6
_SHARPEST = 1e6
_COPIED = (".jpg", ".jpeg", ".png", ".webp")
"""Endings of pictures that every reader of captures knows."""
_LOSSY = (".jpg", ".jpeg", ".webp", ".heic", ".heif", ".avif")
_MAPS = (("depth_file_path", "depth maps"), ("viewloom_normal_path", "normal maps"))


def read_transforms(path: Path, *, splits: Sequence[str] = ("train",)) -> Contents:
    """Read a capture folder with ``transforms.json``, else ``transforms_SPLIT.json``, or such a file.

    Of what other programs say, the region of interest is kept in the metadata, in the file's world, and so are
    ``applied_transform`` and ``applied_scale``: the set stays in the world of the file. NeuS2's ``from_na`` poses, in
    OpenCV axes, are turned. What has no meaning here (``aabb_scale``, ...) is named in the notes.

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
        sieve = Sieve(file)
        frames += _frames(file, content, sieve)
        notes += [*sieve.notes, *depth_notes(content)]
    first = contents[0]
    points = _points(files[0], first["ply_file_path"], notes) if first.get("ply_file_path") else None
    metadata = first.get("viewloom")
    if metadata is not None:
        metadata = checked_metadata(metadata, files[0])
    else:
        metadata = {"format": _dialect(files[0], first), "up": "given", **_applied(first, files[0])}
        region = region_in(first, notes)
        if region is not None:
            metadata["region"] = {"centre": list(region.centre), "radius": region.radius}
    if notes:
        metadata = {**metadata, "notes": list(dict.fromkeys([*metadata.get("notes", []), *notes]))}
    return assemble(frames, files[0], metadata, points)


def write_transforms(folder: Path, contents: Contents) -> None:
    """Write a capture folder: ``transforms.json``, ``images/``, ``masks/``, and, if every view has them, ``depths/``
    and ``normals/``.

    Pictures that are files already, and nothing changes, are copied as they are; others are PNG (RGBA if there are
    masks), or JPEG if they are large photos.

    The JSON is written last, so that a folder with one is complete.

    Raises:
        InputError: some views only have depths or normals.
    """
    views = contents.views
    depths, normals = _all_or_none(views, "depth", "depth_source"), _all_or_none(views, "normals", "normal_source")

    def frame_of(view: View) -> dict[str, Any]:
        camera = view.camera
        rgba = None
        frame: dict[str, Any] = {
            "file_path": _copied(folder, view, contents.has_masks),
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
        if view.sharpness != 1:
            frame["viewloom_sharpness"] = view.sharpness
        if contents.has_masks and frame["file_path"] is not None:
            frame["mask_path"] = _copied_mask(folder, view)
        if frame["file_path"] is None or (contents.has_masks and frame.get("mask_path") is None):
            rgba = view.rgba()
        if rgba is not None and frame["file_path"] is None:
            frame["file_path"] = _written(folder, view, rgba if contents.has_masks else rgba[..., :3])
        if rgba is not None and contents.has_masks:
            frame["mask_path"] = f"masks/{view.name}.png"
            with written_aside(folder / frame["mask_path"]) as path:
                Image.fromarray(rgba[..., 3]).save(path)
        unknown = view.unknown() if contents.has_masks else None
        if unknown is not None:
            with written_aside(_dynamic_mask(folder / str(frame["file_path"]))) as path:
                Image.fromarray(unknown).save(path)
        depth = view.depth() if depths else None
        if depth is not None:
            frame["depth_file_path"] = f"depths/{view.name}.npy"
            save_array(folder / frame["depth_file_path"], (depth / DEPTH_UNIT).astype(np.float32))
        vectors = view.normals() if normals else None
        if vectors is not None:
            frame["viewloom_normal_path"] = f"normals/{view.name}.npy"
            save_array(folder / frame["viewloom_normal_path"], vectors)
        return frame

    if any(view.camera.width * view.camera.height >= LARGE for view in views):
        # Codecs leave the interpreter's lock alone. Few at a time: a large picture takes 50 MB.
        with ThreadPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
            frames = list(pool.map(frame_of, views))
    else:
        frames = [frame_of(view) for view in views]
    content: dict[str, Any] = {"camera_model": "OPENCV", "frames": frames, "viewloom": contents.metadata}
    if contents.points is not None:
        content["ply_file_path"] = "points.ply"
        write_points(folder / "points.ply", contents.points)
    write_text(folder / "transforms.json", json.dumps(content, indent=1) + "\n")


def _copied(folder: Path, view: View, has_masks: bool) -> str | None:
    """The name of the picture's own file, copied as it is; None if it is not the picture, or would pass for a mask."""
    file = view.plain_file
    if file is None or file.suffix.lower() not in _COPIED or (not has_masks and picture_head(file).has_alpha):
        return None
    name = f"images/{view.name}{file.suffix.lower()}"
    with reading(file), written_aside(folder / name) as path:
        shutil.copyfile(file, path)
    return name


def _copied_mask(folder: Path, view: View) -> str | None:
    """The name of a large picture's mask file, copied as it is; None if it is not the mask as a picture would have it.

    The picture itself is copied: it is not turned, and its lens is not undone.
    """
    file = view.mask_path
    if file is None or view.mask is not None or view.camera.width * view.camera.height < LARGE:
        return None
    if file.suffix.lower() != ".png" or picture_head(file).turned:
        return None
    name = f"masks/{view.name}.png"
    with reading(file), written_aside(folder / name) as path:
        shutil.copyfile(file, path)
    return name


def _written(folder: Path, view: View, pixels: UInt8[np.ndarray, "h w c"]) -> str:
    """The name of a file that the picture was written to: large photos as JPEG, since PNG takes seconds for each."""
    lossy = (
        view.image_path is not None
        and view.image_path.suffix.lower() in _LOSSY
        and pixels.shape[0] * pixels.shape[1] >= LARGE
    )
    name = f"images/{view.name}{'.jpg' if lossy else '.png'}"
    with written_aside(folder / name) as path:
        if lossy:
            Image.fromarray(pixels[..., :3]).save(path, quality=95, subsampling=0)
        else:
            Image.fromarray(pixels).save(path)
    return name


def _points(file: Path, name: object, notes: list[str]) -> Float[np.ndarray, "n 3"] | None:
    """The sparse points of a capture; that they are missing or damaged is noted."""
    try:
        names = NamedFiles(file.parent, [name], what="files of points", pictures=False)
        ply = names.find(name, "ply_file_path", str(file))
        notes += names.notes
        if ply.is_file():
            return read_points(ply)
        notes.append(f"the points {ply.name} are missing: they were left out")
    except InputError as error:
        notes.append(f"points could not be read ({error.what}): they were left out")
    return None


def _weight(values: dict[str, Any], where: str) -> float:
    weight = number(values, "viewloom_weight", where, 1.0)
    if not 0 <= weight <= _HEAVIEST:
        raise InputError(f"viewloom_weight must be from 0 to {_HEAVIEST:g}, it is {weight:g}", where=where)
    return weight


def _sharpness(values: dict[str, Any], where: str) -> float:
    sharpness = number(values, "viewloom_sharpness", where, 1.0)
    if not 0 <= sharpness <= _SHARPEST:
        raise InputError(f"viewloom_sharpness must be from 0 to {_SHARPEST:g}, it is {sharpness:g}", where=where)
    return sharpness


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


def _frames(path: Path, content: dict[str, Any], sieve: Sieve) -> list[Frame]:
    """The frames that are of use; ``sieve`` is told of the others."""
    entries = content["frames"]
    for k, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise InputError("is not an object with file_path and transform_matrix", where=f"{path}, frame {k}")
    files = _Files.of(path.parent, entries)
    named = list[_Entry]()
    for k, entry in enumerate(entries):
        image = sieve.keep(partial(files.images.find, entry.get("file_path"), "file_path", f"{path}, frame {k}"))
        named += [] if image is None else [_Entry(k, entry, image)]
    frames = []
    for item in with_files(named, "image", "pictures", sieve):
        frame = sieve.keep(partial(_frame, item, content, files, f"{path}, frame {item.number}", sieve.notes))
        frames += [] if frame is None else [frame]
    sieve.notes += files.notes
    sieve.settle(len(frames))
    return frames


class _Entry(NamedTuple):
    """A frame of the file: its number, what the file says, and its picture."""

    number: int
    values: dict[str, Any]
    image: Path


class _Files(NamedTuple):
    """Where the files of frames are."""

    images: NamedFiles
    mask: NamedFiles
    depth: NamedFiles
    normals: NamedFiles

    @classmethod
    def of(cls, folder: Path, entries: list[dict[str, Any]]) -> _Files:
        def others(key: str, what: str) -> NamedFiles:
            names = [e.get(key) or (e.get("depth_path") if key == "depth_file_path" else None) for e in entries]
            return NamedFiles(folder, names, tops=("", "masks"), what=what, pictures=False)

        images = NamedFiles(folder, [entry.get("file_path") for entry in entries])
        return cls(images, others("mask_path", "masks"), *(others(*pair) for pair in _MAPS))

    @property
    def notes(self) -> list[str]:
        """On files that are not where the capture says."""
        return [note for names in self for note in names.notes]


def _frame(item: _Entry, content: dict[str, Any], files: _Files, where: str, notes: list[str]) -> Frame:
    _, entry, image = item
    if entry.get("transform_matrix") is None:
        raise InputError("transform_matrix is missing", where=where)
    # A frame's own values win over those at the top.
    values = {**content, **{key: value for key, value in entry.items() if value is not None}}
    depth = depth_in(values, entry, DEPTH_UNIT, where)
    named = {"mask": ("mask_path", entry.get("mask_path")), "depth": (depth.key, depth.name)}
    named["normals"] = ("viewloom_normal_path", entry.get("viewloom_normal_path"))
    others = {
        part: getattr(files, part).find(name, key, where) if name else None for part, (key, name) in named.items()
    }
    if values.get("w") is None or values.get("h") is None:
        size = picture_head(image).size
    else:
        size = (whole(values, "w", where), whole(values, "h", where))
    c2w = pose(entry["transform_matrix"], where, notes=notes)
    return Frame(
        image,
        where,
        c2w_from_opencv(c2w) if values.get("from_na") in (True, 1) else c2w,
        intrinsics_in(values, entry, size, where, notes),
        lens_in(values, where, notes),
        mask=others["mask"],
        depth=others["depth"],
        normals=others["normals"],
        depth_scale=depth.scale,
        weight=_weight(values, where),
        origin=_origin(values, where),
        sharpness=_sharpness(values, where),
        ignore=dynamic if (dynamic := _dynamic_mask(image)).is_file() else None,
    )


def _dynamic_mask(image: Path) -> Path:
    """Where instant-ngp has the mask of what moves in a picture, white there."""
    return image.with_name(f"dynamic_mask_{image.stem}.png")


def _applied(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """What was done to the original world before the file was written, as metadata."""
    metadata: dict[str, Any] = {}
    if content.get("applied_transform") is not None:
        metadata["applied_transform"] = affine(content["applied_transform"], "applied_transform", path).tolist()
    if content.get("applied_scale") is not None:
        metadata["applied_scale"] = positive(content, "applied_scale", str(path))
        checked_metadata(metadata, path)
    return metadata


def _dialect(path: Path, content: dict[str, Any]) -> str:
    if content.get("from_na") in (True, 1):
        return "neus2"
    if "aabb_scale" in content:
        return "instant-ngp"
    blender = path.name != "transforms.json" or ("camera_angle_x" in content and "fl_x" not in content)
    return "blender" if blender else "nerfstudio"
