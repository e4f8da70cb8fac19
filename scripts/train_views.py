r"""Train the nano view U-Net, on a CPU or a GPU; the VAE and the coarse volume must be trained before and stay fixed.

From stored samples:   python scripts/train_views.py --weights weights/nano --objects DATA/meshes_train \
                           --samples-dir SAMPLES --out OUT --minutes 240 --batch 8
Rendering on the fly:  leave out --samples-dir, add --workers 14 --batch 64
Continue the shipped:  add --resume weights/nano
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from pipeline.diffusion.backbone import ViewDiffusion, load_part
from pipeline.diffusion.coarse import CoarseVolumeModel
from pipeline.diffusion.conditioning import Conditioning
from pipeline.training.data import open_data
from pipeline.training.trainer import TrainSettings, train
from pipeline.training.views import (
    NANO_SCHEDULER,
    EncodedStore,
    ViewLoss,
    ViewModules,
    ViewTask,
    encode_samples,
    encode_store,
    nano_parts,
)
from scene.backends import pick_device


@dataclass(frozen=True)
class Arguments:
    r"""Train the nano view U-Net."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    weights: Path
    """Folder with the trained vae/ and coarse/."""
    objects: Path
    """Folder of the object pool; its val split is the held-out set."""
    samples_dir: Path | None = None
    """Samples rendered before (scripts/render_samples.py); rendered on the fly without it."""
    stored_views: int = 4
    """Target views encoded of each stored sample; more variety at the same cost comes from more samples."""
    workers: int = 1
    """Rendering processes when rendering on the fly."""
    held: int = 2000
    """Samples kept in memory when rendering on the fly."""
    conditioning: Conditioning = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(8, 4))
    """What the U-Net is told; all off is plain Zero123."""
    loss: ViewLoss = ViewLoss()
    """How it is trained."""


def build(arguments: Arguments) -> ViewDiffusion:
    """A fresh view model around the trained VAE and coarse volume, or the one to resume."""
    if arguments.train.resume is not None:
        return ViewDiffusion.from_pretrained(arguments.train.resume)
    from diffusers import AutoencoderKL

    unet, encoder, projection = nano_parts(arguments.conditioning)
    vae = load_part(AutoencoderKL, arguments.weights / "vae")
    coarse = load_part(CoarseVolumeModel, arguments.weights / "coarse") if arguments.conditioning.coarse else None
    return ViewDiffusion(
        unet, vae, encoder, projection, arguments.conditioning, NANO_SCHEDULER, coarse, licence="Apache-2.0"
    )


def fingerprint(arguments: Arguments) -> str:
    """Names the fixed weights and the samples that latents are made from."""
    digest = hashlib.sha256(f"{arguments.loss.camera_jitter} {arguments.stored_views}".encode())
    for name in ("vae", "coarse"):
        for path in sorted((arguments.weights / name).glob("*.safetensors")):
            digest.update(path.read_bytes())
    assert arguments.samples_dir is not None
    digest.update((arguments.samples_dir / "samples.json").read_bytes())
    return digest.hexdigest()


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    torch.manual_seed(settings.seed)
    model = build(arguments)
    device = pick_device(settings.device)
    for fixed in (model.vae, model.coarse):
        if fixed is not None:
            fixed.to(device).eval().requires_grad_(False)
    for trained in (model.unet, model.image_encoder, model.cc_projection):
        trained.to(device).requires_grad_(True)
    with contextlib.ExitStack() as stack:
        store, held_out = open_data(
            stack, arguments.objects, arguments.samples_dir, arguments.workers, arguments.held, settings.seed
        )
        if arguments.samples_dir is not None:
            jitter = arguments.loss.camera_jitter
            encoded = EncodedStore(
                arguments.samples_dir / "encoded",
                fingerprint(arguments),
                lambda: encode_store(model, store, jitter, settings.seed, arguments.stored_views),
            )

            def draw(rng):  # type: ignore[no-untyped-def]
                return encoded.batch(rng, settings.batch, device)
        else:

            def draw(rng):  # type: ignore[no-untyped-def]
                batch = store.batch(rng.integers(len(store), size=settings.batch))
                return encode_samples(model, batch, arguments.loss.camera_jitter * torch.randn(len(batch), 4))

        train(
            ViewModules(model),
            lambda device: ViewTask(model, draw, held_out.batch_all(), device, arguments.loss, settings.seed),
            settings,
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
