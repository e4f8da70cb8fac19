"""Formats of research code: LLFF's ``poses_bounds.npy``, sdfstudio's ``meta_data.json``, MVSNet's ``cams/``."""

from __future__ import annotations

import re
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np

from scene.camera import c2w_from_opencv
from scene.captures.folders import by_number, first_json, pictures_in, read_json
from scene.captures.listed import Listed, items, mapping, numbers, views_of
from scene.captures.projections import factor_notes, fitting_factor, intrinsics_of
from scene.errors import InputError
from scene.frames import Frame, pose, pose_from_w2c
from scene.lens import Intrinsics
from scene.maps import picture_head
from scene.named_files import NamedFiles
from scene.viewset import ViewSet

_BROKEN = (EOFError, MemoryError, OSError, OverflowError, SyntaxError, TokenError, TypeError, ValueError)
"""What numpy raises of a file that is no array."""

# --- LLFF -------------------------------------------------------------------------------------------------------------


def find_llff(path: Path) -> Path | None:
    """The ``poses_bounds.npy`` of a folder, or the file given."""
    file = path if path.is_file() else path / "poses_bounds.npy"
    return file if file.name == "poses_bounds.npy" and file.is_file() else None


def read_llff(path: Path) -> ViewSet:
    """Read such a file: row ``k`` belongs to the picture that is ``k``-th by name, as the format has it; this is told.

    Rows are a 3x5 matrix, columns down, right, backwards, centre, and height, width and focal length in pixels; two
    depths follow.

    Raises:
        InputError: the file is not of this form, or pictures are not as many.
    """
    file = find_llff(path)
    if file is None:
        raise InputError("no poses_bounds.npy here", where=path)
    try:
        rows = np.load(file, allow_pickle=False, mmap_mode="r")
        rows = np.array(rows, dtype=np.float64)
    except _BROKEN as error:
        raise InputError(f"cannot be read as an array ({error})", where=file) from error
    if rows.ndim != 2 or rows.shape[1] not in (15, 17):
        raise InputError(f"is not a row of 17 numbers for each picture, its shape is {rows.shape}", where=file)
    folders = [file.parent / "images", *sorted(file.parent.glob("images_*")), file.parent]
    counted = [(folder, pictures_in(folder)) for folder in folders]
    pictures = next((found for _, found in counted if len(found) == len(rows)), None)
    if pictures is None:
        seen = ", ".join(f"{len(found)} in {folder.name}" for folder, found in counted if found) or "none"
        raise InputError(f"{len(rows)} cameras, and pictures: {seen}", where=file, fix="Poses and pictures must match.")
    entries = list(zip(rows, pictures, strict=True))
    first, last = pictures[0].name, pictures[-1].name
    notes = [f"the format names no pictures: they were paired in order of their names, from {first} to {last}"]

    def frame(one: Listed, said: list[str]) -> Frame:
        matrix = numbers(one.entry[0][:15], 15, one.where, "its row").reshape(3, 5)
        down, right, back, centre, (height, width, focal) = matrix.T
        if not (0 < height < 1e6 and 0 < width < 1e6 and focal > 0):
            raise InputError(f"a picture of {width:g}x{height:g} with focal length {focal:g}", where=one.where)
        c2w = pose(np.stack([right, -down, back, centre], axis=1), one.where, "its pose", said)
        intrinsics = Intrinsics(focal, focal, width / 2, height / 2, round(width), round(height))
        return Frame(one.image, one.where, c2w, intrinsics)

    def named(entry: Any) -> str:
        return str(entry[1].relative_to(file.parent))

    return views_of(file, "llff", entries, named, frame, up="cameras", notes=notes)


# --- sdfstudio --------------------------------------------------------------------------------------------------------


def find_sdfstudio(path: Path) -> Path | None:
    """The ``meta_data.json`` of a folder, or the file given."""
    return first_json(path, "meta_data.json", _is_sdfstudio)


def read_sdfstudio(path: Path) -> ViewSet:
    """Read such a file: poses are camera-to-world in OpenCV axes; its box is the region of interest.

    Raises:
        InputError: the file is not of this form, or pictures are missing.
    """
    file = find_sdfstudio(path)
    if file is None or not _is_sdfstudio(read_json(file)):
        raise InputError("no meta_data.json of sdfstudio here", where=path)
    content, where = mapping(read_json(file), str(file), "the file"), str(file)
    frames = [mapping(one, where, "a frame") for one in items(content["frames"], where, "frames")]
    masks = NamedFiles(file.parent, [one.get("foreground_mask") for one in frames], what="masks", pictures=False)

    def frame(one: Listed, said: list[str]) -> Frame:
        matrix = numbers(one.entry.get("camtoworld"), 16, one.where, "camtoworld").reshape(4, 4)
        k = numbers(one.entry.get("intrinsics"), 16, one.where, "intrinsics").reshape(4, 4)
        size = picture_head(one.image).size
        mask = one.entry.get("foreground_mask")
        found = None if mask is None else masks.find(mask, "foreground_mask", one.where)
        return Frame(
            one.image,
            one.where,
            c2w_from_opencv(pose(matrix, one.where, "camtoworld", said)),
            intrinsics_of(k[:3, :3], size),
            mask=found,
        )

    views = views_of(file, "sdfstudio", frames, lambda one: one.get("rgb_path"), frame, up="cameras")
    return views if views.metadata.get("region") else _with_region(views, content.get("scene_box"), where)


