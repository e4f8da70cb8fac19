"""Train the coarse volume, on a CPU or a GPU; the options are those of train_vae.py.

Example: python scripts/train_coarse.py --objects DATA/meshes_train --samples-dir SAMPLES --out OUT --minutes 60
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.diffusion.coarse import CoarseVolumeModel
from pipeline.training.coarse import CoarseLoss, CoarseTask
from pipeline.training.data import open_data
from pipeline.training.trainer import TrainSettings, begin, train


@dataclass(frozen=True)
class Arguments:
    """Train the coarse volume."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    objects: Path
    """Folder of the object pool; its val split is the held-out set."""
    samples_dir: Path | None = None
    """Samples rendered before (scripts/render_samples.py); rendered on the fly without it."""
    workers: int = 1
    """Rendering processes when rendering on the fly."""
    held: int = 2000
    """Samples kept in memory when rendering on the fly."""
    loss: CoarseLoss = CoarseLoss()
    """Weights of the loss."""


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    model = CoarseVolumeModel()
    if settings.resume is not None:
        model = CoarseVolumeModel.from_pretrained(settings.resume, low_cpu_mem_usage=False).float()
    with contextlib.ExitStack() as stack:
        store, held_out = open_data(
            stack, arguments.objects, arguments.samples_dir, arguments.workers, arguments.held, seed
        )
        train(
            model,
            lambda device: CoarseTask(model, store, held_out.batch_all(), settings.batch, device, arguments.loss, seed),
            settings,
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
