"""One posed picture: its pinhole camera, and where pixels, mask, depths and normals come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from scene.camera import Camera
from scene.errors import InputError
from scene.lens import Undistortion
from scene.maps import DepthMap, NormalMap, known, load_depth, load_normals, picture_head, unit
from scene.photo import load_mask, read_picture
from scene.pictures.turns import as_stored

Origin = Literal["photo", "generated", "mirrored"]
"""Where a picture comes from: a camera, a model that drew it, or a photo that was mirrored in a symmetry plane."""

LARGE = 4_000_000
"""Pixels from which a picture is worth sparing: phones take 12 million, renders and old captures have fewer than 4."""

RGBA = UInt8[np.ndarray, "h w 4"]
Mask = UInt8[np.ndarray, "h w"]


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
        ignore_path: a file that is black where the picture is to be looked at, as instant-ngp's dynamic masks; it
            replaces the alpha of a picture without a mask.
        origin: where the picture comes from; textures take photos as they are, among pictures of other origin.
        sharpness: relative to the other pictures of its set, 1 is usual; says which are taken where there are many.
        unknown_source: not black where the mask tells nothing, neither object nor background (a hand, a passer-by); in
            memory, and then it is as ``camera`` sees it, maybe reduced, or a file, as instant-ngp's dynamic masks.
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
    origin: Origin = "photo"
    ignore_path: Path | None = None
    sharpness: float = 1.0
    unknown_source: Mask | Path | None = None

    def rgba(self) -> RGBA:
        """The picture, straight alpha; alpha is 255 everywhere if there is no mask, and 0 where it is unknown.

        Raises:
            InputError: the file is missing or unreadable, or its size is not the camera's.
        """
        rgba = self._read() if self.pixels is None else self.pixels
        rgba = rgba if self.mask is None else np.dstack([rgba[..., :3], self.mask])
        return self._silenced(rgba, self.unknown())

    def unknown(self, size: tuple[int, int] | None = None) -> Mask | None:
        """255 where the mask tells nothing, 0 elsewhere; None if it tells something everywhere.

        Args:
            size: width and height to give it, no larger than the camera's: 255 where any part is unknown.

        Raises:
            InputError: the file cannot be read, or its size is not the picture's.
        """
        source = self.unknown_source
        if source is None:
            return None
        if isinstance(source, Path):
            orientation = picture_head(self.image_path).orientation if self.image_path is not None else 1
            source = self._mask_of(source, orientation, None)
            source = np.where(source > 0, np.uint8(255), np.uint8(0))
            if self.undistortion is not None:
                source = self.undistortion.picture(source)
        found = np.where(source > 0, np.uint8(255), np.uint8(0))
        size = size or (self.camera.width, self.camera.height)
        if size == found.shape[1::-1]:
            return found
        if size[0] > found.shape[1]:
            return np.asarray(Image.fromarray(found).resize(size, Image.Resampling.NEAREST))
        part = np.asarray(Image.fromarray(found.astype(np.float32)).resize(size, Image.Resampling.BOX))
        return np.where(part > 0, np.uint8(255), np.uint8(0))

    def reduced(self, max_side: int, *, worth: float = 2.0) -> RGBA:
        """The picture with a longest side of ``max_side`` pixels if it is large and has over ``worth`` times as many.

        JPEG files are then decoded at a fraction of their size, in a tenth of the time. Of pictures that are not large
        (:data:`LARGE`) it is not worth that the last digits differ: these are given as they are. So are pictures in
        memory. Masks are averaged.

        Raises:
            InputError: as :meth:`rgba`.
        """
        width, height = self._file_size
        if self.pixels is not None or width * height < LARGE or max(width, height) <= worth * max_side:
            return self.rgba()
        rgba = self._read(max_side)
        if self.mask is not None:  # as the camera sees it
            size = rgba.shape[1::-1]
            rgba[..., 3] = np.asarray(Image.fromarray(self.mask).resize(size, Image.Resampling.BOX))
        return self._silenced(rgba, self.unknown(rgba.shape[1::-1]))

    @property
    def plain_file(self) -> Path | None:
        """The file whose pixels, read again, are the picture's, colours and all; None if there is none.

        Turned pictures are none: which way is up would have to be told again. Alpha may come from elsewhere.
        """
        changed = self.pixels is not None or self.undistortion is not None
        if changed or self.image_path is None or picture_head(self.image_path).turned:
            return None
        return self.image_path

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
    def files(self) -> tuple[Path, ...]:
        """All files that the view is read from."""
        maps = (self.depth_source, self.normal_source, self.unknown_source)
        sources = (self.image_path, self.mask_path, self.ignore_path, *maps)
        return tuple(source for source in sources if isinstance(source, Path))

    @property
    def _file_size(self) -> tuple[int, int]:
        """Width and height of the files."""
        size = self.camera if self.undistortion is None else self.undistortion.raw
        return size.width, size.height

    def _read(self, max_side: int | None = None) -> RGBA:
        """The picture with what its files say of alpha, reduced if asked for."""
        rgba, orientation = self._stored(max_side)
        height, width = rgba.shape[:2]
        size = None if max_side is None else (width, height)
        if self.mask_path is not None:
            rgba[..., 3] = self._mask_of(self.mask_path, orientation, size)
        elif self.ignore_path is not None:
            rgba[..., 3] = np.where(self._mask_of(self.ignore_path, orientation, size) > 0, 0, 255)
        if self.undistortion is None:
            return rgba
        lens = self.undistortion if max_side is None else self.undistortion.reduced(width, height)
        return lens.picture(rgba)

    @staticmethod
    def _silenced(rgba: RGBA, unknown: Mask | None) -> RGBA:
        """The picture with alpha 0 where it is unknown."""
        if unknown is None:
            return rgba
        return np.dstack([rgba[..., :3], np.where(unknown > 0, np.uint8(0), rgba[..., 3])])

    def _stored(self, max_side: int | None) -> tuple[RGBA, int]:
        """The file's picture as the camera or its lens saw it, reduced if asked for; and its orientation."""
        if self.image_path is None:
            raise InputError("a view has neither pixels nor a file", where=self.name)
        picture = read_picture(self.image_path, max_side)
        width, height = picture.size[::-1] if self.as_stored and picture.orientation >= 5 else picture.size
        if (width, height) != self._file_size:
            raise InputError(
                f"the picture is {width}x{height}, its camera says {self._file_size[0]}x{self._file_size[1]}",
                where=self.image_path,
                fix="Correct w and h (and the intrinsics) in transforms.json.",
            )
        rgba = as_stored(picture.rgba, picture.orientation) if self.as_stored else picture.rgba
        return rgba, picture.orientation

    def _mask_of(self, path: Path, orientation: int, reduced: tuple[int, int] | None) -> Mask:
        return load_mask(path, self._file_size, reduced, orientation=orientation, stored=self.as_stored)
