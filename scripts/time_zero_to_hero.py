"""Time of a pass of Zero-to-Hero beside a plain pass, at the nano size and at Zero123's (random weights), in one run.

Passes lie where everything is on: filtering within steps and over steps, and reading of the source, whose row is
counted as cost. Guidance is off; it doubles both. Rounds alternate between the variants, and the fastest counts.

Example: python scripts/time_zero_to_hero.py --targets 7
"""

from __future__ import annotations

import itertools
import json
import math
import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
import tyro
from diffusers import AutoencoderKL, UNet2DConditionModel

from pipeline.diffusion.backbone import ViewDiffusion
from pipeline.diffusion.conditioning import Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.ldm import SCHEDULER
from pipeline.diffusion.sample import sample_latents
from pipeline.diffusion.settings import SamplingSettings, ZeroToHeroSettings
from scene.backends import pick_device
from scene.resources import default_weights

VARIANTS = {
    "amf": ZeroToHeroSettings(msa=False),
    "msa": ZeroToHeroSettings(amf=False),
    "all": ZeroToHeroSettings(),
    "all, half": ZeroToHeroSettings(half=True),
    "all, head by head": ZeroToHeroSettings(heads_at_once=1),
}


@dataclass(frozen=True)
class Arguments:
    """Time Zero-to-Hero."""

    sizes: tuple[Literal["nano", "zero123"], ...] = ("nano", "zero123")
    """Networks timed; zero123 needs 5 GB."""
    targets: int = 7
    """Views of the source."""
    rounds: int = 3
    """Rounds, of which the fastest counts."""
    only: tuple[str, ...] = ()
    """Variants timed beside plain; all by default."""
    device: str = "auto"
    """Where the networks run."""


def zero123_sized() -> ViewDiffusion:
    """Zero123's U-Net with random weights; parts that are not timed are small."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=32, in_channels=8, cross_attention_dim=768, attention_head_dim=8)
    vae = AutoencoderKL(block_out_channels=(32,), latent_channels=4)
    return ViewDiffusion(unet, vae, PhotoEncoder(768), PoseProjection(768), Conditioning(), SCHEDULER)


def random_conditions(model: ViewDiffusion, views: int) -> Conditions:
    """Conditions that mean nothing, of the right shapes."""
    c, side = model.conditioning, model.latent_size
    width = int(model.unet.config["cross_attention_dim"])

    def of(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=model.device)

    return Conditions(
        of(1, 4, side, side),
        of(1, 4, side, side),
        of(1, views, width),
        of(1, width),
        of(1, views, 4, side, side) if c.coarse else None,
        of(1, views, 4, side, side) if c.coarse else None,
        of(1, views, 6, side, side) if c.pluecker else None,
        of(1, 6, side, side) if c.pluecker else None,
    )


def main(arguments: Arguments) -> None:
    """Time both networks and print."""
    device = pick_device(arguments.device)
    for size in arguments.sizes:
        network = (ViewDiffusion.from_pretrained(default_weights()) if size == "nano" else zero123_sized()).to(device)
        given = random_conditions(network, arguments.targets)
        top = len(network.schedule) - 1
        timed = {"plain": (SamplingSettings(steps=2, strength=1.0, guidance=1.0), 2)}
        for name, numbers in VARIANTS.items():
            if not arguments.only or name in arguments.only:
                numbers = replace(numbers, timesteps=(top, top - 1), passes=2)
                timed[name] = replace(timed["plain"][0], filtering="zero-to-hero", zero_to_hero=numbers), 4
        best = dict.fromkeys(timed, math.inf)
        for _, (name, (settings, passes)) in itertools.product(range(arguments.rounds), timed.items()):
            begun = time.perf_counter()
            sample_latents(network, given, settings)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best[name] = min(best[name], (time.perf_counter() - begun) / passes)
        value = {name: {"seconds_per_pass": s, "ratio": s / best["plain"]} for name, s in best.items()}
        # Of the paper's 66 passes, 52 lie in the range of everything.
        if "all" in value:
            value["whole run"] = {"ratio": (52 * value["all"]["ratio"] + 14) / 66}
        print(size, arguments.targets, "targets", device, json.dumps(value, indent=1), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
