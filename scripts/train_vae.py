"""Train the nano VAE, on a CPU or a GPU.

Stored samples:        python scripts/train_vae.py --objects DATA/meshes_train --samples-dir SAMPLES --out OUT
Rendering on the fly:  python scripts/train_vae.py --objects DATA/meshes_train --workers 14 --out OUT
Either way, add a budget such as --minutes 60.
Continue the shipped:  add --resume weights/nano/vae
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from diffusers import AutoencoderKL

from pipeline.training.data.open_data import open_data
from pipeline.training.data.samples import SampleSettings
from pipeline.training.data.store import SampleStore
from pipeline.training.tasks.vae import VaeLoss, VaeTask, nano_vae
from pipeline.training.trainer import TrainSettings, begin, train


@dataclass(frozen=True)
class Arguments:
    """Train the nano VAE."""

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
    """Further folders of stored samples of the same size."""
    latent_channels: int = 8
    """Channels of a fresh model's latents."""
    fold: int = 4
    """Side of the pixel blocks that a fresh model takes as channels."""
    widths: tuple[int, ...] = (96, 160)
    """Channels of a fresh model's levels; pictures are fold * 2^(levels - 1) times larger than latents."""
    decoder_only: bool = False
    """Train the decoder of the resumed model alone: models of its latents stay valid."""
    loss: VaeLoss = VaeLoss()
    """Weights of the loss."""


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    vae = (
        nano_vae(arguments.latent_channels, arguments.fold, arguments.widths)
        if settings.resume is None
        else AutoencoderKL.from_pretrained(settings.resume, low_cpu_mem_usage=False).float()
    )
    with contextlib.ExitStack() as stack:
        store, held_out = open_data(
            stack,
            arguments.objects,
            arguments.samples_dir,
            arguments.workers,
            arguments.held,
            seed,
            SampleSettings(volume=0),
        )
        held = held_out.batch_all()
        images = np.concatenate([held.source, held.targets[:, 0], held.targets[:, 4]])
        stores = [store, *(SampleStore.open(folder) for folder in arguments.more_samples)]
        only = arguments.decoder_only
        vae.encoder.requires_grad_(not only)
        vae.quant_conv.requires_grad_(not only)

        def task(device: torch.device) -> VaeTask:
            return VaeTask(vae, stores, images, settings.batch, device, arguments.loss, seed, decoder_only=only)

        train(vae, task, settings)


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
