"""Time and memory of a pass of Zero-to-Hero beside a plain pass, at the nano size and at Zero123's, in one run.

Timed are the passes of a step where everything is on: filtering within steps and over steps, with maps of earlier
passes and steps to blend, and reading of the source, whose row is counted as cost. Guidance is off; it doubles both.
Rounds alternate between the variants; of each of a step's five passes the fastest counts, and of these the mean. On a
CPU it is the processor's time that counts, so that other work on the machine matters less; --threads 1 makes that as
good as the clock.

Example: python scripts/time_zero_to_hero.py --targets 7 --threads 1
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import torch

from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.script import run_script
from pipeline.evaluation.zero_to_hero.timing import VARIANTS, time_variants, zero123_sized
from scene.backends import pick_device
from scene.resources import default_weights


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


def main(arguments: Arguments) -> None:
    """Time both networks and print."""
    device = pick_device(arguments.device)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    variants = {name: v for name, v in VARIANTS.items() if not arguments.only or name in arguments.only}
    for size in arguments.sizes:
        model = (ViewDiffusion.from_pretrained(default_weights()) if size == "nano" else zero123_sized()).to(device)
        value = time_variants(model, arguments.targets, arguments.rounds, variants)
        print(size, arguments.targets, "targets", device, json.dumps(value, indent=1), flush=True)


if __name__ == "__main__":
    run_script(main, Arguments)
