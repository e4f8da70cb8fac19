r"""What decoding views together is worth: the bound of what is there, and trained layers against plain decoding.

The bound:    python scripts/ablate_decoder.py --objects DATA/meshes_train --parts bound
Trained rows: python scripts/ablate_decoder.py --meshes DATA/meshes_eval/ycb --layers RUN/aligned/model --parts rows
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from diffusers import AutoencoderKL

from pipeline.diffusion.aligned_decoder import AlignedDecoder, AlignedLayers, nano_places
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.evaluation.aligned import bound_table, row_scores, rows_table
from pipeline.evaluation.script import run_script
from pipeline.evaluation.subjects import coloured, subjects
from pipeline.training.data.view_rings import RingSettings, ViewRing, evaluation_ring
from scene.errors import InputError
from scene.resources import default_weights

Part = Literal["bound", "rows"]


@dataclass(frozen=True)
class Arguments:
    """Measure the aligned decoder."""

    objects: Path | None = None
    """Folder of the object pool, whose val split is measured."""
    meshes: tuple[Path, ...] = ()
    """Folders of GLB files instead."""
    count: int | None = None
    """Objects, spread evenly; all by default."""
    textured: bool = False
    """Only objects of more than one colour."""
    views: int = 8
    """Of each object's ring."""
    weights: Path | None = None
    """Checkpoint whose VAE is used; the embedded one by default."""
    layers: Path | None = None
    """Trained layers, for the part rows."""
    parts: tuple[Part, ...] = ("bound",)
    """What is measured."""
    noise: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    """Factors on the noise of depth maps."""


def main(arguments: Arguments) -> None:
    """Print the tables."""
    vae = cast(AutoencoderKL, load_part(AutoencoderKL, (arguments.weights or default_weights()) / "vae"))
    vae.requires_grad_(False)
    rings: list[ViewRing] = []
    for subject in subjects(arguments.objects, arguments.meshes, arguments.count):
        if not arguments.textured or coloured(subject.mesh):
            rings.append(evaluation_ring(subject.mesh, subject.index, RingSettings(), arguments.views))
    shares = np.mean([(ring.depths > 0).mean() for ring in rings])
    print(f"{len(rings)} objects, {arguments.views} views, {shares:.0%} of the pixels are foreground\n")
    if "bound" in arguments.parts:
        plain = AlignedDecoder(vae, AlignedLayers.fresh(vae, nano_places(vae)))
        for noise in arguments.noise:
            print(bound_table(plain, rings, noise) + "\n", flush=True)
    if "rows" in arguments.parts:
        if arguments.layers is None:
            raise InputError("there are no layers to measure", fix="Give --layers.")
        decoder = AlignedDecoder.load(arguments.layers, vae)
        rows = {"plain": row_scores(decoder, rings, None)}
        for noise in arguments.noise:
            rows[f"aligned, noise {noise:g}"] = row_scores(decoder, rings, noise)
        print(rows_table(rows))


if __name__ == "__main__":
    run_script(main, Arguments)
