r"""Train ViewFusion's network on rendered rings of views, on a CPU or a GPU; the VAE stays as it is.

Example: python scripts/train_fusion.py --weights weights/nano --rings RINGS --out OUT --minutes 240 --batch 64 \
             --optimiser muon --lr 2e-3 --precision fp32 --threads 1
Continue a run:  add --resume OUT/model
Comparisons:     --fusing equal, --fusing concatenated, --no-relative
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import tyro
from diffusers import AutoencoderKL

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.viewfusion.model import ViewFusionModel
from pipeline.training.data.fusion_rings import held_out_rings, open_fusion_store
from pipeline.training.tasks.fusion import FusionLoss, FusionNetwork, FusionTask, Rings, fresh_fusion
from pipeline.training.trainer import TrainSettings, begin, train
from scene.backends import pick_device

_EVERY = 100
"""Steps after which new rings are looked for."""
_VALIDATION = 999
"""Seed of the held-out objects that training measures on; those of the evaluation have others."""


@dataclass(frozen=True)
class Arguments:
    """Train ViewFusion's network."""

    train: TrainSettings
    """Budget, rates and checkpoints; the batch is a step's number of pictures."""
    rings: Path
    """Folder of scripts/render_fusion.py; rings that are added while it trains are taken in."""
    weights: Path
    """Folder with the vae/ that the rings were encoded by."""
    families: tuple[str, ...] = ()
    """Train on these alone; all by default."""
    network: FusionNetwork = FusionNetwork()
    """Architecture of a fresh network."""
    loss: FusionLoss = FusionLoss()
    """How it is trained."""
    held: int = 24
    """Held-out objects."""


def main(arguments: Arguments) -> None:
    """Build or load the network, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    vae = arguments.weights / "vae"
    if settings.resume is not None:
        model = ViewFusionModel.from_pretrained(settings.resume, vae)
    else:
        model = fresh_fusion(cast(AutoencoderKL, load_part(AutoencoderKL, vae)), arguments.network)
    assert model.vae is not None
    assert model.codec is not None
    model.vae.to(pick_device(settings.device)).eval().requires_grad_(False)
    model.unet.float().requires_grad_(True)
    store = open_fusion_store(arguments.rings, latent_digest(model.vae))
    held = list(held_out_rings(model.codec, _VALIDATION, arguments.held))
    held_out = torch.stack([one.latents for one in held]), torch.stack([one.azimuths for one in held])
    among = store.of_families(arguments.families) if arguments.families else None
    steps = 0

    def draw(rng: np.random.Generator, count: int) -> Rings:
        nonlocal steps, among
        steps += 1
        if steps % _EVERY == 0:
            store.reread()
            among = store.of_families(arguments.families) if arguments.families else None
        batch = store.batch(rng, count, among)
        return batch.latents, batch.azimuths

    def task(device: torch.device) -> FusionTask:
        print(f"{len(store)} objects", flush=True)
        return FusionTask(model, draw, held_out, device, settings.batch, arguments.loss, seed)

    train(model.unet, task, settings)


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
