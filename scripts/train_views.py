r"""Train the nano view U-Net, on a CPU or a GPU; the VAE and the coarse volume must be trained before and stay fixed.

From stored samples:   python scripts/train_views.py --weights weights/nano --objects DATA/meshes_train \
                           --samples-dir SAMPLES MORE --out OUT --minutes 240 --batch 24 --optimiser muon --lr 2e-3
Rendering on the fly:  leave out --samples-dir, add --workers 14 --batch 64
Continue a run:        --resume OUT/model in place of --weights
Other conditioning:    end the line with, for instance, conditioning --source-row --pluecker
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.encoded import EncodedSource, encode_samples, encoded_stores
from pipeline.training.data.open_data import held_out_store, open_data
from pipeline.training.tasks.view_setup import model_to_train
from pipeline.training.tasks.views import ViewLoss, ViewModules, ViewNetwork, ViewTask, with_fitted_map
from pipeline.training.trainer import TrainSettings, begin, train
from scene.backends import pick_device


@dataclass(frozen=True)
class Arguments:
    r"""Train the nano view U-Net."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    objects: Path
    """Folder of the object pool; its val split is the held-out set."""
    weights: Path | None = None
    """Folder with the trained vae/ and coarse/ of a fresh model; with --resume they come from that checkpoint."""
    samples_dir: tuple[Path, ...] = ()
    """Folders of samples rendered before (scripts/render_samples.py); rendered on the fly without them. Their latents
    are made once and kept beside them, in a folder named by the VAE and the coarse volume."""
    stored_views: int = 4
    """Target views encoded of each stored sample; more variety at the same cost comes from more samples."""
    encode: bool = True
    """Encode samples that are not yet. Switched off, training takes what is there, and what another run adds."""
    workers: int = 1
    """Rendering processes when rendering on the fly."""
    held: int = 2000
    """Samples kept in memory when rendering on the fly."""
    network: ViewNetwork = ViewNetwork()
    """Architecture of a fresh model."""
    conditioning: Conditioning | None = None
    """Conditions of the U-Net: all, or those of the checkpoint resumed from, unless given; all off is plain Zero123."""
    loss: ViewLoss = ViewLoss()
    """How it is trained."""


def build(arguments: Arguments) -> ViewDiffusion:
    """The model that is trained: fresh, or the one to resume."""
    return model_to_train(arguments.train.resume, arguments.weights, arguments.conditioning, arguments.network)


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    model = build(arguments)
    device = pick_device(settings.device)
    for fixed in (model.vae, model.coarse, model.coarse_map):
        if fixed is not None:
            fixed.to(device).eval().requires_grad_(False)
    for trained in (model.unet, model.image_encoder, model.cc_projection):
        trained.to(device).requires_grad_(True)
    jitter = arguments.loss.camera_jitter
    with contextlib.ExitStack() as stack:
        if arguments.samples_dir:
            held_out = held_out_store(arguments.objects)
            stores = encoded_stores(
                model, arguments.samples_dir, jitter, arguments.stored_views, encode=arguments.encode
            )
            draw = EncodedSource(stores, settings.batch, device).draw
        else:
            store, held_out = open_data(stack, arguments.objects, None, arguments.workers, arguments.held, seed)

            def draw(rng):  # type: ignore[no-untyped-def]
                batch = store.batch(rng.integers(len(store), size=settings.batch))
                return encode_samples(model, batch, jitter * torch.randn(len(batch), 4))

        model = with_fitted_map(model, draw, seed=seed)

        def task(device: torch.device) -> ViewTask:
            made = ViewTask(model, draw, held_out.batch_all(), device, arguments.loss, seed)
            print(
                "weights of latent channels:", " ".join(f"{float(weight):.3g}" for weight in made.channels), flush=True
            )
            return made

        train(ViewModules(model), task, settings)


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
