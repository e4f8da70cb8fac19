"""What the mirrored photo does for assets of one photo: known objects, photographed, with and without it, in one run.

Columns: PSNR of the hidden side on white, its perceptual distance, PSNR all around, Chamfer; without the mirrored
photo, with it where the model is sure of a plane, and with the true plane. ``before`` is the texture in which the
photo was averaged with the generated views. The evidence is scored on the asset that users get.

Example: python scripts/measure_symmetry.py --meshes DATA/meshes_eval/gso --sheets SHEETS --out scores.json
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.perceptual import perceptual_distance
from pipeline.evaluation.photo_assets import PhotoAssets, gains_table, looks
from pipeline.evaluation.results import ScoreFile
from pipeline.evaluation.script import run_script
from pipeline.evaluation.sheets import write_sheet
from pipeline.evaluation.subjects import Subject, coloured, subjects
from pipeline.evaluation.tables import markdown_table
from pipeline.jobs.settings import Image2MeshSettings
from scene.backends import pick_device
from scene.resources import default_weights

KEYS = "hidden", "perceptual", "around", "chamfer"


@dataclass(frozen=True)
class Arguments:
    """Measure assets with and without the mirrored photo."""

    meshes: tuple[Path, ...] = ()
    """Folders with GLB files."""
    objects: Path | None = None
    """Folder of the object pool, whose val split is used where no meshes are given."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    count: int | None = None
    """So many objects, spread evenly; all by default."""
    textured: bool = True
    """Leave out objects of one colour."""
    device: str = "auto"
    """Where the model runs."""
    sheets: Path | None = None
    """Folder for pictures."""
    out: Path | None = None
    """Scores as JSON; objects that it holds are not measured again."""


def measure(model: ViewDiffusion, subject: Subject, arguments: Arguments) -> dict[str, dict[str, float]]:
    """Scores of one object."""
    made = PhotoAssets.draw(model, subject, Image2MeshSettings())
    true = made.true_heading_deg
    ways = {"auto": made.mirroring("auto")} | ({} if true is None else {"true": made.mirroring(true)})
    plain = made.asset(None)
    scores = {"none": made.scores(plain, perceptual_distance())}
    scores["before"] = made.scores(made.asset(None, photo_is_reference=False), perceptual_distance())
    rows, last = [looks(subject.mesh, True), looks(plain.coloured(), False)], plain
    for name, way in ways.items():
        if way.view is not None:
            mesh = made.asset(way.view)
            scores[name] = made.scores(mesh, perceptual_distance())
            rows.append(looks(mesh.coloured(), False))
            last = mesh if name == "auto" else last
    scores["evidence"] = made.evidence_scores(last)
    guess = made.guess
    if guess is not None:
        scores["plane"] = {"confidence": guess.confidence, "sure": guess.sure, "right": made.guess_is_right}
    if arguments.sheets is not None:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        tiles = [[Image.fromarray(picture) for picture in row] for row in rows]
        write_sheet([list(row) for row in tiles], arguments.sheets / f"{subject.name}.png")
    return scores


def main(arguments: Arguments) -> None:
    """Measure all objects and print tables."""
    model = ViewDiffusion.from_pretrained(arguments.weights or default_weights()).to(pick_device(arguments.device))
    file = ScoreFile(arguments.out)
    chosen = [
        subject
        for subject in subjects(arguments.objects, arguments.meshes, arguments.count)
        if not arguments.textured or coloured(subject.mesh)
    ]
    for subject in track(chosen, "objects"):
        if subject.name not in file.scores:
            file.scores[subject.name] = measure(model, subject, arguments)
            file.save()
    found = [file.scores[subject.name] for subject in chosen]
    header = ["score", "objects", "without", "with", "gain (95 % interval)"]
    for base, other in (("before", "none"), ("none", "auto"), ("none", "true")):
        print(f"\n{other} against {base}\n")
        print(markdown_table(header, gains_table(found, base, other, KEYS)))
    print("\nevidence\n")
    names = sorted({name for one in found for name in one["evidence"]})
    values = [[one["evidence"][name] for one in found if name in one["evidence"]] for name in names]
    rows = [[n, str(len(v)), f"{np.mean(v):.4f}", f"{np.min(v):.4f}"] for n, v in zip(names, values, strict=True)]
    print(markdown_table(["score", "objects", "mean", "least"], rows))


if __name__ == "__main__":
    run_script(main, Arguments)