def _with_region(views: ViewSet, box: Any, where: str) -> ViewSet:
    """The box's sphere as the region of interest, in the set's world."""
    if not isinstance(box, dict) or box.get("aabb") is None:
        return views
    low, high = numbers(box["aabb"], 6, where, "scene_box.aabb").reshape(2, 3)
    turn = np.array(views.metadata.get("world_from_file", np.eye(4)))
    centre = turn[:3, :3] @ ((low + high) / 2) + turn[:3, 3]
    region = {"centre": centre.tolist(), "radius": float(np.linalg.norm(high - low)) / 2}
    return ViewSet(views.views, views.has_masks, {**views.metadata, "region": region}, views.points)


def _is_sdfstudio(content: Any) -> bool:
    frames = content.get("frames") if isinstance(content, dict) else None
    return isinstance(frames, list) and bool(frames) and isinstance(frames[0], dict) and "camtoworld" in frames[0]


# --- MVSNet -----------------------------------------------------------------------------------------------------------


def find_mvsnet(path: Path) -> Path | None:
    """The folder of cameras beside ``images/``."""
    if not path.is_dir():
        return None
    folders = (path / "cams", path / "cams_1", path / "Cameras")
    return next((folder for folder in folders if any(folder.glob("*_cam.txt"))), None)


def read_mvsnet(path: Path) -> ViewSet:
    """Read such a folder: ``NNNNNNNN_cam.txt`` belongs to the picture of that number.

    Poses are world-to-camera in OpenCV axes. Calibrations of reduced pictures are scaled to those that are there.

    Raises:
        InputError: files are not of this form, or pictures are missing.
    """
    folder = find_mvsnet(path)
    if folder is None:
        raise InputError("no cams/ with 00000000_cam.txt here", where=path)
    images = next((f for name in ("images", "blended_images", "") if pictures_in(f := folder.parent / name)), None)
    pictures = by_number(pictures_in(images or folder.parent))
    named = [(re.fullmatch(r"(\d{1,9})_cam\.txt", file.name), file) for file in sorted(folder.glob("*_cam.txt"))]
    files = [(int(match[1]), file) for match, file in named if match is not None]
    entries = [(f, pictures[n]) for n, f in files if n in pictures]
    if not entries:
        raise InputError("no picture has the number of a camera", where=folder, fix="Name pictures 00000000.jpg, ...")
    notes = []
    if len(entries) < len(files):
        notes.append(f"{len(files) - len(entries)} of {len(files)} cameras have no picture and were not used")
    read = {file: _mvsnet_camera(file) for file, _ in entries}
    sizes = [picture_head(picture).size for _, picture in entries]
    factor = fitting_factor([read[file][1] for file, _ in entries], sizes, where=folder)

    def frame(one: Listed, said: list[str]) -> Frame:
        extrinsic, k = read[one.entry[0]]
        where = str(one.entry[0])
        c2w = pose_from_w2c(extrinsic[:3, :3], extrinsic[:3, 3], where, said)
        return Frame(one.image, where, c2w, intrinsics_of(k, picture_head(one.image).size, factor))

    def name_of(entry: Any) -> str:
        return str(entry[1].relative_to(folder.parent))

    more = [*notes, *factor_notes(factor)]
    return views_of(folder, "mvsnet", entries, name_of, frame, up="cameras", folder=folder.parent, notes=more)


def _mvsnet_camera(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """The extrinsic and the intrinsic matrix."""
    try:
        words = file.read_text(encoding="utf-8").split()
        first, second = words.index("extrinsic"), words.index("intrinsic")
    except (OSError, ValueError) as error:
        raise InputError(f"is not a camera with extrinsic and intrinsic ({error})", where=file) from error
    extrinsic = numbers(words[first + 1 : first + 17], 16, str(file), "extrinsic").reshape(4, 4)
    return extrinsic, numbers(words[second + 1 : second + 10], 9, str(file), "intrinsic").reshape(3, 3)
