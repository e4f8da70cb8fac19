"""Cameras that a network predicted: the ``.npz`` of VGGT's, MapAnything's and Depth Anything 3's programs.

The cameras are those of the network's own small pictures, which were stretched, cropped or padded from the photos;
:mod:`scene.captures.network_pictures` leads back to the photos. What the programs write, by their public source:

* VGGT (``demo_gradio.py``): ``extrinsic`` is world-to-camera, 3x4; pixels are counted from the first one's corner.
* MapAnything (``gradio_app.py``): ``extrinsic`` is camera-to-world, 4x4; pixels from the first one's centre.
* Depth Anything 3: ``extrinsics`` is world-to-camera, 3x4; pixels from the first one's corner.

All axes are OpenCV's, the world is the first camera's. VGGT's and MapAnything's files have the same name and keys, and
mean opposite directions: where depths and points of the world lie in the file, that direction counts which leads from
these to those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from scene.archives import Archive, npz_archive
from scene.camera import Mat4, c2w_from_colmap, c2w_from_opencv
from scene.captures.folders import pictures_in
from scene.captures.listed import Listed, views_of
from scene.captures.network_pictures import Laid, NetworkPicture, Photo, Program, laid_by_looks, laid_in_order
from scene.errors import InputError
from scene.frames import Frame, pose
from scene.lens import Intrinsics
from scene.viewset import ViewSet

_MOST_POINTS = 50_000
_SMALLEST_SIDE, _LARGEST_SIDE, _MOST_VIEWS = 28, 16_384, 100_000
_CLEARLY = 0.5
"""Error of one direction of the poses over the other's from which on it is the right one."""
_SAMPLES = 400
_FOLDERS = ("images", "image", "rgb", "")
Direction = Literal["camera-to-world", "world-to-camera"]
_POINTS = ("world_points_from_depth", "world_points")
_DEPTHS = ("depth", "depths", "depth_map")
_CONFIDENCES = ("depth_conf", "conf", "confidence")
_PICTURES = ("images", "image")
_NAMES = ("image_names", "image_paths", "image_files", "names")


class _Cameras(NamedTuple):
    """What a file says of its cameras: pixels of the network's pictures, OpenCV axes."""

    program: Program
    matrices: Float[np.ndarray, "n 4 4"]
    intrinsics: Float[np.ndarray, "n 3 3"]
    size: tuple[int, int]

    @property
    def corner(self) -> float:
        """Where the intrinsics have the first pixel's centre less where we have it: 0.5 if they count from there."""
        return 0.5 if self.program == "MapAnything" else 0.0


class _Entry(NamedTuple):
    """A camera with its photo, and how that lies in the network's picture."""

    place: int
    name: str
    laid: Laid


def find_predictions(path: Path) -> Path | None:
    """The first ``.npz`` of a folder, or the file given, that holds extrinsic and intrinsic matrices."""
    files = [path] if path.is_file() else sorted(path.glob("*.npz"))
    return next((file for file in files if file.suffix.lower() == ".npz" and _is_predictions(file)), None)


