r"""Score views that are drawn from several pictures of a held-out object, by number of inputs and by angle.

Targets and their inputs are drawn once for all rows: what is an input at some number is one at every larger number.
``headroom`` has the rows that need no training; ``bound`` the oracles that know the target's depth and silhouette.

Example: python scripts/evaluate_fusion.py --parts headroom bound
         python scripts/evaluate_fusion.py --pool DATA/meshes_train
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from diffusers import AutoencoderKL
from rich.progress import track

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.evaluation.fusion import (
    COLUMNS,
    FusionTarget,
    angles_table,
    bound_rows,
    counts_table,
    coverage_table,
    draw_targets,
    gains_table,
    input_rows,
    score_row,
)
from pipeline.evaluation.script import run_script
from pipeline.training.data.fusion_rings import FusionRingSettings, held_out_rings, pool_rings
from pipeline.training.data.objects import ObjectPool
from scene.resources import default_weights

Part = Literal["headroom", "bound"]


@dataclass(frozen=True)
class Arguments:
    """Score views drawn from several pictures of held-out objects."""

    parts: tuple[Part, ...] = ("headroom", "bound")
    """What is scored."""
    weights: Path | None = None
    """Checkpoint with the VAE; the embedded one by default."""
    pool: Path | None = None
    """Folder of the object pool: its val objects of the families' kinds, in place of new procedural objects."""
    objects: int = 60
    """New procedural objects."""
    targets: int = 200
    """Targets, spread over the objects."""
    counts: tuple[int, ...] = (1, 2, 3, 6, 12, 23)
    """Numbers of inputs."""
    bound_counts: tuple[int, ...] = (1, 2, 3, 6)
    """Numbers of inputs of the bound."""
    rings: FusionRingSettings = FusionRingSettings()
    """How the objects are rendered."""
    seed: int = 0
    """Of objects, targets and inputs."""


def headroom(codec: LatentCodec, targets: list[FusionTarget], arguments: Arguments) -> None:
    """Print what inputs show without any model."""
    rows = {name: score_row(row, name, targets, arguments.counts) for name, row in input_rows(codec).items()}
    for table in (counts_table, angles_table):
        for key in COLUMNS:
            print(f"\n{table(rows, targets, key)}")
    nearest = rows["nearest input as it is"]
    first, *others = arguments.counts
    print("\n" + gains_table({f"nearest of {n} over {first}": (nearest[n], nearest[first]) for n in others}, targets))


def bound(codec: LatentCodec, targets: list[FusionTarget], arguments: Arguments) -> None:
    """Print what oracles make of the inputs."""
    counts = arguments.bound_counts
    print(f"\n{coverage_table(targets, counts)}")
    made = bound_rows(codec, max(counts))
    rows = {name: score_row(row, name, targets, counts) for name, row in made.items()}
    for key in COLUMNS:
        print(f"\n{counts_table(rows, targets, key)}")
    gains = {}
    for n in counts[1:]:
        for space in ("latents", "picture"):
            for oracle in (f"oracle, warped {space}", f"oracle, warped {space}, told the truth"):
                single, plain = f"best single input, warped {space}", "best single input as it is"
                gains[f"{n} inputs: {oracle} over best single"] = rows[oracle][n], rows[single][n]
                gains[f"{n} inputs: {oracle} over best single as it is"] = rows[oracle][n], rows[plain][n]
                gains[f"{oracle}: {n} inputs over {counts[0]}"] = rows[oracle][n], rows[oracle][counts[0]]
    print("\n" + gains_table(gains, targets))


def main(arguments: Arguments) -> None:
    """Draw the objects and print the tables."""
    weights = arguments.weights or default_weights()
    codec = LatentCodec(cast(AutoencoderKL, load_part(AutoencoderKL, weights / "vae")))
    if arguments.pool is None:
        drawn = held_out_rings(codec, arguments.seed, arguments.objects, arguments.rings)
    else:
        drawn = pool_rings(codec, ObjectPool(arguments.pool, "val"), arguments.rings)
    rings = list(track(drawn, "objects", total=arguments.objects if arguments.pool is None else None))
    targets = draw_targets(rings, arguments.targets, arguments.seed)
    print(f"\n{len(rings)} objects, {len(targets)} targets, {arguments.rings}")
    for name, part in (("headroom", headroom), ("bound", bound)):
        if name in arguments.parts:
            part(codec, targets, arguments)


if __name__ == "__main__":
    run_script(main, Arguments)
