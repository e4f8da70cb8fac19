"""NeuS-facto on a capture for so many seconds: the surface that others' code reaches with the same pictures and time.

Needs an environment with the nerfstudio extra, and pictures with masks of a normalised object. What is fair and what is
as published stands in pipeline/evaluation/neus_facto.py.

Example: python scripts/baseline_neus_facto.py --capture CAPTURE --seconds 60 --out OUT
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from pipeline.evaluation.neus_facto import FAIR, PUBLISHED, Pixels, build_model, extract, ply_bytes, psnr, train
from pipeline.evaluation.script import run_script
from scene.backends import required_module
from scene.files import write_bytes, write_text, written_aside
from scene.viewset import ViewSet


@dataclass(frozen=True)
class Arguments:
    """Fit NeuS-facto to a capture and write its mesh."""

    capture: Path
    """Capture folder: transforms.json, RGBA pictures of an object of radius 0.6 about the origin."""
    out: Path
    """Folder for mesh.ply, mesh.npz and report.json."""
    seconds: float = 60.0
    """Time for the optimisation; loading before and marching cubes after it are reported apart."""
    as_published: bool = False
    """nerfstudio's numbers instead of the fair ones."""
    resolution: int = 160
    """Voxels along each side for marching cubes."""
    threads: int = 1
    """Threads of torch."""
    processor_time: bool = False
    """Count seconds of work instead of seconds on the wall: for machines that others use too. With one thread only."""
    seed: int = 0
    """Of weights and rays."""


def main(arguments: Arguments) -> None:
    """Fit, extract, and write."""
    required_module("nerfstudio", "the baseline")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    settings = PUBLISHED if arguments.as_published else FAIR
    clock = time.process_time if arguments.processor_time else time.perf_counter
    began = clock()
    pixels = Pixels(ViewSet.load(arguments.capture))
    model = build_model(settings, len(pixels.rgba))
    prepared = clock() - began
    reached = train(model, pixels, settings, arguments.seconds, clock)
    began = clock()
    vertices, faces = extract(model, arguments.resolution)
    report = {
        "method": "neus-facto, as published" if arguments.as_published else "neus-facto, fair",
        **reached,
        "preparation_seconds": prepared,
        "extraction_seconds": clock() - began,
        "psnr": psnr(model, pixels),
        "vertices": len(vertices),
        "faces": len(faces),
        "settings": asdict(settings),
    }
    write_bytes(arguments.out / "mesh.ply", ply_bytes(vertices, faces))
    with written_aside(arguments.out / "mesh.npz") as partial:
        np.savez(partial, vertices=vertices, faces=faces)
    write_text(arguments.out / "report.json", json.dumps(report, indent=1) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "settings"}, indent=1))


if __name__ == "__main__":
    run_script(main, Arguments)
