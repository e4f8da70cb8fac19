"""Score cut-outs of the segmenter beside GrabCut (and rembg where it is installed) on photos with true masks.

Photos are those of a folder with pairs: `NAME.png` with `NAME_mask.png` or `NAME_rgba.png` of the same size. Or photos
composed of held-out objects in surroundings of kinds that are never trained on. The boundary score is the F-measure of
outline pixels within 0.75 % of the picture's diagonal.

Example: python scripts/evaluate_segmenter.py --pairs DATA/images/pairs --sheet pairs.png
Example: python scripts/evaluate_segmenter.py --objects DATA/meshes_train --count 100
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.progress import track

from pipeline.diffusion.preparation.cutout import load_segmenter, segmenter_folder
from pipeline.evaluation.cutouts import CutoutScores, composed_photos, photo_pairs, segmenters, sheet_row
from pipeline.evaluation.script import run_script
from pipeline.evaluation.tables import table_head, table_row
from scene.errors import InputError


@dataclass(frozen=True)
class Arguments:
    """Score cut-outs on photos with true masks."""

    pairs: Path | None = None
    """Folder of photos with masks."""
    objects: Path | None = None
    """Folder of the object pool: composed photos of its val split."""
    count: int = 100
    """Composed photos."""
    side: int = 384
    """Side of composed photos."""
    weights: Path | None = None
    """Segmenter; the shipped one by default."""
    stages: bool = False
    """Score the segmenter's steps as well: the network's mask alone, fitted to edges, and decided by GrabCut."""
    sheet: Path | None = None
    """Write a picture of photos, true masks and cut-outs."""


def main(arguments: Arguments) -> None:
    """Score, print tables, write the sheet."""
    one_by_one = arguments.pairs is not None
    if arguments.pairs is not None:
        photos = photo_pairs(arguments.pairs)
    elif arguments.objects is not None:
        photos = composed_photos(arguments.objects, arguments.count, arguments.side)
    else:
        raise InputError("nothing to score", fix="Give --pairs or --objects.")
    folder = arguments.weights or segmenter_folder()
    if folder is None:
        raise InputError("there is no segmenter", fix="Name one with --weights.")
    scores = CutoutScores(segmenters(load_segmenter(folder), stages=arguments.stages))
    if one_by_one:
        print(f"IoU, boundary F\n\n{table_head(['photo', *scores.segmenters])}")
    rows = []
    for photo in track(photos, "cutting out", disable=len(photos) < 20):
        rows.append(sheet_row(photo, scores.add(photo)))
        if one_by_one:
            print(table_row([photo.name, *scores.last()]))
    print(f"\n{scores.table()}")
    if arguments.sheet is not None:
        Image.fromarray(np.concatenate(rows[:24])).save(arguments.sheet)


if __name__ == "__main__":
    run_script(main, Arguments)
