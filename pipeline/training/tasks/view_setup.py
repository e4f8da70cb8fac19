"""Before the view U-Net is trained: the model to begin with, and the name of the latents it is trained on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from diffusers import AutoencoderKL

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.tasks.views import NANO_SCHEDULER, nano_parts
from scene.errors import InputError

FULL = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(8, 4))


def model_to_train(resume: Path | None, weights: Path | None, conditioning: Conditioning | None) -> ViewDiffusion:
    """A fresh view model around the trained VAE and coarse volume, or the one to resume.

    Args:
        resume: checkpoint to go on from.
        weights: folder with the trained vae/ and coarse/ of a fresh model.
        conditioning: of the U-Net; by default everything, or what the checkpoint resumed from has.

    Raises:
        InputError: there is nothing to start from, or the checkpoint has another conditioning than was asked for.
    """
    if resume is not None:
        model = ViewDiffusion.from_pretrained(resume)
        if conditioning not in (None, model.conditioning):
            raise InputError(
                f"was trained with another conditioning ({model.conditioning})",
                where=resume,
                fix="Leave the conditioning out, or train a fresh model without --resume.",
            )
        return model
    if weights is None:
        raise InputError("a fresh model needs a trained VAE and coarse volume", fix="Give --weights, or --resume.")
    conditioning = conditioning or FULL
    unet, encoder, projection = nano_parts(conditioning)
    vae = load_part(AutoencoderKL, weights / "vae")
    coarse = load_part(CoarseVolumeModel, weights / "coarse") if conditioning.coarse else None
    return ViewDiffusion(unet, vae, encoder, projection, conditioning, NANO_SCHEDULER, coarse, licence="Apache-2.0")


def latents_key(model: ViewDiffusion, samples_dir: Path, camera_jitter: float, stored_views: int, seed: int) -> str:
    """Names all that stored latents are made from: the model's fixed parts, the samples, and what is drawn of them."""
    digest = hashlib.sha256(repr((camera_jitter, stored_views, seed)).encode())
    for part in (model.vae, model.coarse):
        if part is not None:
            # Names that diffusers adds say where the part was loaded from, not what it is.
            config = {key: value for key, value in part.config.items() if not key.startswith("_")}
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
            for name, value in sorted(part.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.cpu().contiguous().numpy().tobytes())
    digest.update((samples_dir / "samples.json").read_bytes())
    return digest.hexdigest()
