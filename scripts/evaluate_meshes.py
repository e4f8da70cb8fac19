"""How good meshes of one photo are, and which stage costs most: the same fitter from better and worse views.

Rows: true views at the cameras that jobs use; the same through the VAE; the same shifted by about 2 px each; generated
views with the photo's true and with its predicted camera; views of a second round, which begins with renders of a
draft fitted to the first round's; and for comparison the hull of the true masks, the coarse volume alone, the true
solid in its place, an extruded outline of the photo, and a sphere.

Meshes are scored by the protocol of recon/mesh/metrics.py: longest side 1, centred, no registration, 20,000 points a
side, distances to triangles, IoU of solids (37 voxels along the longest side); by SyncDreamer's Chamfer distance, of
points that cameras see; and by *outline*, the mask IoU of mesh and photo at the photo's camera, predicted where the row
has it so. Means over objects with 95 % bootstrap intervals; leads are those of the first row computed.
Objects are those of the pool's val split, or GLB files. A run goes on from the file given as --out.

Example: python scripts/evaluate_meshes.py --objects DATA/meshes_train --count 32
         python scripts/evaluate_meshes.py --meshes DATA/meshes_eval --out meshes.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.photo_meshes import ROWS, Bench, PhotoMeshSettings, meshes_table, score_row
from pipeline.evaluation.results import ScoreFile
from pipeline.evaluation.script import run_script
from pipeline.evaluation.subjects import near_symmetric, subjects
from pipeline.jobs.stages.views import ring_orbits
from scene.backends import pick_device
from scene.resources import default_weights


@dataclass(frozen=True)
class Arguments(PhotoMeshSettings):
    """Score meshes fitted to true, degraded and generated views."""

    objects: Path | None = None
    """Folder of the object pool; its val split is used unless meshes are given."""
    meshes: tuple[Path, ...] = ()
    """Folders with GLB files, to be used in place of the val split."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    count: int | None = None
    """So many objects, spread evenly over the list; all by default."""
    only: tuple[str, ...] = ()
    """Rows to compute; all by default."""
    device: str = "auto"
    """Where the model runs."""
    out: Path | None = None
    """Scores of every object as JSON, written after each; those that it holds are not computed again."""


def main(arguments: Arguments) -> None:
    """Score all rows and print a table."""
    model = ViewDiffusion.from_pretrained(arguments.weights or default_weights()).to(pick_device(arguments.device))
    names = [name for name in ROWS if not arguments.only or name in arguments.only]
    file = ScoreFile(arguments.out)
    chosen = list(subjects(arguments.objects, arguments.meshes, arguments.count))
    for subject in track(chosen, "objects"):
        known = file.scores.setdefault(subject.name, {})
        missing = [name for name in names if name not in known]
        if not missing and "near_symmetric" in known:
            continue
        known["near_symmetric"] = near_symmetric(subject.mesh)
        bench = Bench(model, subject, arguments)
        for name in missing:
            known[name] = score_row(name, bench)
        file.save()
    found = [file.scores[subject.name] for subject in chosen]
    alike = np.array([f["near_symmetric"] for f in found])
    print(f"\n{len(chosen)} objects, {len(ring_orbits(arguments.views.rings))} views of {model.image_size} px\n")
    print(meshes_table({name: [f[name] for f in found] for name in names}))
    if alike.any():
        print(f"\nwithout the {alike.sum()} near-symmetric ones\n")
        print(meshes_table({name: [f[name] for f, a in zip(found, alike, strict=True) if not a] for name in names}))


if __name__ == "__main__":
    run_script(main, Arguments)
