"""Reconstruction of known objects: geometry, pictures, time and memory, beside the visual hull and NeuS-facto.

Protocol. Every mesh of the data folder is normalised to the bounding sphere and rendered under the one light by 24
cameras spread evenly over the sphere (radius 1.5, 256 px, with masks); every third view, 8 in all, is held out and 16
are fitted. Lengths are in % of the true mesh's longest side, without registration; scores are those of
recon.mesh.metrics.compare_surfaces, of the exported mesh. Pictures: foreground PSNR of the held-out views, of the
textured mesh drawn without light (its texture holds the light), and of the fit's own volume rendering; objects with
textures or vertex colours only. Time: from views in memory to the mesh with its texture, plus export and check as a
column of its own. Kernels are compiled before the clock starts.

Example: python scripts/benchmark_recon.py --meshes DATA/meshes_eval --presets draft standard --out scores.json
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from pipeline.evaluation.meshes import load_glb
from pipeline.evaluation.reconstruction import (
    VIEWS,
    compile_kernels,
    medians_table,
    reachable,
    rendered_views,
    score_fit,
    score_neus_facto,
)
from pipeline.evaluation.results import ScoreFile
from pipeline.evaluation.script import run_script
from pipeline.jobs.presets import load_preset
from pipeline.jobs.settings import ReconstructSettings

FACTO = "neus-facto"


@dataclass(frozen=True)
class Arguments:
    """Score reconstructions of known meshes."""

    meshes: Path
    """Folder with GLB files, searched through."""
    presets: tuple[str, ...] = ("standard",)
    """Presets to run; hull stands for the visual hull alone."""
    only: tuple[str, ...] = ()
    """Names of meshes; all by default."""
    count: int | None = None
    """So many, spread evenly over the sorted names."""
    facto: Path | None = None
    """Python with nerfstudio: also runs the NeuS-facto baseline, at the seconds that the last preset took."""
    views: int = VIEWS
    """Views rendered; every third is held out."""
    unseen: bool = False
    """Fit nothing; only tell how much of each true surface the fitted views see, and the F that this allows."""
    out: Path | None = None
    """Write the scores of every object as JSON, and continue from it."""


def preset(name: str) -> ReconstructSettings:
    """Settings of a preset; hull is the standard one's."""
    return load_preset("standard" if name == "hull" else name, ReconstructSettings()).settings


def print_unseen(paths: Sequence[Path], count: int, console: Console) -> None:
    """How much of each true surface the fitted views see."""
    best = []
    for path in paths:
        found = reachable(load_glb(path), count)
        best.append(found["F"])
        told = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        console.print(f"{path.stem}: {told}", highlight=False)
    far = sum(f < 2 * 0.95 / 1.95 for f in best)
    console.print(f"median F {np.median(best):.3f}; {far} with more than 5 % far from it")


def main(arguments: Arguments) -> None:
    """Run and print the table."""
    console, file, warm = Console(), ScoreFile(arguments.out), False
    paths = sorted(arguments.meshes.rglob("*.glb"))
    if arguments.only:
        paths = [p for p in paths if p.stem in arguments.only]
    if arguments.count is not None:
        paths = [paths[round(k)] for k in np.linspace(0, len(paths) - 1, arguments.count)]
    if arguments.unseen:
        return print_unseen(paths, arguments.views, console)
    rows = [*arguments.presets, *([FACTO] if arguments.facto else [])]
    for path in paths:
        if all(f"{path.stem}/{row}" in file.scores for row in rows):
            continue
        mesh, seconds = load_glb(path), 60.0
        train, held = rendered_views(mesh, arguments.views)
        if not warm:
            compile_kernels(train)
            warm = True
        for row in rows:
            key = f"{path.stem}/{row}"
            if key not in file.scores:
                if row == FACTO:
                    assert arguments.facto is not None
                    script = Path(__file__).with_name("baseline_neus_facto.py")
                    file.scores[key] = score_neus_facto(arguments.facto, script, train, mesh, seconds)
                else:
                    file.scores[key] = score_fit(train, held, mesh, preset(row), hull_only=row == "hull")
                file.save()
            scores = file.scores[key]
            seconds = scores["seconds"]
            console.print(key, {k: round(v, 3) for k, v in scores.items() if isinstance(v, float)}, highlight=False)
    console.print(medians_table(file.scores))


if __name__ == "__main__":
    run_script(main, Arguments)