def read_predictions(path: Path) -> ViewSet:
    """Read such a file, or a folder with one and the photos in ``images/`` or beside it.

    Photos are paired by the names in the file, if it has any; by what they show, if the network's pictures are in it;
    else in order of their names, as the programs read them, and that is told. Depths become sparse points.

    Raises:
        InputError: the file is damaged, has no sizes, or cameras and photos do not belong together.
    """
    file = find_predictions(path)
    if file is None:
        raise InputError("no .npz with extrinsic and intrinsic matrices here", where=path)
    folder = file.parent
    found = next((found for name in _FOLDERS if (found := pictures_in(folder / name))), None)
    if not found:
        raise InputError(
            "no photos in images/ or beside it", where=file, fix="Put the photos there that it was made of."
        )
    with npz_archive(file, "a network's predictions") as content:
        cameras = _cameras(content, file)
        direction, notes = _direction(content, cameras)
        inward = direction == "world-to-camera"
        laid, more = _paired(content, cameras, found, file)
        points = _points(content, cameras, inward=inward)
    laid = sorted(laid, key=lambda one: one.photo)
    entries = [_Entry(one.place, str(one.photo.path.relative_to(folder)), one) for one in laid]

    def frame(one: Listed, said: list[str]) -> Frame:
        entry: _Entry = one.entry
        k, way = cameras.intrinsics[entry.place], entry.laid.way
        if not np.isfinite(k).all() or not (k[0, 0] > 0 and k[1, 1] > 0) or abs(k[0, 1]) >= 1:
            raise InputError("intrinsic has no positive focal lengths, or a skew", where=one.where)
        width, height = entry.laid.photo.size(shown=entry.laid.shown)
        fx, fy = float(k[0, 0]) / way.sx, float(k[1, 1]) / way.sy
        x, y = k[:2, 2].tolist()
        cx, cy = (x + cameras.corner - way.left) / way.sx, (y + cameras.corner - way.top) / way.sy
        intrinsics = Intrinsics(fx, fy, cx, cy, width, height)
        matrix = cameras.matrices[entry.place]
        rigid = pose(matrix, one.where, "extrinsic", said)
        c2w = c2w_from_colmap(rigid[:3, :3], rigid[:3, 3]) if inward else c2w_from_opencv(rigid)
        return Frame(one.image, one.where, c2w, intrinsics, as_shown=entry.laid.shown)

    heads = [f"cameras are {cameras.program}'s, of pictures of {cameras.size[0]}x{cameras.size[1]}", *notes, *more]
    return views_of(
        file, "predictions", entries, lambda entry: entry.name, frame, up="cameras", notes=heads, points=points
    )


def _is_predictions(file: Path) -> bool:
    try:
        with npz_archive(file) as content:
            return _key(content, "extrinsic") is not None and _key(content, "intrinsic") is not None
    except InputError:
        return file.name == "predictions.npz"  # its reader says what is wrong with it


def _key(content: Archive, name: str) -> str | None:
    return next((key for key in (name, f"{name}s") if key in content.names), None)


def _first(content: Archive, keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in content.names), None)


def _cameras(content: Archive, file: Path) -> _Cameras:
    keys = _key(content, "extrinsic"), _key(content, "intrinsic")
    if keys[0] is None or keys[1] is None:
        raise InputError("holds no extrinsic or no intrinsic matrices", where=file)
    extrinsic, intrinsic = (_matrices(content, key, file) for key in keys if key is not None)
    count = len(extrinsic)
    if extrinsic.shape[1:] not in ((3, 4), (4, 4)) or intrinsic.shape != (count, 3, 3):
        shapes = f"{extrinsic.shape} and {intrinsic.shape}"
        raise InputError(f"its {keys[0]} and {keys[1]} are of shape {shapes}, not nx3x4 and nx3x3", where=file)
    if not 0 < count <= _MOST_VIEWS:
        raise InputError(f"holds {count} cameras", where=file)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, : extrinsic.shape[1]] = extrinsic
    program: Program = "VGGT" if extrinsic.shape[1] == 3 else "MapAnything"
    if keys[0] == "extrinsics":
        program = "Depth Anything 3"
    return _Cameras(program, matrices, intrinsic.astype(np.float64), _size(content, count, file))


def _matrices(content: Archive, key: str, file: Path) -> Shaped[np.ndarray, "n a b"]:
    """Matrices without the batch of one that programs leave in front; those that are not finite are refused later."""
    array = content.array(key)
    if array.dtype.kind not in "fiu" or array.ndim not in (3, 4) or (array.ndim == 4 and len(array) != 1):
        raise InputError(f"its {key} is {array.dtype} of shape {array.shape}, not a matrix for each camera", where=file)
    return array[0] if array.ndim == 4 else array


def _size(content: Archive, count: int, file: Path) -> tuple[int, int]:
    """Width and height of the network's pictures."""
    for key in (*_DEPTHS, *_POINTS, *_CONFIDENCES, "final_mask", *_PICTURES):
        if key not in content.names:
            continue
        shape = content.shape(key)
        shape = shape[1:] if len(shape) > 3 and shape[:2] == (1, count) else shape
        if len(shape) not in (3, 4) or shape[0] != count:
            raise InputError(f"its {key} is of shape {shape}, for {count} cameras", where=file)
        height, width = shape[2:] if len(shape) == 4 and shape[1] in (1, 3) and shape[3] > 4 else shape[1:3]
        if not (_SMALLEST_SIDE <= width <= _LARGEST_SIDE and _SMALLEST_SIDE <= height <= _LARGEST_SIDE):
            raise InputError(f"its {key} is of pictures of {width}x{height}", where=file)
        return width, height
    raise InputError(
        "nothing in it says how large the network's pictures were",
        where=file,
        fix=f"Save one of {', '.join((*_DEPTHS, *_POINTS, *_PICTURES))} along with the cameras.",
    )


