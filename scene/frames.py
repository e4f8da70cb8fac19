"""From what a capture file says of each picture to posed views: what every reader of captures shares."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float

from scene.camera import Mat4, c2w_from_colmap
from scene.errors import InputError
from scene.files import NAME_BYTES, shortened
from scene.lens import Intrinsics, Lens, pinhole_of, undistort
from scene.maps import PictureHead, picture_head
from scene.view import Origin, View

DEPTH_UNIT = 1e-3
"""World units of one count in a depth file, unless the capture file says otherwise (nerfstudio's default)."""
FEWEST = 3
"""Frames that must be left of a capture some of whose frames are of no use."""
_SMALLEST = 16
"""Side of a picture below which a pixel of rounding is too much."""
Made = TypeVar("Made")


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
        as_shown: whether the camera is of the picture as its EXIF data turn it, where the size does not tell.
        ignore: a file that is black where the picture is to be looked at, if there is one.
        depth_scale: world units of one count of the depth file.
        weight, origin, sharpness: as in :class:`scene.view.View`.
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
    sharpness: float = 1.0
    ignore: Path | None = None
    as_shown: bool = False


class Contents(NamedTuple):
    """The contents of a capture folder: the fields of :class:`scene.viewset.ViewSet`, which is built on this module."""

    views: tuple[View, ...]
    has_masks: bool
    metadata: dict[str, Any]
    points: Float[np.ndarray, "n 3"] | None = None


@dataclass(eq=False)
class Sieve:
    """Keeps the frames of a capture that are of use: one that is not does not spoil the others, and is told.

    Args:
        where: the capture's file, for errors.
        faults: of the frames that were left out.
        notes: sentences on what was put right.
    """

    where: Path
    faults: list[InputError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def keep(self, make: Callable[[], Made]) -> Made | None:
        """What is made of a frame, or None if that fails."""
        try:
            return make()
        except InputError as error:
            self.faults.append(error)
            return None

    def drop(self, lost: int, of: int, fault: InputError, note: str) -> None:
        """Leave out some frames for one reason.

        Raises:
            InputError: too few are left; then it is ``fault``.
        """
        if of - lost < FEWEST:
            raise fault
        self.notes.append(self.told(note))

    def told(self, text: str) -> str:
        """A sentence with paths as they are within the capture's folder: notes outlive the place where it lies."""
        folder = self.where.parent if self.where.suffix else self.where
        return text.replace(f"{folder}{os.sep}", "")

    def settle(self, kept: int) -> None:
        """Say which frames were left out.

        Args:
            kept: how many were not.

        Raises:
            InputError: what was wrong with the first, if too few are left.
        """
        if not self.faults:
            return
        first = self.faults[0]
        if kept < FEWEST:
            raise first
        where = (first.where or "").removeprefix(f"{self.where}, ")
        text = f"{where}: {first.what}" if where else first.what
        which = "it" if len(self.faults) == 1 else "the first"
        were = "was" if len(self.faults) == 1 else "were"
        total = kept + len(self.faults)
        self.notes.append(self.told(f"{len(self.faults)} of {total} frames {were} left out; of {which}, {text}"))
        self.faults.clear()


def assemble(
    frames: Sequence[Frame], where: Path, metadata: dict[str, Any], points: Float[np.ndarray, "n 3"] | None = None
) -> Contents:
    """The views of a capture: files are there, sizes fit, lenses are undone, masks are of all or none.

    Frames whose picture or mask is missing or no picture, whose sizes do not fit, or whose lens cannot be undone are
    left out as long as enough are left; depths and normals that are missing are unknown. Pictures that are smaller or
    larger than their intrinsics say by one common factor, up to a pixel, get scaled intrinsics. ``metadata["notes"]``
    says all this.

    Raises:
        InputError: nothing is left; the message names the file.
    """
    if not frames:
        raise InputError("lists no frames", where=where)
    sieve = Sieve(where)
    frames = with_files(list(frames), "image", "pictures", sieve)
    frames = with_files(_masked_or_not(frames, sieve), "mask", "masks", sieve)
    for attribute, many in (("depth", "depth maps"), ("normals", "normal maps")):
        frames = _with_maps(frames, attribute, many, sieve)
    notes: dict[str, None] = {}
    fitted: list[tuple[Frame, PictureHead, Intrinsics, bool]] = []
    for frame in frames:
        found = sieve.keep(partial(_fitted, frame))
        if found is not None:
            head, intrinsics, as_stored, note = found
            fitted.append((frame, head, intrinsics, as_stored))
            notes |= {} if note is None else {note: None}
    try:
        undone = undistort([(frame.lens, intrinsics) for frame, _, intrinsics, _ in fitted])
    except InputError:
        fitted = [item for item in fitted if sieve.keep(partial(_undoable, item[0], item[2]))]
        undone = undistort([(frame.lens, intrinsics) for frame, _, intrinsics, _ in fitted])
    sieve.settle(len(fitted))
    names = _names([frame.image for frame, *_ in fitted])
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
            sharpness=frame.sharpness,
        )
        for name, (frame, _, intrinsics, as_stored), undistortion in zip(names, fitted, undone, strict=True)
    )
    views = _all_with_maps(views)
    masked = fitted[0][0].mask is not None
    if not masked:
        views, masked = _alpha_is_mask(views, [head for _, head, *_ in fitted], sieve)
    views, ignored = _ignoring(views, [frame.ignore for frame, *_ in fitted], masked, sieve)
    metadata = {**metadata, **ignored}
    if any(_fits_turned(frame, head, as_stored) for frame, head, _, as_stored in fitted):
        notes["masks that fit turned pictures in the other way only were turned to fit what the cameras see"] = None
    if any(undone):
        notes["lens distortion was undone: cameras are the pinholes of the undistorted pictures"] = None
    metadata = {**metadata, "notes": list(dict.fromkeys([*metadata.get("notes", []), *sieve.notes, *notes]))}
    if not metadata["notes"]:
        del metadata["notes"]
    return Contents(views, masked, metadata, points)


