"""What parts of a model are, whatever file they came from: digests over their weights."""

from __future__ import annotations

import hashlib
import json

from diffusers import AutoencoderKL
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


def latent_digest(vae: AutoencoderKL) -> str:
    """SHA-256 over what gives a VAE's latents their meaning: a decoder that is trained on changes nothing of it."""
    digest = hashlib.sha256(part_digest(vae.encoder, vae.quant_conv).encode())
    scale = {key: vae.config.get(key) for key in ("fold", "latents_mean", "latents_std", "scaling_factor")}
    digest.update(json.dumps(scale, sort_keys=True).encode())
    return digest.hexdigest()


def part_digest(*parts: nn.Module | None) -> str:
    """SHA-256 over the weights and configs of parts of a model, however they are stored."""
    digest = hashlib.sha256()
    for part in parts:
        if part is None:
            continue
        if isinstance(part, ModelMixin):
            # Names that diffusers adds say where the part was loaded from and by which version, not what it is.
            config = {key: value for key, value in part.config.items() if not key.startswith("_")}
            digest.update(json.dumps(config, sort_keys=True, default=str).encode())
        for name, value in sorted(part.state_dict().items()):
            digest.update(name.encode())
            # Through half precision, in which parts are shipped: loaded and live weights of one part are the same.
            digest.update(value.detach().cpu().half().contiguous().numpy().tobytes())
    return digest.hexdigest()