def _items(content: Archive, key: str | None, cameras: _Cameras, *channels: int) -> Iterator[np.ndarray]:
    """An array for each picture, one after another: height, width, perhaps channels. None if the shape is another."""
    if key is None:
        return
    width, height = cameras.size
    shape, count = content.shape(key), len(cameras.matrices)
    fitting = [(height, width, *((n,) if n else ())) for n in channels]
    fitting += [(n, height, width) for n in channels if n]
    if shape[0:1] == (count,) and shape[1:] in fitting:
        parts = content.parts(key)
    elif shape[:2] == (1, count) and shape[2:] in fitting:
        parts = iter(content.array(key)[0])
    else:
        return
    for part in parts:
        if part.dtype.kind not in "fiub":
            return
        yield np.moveaxis(part, 0, -1) if part.ndim == 3 and part.shape[1:] == (height, width) else part


def _direction(content: Archive, cameras: _Cameras) -> tuple[Direction, list[str]]:
    """Which way the poses go: the one that makes the world's points of the depths, else the program's."""
    usual: Direction = "camera-to-world" if cameras.program == "MapAnything" else "world-to-camera"
    errors = {"camera-to-world": list[float](), "world-to-camera": list[float]()}
    depths = _items(content, _first(content, _DEPTHS), cameras, 0, 1)
    worlds = _items(content, _first(content, _POINTS), cameras, 3)
    for matrix, k, depth, world in zip(cameras.matrices, cameras.intrinsics, depths, worlds):
        if np.abs(matrix - np.eye(4)).max() < 1e-3 or not _sound(k, matrix):
            continue  # the first camera is the world: both ways are one
        local, index = _unprojected(depth.reshape(depth.shape[:2]), k, cameras.corner, _SAMPLES)
        true = world.reshape(-1, 3)[index].astype(np.float64)
        good = np.isfinite(true).all(axis=1)
        if not good.any():
            continue
        for way, inward in (("camera-to-world", False), ("world-to-camera", True)):
            made = _moved(local[good], matrix, inward=inward)
            scale = float(np.median(np.abs(local[good, 2])))
            errors[way].append(float(np.median(np.linalg.norm(made - true[good], axis=1))) / max(scale, 1e-12))
    if not errors["camera-to-world"]:
        return usual, []
    forth, back = (float(np.median(errors[way])) for way in ("camera-to-world", "world-to-camera"))
    told: Direction = "camera-to-world" if forth < back else "world-to-camera"
    if told == usual or min(forth, back) > _CLEARLY * max(forth, back):
        return usual, []
    return told, [f"extrinsic was taken as {told}, which {cameras.program} does not write: the file's points say so"]


def _sound(k: Float[np.ndarray, "3 3"], matrix: Mat4) -> bool:
    """Whether a camera's numbers are such that points can be had by them; others are refused one by one later."""
    rotation = matrix[:3, :3]
    if not (np.isfinite(k).all() and np.isfinite(matrix).all()):
        return False
    return bool(min(k[0, 0], k[1, 1]) > 1e-6 and np.abs(rotation @ rotation.T - np.eye(3)).max() < 0.1)


