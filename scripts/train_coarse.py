"""Train the coarse volume, on a CPU or a GPU; the options are those of train_vae.py.

Example: python scripts/train_coarse.py --objects DATA/meshes_train --samples-dir SAMPLES --out OUT --minutes 60
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.training.data.open_data import open_data
from pipeline.training.data.photos import PhotoSettings
from pipeline.training.data.store import SampleStore
from pipeline.training.tasks.coarse_volume import CoarseLoss, CoarseTask
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
    more_samples: tuple[Path, ...] = ()
    """Further folders of stored samples; they may differ in the size and number of their pictures."""
    loss: CoarseLoss = CoarseLoss()
    """Weights of the loss."""
    photos: PhotoSettings = PhotoSettings()
    """How photos are made of samples."""
    camera_channels: int = 16
    """Map that the camera is read from (see CoarseVolumeModel); a model resumed from grows one if it has none."""
    sharpness: float = 3.0
    """Factor on the logits of volumes in use, which a model resumed from keeps; training does not see it."""
    contrast: float = 0.5
    """Of the photo's colours where the shape of volumes in use is read, 1 for all of it; kept and unseen likewise."""


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    model = CoarseVolumeModel(
        camera_channels=arguments.camera_channels, sharpness=arguments.sharpness, contrast=arguments.contrast
    )
    if settings.resume is not None:
        model = CoarseVolumeModel.from_pretrained(settings.resume, low_cpu_mem_usage=False).float()
    with contextlib.ExitStack() as stack:
        store, held_out = open_data(
            stack, arguments.objects, arguments.samples_dir, arguments.workers, arguments.held, seed
        )
        if arguments.camera_channels and not model.config["camera_channels"]:
            model = model.grown(arguments.camera_channels)
        stores = [store, *(SampleStore.open(folder) for folder in arguments.more_samples)]

        def make_task(device: torch.device) -> CoarseTask:
            held = held_out.batch_all()
            return CoarseTask(model, stores, held, settings.batch, device, arguments.loss, arguments.photos, seed)

        train(model, make_task, settings)


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
