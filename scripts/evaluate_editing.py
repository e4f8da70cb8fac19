r"""Score edited captures against known edits: rows that need no diffusion model.

Cases are figures in two poses (procedural ones of seeds kept for evaluation, and held-out rigs of files) and things
before and after their boxes change; all are normalised by the original. Sixteen cameras stand in a ring at elevation 14
degrees. Scores are means over cases with 95 % bootstrap intervals; what they are is told in
`pipeline/evaluation/editing/scores.py`. The deformed surface is the true one of before, bound to the true skeleton or
boxes: the bound of what deforming a fitted surface can reach.

Example: python scripts/evaluate_editing.py --figures DATA/figures --out scores.json --sheet sheet.jpg
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from diffusers import AutoencoderKL
from PIL import Image

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.conditioning import PhotoEncoder
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.editing.controls import box_mesh, depth_controls, skeleton_controls
from pipeline.evaluation.editing.cases import EditCase, TrueViews, cases, true_views
from pipeline.evaluation.editing.rows import Row, bound_truth, deformed, edits_table, original, through_vae, truth
from pipeline.evaluation.editing.scores import edit_scores
from pipeline.evaluation.results import ScoreFile
from pipeline.evaluation.script import run_script
from pipeline.evaluation.sheets import Tile, tile, write_sheet
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
    views: int = 16
    """Cameras."""
    size: int = 128
    """Side of every picture, pixels."""
    out: Path | None = None
    """Write the scores of every case as JSON."""
    sheet: Path | None = None
    """Write a picture: of each case a view before, its control, and the same view of all rows."""


def main(arguments: Arguments) -> None:
    """Score all rows, print a table for each kind of case."""
    weights = arguments.weights or default_weights()
    codec = LatentCodec(cast(AutoencoderKL, load_part(AutoencoderKL, arguments.vae or weights / "vae")))
    encoder = cast(PhotoEncoder, load_part(PhotoEncoder, weights / "image_encoder"))
    rows: dict[str, Row] = {
        "original as it is": original,
        "deformed true surface, rendered": deformed(bound_truth),
        "truth through the VAE": through_vae(codec),
        "truth": truth,
    }
    file, kinds, tiles = ScoreFile(arguments.out), dict[str, str](), list[list[Tile]]()
    for case in cases(arguments.figures, arguments.each):
        views = true_views(case, arguments.views, arguments.size)
        kinds[case.name] = case.kind
        line = [picture(views.originals[1]), control(case, views)]
        for name, row in rows.items():
            start = time.perf_counter()
            try:
                edited = row(views)
            except ViewloomError as error:
                print(f"{case.name}: {name}: {error}")
                continue
            seconds = time.perf_counter() - start
            found = edit_scores(edited.pictures, edited.mesh, views, encoder)
            file.scores.setdefault(name, {})[case.name] = found | {"seconds": seconds}
            line.append(picture(np.round(edited.pictures[1] * 255).astype(np.uint8)))
        file.save()
        tiles.append(line)
    for kind in dict.fromkeys(kinds.values()):
        chosen = [name for name in kinds if kinds[name] == kind]
        print(f"\n{kind}: {len(chosen)} cases x {arguments.views} views of {arguments.size} pixels\n")
        print(edits_table({row: [s[name] for name in chosen if name in s] for row, s in file.scores.items()}))
    if arguments.sheet is not None:
        write_sheet(tiles, arguments.sheet)


def picture(rgba: np.ndarray) -> Tile:
    """A view on white."""
    return tile(Image.fromarray(rgba), rgba.shape[0])


def control(case: EditCase, views: TrueViews) -> Tile:
    """The second camera's control of a case."""
    if case.skeletons is not None:
        drawn = skeleton_controls(case.skeletons[1].positions, views.cameras)[1]
    else:
        assert case.boxes is not None
        drawn = depth_controls(*box_mesh(case.boxes[1]), views.cameras)[0][1]
    return Image.fromarray(np.round(drawn * 255).astype(np.uint8))


if __name__ == "__main__":
    run_script(main, Arguments)