def _moved(points: Float[np.ndarray, "n 3"], matrix: Mat4, *, inward: bool) -> Float[np.ndarray, "n 3"]:
    """Points of a camera in the world, by its pose or the inverse of that."""
    if inward:
        return (points - matrix[:3, 3]) @ matrix[:3, :3]
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def _unprojected(
    depth: Shaped[np.ndarray, "h w"], k: Float[np.ndarray, "3 3"], corner: float, most: int
) -> tuple[Float[np.ndarray, "n 3"], Shaped[np.ndarray, "n"]]:
    """Some of a picture's points in OpenCV's camera axes, evenly over those that are known, and their places."""
    flat = depth.reshape(-1)
    known = np.flatnonzero(np.isfinite(flat) & (flat > 0))
    index = known[:: max(1, -(-len(known) // most))]
    y, x = np.divmod(index, depth.shape[1])
    z = flat[index].astype(np.float64)
    right, down = x + 0.5 - corner - k[0, 2], y + 0.5 - corner - k[1, 2]
    return np.stack([right / k[0, 0] * z, down / k[1, 1] * z, z], axis=1), index


def _points(content: Archive, cameras: _Cameras, *, inward: bool) -> Float[np.ndarray, "n 3"] | None:
    """Points of the world from the depths, of those of which the network was the surer half."""
    most = max(1, _MOST_POINTS // len(cameras.matrices))
    sure = [_items(content, _first(content, keys), cameras, 0, 1) for keys in (_CONFIDENCES, ("final_mask",))]
    made = []
    for k, matrix, depth in zip(
        cameras.intrinsics, cameras.matrices, _items(content, _first(content, _DEPTHS), cameras, 0, 1)
    ):
        flat = depth.reshape(depth.shape[:2]).copy()
        for one in (next(items, None) for items in sure):
            if one is not None:
                values = one.reshape(flat.shape)
                flat[~_surer(values)] = 0
        if _sound(k, matrix):
            made.append(_moved(_unprojected(flat, k, cameras.corner, most)[0], matrix, inward=inward))
    points = np.concatenate(made) if made else np.zeros((0, 3))
    points = points[np.isfinite(points).all(axis=1)]
    return points if len(points) else None


def _surer(values: Shaped[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """What a mask keeps, or the surer half of confidences; those that are not finite are not sure."""
    if values.dtype == bool or not np.issubdtype(values.dtype, np.floating) or np.isin(values, (0, 1)).all():
        return values.astype(bool)
    known = np.isfinite(values)
    return known & (values >= np.median(values[known])) if known.any() else known


def _paired(content: Archive, cameras: _Cameras, found: list[Path], file: Path) -> tuple[list[Laid], list[str]]:
    """The photos of the cameras, and what is to be said of how they were found."""
    count = len(cameras.matrices)
    photos = [Photo(path) for path in found]
    listed = _listed(content, count)
    if listed is not None:
        exact = {photo.path.name: photo for photo in photos}
        loose = {photo.path.name.lower(): photo for photo in photos}
        chosen = [exact.get(name) or loose.get(name.lower()) for name in listed]
        if None in chosen:
            lost = listed[chosen.index(None)]
            raise InputError(f"it lists {lost}, which is not in {found[0].parent.name}/", where=file)
        if len(set(chosen)) < len(chosen):
            twice = next(name for k, name in enumerate(listed) if chosen[k] in chosen[:k])
            raise InputError(
                f"it lists two pictures that are called {twice}",
                where=file,
                fix="Put the photos into one folder under names of their own, and give the network those.",
            )
        photos = [photo for photo in chosen if photo is not None]
    pictures = [NetworkPicture.of(one) for one in _items(content, _first(content, _PICTURES), cameras, 3)]
    if pictures:
        return laid_by_looks(cameras.program, pictures, photos, cameras.size, file, in_order=listed is not None)
    if len(photos) != count:
        raise InputError(
            f"{count} cameras, and {len(photos)} photos in {found[0].parent.name}/",
            where=file,
            fix="Leave the photos there that the network was given, and no others.",
        )
    laid, notes = laid_in_order(cameras.program, photos, cameras.size, file)
    if listed is None:
        first, last = photos[0].path.name, photos[-1].path.name
        notes.insert(
            0, f"the file names no photos as text: they were paired in order of their names, from {first} to {last}"
        )
    return laid, notes


def _listed(content: Archive, count: int) -> list[str] | None:
    """The names of the photos, if the file has them as text."""
    key = _first(content, _NAMES)
    if key is None:
        return None
    try:
        names = content.array(key)
    except InputError:  # paths as Python objects, which are not read: names are a help, not needed
        return None
    if names.dtype.kind != "U" or names.shape != (count,):
        return None
    return [str(name).replace("\\", "/").rpartition("/")[2] for name in names]
