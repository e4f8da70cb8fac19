"""Render objects alone, unlit and with their surface directions, for the training of the segmenter.

Example: python scripts/render_foregrounds.py --objects DATA/meshes_train --out FOREGROUNDS --count 8000
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.progress import track

from pipeline.training.data.foregrounds import ForegroundStore, random_foregrounds


@dataclass(frozen=True)
class Arguments:
    """Render objects alone; a second run continues the first."""

    out: Path
    """Folder for the pictures (0.11 MB each at 128 pixels)."""
    objects: Path | None = None
    """Folder of the object pool (objects.zip and manifest.csv), whose train split is used; only the procedural
    families without it."""
    count: int = 8000
    """Pictures to render."""
    views: int = 4
    """Pictures of each object."""
    size: int = 128
    """Side of the pictures."""
    seed: int = 0
    """Objects of different seeds are different."""


def main(arguments: Arguments) -> None:
    """Fill the store up to the count."""
    store = ForegroundStore(arguments.size, arguments.count, arguments.out)
    # Only whole objects are on the disk: the count written is a multiple of the views.
    first = store.written // arguments.views
    pictures = random_foregrounds(arguments.objects, arguments.size, arguments.views, arguments.seed, first)
    for _ in track(range(store.written, arguments.count), "rendering"):
        store.append(next(pictures))
        if store.written % (arguments.views * 25) == 0:
            store.flush()
    store.flush()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
