"""Does everything run on this machine's accelerator, and does it agree with the CPU? Trains, samples and fits on both.

Uses procedural objects only, so it needs no data: python scripts/gpu_check.py
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass

import torch

from pipeline.evaluation.device_check import CPU, Check, check_fit, check_sampling, check_training, rendered_store
from pipeline.evaluation.script import run_script
from scene.backends import pick_device


@dataclass(frozen=True)
class Arguments:
    """Compare an accelerator with the CPU."""

    device: str = "auto"
    """The accelerator; on a machine without one the CPU is compared with itself."""
    steps: int = 200
    """Training steps on the accelerator."""
    samples: int = 48
    """Rendered training samples."""
    workers: int = 2
    """Rendering processes."""


def main(arguments: Arguments) -> int:
    """Run all checks; the exit code counts failures."""
    device, failures = pick_device(arguments.device), 0
    report = functools.partial(print, flush=True)
    report(f"torch {torch.__version__}, comparing {device} with {CPU}")

    def count(check: Check) -> None:
        nonlocal failures
        failures += not check.good
        report(check)

    start = time.monotonic()
    store = rendered_store(arguments.samples, arguments.workers)
    report(f"rendered {arguments.samples} samples in {time.monotonic() - start:.1f} s")
    count(check_sampling(device, store))
    count(check_training(device, store, arguments.steps, report))
    count(check_fit(device, report))
    report("all good" if not failures else f"{failures} checks failed")
    return failures


if __name__ == "__main__":
    run_script(main, Arguments)