def _fits_turned(frame: Frame, head: PictureHead, as_stored: bool) -> bool:
    """Whether a mask has the size of a turned picture in the way in which the picture is not used."""
    mask = frame.mask if frame.mask is not None else frame.ignore
    if mask is None or head.size == head.upright:
        return False
    return picture_head(mask).upright == (head.upright if as_stored else head.size)


def with_files(frames: Sequence[Made], attribute: str, what: str, sieve: Sieve) -> list[Made]:
    """The frames whose file is there, or who have none; how many have not, and which is the first, is said.

    Args:
        frames: any objects with such an attribute.
        attribute: the file's, a path or None.
        what: these files are, plural.
        sieve: told.

    Raises:
        InputError: too few are left.
    """
    lost = [file for frame in frames if (file := getattr(frame, attribute)) is not None and not os.path.isfile(file)]
    if not lost:
        return list(frames)
    text = f"{len(lost)} of {len(frames)} {what} are missing"
    fault = InputError(
        f"{text}, the first is {lost[0]}: there is no such file",
        where=sieve.where,
        fix="Add the files, or take their frames out.",
    )
    sieve.drop(len(lost), len(frames), fault, f"{text} and were left out; the first is {lost[0]}")
    return [frame for frame in frames if (file := getattr(frame, attribute)) is None or os.path.isfile(file)]


def _masked_or_not(frames: list[Frame], sieve: Sieve) -> list[Frame]:
    """The frames with a mask, if most have one."""
    masked = [frame for frame in frames if frame.mask is not None]
    if len(masked) in (0, len(frames)):
        return frames
    text = f"{len(masked)} of {len(frames)} frames have a mask"
    fault = InputError(text, where=sieve.where, fix="Give masks for all frames or for none.")
    if 2 * len(masked) <= len(frames):
        raise fault
    sieve.drop(len(frames) - len(masked), len(frames), fault, f"{text}: the others were left out")
    return masked


def _with_maps(frames: list[Frame], attribute: str, many: str, sieve: Sieve) -> list[Frame]:
    """The frames without maps whose files are missing."""
    files: list[Path | None] = [getattr(frame, attribute) for frame in frames]
    if not any(files):
        return frames
    lost = [file for file in files if file is None or not os.path.isfile(file)]
    if lost:
        named = next((f"; the first is {file}" for file in lost if file is not None), "")
        sieve.notes.append(sieve.told(f"{len(lost)} of {len(files)} {many} are missing{named}"))
    there = [file is not None and file.is_file() for file in files]
    return [
        frame if has else replace(frame, **{attribute: None})  # type: ignore[arg-type]
        for frame, has in zip(frames, there, strict=True)
    ]


def _all_with_maps(views: tuple[View, ...]) -> tuple[View, ...]:
    """The views with maps that say nothing where only others have maps."""
    deep, bent = (any(getattr(view, key) is not None for view in views) for key in ("depth_source", "normal_source"))
    filled = []
    for view in views:
        size = (view.camera.height, view.camera.width)
        if deep and view.depth_source is None:
            view = replace(view, depth_source=np.zeros(size, np.float32))
        if bent and view.normal_source is None:
            view = replace(view, normal_source=np.zeros((*size, 3), np.float32))
        filled.append(view)
    return tuple(filled)


