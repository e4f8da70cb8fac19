"""Time and memory of a pass of Zero-to-Hero beside a plain pass.

Timed are the passes of a step where everything is on: filtering within steps and over steps, with maps of earlier
passes and steps to blend, and mutual self-attention, whose source row is counted as cost. Guidance is off; it doubles
both.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from pipeline.diffusion.checkpoints.ldm import SCHEDULER
from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer, Step
from pipeline.diffusion.modules.conditioning import Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.sample import sample_latents
from pipeline.diffusion.settings import SamplingSettings, ZeroToHeroSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion

VARIANTS = {
    "amf": ZeroToHeroSettings(msa=False),
    "amf, all heads at once": ZeroToHeroSettings(msa=False, heads_at_once=None),
    "msa": ZeroToHeroSettings(amf=False),
    "all": ZeroToHeroSettings(),
    "all, all heads at once": ZeroToHeroSettings(heads_at_once=None),
    "all, half precision": ZeroToHeroSettings(half=True),
}


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


def device_clock(device: torch.device) -> Callable[[], float]:
    """Seconds of work of a device: on a CPU the processor's time, so that other work on the machine matters less."""

    def seconds() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.process_time() if device.type == "cpu" else time.perf_counter()

    return seconds


def time_variants(
    model: ViewDiffusion, targets: int, rounds: int, variants: Mapping[str, ZeroToHeroSettings]
) -> dict[str, dict[str, float]]:
    """Seconds of a pass of every variant and of plain sampling, and the memory of kept maps.

    Rounds alternate between the variants; of each of a step's passes the fastest counts, and of these the mean.
    """
    conditions = random_conditions(model, targets)
    top = len(model.schedule) - 1
    timed = {"plain": SamplingSettings(steps=2, strength=1.0, guidance=1.0)}
    for name, numbers in variants.items():
        numbers = replace(numbers, timesteps=(top, top - 1))
        timed[name] = replace(timed["plain"], filtering="zero-to-hero", zero_to_hero=numbers)
    clocks = {name: Clock(device_clock(model.device)) for name in timed}
    for _, (name, settings) in itertools.product(range(rounds), timed.items()):
        sample_latents(model, conditions, settings, hooks=[clocks[name]])
    best = {name: statistics.mean(min(times) for times in clock.passes.values()) for name, clock in clocks.items()}
    out: dict[str, dict[str, float]] = {}
    for name, settings in timed.items():
        out[name] = {"seconds_per_pass": best[name], "ratio": best[name] / best["plain"]}
        if name != "plain" and settings.zero_to_hero.amf:
            # History, and the passes' maps.
            out[name]["maps_gb"] = 2 * clocks[name].elements * (2 if settings.zero_to_hero.half else 4) / 1e9
            # Of the paper's 66 passes, 52 lie in the range of everything.
            out[name]["ratio_of_a_run"] = (52 * out[name]["ratio"] + 14) / 66
    return out
