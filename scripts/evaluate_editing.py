r"""Score edited captures against known edits: deformed surfaces, views drawn by the editor, and what bounds both.

Cases are figures in two poses (procedural ones of seeds kept for evaluation, and held-out rigs of files) and things
before and after their boxes change; all are normalised by the original. Sixteen cameras stand in a ring at elevation 14
degrees. Scores are means over cases with 95 % bootstrap intervals; what they are is told in
`pipeline/evaluation/editing/scores.py`. The deformed surface is the true one of before, bound to the true skeleton or
boxes: the bound of what deforming a fitted surface can reach.

Example:  python scripts/evaluate_editing.py --figures DATA/figures --out scores.json --sheet sheet.jpg
Tuning:   add --development: other figures, rigs and things; the default ones are for reporting only.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from diffusers import AutoencoderKL
from PIL import Image

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.conditioning import PhotoEncoder
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.editing.controls import box_mesh, depth_controls, skeleton_controls
from pipeline.editing.load import load_editor
from pipeline.editing.settings import ConsolidateSettings
from pipeline.evaluation.editing.cases import (
    DEVELOPMENT,
    DEVELOPMENT_SEED,
    FIRST_SEED,
    HELD_OUT,
    EditCase,
    Kind,
    TrueViews,
    cases,
    true_views,
)
from pipeline.evaluation.editing.redrawn_rows import RedrawnRow, fitted_truth
from pipeline.evaluation.editing.rows import (
    Edited,
    Row,
    bound_truth,
    deformed,
    edits_table,
    original,
    through_vae,
    truth,
)
from pipeline.evaluation.editing.scores import edit_scores
from pipeline.evaluation.results import ScoreFile
from pipeline.evaluation.script import run_script
from pipeline.evaluation.sheets import Tile, tile, write_sheet
from pipeline.jobs.presets import load_preset
from pipeline.jobs.settings import DRAFT_START, ReconstructSettings
from recon.settings import FitSettings
from scene.errors import ViewloomError
from scene.resources import default_weights


@dataclass(frozen=True)
class Arguments:
    """Score edited captures."""

    figures: Path | None = None
    """Folder with posed/NAME.npz of the held-out rigs; left out without it."""
    weights: Path | None = None
    """Checkpoint with the VAE and the photo encoder of KID; the embedded one by default."""
    vae: Path | None = None
    """Folder of another VAE."""
    each: int = 4
    """Procedural figures, and edits of boxes."""
    kinds: tuple[Kind, ...] = ("procedural figure", "held-out rig", "boxes")
    """Of the cases."""
    development: bool = False
    """Take cases for tuning in place of those for reporting."""
    editor: Path | None = None
    """Editor that draws views; without, only rows that need none are scored."""
    rows: tuple[str, ...] = ()
    """Rows to score, by the start of their names; all by default."""
    seeds: int = 1
    """Seeds of noise of the editor's rows; scores are means over them."""
    meshes: bool = False
    """Fit surfaces to the editor's views of the first seed, and to the true ones, for Chamfer distances."""
    fit: FitSettings = field(default_factory=lambda: load_preset("draft", ReconstructSettings()).settings.fit)
    """How; as the preset draft does by default."""
    consolidate: ConsolidateSettings = ConsolidateSettings()
    """The method, of all rows but for what they are named after."""
    views: int = 16
    """Cameras."""
    size: int = 128
    """Side of every picture, pixels."""
    identity: bool = False
    """Ask for what is already there, with the own skeleton or boxes as the target: what an edit of nothing loses."""
    out: Path | None = None
    """Write the scores of every case as JSON."""
    sheet: Path | None = None
    """Write a picture: of each case a view before, its control, and the same view of all rows."""
    sheet_views: int = 1
    """Views of each case in that picture, a line each, evenly around."""


