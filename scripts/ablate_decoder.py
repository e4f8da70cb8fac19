r"""What decoding views together is worth: the bound of what is there, and trained layers against plain decoding.

The bound:    python scripts/ablate_decoder.py --objects DATA/meshes_train --parts bound
Trained rows: python scripts/ablate_decoder.py --meshes DATA/meshes_eval/ycb --layers RUN/aligned/model --parts rows
Assets:       the same with --parts encoded generated
Full size:    python scripts/ablate_decoder.py --meshes DATA/meshes_eval/ycb --textured --count 1 --parts video
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
from diffusers import AutoencoderKL

from pipeline.diffusion.aligned_decoder import AlignedDecoder, AlignedLayers, nano_places, published_places
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.aligned import Scores, bound_table, decoding_times, row_scores, rows_table, video_decoder
from pipeline.evaluation.aligned_assets import AlignedAssetSettings, assets_table
from pipeline.evaluation.script import run_script
from pipeline.evaluation.subjects import coloured, subjects
from pipeline.training.data.view_rings import RingSettings, evaluation_ring
from scene.errors import InputError
from scene.resources import default_weights

Part = Literal["bound", "rows", "encoded", "generated", "video"]


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
    layers: tuple[Path, ...] = ()
    """Trained layers, for all parts but the bound; assets are made with the first."""
    parts: tuple[Part, ...] = ("bound",)
    """What is measured: what sources hold; trained layers with true and spoiled depth; first-pass depth, and assets, of
    the encoder's latents, and of latents that the model draws; seconds of a decoder of Stable Video Diffusion's size,
    of random weights, at 256 pixels, for the first object."""
    assets: AlignedAssetSettings = AlignedAssetSettings()
    """How assets are made."""
    sheet: Path | None = None
    """Write a picture of views before and after, above true ones; of the last of the parts that make assets."""
    noise: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    """Factors on the noise of depth maps."""


def main(arguments: Arguments) -> None:
    """Print the tables."""
    weights = arguments.weights or default_weights()
    vae = cast(AutoencoderKL, load_part(AutoencoderKL, weights / "vae"))
    vae.requires_grad_(False)
    chosen = [
        subject
        for subject in subjects(arguments.objects, arguments.meshes, arguments.count)
        if not arguments.textured or coloured(subject.mesh)
    ]
    if {*arguments.parts} - {"bound", "video"} and not arguments.layers:
        raise InputError("there are no layers to measure", fix="Give --layers.")
    if {"bound", "rows"} & set(arguments.parts):
        rings = [evaluation_ring(one.mesh, one.index, RingSettings(), arguments.views) for one in chosen]
        shares = np.mean([(ring.depths > 0).mean() for ring in rings])
        print(f"{len(rings)} objects, {arguments.views} views, {shares:.0%} of the pixels are foreground\n")
    if "bound" in arguments.parts:
        plain = AlignedDecoder(vae, AlignedLayers.fresh(vae, nano_places(vae)))
        for noise in arguments.noise:
            print(bound_table(plain, rings, noise) + "\n", flush=True)
    if "rows" in arguments.parts:
        rows: dict[str, Scores] = {}
        for layers in arguments.layers:
            decoder = AlignedDecoder.load(layers, vae)
            rows = rows or {"plain": row_scores(decoder, rings, None)}
            for noise in arguments.noise:
                rows[f"{layers}, noise {noise:g}"] = row_scores(decoder, rings, noise)
        print(rows_table(rows) + "\n", flush=True)
    if "video" in arguments.parts:
        ring = evaluation_ring(chosen[0].mesh, chosen[0].index, RingSettings(size=256), arguments.views)
        video = video_decoder()
        print(f"{(ring.depths > 0).mean():.0%} of the pixels are foreground\n")
        print(decoding_times(video, published_places(video), ring, 2) + "\n", flush=True)
    for part in ("encoded", "generated"):
        if part in arguments.parts:
            model = ViewDiffusion.from_pretrained(weights)
            model.aligned = AlignedDecoder.load(arguments.layers[0], model.vae).layers
            table = assets_table(
                model, chosen, arguments.assets, print, encoded=part == "encoded", sheet=arguments.sheet
            )
            print(f"\nlatents {part}, {table}\n", flush=True)


if __name__ == "__main__":
    run_script(main, Arguments)
