"""Write a trained editor as it is shipped: in half precision, without the VAE, which is the nano checkpoint's.

Example: python scripts/ship_editor.py RUN/editor/model weights/editor
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro
from diffusers import AutoencoderKL

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.editing.model import EditDiffusion
from scene.errors import InputError
from scene.resources import default_weights


@dataclass(frozen=True)
class Arguments:
    """Write a trained editor as it is shipped."""

    model: tyro.conf.Positional[Path]
    """Folder of the trained editor."""
    out: tyro.conf.Positional[Path]
    """Folder that it is written to; its networks are replaced."""


def main(arguments: Arguments) -> None:
    """Check that its latents are the nano checkpoint's, and write it."""
    model = EditDiffusion.from_pretrained(arguments.model)
    nano = load_part(AutoencoderKL, default_weights() / "vae")
    if latent_digest(model.vae) != latent_digest(nano):
        raise InputError("the editor was trained on other latents than the nano checkpoint's", where=arguments.model)
    for part in ("unet", "controlnet"):
        shutil.rmtree(arguments.out / part, ignore_errors=True)
    model.save_pretrained(arguments.out, vae=False)
    for log in (arguments.model / "training.json", arguments.model.parent / "curve.csv"):
        if log.is_file():
            shutil.copyfile(log, arguments.out / log.name)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