def pose(matrix: object, where: str, what: str = "transform_matrix", notes: list[str] | None = None) -> Mat4:
    """A camera-to-world or world-to-camera matrix as a rigid motion: 3 or 4 rows, nearly orthonormal.

    Rotations that are off by up to 1e-2 (few decimals, single precision) are replaced by the nearest one; so are those
    that are scaled evenly, if that can be said in ``notes``. Of the translation nothing changes.

    Raises:
        InputError: it is not finite, singular, mirrored, sheared, or no matrix at all.
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
    even = float(np.cbrt(stretch.prod()))
    if notes is not None and np.abs(even - 1) > 1e-2 >= np.abs(stretch / even - 1).max():
        notes.append(f"rotations in {what} are not of length one: the scale was taken out of them")
        c2w = c2w.copy()
        c2w[:3, :3] /= even
        rotation = c2w[:3, :3]
    elif np.abs(stretch - 1).max() > 1e-2:
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


def pose_from_w2c(
    rotation: object, translation: Float[np.ndarray, "3"], where: str, notes: list[str] | None = None
) -> Mat4:
    """Camera-to-world matrix of a world-to-camera rotation and translation in OpenCV axes.

    Raises:
        InputError: as :func:`pose`.
    """
    rows = np.concatenate([np.asarray(rotation), np.asarray(translation).reshape(3, 1)], axis=1)
    w2c = pose(rows, where, "rotation", notes)
    return c2w_from_colmap(w2c[:3, :3], w2c[:3, 3])


def _undoable(frame: Frame, intrinsics: Intrinsics) -> bool:
    """True; raises if the frame's lens cannot be undone."""
    try:
        if frame.lens.bends:
            pinhole_of(frame.lens, intrinsics)
    except InputError as error:
        raise InputError(error.what, where=frame.where, fix=error.fix) from error
    return True


def _fitted(frame: Frame) -> tuple[PictureHead, Intrinsics, bool, str | None]:
    """Intrinsics for the file's size, whether its EXIF orientation is to be ignored, and what there is to note."""
    given, head = frame.intrinsics, picture_head(frame.image)
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
    ways = ((head.size, head.turned), (head.upright, False))
    for size, as_stored in ways[::-1] if frame.as_shown else ways:
        if size == wanted:
            return head, given, as_stored, None
    for size, as_stored in ways:
        if _one_factor(wanted, size):
            text = f"pictures are {size[0]}x{size[1]}, their cameras {wanted[0]}x{wanted[1]}: intrinsics were scaled"
            return head, given.resized(*size), as_stored, text
    raise InputError(
        f"the picture is {head.size[0]}x{head.size[1]}, its camera says {wanted[0]}x{wanted[1]}",
        where=f"{frame.where}, {frame.image}",
        fix="Correct size and intrinsics in the capture file, or use the pictures that were calibrated.",
    )


def _one_factor(old: tuple[int, int], new: tuple[int, int]) -> bool:
    """Whether a picture was scaled evenly, with its sides rounded to whole pixels in any way."""
    if old[0] * new[1] == old[1] * new[0]:
        return True
    lowest = max((n - 1) / o for o, n in zip(old, new))
    highest = min((n + 1) / o for o, n in zip(old, new))
    return min(new) >= _SMALLEST and lowest < highest


def _names(images: Sequence[Path]) -> list[str]:
    """Names of views: the files' stems, with their folders' names before them where stems repeat."""
    stems = [image.stem for image in images]
    depth = 1
    while len(set(stems)) < len(set(images)) and depth < max(len(image.parts) for image in images):
        depth += 1
        stems = ["_".join((*image.parts[-depth:-1], image.stem)) for image in images]
    if len(set(stems)) < len(set(images)):  # a.png and a.jpg
        stems = [image.name.replace(".", "_") for image in images]
    return [shortened(stem, NAME_BYTES - len(".png")) for stem in stems]


def _alpha_is_mask(
    views: tuple[View, ...], heads: Sequence[PictureHead], sieve: Sieve
) -> tuple[tuple[View, ...], bool]:
    """The views whose alpha tells object from background, and True; all and False if that tells nothing.

    Alpha that is opaque everywhere tells nothing. Pictures without, among more with it, are left out.
    """
    with_alpha = tuple(view for view, head in zip(views, heads, strict=True) if head.has_alpha)
    if all(_opaque(view) for view in with_alpha[:3]):
        return views, False
    if len(with_alpha) < len(views):
        text = f"{len(with_alpha)} of {len(views)} pictures have an alpha channel"
        fault = InputError(
            f"{text}, the first is {with_alpha[0].image_path}",
            where=sieve.where,
            fix="Give masks for all frames or for none.",
        )
        if 2 * len(with_alpha) <= len(views):
            raise fault
        sieve.drop(len(views) - len(with_alpha), len(views), fault, f"{text}: the others were left out")
    return with_alpha, True


def _ignoring(
    views: tuple[View, ...], files: Sequence[Path | None], masked: bool, sieve: Sieve
) -> tuple[tuple[View, ...], dict[str, Any]]:
    """The views with what is not to be looked at, and what their metadata say of that."""
    count = sum(file is not None for file in files)
    if count == 0:
        return views, {}
    if masked:
        sieve.notes.append(f"{count} dynamic masks tell where the object's masks are silent: it may be there or not")
        pairs = zip(views, files, strict=True)
        return tuple(replace(view, unknown_source=file) for view, file in pairs), {}
    sieve.notes.append(f"{count} dynamic masks tell what is not to be looked at")
    # Where all is to be looked at there is no file; alpha that tells nothing is opaque.
    pairs = zip(views, files, strict=True)
    return tuple(replace(view, ignore_path=file) for view, file in pairs), {"mask_means": "ignore"}


def _opaque(view: View) -> bool:
    """Whether a view's picture has nothing transparent, as far as it can be read."""
    try:
        return bool(view.rgba()[..., 3].min() == 255)
    except InputError:
        return True
