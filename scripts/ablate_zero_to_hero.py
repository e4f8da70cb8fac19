r"""What Zero-to-Hero is worth: ablations on known meshes, an upper bound, controls, the final mesh.

The protocol stands in pipeline/evaluation/zero_to_hero/__init__.py. The file given as --out holds the scores of every
object; a run goes on from it, and scores of rows whose settings have changed are taken again.

The bound:      python scripts/ablate_zero_to_hero.py --meshes DATA/meshes_eval --out z2h.json --parts bound
All rows:       ... --parts rows controls --joint on off
Three seeds:    ... --parts rows --rows uniform-50 all --pairs 56 --seeds 0 1 2
Tuning:         ... --parts tune --pool DATA/meshes_train, then --parts rows --rows all-tuned all-guided best-guidance
The rest:       ... --parts meshes pictures table

Time and memory of a pass are measured by scripts/time_zero_to_hero.py.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from pipeline.diffusion.settings import Precision
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.results import ResultFile
from pipeline.evaluation.script import run_script
from pipeline.evaluation.zero_to_hero.report import meshes_table, most_changed, rows_table
from pipeline.evaluation.zero_to_hero.rows import BOUND, CONTROLS, PAPER, AblationSettings, shuffled_meshes
from pipeline.evaluation.zero_to_hero.runs import GRIDS, Ablation, fit_meshes, score_rows, tune
from pipeline.jobs.runner import digest_of_folder
from scene.backends import pick_device
from scene.errors import InputError
from scene.resources import default_weights

Part = Literal["bound", "rows", "controls", "tune", "meshes", "pictures", "table"]


@dataclass(frozen=True, kw_only=True)
class Arguments(AblationSettings):
    """Measure Zero-to-Hero on known meshes."""

    out: Path
    """Scores as JSON; continued if it is there."""
    parts: tuple[Part, ...] = ("table",)
    """What to run, in this order."""
    rows: tuple[str, ...] = ()
    """Rows of the part rows (by default the paper's), or those of which the part meshes compares meshes."""
    pool: Path | None = None
    """Folder of the object pool, for tuning on its val split."""
    tune_count: int = 16
    """Objects of the val split used."""
    grids: tuple[str, ...] = tuple(GRIDS)
    """Numbers that are tuned; the base's guidance always is."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    pictures: Path = Path("zero_to_hero.jpg")
    """Where the most changed pairs are drawn, for all seeds."""
    shown: int = 10
    """How many."""
    device: str = "auto"
    """Where the model runs."""
    precision: Precision = "float32"
    """Of the U-Net."""


def open_results(arguments: Arguments, weights: Path) -> ResultFile:
    """The result file, bound to what all scores in it depend on."""
    names = "/".join(path.name for _, path in sorted(shuffled_meshes(arguments, every=True)))
    settings = {
        "sampling": asdict(arguments.sampling),
        "weights": digest_of_folder(weights, (".json", ".safetensors")) if weights.is_dir() else str(weights),
        "meshes": hashlib.sha256(names.encode()).hexdigest(),
        "quick": arguments.quick,
        "mask_threshold": arguments.mask_threshold,
        "precision": arguments.precision,
    }
    return ResultFile(arguments.out, settings)


def main(arguments: Arguments) -> None:
    """Run the parts asked for."""
    weights = arguments.weights or default_weights()
    results = open_results(arguments, weights)
    model = ViewDiffusion.from_pretrained(weights).to(pick_device(arguments.device))
    model.unet.to(getattr(torch, arguments.precision))
    ablation = Ablation(model, arguments, results, functools.partial(print, flush=True))

    def tuning() -> None:
        if arguments.pool is None:
            raise InputError("tuning needs the object pool", fix="Give --pool.")
        tune(ablation, arguments.pool, arguments.tune_count, arguments.grids)

    def tables() -> None:
        print(rows_table(results, arguments.base))
        if meshes := meshes_table(results):
            print(f"\n{meshes}")

    actions: dict[Part, Callable[[], None]] = {
        "bound": lambda: score_rows(ablation, BOUND),
        "rows": lambda: score_rows(ablation, arguments.rows or PAPER),
        "controls": lambda: score_rows(ablation, CONTROLS),
        "tune": tuning,
        "meshes": lambda: fit_meshes(ablation, arguments.rows or (arguments.base, "all")),
        "pictures": lambda: most_changed(ablation, arguments.pictures, arguments.shown),
        "table": tables,
    }
    for part in arguments.parts:
        actions[part]()


if __name__ == "__main__":
    run_script(main, Arguments)
