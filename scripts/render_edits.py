r"""Render training data of the editor: figures in several poses and things edited by boxes, as latents and controls.

Example: python scripts/render_edits.py --out EDITS --objects 2000 --figures DATA/figures
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
import tyro
from diffusers import AutoencoderKL
from rich.progress import track

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.latents import LatentCodec, vae_factor
from pipeline.training.data.edit_pairs import (
    States,
    box_states,
    draw_states,
    figure_states,
    random_cameras,
    save_states,
    write_header,
)
from pipeline.training.data.rigged_files import FileFigure, load_rigged
from pipeline.training.procedural.edits import FAMILIES
from pipeline.training.procedural.humanoid import humanoid
from pipeline.training.procedural.palette import pick
from scene.errors import ViewloomError
from scene.resources import default_weights

TRAINED_ON = ("cesium_man", "kaykit_knight", "kaykit_mage", "quaternius_robot", "rigged_figure")
"""Rigs of files that may be trained on."""


@dataclass(frozen=True)
class Arguments:
    """Render training data of the editor; a second run adds to the first."""

    out: Path
    """Folder of the files."""
    figures: Path | None = None
    """Folder with posed/NAME.npz of rigs that may be trained on; only procedural figures without it."""
    weights: Path | None = None
    """Checkpoint with the VAE; the embedded one by default."""
    objects: int = 2000
    """Objects to render."""
    cameras: int = 4
    """Views of each object."""
    per_file: int = 20
    """Objects of a file."""
    size: int = 128
    """Side of every picture, pixels."""
    seed: int = 0
    """Objects of different seeds are different; evaluation takes seeds from 4e9 on."""
    boxes: float = 0.2
    """Share of files that hold edits of boxes."""
    files: float = 0.2
    """Chance that a figure is one of a file."""


def main(arguments: Arguments) -> None:
    """Render file after file."""
    torch.set_num_threads(1)
    weights = arguments.weights or default_weights()
    codec = LatentCodec(cast(AutoencoderKL, load_part(AutoencoderKL, weights / "vae")))
    write_header(arguments.out, latent_digest(codec.vae))
    rigs = [
        load_rigged(arguments.figures / "posed" / f"{name}.npz", variant)
        for name in TRAINED_ON
        for variant in range(3)
        if arguments.figures is not None
    ]
    count = -(-arguments.objects // arguments.per_file)
    for number in track(range(count), "rendering"):
        path = arguments.out / f"edits-{arguments.seed}-{number:05d}.npz"
        if path.exists():
            continue
        rng = np.random.default_rng([arguments.seed, number, 1])
        skeletons = bool(rng.random() >= arguments.boxes)
        drawn = []
        for one in objects(arguments, number, skeletons, rng, rigs):
            cameras = random_cameras(rng, arguments.cameras, arguments.size)
            drawn.append(draw_states(one, cameras, arguments.size // vae_factor(codec.vae)))
        save_states(path, drawn, codec, skeletons)


def objects(
    arguments: Arguments, number: int, skeletons: bool, rng: np.random.Generator, rigs: list[FileFigure]
) -> Iterator[States]:
    """The objects of a file, all of one kind; those that cannot be made are passed over."""
    made = 0
    for tried in itertools.count(1):
        if made == arguments.per_file:
            return
        seed = seed_of(arguments, number, tried)
        with contextlib.suppress(ViewloomError):
            yield figure(seed, rng, rigs, arguments.files) if skeletons else box_states(pick(rng, FAMILIES), seed)
            made += 1


def figure(seed: int, rng: np.random.Generator, rigs: list[FileFigure], files: float) -> States:
    """A figure in three poses: one of a file so often, in poses of its clips or random ones; or a procedural one."""
    if not rigs or rng.random() >= files:
        return figure_states(humanoid(seed), rng)
    rig = pick(rng, rigs)
    clips = list(rig.clips)
    if len(clips) < 4 or rng.random() < 0.4:
        return figure_states(rig.figure, rng)
    return figure_states(rig.figure, rng, lambda rng: pick(rng, clips))


def seed_of(arguments: Arguments, number: int, tried: int) -> int:
    """The seed of an object, below those of evaluation."""
    return (arguments.seed % 300) * 10_000_000 + number * 200 + tried


if __name__ == "__main__":
    main(tyro.cli(Arguments))