def main(arguments: Arguments) -> None:
    """Score all rows, print a table for each kind of case."""
    weights = arguments.weights or default_weights()
    codec = LatentCodec(cast(AutoencoderKL, load_part(AutoencoderKL, arguments.vae or weights / "vae")))
    encoder = cast(PhotoEncoder, load_part(PhotoEncoder, weights / "image_encoder"))
    rows: dict[str, tuple[Row, ...]] = {
        "original as it is": (original,),
        "deformed true surface, rendered": (deformed(bound_truth),),
        **editor_rows(arguments),
        "truth through the VAE": (through_vae(codec),),
        "truth": (truth,),
        **({"truth, fitted": (fitted_truth(arguments.fit),)} if arguments.meshes else {}),
    }
    if arguments.rows:
        rows = {name: row for name, row in rows.items() if name.startswith(arguments.rows)}
    names, seed = (DEVELOPMENT, DEVELOPMENT_SEED) if arguments.development else (HELD_OUT, FIRST_SEED)
    file, kinds, tiles = ScoreFile(arguments.out), dict[str, str](), list[list[Tile]]()
    for case in cases(arguments.figures, arguments.each, names, seed):
        if case.kind not in arguments.kinds:
            continue
        case = unedited(case) if arguments.identity else case
        views = true_views(case, arguments.views, arguments.size)
        kinds[case.name] = case.kind
        shown = [
            (1 + k * arguments.views // arguments.sheet_views) % arguments.views for k in range(arguments.sheet_views)
        ]
        lines = [[picture(views.originals[k]), control(case, views, k)] for k in shown]
        for name, row in rows.items():
            try:
                edited, found = scored(row, views, encoder)
            except ViewloomError as error:
                print(f"{case.name}: {name}: {error}")
                continue
            file.scores.setdefault(name, {})[case.name] = found
            told = ("excess_warp_error", "foreground_psnr", "iou", "kid", "seconds")
            print(f"{case.name}: {name}: " + ", ".join(f"{key} {found[key]:.4g}" for key in told), flush=True)
            for k, line in zip(shown, lines, strict=True):
                line.append(picture(np.round(edited.pictures[k] * 255).astype(np.uint8)))
        file.save()
        tiles.extend(lines)
    for kind in dict.fromkeys(kinds.values()):
        chosen = [name for name in kinds if kinds[name] == kind]
        print(f"\n{kind}: {len(chosen)} cases x {arguments.views} views of {arguments.size} pixels\n")
        print(edits_table({row: [s[name] for name in chosen if name in s] for row, s in file.scores.items()}))
    if arguments.sheet is not None:
        write_sheet(tiles, arguments.sheet)


def unedited(case: EditCase) -> EditCase:
    """A case whose target is what there is."""
    skeletons = None if case.skeletons is None else (case.skeletons[0], case.skeletons[0])
    boxes = None if case.boxes is None else (case.boxes[0], case.boxes[0])
    return replace(case, after=case.before, skeletons=skeletons, boxes=boxes)


def scored(row: tuple[Row, ...], views: TrueViews, encoder: PhotoEncoder) -> tuple[Edited, dict[str, float]]:
    """What the last seed of a row makes of a case, and scores over all of its seeds."""
    all_found = []
    for run in row:
        start = time.perf_counter()
        edited = run(views)
        seconds = time.perf_counter() - start
        found = edit_scores(edited.pictures, edited.mesh, views, encoder)
        all_found.append(found | {"seconds": seconds} | dict(edited.facts))
    return edited, {key: float(np.mean([found[key] for found in all_found if key in found])) for key in all_found[0]}


def editor_rows(arguments: Arguments) -> dict[str, tuple[Row, ...]]:
    """The rows that an editor draws; for each seed of noise one."""
    if arguments.editor is None:
        return {}
    model, plain = load_editor(arguments.editor), arguments.consolidate
    full, alone = replace(plain, mode="full"), replace(plain, mode="none")
    draft = DRAFT_START if plain.start is None else plain.start
    over = replace(alone, start=draft)

    def row(settings: ConsolidateSettings, **how: Any) -> tuple[Row, ...]:
        return tuple(
            RedrawnRow(
                model,
                replace(settings, seed=settings.seed + k),
                fit=arguments.fit if arguments.meshes and k == 0 else None,
                **how,
            )
            for k in range(arguments.seeds)
        )

    return {
        "deformed, drawn over per view": row(over, draft=bound_truth),
        "deformed, drawn over, full": row(replace(plain, start=draft), draft=bound_truth),
        "per view": row(alone),
        "hard replacement": row(replace(plain, mode="hard")),
        "one field": row(replace(plain, mode="once")),
        "full": row(full),
        "full without overlap": row(replace(full, overlap=False)),
        "bound: true queries": row(full, targets="true"),
        "bound: true queries, rendered": row(full, targets="true, rendered"),
    }


def picture(rgba: np.ndarray) -> Tile:
    """A view on white."""
    return tile(Image.fromarray(rgba), rgba.shape[0])


def control(case: EditCase, views: TrueViews, view: int) -> Tile:
    """A camera's control of a case."""
    if case.skeletons is not None:
        drawn = skeleton_controls(case.skeletons[1].positions, views.cameras)[view]
    else:
        assert case.boxes is not None
        drawn = depth_controls(*box_mesh(case.boxes[1]), views.cameras)[0][view]
    return Image.fromarray(np.round(drawn * 255).astype(np.uint8))


if __name__ == "__main__":
    run_script(main, Arguments)
