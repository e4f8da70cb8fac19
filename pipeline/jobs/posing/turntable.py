"""Tells photos of a thing on a turntable, taken by a camera that stands still, from those of a walk around it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image

from scene.photo import load_rgba

_SIDE, _FEWEST = 64, 6


def background_stands_still(photos: Sequence[Path]) -> bool:
    """Whether photos in their order have borders that are alike and middles that differ; few photos tell nothing.

    Features that are found in such a background say that no camera has moved. One without structure has none.
    """
    return len(photos) >= _FEWEST and borders_stand_still([_thumbnail(photo) for photo in photos])


def borders_stand_still(thumbnails: Sequence[Float[np.ndarray, "64 64"]]) -> bool:
    """The same of small grey pictures, in [0, 255]."""
    edge, inner = _SIDE // 8, slice(_SIDE // 4, _SIDE - _SIDE // 4)
    border = np.ones((_SIDE, _SIDE), bool)
    border[edge:-edge, edge:-edge] = False
    changes = [np.abs(a - b) for a, b in itertools.pairwise(thumbnails)]
    around = float(np.median([change[border].mean() for change in changes]))
    middle = float(np.median([change[inner, inner].mean() for change in changes]))
    structure = float(np.median([picture[border].std() for picture in thumbnails]))
    return around < 3 and middle > max(4.0, 3 * around) and structure > 8


def _thumbnail(photo: Path) -> Float[np.ndarray, "64 64"]:
    small = Image.fromarray(load_rgba(photo, 4 * _SIDE)[..., :3]).convert("L")
    return np.asarray(small.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64)
