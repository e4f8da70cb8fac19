r"""Train the nano editor, U-Net and ControlNet together, on a CPU or a GPU; the VAE stays as it is.

Example: python scripts/train_edit.py --weights weights/nano --edits EDITS --out OUT --minutes 240 --batch 12 \
             --optimiser muon --lr 2e-3 --precision fp32
Continue a run:  --resume OUT/model in place of --weights
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.editing.model import EditDiffusion
from pipeline.training.data.edit_pairs import PairBatch, PairPool, held_out_pairs
from pipeline.training.tasks.edit import EditLoss, EditModules, EditNetwork, EditTask, fresh_editor
from pipeline.training.trainer import TrainSettings, begin, train
from scene.backends import pick_device
from scene.errors import InputError

HELD_OUT = 3_900_000_000
"""First seed of the held-out figures: above those of training, below those of evaluation."""
_EVERY = 20
"""Steps after which new files are looked for."""


@dataclass(frozen=True)
class Arguments:
    """Train the nano editor."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    edits: tuple[Path, ...]
    """Folders of scripts/render_edits.py; files that are added while it trains are taken in."""
    weights: Path | None = None
    """Folder with the trained vae/ of a fresh model; with --resume it comes from that checkpoint."""
    network: EditNetwork = EditNetwork()
    """Architecture of a fresh model."""
    loss: EditLoss = EditLoss()
    """How it is trained."""
    held: int = 32
    """Held-out figures."""
    figures: float = 0.8
    """Share of figures; the rest are things edited by boxes."""


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    if settings.resume is not None:
        model = EditDiffusion.from_pretrained(settings.resume)
    elif arguments.weights is not None:
        model = fresh_editor(arguments.weights, arguments.network)
    else:
        raise InputError("a fresh editor needs a VAE", fix="Give --weights, or --resume to go on.")
    device = pick_device(settings.device)
    model.vae.to(device).eval().requires_grad_(False)
    modules = EditModules(model).float().requires_grad_(True)
    held_out = held_out_pairs(model.codec, range(HELD_OUT, HELD_OUT + arguments.held))
    pool = PairPool(arguments.edits, latent_digest(model.vae), figures=arguments.figures)
    steps = 0

    def draw(rng: np.random.Generator) -> PairBatch:
        nonlocal steps
        steps += 1
        if steps % _EVERY == 0:
            pool.reread()
        return pool.batch(rng, settings.batch, device)

    def task(device: torch.device) -> EditTask:
        print(f"{len(pool)} objects", flush=True)
        return EditTask(model, draw, held_out, device, arguments.loss, seed)

    train(modules, task, settings)


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
