"""The one noun of the pipeline: a set of posed pictures, on disk a capture folder in nerfstudio's format."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from scene.camera import Camera, Mat4, apply_transform
from scene.errors import InputError
from scene.files import write_text, written_aside
from scene.lens import Undistortion
from scene.maps import DepthMap, NormalMap, known, load_depth, load_normals, load_stored, save_array, unit
from scene.photo import load_mask, load_rgba
from scene.points import write_points

RGBA = UInt8[np.ndarray, "h w 4"]
Mask = UInt8[np.ndarray, "h w"]
DEPTH_UNIT = 1e-3
"""World units of one count in a depth file, unless the capture file says otherwise (nerfstudio's default)."""


@dataclass(frozen=True, eq=False)
class View:
    """One posed picture, with depth and normals if they are known.

    Args:
        name: unique within its set, without directory or ending.
        camera: the camera, a pinhole; its size is the picture's size.
        pixels: the picture, if it is in memory.
        image_path: otherwise where it is read from, each time it is asked for.
        mask_path: a separate mask, white where the object is; it replaces the picture's alpha.
        weight: confidence in [0, 1]; generated views have less than photos.
        mask: a mask in memory; it replaces both, and belongs to ``camera``.
        depth_source: z-depths along the optical axis, in memory or the file that they are read from; 0 is unknown.
        depth_scale: world units of one count of ``depth_source``.
        normal_source: normals in the camera's OpenGL axes, in memory or in a file; 0 is unknown.
        undistortion: how files (never what is in memory) become pictures of ``camera``; None if they are.
        as_stored: whether the camera fits the file's pixels without their EXIF orientation.
    """

    name: str
    camera: Camera
    pixels: RGBA | None = None
    image_path: Path | None = None
    mask_path: Path | None = None
    weight: float = 1.0
    mask: Mask | None = None
    depth_source: DepthMap | Path | None = None
    depth_scale: float = 1.0
    normal_source: NormalMap | Path | None = None
    undistortion: Undistortion | None = None
    as_stored: bool = False

    def rgba(self) -> RGBA:
        """The picture, straight alpha; alpha is 255 everywhere if there is no mask.

        Raises:
            InputError: the file is missing or unreadable, or its size is not the camera's.
        """
        rgba = self._read() if self.pixels is None else self.pixels
        return rgba if self.mask is None else np.dstack([rgba[..., :3], self.mask])

    def depth(self) -> DepthMap | None:
        """Depth along the optical axis in world units, 0 where it is unknown; None if the view has none.

        Raises:
            InputError: the file is missing, damaged, or of another shape than the picture.
        """
        source = self.depth_source
        if isinstance(source, Path):
            source = load_depth(source, self._file_size)
            if self.undistortion is not None:
                source = self.undistortion.values(source)
        return None if source is None else known((source * self.depth_scale).astype(np.float32))

    def normals(self) -> NormalMap | None:
        """Unit normals in the camera's axes (x right, y up, z towards it), 0 where unknown; None if there are none.

        Raises:
            InputError: the file is missing, damaged, or not of the picture's size.
        """
        source = self.normal_source
        if isinstance(source, Path):
            source = load_normals(source, self._file_size)
            if self.undistortion is not None:
                source = self.undistortion.values(source)
        return None if source is None else unit(source)

    @property
    def _file_size(self) -> tuple[int, int]:
        """Width and height of the files."""
        size = self.camera if self.undistortion is None else self.undistortion.raw
        return size.width, size.height

    def _read(self) -> RGBA:
        if self.image_path is None:
            raise InputError("a view has neither pixels nor a file", where=self.name)
        rgba = load_stored(self.image_path) if self.as_stored else load_rgba(self.image_path)
        width, height = self._file_size
        if rgba.shape[1::-1] != (width, height):
            raise InputError(
                f"the picture is {rgba.shape[1]}x{rgba.shape[0]}, its camera says {width}x{height}",
                where=self.image_path,
                fix="Correct w and h (and the intrinsics) in transforms.json.",
            )
        if self.mask_path is not None:
            rgba[..., 3] = load_mask(self.mask_path, (width, height))
        return rgba if self.undistortion is None else self.undistortion.picture(rgba)


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Posed pictures of one object or scene; the world is z up.

    Args:
        views: the pictures, in order.
        has_masks: whether alpha tells object from background.
        metadata: where the set comes from; written to and read from the capture file. Keys that readers of captures set
            are listed in :mod:`scene.captures`.
        points: sparse points on surfaces, world frame, if known.
    """

    views: tuple[View, ...]
    has_masks: bool
    metadata: dict[str, Any] = field(default_factory=dict)
    points: Float[np.ndarray, "n 3"] | None = None

    def __post_init__(self) -> None:
        names = [view.name for view in self.views]
        if len(set(names)) != len(names):
            raise InputError(f"two views have the same name {max(names, key=names.count)!r}")

    def __len__(self) -> int:
        return len(self.views)

    def __iter__(self) -> Iterator[View]:
        return iter(self.views)

    @property
    def has_depths(self) -> bool:
        """Whether every view has a depth map."""
        return bool(self.views) and all(view.depth_source is not None for view in self.views)

    @property
    def has_normals(self) -> bool:
        """Whether every view has normals."""
        return bool(self.views) and all(view.normal_source is not None for view in self.views)

    def transformed(self, matrix: Mat4) -> ViewSet:
        """The set after a similarity of its world: cameras and points move, depths scale, pictures stay."""
        scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
        moved = []
        for view in self.views:
            c2w = view.camera.c2w.copy()
            c2w[:3, 3] = apply_transform(matrix, view.camera.centre)
            c2w[:3, :3] = matrix[:3, :3] / scale @ c2w[:3, :3]
            camera = replace(view.camera, c2w=c2w)
            moved.append(replace(view, camera=camera, depth_scale=view.depth_scale * scale))
        points = None if self.points is None else apply_transform(matrix, self.points)
        return replace(self, views=tuple(moved), points=points)

    def save(self, folder: Path) -> None:
        """Write a capture folder: ``transforms.json``, ``images/`` (RGBA if there are masks), ``masks/``, and, if every
        view has them, ``depths/`` and ``normals/``.

        The JSON is written last, so that a folder with one is complete.

        Raises:
            InputError: some views only have depths or normals.
        """
        depths, normals = self._all_or_none("depth", "depth_source"), self._all_or_none("normals", "normal_source")
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
            depth = view.depth() if depths else None
            if depth is not None:
                frame["depth_file_path"] = f"depths/{view.name}.npy"
                save_array(folder / frame["depth_file_path"], (depth / DEPTH_UNIT).astype(np.float32))
            vectors = view.normals() if normals else None
            if vectors is not None:
                frame["viewloom_normal_path"] = f"normals/{view.name}.npy"
                save_array(folder / frame["viewloom_normal_path"], vectors)
            frames.append(frame)
        content: dict[str, Any] = {"camera_model": "OPENCV", "frames": frames, "viewloom": self.metadata}
        if self.points is not None:
            content["ply_file_path"] = "points.ply"
            write_points(folder / "points.ply", self.points)
        write_text(folder / "transforms.json", json.dumps(content, indent=1) + "\n")

    @classmethod
    def load(cls, path: Path, *, splits: Sequence[str] = ("train",)) -> ViewSet:
        """Read a capture folder or its ``transforms.json``; pictures stay on disk until asked for.

        Files of nerfstudio, instant-ngp and Blender (NeRF-synthetic) are understood; see
        :mod:`scene.captures.nerfstudio`.

        Args:
            path: the folder, or its file.
            splits: which of ``transforms_SPLIT.json`` are read where there is no ``transforms.json``.

        Raises:
            InputError: the file is not valid, a value is not finite, a file is missing, or a path leaves the folder.
        """
        from scene.captures.nerfstudio import read_transforms  # its result is what is defined here

        return read_transforms(path, splits=splits)

    def _all_or_none(self, what: str, attribute: str) -> bool:
        count = sum(getattr(view, attribute) is not None for view in self.views)
        if count not in (0, len(self.views)):
            raise InputError(
                f"{count} of {len(self.views)} views have {what}", fix=f"Give {what} to all views of a set or to none."
            )
        return count > 0
