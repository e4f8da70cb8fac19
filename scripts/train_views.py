r"""Train the nano view U-Net, on a CPU or a GPU; the VAE and the coarse volume must be trained before and stay fixed.

From stored samples:   python scripts/train_views.py --weights weights/nano --objects DATA/meshes_train \
                           --samples-dir SAMPLES --out OUT --minutes 240 --batch 8
Rendering on the fly:  leave out --samples-dir, add --workers 14 --batch 64
Continue the shipped:  --resume weights/nano in place of --weights
Other conditioning:    end the line with, for instance, conditioning --source-row --pluecker
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.open_data import open_data
from pipeline.training.tasks.views import (
    NANO_SCHEDULER,
    EncodedStore,
    ViewLoss,
    ViewModules,
    ViewTask,
    encode_samples,
    encode_store,
    nano_parts,
)
from pipeline.training.trainer import TrainSettings, begin, train
from scene.backends import pick_device
from scene.errors import InputError

FULL = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(8, 4))


@dataclass(frozen=True)
class Arguments:
    r"""Train the nano view U-Net."""

    train: TrainSettings
    """Budget, rates and checkpoints."""
    objects: Path
    """Folder of the object pool; its val split is the held-out set."""
    weights: Path | None = None
    """Folder with the trained vae/ and coarse/ of a fresh model; with --resume they come from that checkpoint."""
    samples_dir: Path | None = None
    """Samples rendered before (scripts/render_samples.py); rendered on the fly without it."""
    stored_views: int = 4
    """Target views encoded of each stored sample; more variety at the same cost comes from more samples."""
    workers: int = 1
    """Rendering processes when rendering on the fly."""
    held: int = 2000
    """Samples kept in memory when rendering on the fly."""
    conditioning: Conditioning | None = None
    """What the U-Net is told: everything, or what the checkpoint resumed from was told, unless given; all off is plain
    Zero123."""
    loss: ViewLoss = ViewLoss()
    """How it is trained."""


def build(arguments: Arguments) -> ViewDiffusion:
    """A fresh view model around the trained VAE and coarse volume, or the one to resume.

    Raises:
        InputError: there is nothing to start from, or the checkpoint has another conditioning than was asked for.
    """
    resume, weights = arguments.train.resume, arguments.weights
    if resume is not None:
        model = ViewDiffusion.from_pretrained(resume)
        if arguments.conditioning not in (None, model.conditioning):
            raise InputError(
                f"was trained with another conditioning ({model.conditioning})",
                where=resume,
                fix="Leave the conditioning out, or train a fresh model without --resume.",
            )
        return model
    if weights is None:
        raise InputError("a fresh model needs a trained VAE and coarse volume", fix="Give --weights, or --resume.")
    from diffusers import AutoencoderKL

    conditioning = arguments.conditioning or FULL
    unet, encoder, projection = nano_parts(conditioning)
    vae = load_part(AutoencoderKL, weights / "vae")
    coarse = load_part(CoarseVolumeModel, weights / "coarse") if conditioning.coarse else None
    return ViewDiffusion(unet, vae, encoder, projection, conditioning, NANO_SCHEDULER, coarse, licence="Apache-2.0")


def fingerprint(arguments: Arguments, model: ViewDiffusion) -> str:
    """Names all that stored latents are made from: the model's fixed parts, the samples, and what is drawn of them."""
    assert arguments.samples_dir is not None
    drawn = (arguments.loss.camera_jitter, arguments.stored_views, arguments.train.seed)
    digest = hashlib.sha256(repr(drawn).encode())
    for part in (model.vae, model.coarse):
        if part is not None:
            # Names that diffusers adds say where the part was loaded from, not what it is.
            config = {key: value for key, value in part.config.items() if not key.startswith("_")}
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
            for name, value in sorted(part.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
    digest.update((arguments.samples_dir / "samples.json").read_bytes())
    return digest.hexdigest()


def main(arguments: Arguments) -> None:
    """Build or load the model, find the data, train."""
    settings = arguments.train
    seed = begin(settings)
    model = build(arguments)
    device = pick_device(settings.device)
    for fixed in (model.vae, model.coarse):
        if fixed is not None:
            fixed.to(device).eval().requires_grad_(False)
    for trained in (model.unet, model.image_encoder, model.cc_projection):
        trained.to(device).requires_grad_(True)
    with contextlib.ExitStack() as stack:
        store, held_out = open_data(
            stack, arguments.objects, arguments.samples_dir, arguments.workers, arguments.held, seed
        )
        if arguments.samples_dir is not None:
            jitter = arguments.loss.camera_jitter
            encoded = EncodedStore(
                arguments.samples_dir / "encoded",
                fingerprint(arguments, model),
                # Of the settings' own seed, so that resumed runs find them again.
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
            lambda device: ViewTask(model, draw, held_out.batch_all(), device, arguments.loss, seed),
            settings,
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments, config=(tyro.conf.OmitArgPrefixes,)))
