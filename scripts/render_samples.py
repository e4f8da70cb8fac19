"""Render training samples to disk, so that training on a CPU need not render while it trains.

Example: python scripts/render_samples.py --objects DATA/meshes_train --out SAMPLES --count 12000 --workers 2
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.progress import track

from pipeline.training.data.samples import SampleSettings, SampleStream
from pipeline.training.data.store import SampleStore


@dataclass(frozen=True)
class Arguments:
    """Render training samples to disk; a second run continues the first."""

    out: Path
    """Folder for the samples (about 0.7 MB each with eight targets of 128 px, 0.17 MB with three of 64 px)."""
    objects: Path | None = None
    """Folder of the object pool (objects.zip and manifest.csv); only procedural objects without it."""
    count: int = 12000
    """Samples to render."""
    targets: int = 8
    """Target views of an object; 2 to 4 do for the coarse volume, and take less time and room."""
    size: int = 128
    """Side of every picture in pixels; the view model and the VAE need 128, the coarse volume reads 64."""
    seed: int = 0
    """Samples of different seeds are different."""
    workers: int = 2
    """Processes."""


def main(arguments: Arguments) -> None:
    """Fill the store up to the count."""
    settings = SampleSettings(size=arguments.size, targets=arguments.targets)
    store = SampleStore(settings, arguments.count, arguments.out)
    stream = SampleStream(arguments.objects, settings, seed=arguments.seed, workers=arguments.workers)
    missing = arguments.count - store.written
    for sample in track(stream.read(store.written, arguments.count), "rendering", total=missing):
        store.append(sample)
        if store.written % 200 == 0:
            store.flush()
    store.flush()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
