"""What view and capture stages leave: a folder of posed pictures in the normalised world."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Float

from scene.viewset import ViewSet

COARSE_FILE = "coarse.npz"


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

    @property
    def warnings(self) -> list[str]:
        """What the user should know of them."""
        return list(self.views.metadata.get("warnings", []))

    @property
    def coarse_volume(self) -> tuple[Float[np.ndarray, "r r r"], Float[np.ndarray, "r r r 3"]] | None:
        """Occupancy in [0, 1] and sRGB colours over the cube of half side 0.6, where one photo is all there was."""
        if not (self.path / COARSE_FILE).is_file():
            return None
        with np.load(self.path / COARSE_FILE) as data:
            return data["occupancy"].astype(np.float32), data["colours"].astype(np.float32)
