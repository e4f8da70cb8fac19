r"""Train the layers of the aligned decoder, on a CPU or a GPU; the VAE stays as it is.

Example: python scripts/train_decoder.py --objects DATA/meshes_train --weights weights/nano --out OUT --minutes 60 \
             --batch 2 --optimiser muon --lr 2e-3 --threads 1
Continue a run:  add --resume OUT/model
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import tyro
from diffusers import AutoencoderKL

from pipeline.diffusion.aligned_decoder import AlignedDecoder, AlignedLayers, Others, nano_places
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.epipolar_attention import Reach
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.view_rings import RingSettings, RingStream, heldout_ring
from pipeline.training.tasks.aligned import AlignedLoss, AlignedTask
from pipeline.training.trainer import TrainSettings, begin, train
from scene.backends import pick_device


@dataclass(frozen=True)
class Arguments:
    """Train the layers of the aligned decoder."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    objects: Path
    """Folder of the object pool; its val split is the held-out set."""
    weights: Path = Path("weights/nano")
    """Folder with the trained vae/."""
    others: Others = "pixels"
    """Which layer reads other views, beside the front."""
    reach: Reach = "truncated"
    """Which points layers read; other than truncated for comparisons."""
    loss: AlignedLoss = AlignedLoss()
    """The loss, and how inputs are spoiled."""
    rings: RingSettings = RingSettings()
    """How objects are rendered."""
    workers: int = 0
    """Rendering processes; 0 renders between steps."""
    held: int = 20
    """Held-out objects: textured ones first."""


def held_out_objects(pool: ObjectPool, count: int) -> list[int]:
    """Textured objects of a pool, and others evenly from all of it, at most ``count``."""
    textured = [k for k, entry in enumerate(pool.entries) if entry.kind == "texture"][:count]
    others = [k for k, entry in enumerate(pool.entries) if entry.kind != "texture"]
    left = count - len(textured)
    return textured + others[:: max(1, len(others) // left)][:left] if left else textured


def main(arguments: Arguments) -> None:
    """Load the VAE, build or load the layers, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    vae = cast(AutoencoderKL, load_part(AutoencoderKL, arguments.weights / "vae"))
    vae.to(pick_device(settings.device)).requires_grad_(False)
    if settings.resume is None:
        places = nano_places(vae, others=arguments.others, reach=arguments.reach)
        decoder = AlignedDecoder(vae, AlignedLayers.fresh(vae, places))
    else:
        decoder = AlignedDecoder.load(settings.resume, vae)
    pool = ObjectPool(arguments.objects, "val")
    held_out = [heldout_ring(pool, k, arguments.rings) for k in held_out_objects(pool, arguments.held)]
    rings = RingStream(arguments.objects, arguments.rings, seed=seed, workers=arguments.workers).read()

    def task(device: torch.device) -> AlignedTask:
        return AlignedTask(decoder, rings, held_out, settings.batch, device, arguments.loss, seed)

    train(decoder.layers, task, settings)


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
