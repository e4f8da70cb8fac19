"""Which latents a run of training is on: what trainers of diffusion models keep in their state."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL

from pipeline.diffusion.checkpoints.digests import latent_digest
from scene.errors import InputError


def latent_state(vae: AutoencoderKL) -> dict[str, Any]:
    """Which VAE the latents are of."""
    return {"vae": latent_digest(vae)}


def require_latents(vae: AutoencoderKL, state: dict[str, Any]) -> None:
    """Refuse to go on with another VAE than a state is of.

    Raises:
        InputError: its latents mean something else.
    """
    if state["vae"] != latent_digest(vae):
        raise InputError(
            "the training began with another VAE: its latents mean something else to the U-Net",
            fix="Put that VAE back, or begin a fresh model without --resume.",
        )
