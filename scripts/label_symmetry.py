"""Label rendered samples with the symmetry planes of their objects, for scripts/train_symmetry.py.

Example: python scripts/label_symmetry.py --objects DATA/meshes_train --samples-dir SAMPLES --seed 31
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from rich.progress import track

from pipeline.training.data.objects import ObjectPool, ObjectSource
from pipeline.training.data.store import SampleStore
from pipeline.training.data.symmetry import HEADINGS, LABELS_FILE, SymmetryLabels, reflection_errors


@dataclass(frozen=True)
class Arguments:
    """Label samples; a second run continues the first."""

    samples_dir: Path
    """Samples of scripts/render_samples.py; the labels are written beside them."""
    seed: int
    """Seed that they were rendered with."""
    objects: Path | None = None
    """Folder of the object pool, if they were rendered with one."""


def main(arguments: Arguments) -> None:
    """Make each sample's object again and measure it."""
    count = len(SampleStore.open(arguments.samples_dir))
    source = ObjectSource(None if arguments.objects is None else ObjectPool(arguments.objects, "train"))
    errors, offsets = np.zeros((2, count, HEADINGS), np.float32)
    first = 0
    if (arguments.samples_dir / LABELS_FILE).is_file():
        held = SymmetryLabels.open(arguments.samples_dir)
        first = min(len(held), count)
        errors[:first], offsets[:first] = held.errors[:first], held.offsets[:first]
    for k in track(range(first, count), "labelling", total=count - first):
        mesh, _ = source.draw(np.random.default_rng([arguments.seed, k]))
        errors[k], offsets[k] = reflection_errors(mesh, np.random.default_rng(k))
        if k % 200 == 199 or k == count - 1:
            SymmetryLabels(errors[: k + 1], offsets[: k + 1]).save(arguments.samples_dir)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
