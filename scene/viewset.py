"""The one noun of the pipeline: a set of posed pictures, on disk a capture folder in nerfstudio's format."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from scene.camera import Mat4, apply_transform
from scene.errors import InputError
from scene.frames import Contents, Frame, assemble
from scene.transforms_json import read_transforms, write_transforms
from scene.view import View

MASKS_IGNORE = {"mask_means": "ignore"}
"""Of the metadata of a set whose alpha is 0 where nothing is to be looked at."""


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
    def has_ignored(self) -> bool:
        """Whether alpha tells what is to be looked at from what is not, such as a passer-by; never with ``has_masks``.

        What is not looked at is unknown: neither object nor background.
        """
        return not self.has_masks and MASKS_IGNORE.items() <= self.metadata.items()

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

    @classmethod
    def of_frames(
        cls,
        frames: Sequence[Frame],
        where: Path,
        metadata: dict[str, Any],
        points: Float[np.ndarray, "n 3"] | None = None,
    ) -> ViewSet:
        """The set of what a capture file says of each picture; see :func:`scene.frames.assemble`.

        Raises:
            InputError: a file is missing, a size does not fit, or only some pictures have masks, depths or normals.
        """
        return cls(*assemble(frames, where, metadata, points))

    def save(self, folder: Path) -> None:
        """Write a capture folder in nerfstudio's format; see :func:`scene.transforms_json.write_transforms`.

        Raises:
            InputError: some views only have depths or normals.
        """
        with_alpha = self.has_masks or self.has_ignored
        write_transforms(folder, Contents(self.views, with_alpha, self.metadata, self.points))

    @classmethod
    def load(cls, path: Path, *, splits: Sequence[str] = ("train",)) -> ViewSet:
        """Read a capture folder or its ``transforms.json``; pictures stay on disk until asked for.

        Files of nerfstudio, instant-ngp and Blender (NeRF-synthetic) are understood; see :mod:`scene.transforms_json`.

        Args:
            path: the folder, or its file.
            splits: which of ``transforms_SPLIT.json`` are read where there is no ``transforms.json``.

        Raises:
            InputError: the file is not valid, a value is not finite, a file is missing, or a path leaves the folder.
        """
        views = cls(*read_transforms(path, splits=splits))
        return replace(views, has_masks=False) if MASKS_IGNORE.items() <= views.metadata.items() else views
