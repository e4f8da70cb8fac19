"""The view model that training begins with."""

from __future__ import annotations

from pathlib import Path

from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.tasks.views import NANO_CONDITIONING, ViewNetwork, fresh_view_model
from scene.errors import InputError


def model_to_train(
    resume: Path | None, weights: Path | None, conditioning: Conditioning | None, network: ViewNetwork
) -> ViewDiffusion:
    """A fresh view model around the trained VAE and coarse volume, or the one to resume.

    Args:
        resume: checkpoint to go on from.
        weights: folder with the trained vae/ and coarse/ of a fresh model.
        conditioning: of the U-Net; by default all conditions, or those of the checkpoint resumed from.
        network: architecture of a fresh model.

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
    return fresh_view_model(weights, conditioning or NANO_CONDITIONING, network)
