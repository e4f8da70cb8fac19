"""Time and memory of a pass of Zero-to-Hero beside a plain pass, at the nano size and at Zero123's, in one run.

Timed are the passes of a step where everything is on: filtering within steps and over steps, with maps of earlier
passes and steps to blend, and reading of the source, whose row is counted as cost. Guidance is off; it doubles both.
Rounds alternate between the variants; of each of a step's five passes the fastest counts, and of these the mean. On a
CPU it is the processor's time that counts, so that other work on the machine matters less; --threads 1 makes that as
good as the clock.

Example: python scripts/time_zero_to_hero.py --targets 7 --threads 1
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import tyro
from diffusers import AutoencoderKL, UNet2DConditionModel

from pipeline.diffusion.checkpoints.ldm import SCHEDULER
from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer, Step
from pipeline.diffusion.modules.conditioning import Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.sample import sample_latents
from pipeline.diffusion.settings import SamplingSettings, ZeroToHeroSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from scene.backends import pick_device
from scene.resources import default_weights

VARIANTS = {
    "amf": ZeroToHeroSettings(msa=False),
    "amf, all heads at once": ZeroToHeroSettings(msa=False, heads_at_once=None),
    "msa": ZeroToHeroSettings(amf=False),
    "all": ZeroToHeroSettings(),
    "all, all heads at once": ZeroToHeroSettings(heads_at_once=None),
    "all, half precision": ZeroToHeroSettings(half=True),
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
    threads: int | None = None
    """Threads of the CPU; torch's choice by default."""
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


@dataclass(eq=False)
class Clock(AttentionHook):
    """Notes how long the passes of the last step take, and how large the maps of a pass are.

    Args:
        clock: seconds.
        passes: seconds of every pass of the last step, by its place in the step.
        elements: scores of all layers in a pass, counted.
    """

    clock: Callable[[], float]
    passes: dict[int, list[float]] = field(default_factory=dict)
    elements: int = 0
    _begun: float = 0.0

    def begin_pass(self, step: Step) -> None:
        """End the pass before, begin this one."""
        if step.pass_index:
            self._note(step, step.pass_index - 1)
        self.elements, self._begun = 0, self.clock()

    def end_step(self, step: Step) -> None:
        """End a pass."""
        self._note(step, step.pass_index)

    def _note(self, step: Step, place: int) -> None:
        if step.index == step.count - 1:
            self.passes.setdefault(place, []).append(self.clock() - self._begun)

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Count; this runs after the hooks that widen keys or exchange them."""
        self.elements += q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
        return q, k, v


def main(arguments: Arguments) -> None:
    """Time both networks and print."""
    device = pick_device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)

    def seconds() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.process_time() if device.type == "cpu" else time.perf_counter()

    for size in arguments.sizes:
        network = (ViewDiffusion.from_pretrained(default_weights()) if size == "nano" else zero123_sized()).to(device)
        given = random_conditions(network, arguments.targets)
        top = len(network.schedule) - 1
        timed = {"plain": SamplingSettings(steps=2, strength=1.0, guidance=1.0)}
        for name, numbers in VARIANTS.items():
            if not arguments.only or name in arguments.only:
                numbers = replace(numbers, timesteps=(top, top - 1))
                timed[name] = replace(timed["plain"], filtering="zero-to-hero", zero_to_hero=numbers)
        clocks = {name: Clock(seconds) for name in timed}
        for _, (name, settings) in itertools.product(range(arguments.rounds), timed.items()):
            sample_latents(network, given, settings, hooks=[clocks[name]])
        best = {name: statistics.mean(min(times) for times in clock.passes.values()) for name, clock in clocks.items()}
        value: dict[str, dict[str, float]] = {}
        for name, settings in timed.items():
            value[name] = {"seconds_per_pass": best[name], "ratio": best[name] / best["plain"]}
            if name != "plain" and settings.zero_to_hero.amf:
                # History, and the passes' maps.
                value[name]["maps_gb"] = 2 * clocks[name].elements * (2 if settings.zero_to_hero.half else 4) / 1e9
                # Of the paper's 66 passes, 52 lie in the range of everything.
                value[name]["ratio_of_a_run"] = (52 * value[name]["ratio"] + 14) / 66
        print(size, arguments.targets, "targets", device, json.dumps(value, indent=1), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
