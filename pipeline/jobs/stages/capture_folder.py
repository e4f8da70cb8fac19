"""What view and capture stages leave: a folder of posed pictures in the normalised world."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scene.archives import npz_archive
from scene.errors import InputError
from scene.viewset import ViewSet

COARSE_FILE = "coarse.npz"
_LARGEST = 256
"""Voxels along each side of a coarse volume."""
_SLACK = 1e-2
"""By which its numbers may be beyond their range."""


@dataclass(frozen=True)
class CaptureFolder:
    """A capture folder that a stage wrote.

    Args:
        path: holds ``transforms.json``, pictures, masks, and the coarse volume where there is one.
    """

    path: Path

    @cached_property
    def views(self) -> ViewSet:
        """The posed pictures; pixels are read when they are asked for."""
        return ViewSet.load(self.path)

    def looked_at(self) -> CaptureFolder:
        """The folder itself, once its capture file has been read.

        Raises:
            InputError: it cannot be.
        """
        self.views.metadata  # noqa: B018 - read when first asked for
        return self

    @property
    def warnings(self) -> list[str]:
        """What the user should know of them."""
        return list(self.views.metadata.get("warnings", []))

    @property
    def coarse_volume(self) -> tuple[Float[np.ndarray, "r r r"], Float[np.ndarray, "r r r 3"]] | None:
        """Occupancy in [0, 1] and sRGB colours over the cube of half side 0.6, where one photo is all there was.

        Raises:
            InputError: the file holds something else.
        """
        path = self.path / COARSE_FILE
        return read_coarse_volume(path) if path.exists() else None


def read_coarse_volume(path: Path) -> tuple[Float[np.ndarray, "r r r"], Float[np.ndarray, "r r r 3"]]:
    """Occupancy and colours of a coarse volume's file.

    Raises:
        InputError: it is damaged, or holds no such volume.
    """
    with npz_archive(path, "a coarse volume") as data:
        occupancy, colours = data.numbers("occupancy", (None,) * 3), data.numbers("colours", (None,) * 3 + (3,))
    side = occupancy.shape[0]
    if not 2 <= side <= _LARGEST or occupancy.shape != (side,) * 3 or colours.shape[:3] != occupancy.shape:
        shapes = f"{occupancy.shape} and {colours.shape}"
        raise InputError(f"occupancy and colours are no cubes of one size, but {shapes}", where=path)
    if min(occupancy.min(), colours.min()) < -_SLACK or max(occupancy.max(), colours.max()) > 1 + _SLACK:
        raise InputError("occupancy or colours are not between 0 and 1", where=path)
    return occupancy.astype(np.float32), colours.astype(np.float32)
