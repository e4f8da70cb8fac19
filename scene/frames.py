"""From what a capture file says of each picture to posed views: what every reader of captures shares."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from scene.camera import Mat4, c2w_from_colmap
from scene.errors import InputError
from scene.lens import Intrinsics, Lens, undistort
from scene.maps import PictureHead, picture_head
from scene.view import Origin, View

DEPTH_UNIT = 1e-3
"""World units of one count in a depth file, unless the capture file says otherwise (nerfstudio's default)."""
_LONGEST_NAME = 255
"""Bytes of a file's name."""
_PICTURES = (".png", ".jpg", ".jpeg", ".PNG", ".JPG", ".JPEG")


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a capture as its file describes it.

    Args:
        image: the picture.
        where: what errors name, such as file and frame.
        c2w: its pose, as :func:`pose` returns it.
        intrinsics: of the picture as taken, lens included.
        lens: how it bends.
        mask, depth, normals: further files, if there are any.
        depth_scale: world units of one count of the depth file.
        weight, origin: as in :class:`scene.view.View`.
    """

    image: Path
    where: str
    c2w: Mat4
    intrinsics: Intrinsics
    lens: Lens = Lens()
    mask: Path | None = None
    depth: Path | None = None
    normals: Path | None = None
    depth_scale: float = DEPTH_UNIT
    weight: float = 1.0
    origin: Origin = "photo"


class Contents(NamedTuple):
    """The contents of a capture folder: the fields of :class:`scene.viewset.ViewSet`, which is built on this module."""

    views: tuple[View, ...]
    has_masks: bool
    metadata: dict[str, Any]
    points: Float[np.ndarray, "n 3"] | None = None


def assemble(
    frames: Sequence[Frame], where: Path, metadata: dict[str, Any], points: Float[np.ndarray, "n 3"] | None = None
) -> Contents:
    """The views of a capture: files are there, sizes fit, lenses are undone, masks and depths are of all or none.

    Pictures that are smaller or larger than their intrinsics say by one common factor get scaled intrinsics, and
    ``metadata["notes"]`` says so.

    Raises:
        InputError: one of these does not hold; the message names the file.
    """
    if not frames:
        raise InputError("lists no frames", where=where)
    require_files([frame.image for frame in frames], "pictures", where)
    for attribute, one, many in (("mask", "a mask", "masks"), ("depth", "a depth map", "depth maps"), ("normals",) * 3):
        files = [path for frame in frames if (path := getattr(frame, attribute)) is not None]
        if len(files) not in (0, len(frames)):
            raise InputError(
                f"{len(files)} of {len(frames)} frames have {one}",
                where=where,
                fix=f"Give {many} for all frames or for none.",
            )
        require_files(files, many, where)
    notes: dict[str, None] = {}
    heads, raw, stored = [picture_head(frame.image) for frame in frames], [], []
    for frame, head in zip(frames, heads):
        intrinsics, as_stored, note = _fitted(frame, head)
        raw.append(intrinsics)
        stored.append(as_stored)
        notes |= {} if note is None else {note: None}
    try:
        undone = undistort([(frame.lens, intrinsics) for frame, intrinsics in zip(frames, raw)])
    except InputError as error:
        raise InputError(error.what, where=where, fix=error.fix) from error
    names = _names([frame.image for frame in frames])
    views = tuple(
        View(
            name,
            (intrinsics if undistortion is None else undistortion.pinhole).camera(frame.c2w),
            image_path=frame.image,
            mask_path=frame.mask,
            weight=frame.weight,
            depth_source=frame.depth,
            depth_scale=1.0 if frame.depth is None else frame.depth_scale,
            normal_source=frame.normals,
            undistortion=undistortion,
            as_stored=as_stored,
            origin=frame.origin,
        )
        for name, frame, intrinsics, undistortion, as_stored in zip(names, frames, raw, undone, stored)
    )
    masked = frames[0].mask is not None or _alpha_is_mask(views, heads, where)
    if any(undone):
        notes["lens distortion was undone: cameras are the pinholes of the undistorted pictures"] = None
    metadata = {**metadata, "notes": list(dict.fromkeys([*metadata.get("notes", []), *notes]))}
    if not metadata["notes"]:
        del metadata["notes"]
    return Contents(views, masked, metadata, points)


def inside(folder: Path, name: object, key: str, where: str) -> Path:
    """The file that a capture names, which must lie in the capture's folder.

    Raises:
        InputError: it names nothing, is absolute, or leaves the folder.
    """
    if not isinstance(name, str) or not PurePosixPath(name).name or "\0" in name:
        raise InputError(f"{key} is missing or names no file", where=where)
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
        raise InputError(
            f"the path {name!r} leaves the capture folder",
            where=where,
            fix="Use paths relative to the capture file, without '..'.",
        )
    if any(len(part.encode("utf-8", "surrogatepass")) > _LONGEST_NAME for part in pure.parts):
        raise InputError(f"{key} is a name of {len(name)} letters, which no file has", where=where)
    return folder / pure


def picture_of(path: Path) -> Path:
    """The path itself, or with the ending that its file has (NeRF-synthetic files leave it out)."""
    # Unlike the method of paths, the function takes names that no file can have.
    if os.path.isfile(path):
        return path
    return next((full for end in _PICTURES if os.path.isfile(full := path.with_name(path.name + end))), path)


def require_files(files: Sequence[Path], what: str, where: Path) -> None:
    """Raise unless all files exist: how many do not, and which is the first."""
    lost = [file for file in files if not os.path.isfile(file)]
    if lost:
        raise InputError(
            f"{len(lost)} of {len(files)} {what} are missing, the first is {lost[0]}: there is no such file",
            where=where,
            fix="Add the files, or take their frames out.",
        )


def pose(matrix: object, where: str, what: str = "transform_matrix") -> Mat4:
    """A camera-to-world or world-to-camera matrix as a rigid motion: 3 or 4 rows, nearly orthonormal.

    Rotations that are off by up to 1e-2 (few decimals, single precision) are replaced by the nearest one.

    Raises:
        InputError: it is not finite, singular, mirrored, scaled, or no matrix at all.
    """
    try:
        c2w = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{what} is not a matrix of numbers", where=where) from error
    if c2w.shape == (3, 4):
        c2w = np.concatenate([c2w, [[0, 0, 0, 1]]])
    if c2w.shape != (4, 4):
        raise InputError(f"{what} must have 4 rows of 4 numbers, its shape is {c2w.shape}", where=where)
    if not np.isfinite(c2w).all():
        raise InputError(f"a camera pose must be a finite 4x4 matrix, {what} holds NaN or infinity", where=where)
    if np.abs(c2w[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise InputError(f"the last row of {what} must be 0 0 0 1", where=where)
    rotation = c2w[:3, :3]
    largest = np.abs(rotation).max()
    stretch = np.linalg.svd(rotation / largest, compute_uv=False) * largest if largest > 0 else np.zeros(3)
    if stretch[2] <= 1e-6 * stretch[0] or stretch[0] < 1e-12:
        raise InputError(f"a camera pose is singular: {what} does not hold a rotation", where=where)
    if np.linalg.det(rotation / largest) < 0:
        raise InputError(
            f"a camera pose is mirrored ({what} has a negative determinant)",
            where=where,
            fix="Negate one axis: left-handed poses are not supported.",
        )
    if np.abs(stretch - 1).max() > 1e-2:
        raise InputError(
            "a camera pose must hold a rotation, but its upper 3x3 block is not orthonormal "
            f"(it stretches by {stretch[2]:.4g} to {stretch[0]:.4g})",
            where=where,
            fix="Remove scale or shear from the matrix.",
        )
    if np.abs(rotation @ rotation.T - np.eye(3)).max() > 1e-7:
        u, _, vt = np.linalg.svd(rotation)
        c2w = c2w.copy()
        c2w[:3, :3] = u @ vt
    return c2w


def pose_from_w2c(rotation: object, translation: Float[np.ndarray, "3"], where: str) -> Mat4:
    """Camera-to-world matrix of a world-to-camera rotation and translation in OpenCV axes.

    Raises:
        InputError: as :func:`pose`.
    """
    w2c = pose(np.concatenate([np.asarray(rotation), np.asarray(translation).reshape(3, 1)], axis=1), where, "rotation")
    return c2w_from_colmap(w2c[:3, :3], w2c[:3, 3])


def _fitted(frame: Frame, head: PictureHead) -> tuple[Intrinsics, bool, str | None]:
    """Intrinsics for the file's size, whether its EXIF orientation is to be ignored, and what there is to note."""
    given = frame.intrinsics
    if (
        not all(map(math.isfinite, given[:4]))
        or min(given.width, given.height) < 1
        or not (given.fx > 0 and given.fy > 0)
    ):
        raise InputError(
            f"a camera needs a positive size and focal length, got {given.width}x{given.height}, "
            f"fx={given.fx}, fy={given.fy}",
            where=frame.where,
        )
    wanted = (given.width, given.height)
    for size, as_stored in ((head.size, head.turned), (head.upright, False)):
        if size == wanted:
            return given, as_stored, None
    for size, as_stored in ((head.size, head.turned), (head.upright, False)):
        if _one_factor(wanted, size):
            text = f"pictures are {size[0]}x{size[1]}, their cameras {wanted[0]}x{wanted[1]}: intrinsics were scaled"
            return given.resized(*size), as_stored, text
    raise InputError(
        f"the picture is {head.size[0]}x{head.size[1]}, its camera says {wanted[0]}x{wanted[1]}",
        where=f"{frame.where}, {frame.image}",
        fix="Correct size and intrinsics in the capture file, or use the pictures that were calibrated.",
    )


def _one_factor(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether a picture was scaled evenly: exactly, or by a whole number with the usual rounding."""
    if old[0] * new[1] == old[1] * new[0]:
        return True
    return any(all(abs(b - a / n) < 1 for a, b in zip(old, new)) for n in (2, 3, 4, 6, 8, 16) if min(new) >= 16)


def _names(images: Sequence[Path]) -> list[str]:
    """Names of views: the files' stems, with their folders' names before them where stems repeat."""
    stems = [image.stem for image in images]
    depth = 1
    while len(set(stems)) < len(set(images)) and depth < max(len(image.parts) for image in images):
        depth += 1
        stems = ["_".join((*image.parts[-depth:-1], image.stem)) for image in images]
    if len(set(stems)) < len(set(images)):  # a.png and a.jpg
        stems = [image.name.replace(".", "_") for image in images]
    return stems


def _alpha_is_mask(views: Sequence[View], heads: Sequence[PictureHead], where: Path) -> bool:
    """Whether the pictures' alpha tells object from background; alpha that is opaque everywhere tells nothing."""
    count = sum(head.has_alpha for head in heads)
    if count == 0:
        return False
    with_alpha = [view for view, head in zip(views, heads) if head.has_alpha]
    if all(view.rgba()[..., 3].min() == 255 for view in with_alpha[:3]):
        return False
    if count < len(views):
        raise InputError(
            f"{count} of {len(views)} pictures have an alpha channel, the first is {with_alpha[0].image_path}",
            where=where,
            fix="Give masks for all frames or for none.",
        )
    return True
