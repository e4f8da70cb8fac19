"""Textures of photos at the photo's camera, before and after the photo became the reference, in one run.

Items are folders that ``viewloom image2mesh`` wrote. Columns: PSNR within the silhouette that photo and mesh share;
PSNR within the photo's whole silhouette, on white; mean error, of 255, of neutral pixels; of the texels that the photo
sees head-on, the 99th percentile of their change, beside that of JPEG's change, and the fraction that changes no more.
Sheets show the photo, then the mesh at 0, 20, 40 and 60 degrees beside it and around: before above, after below.

Example: python scripts/measure_photo_texture.py OUT/* --sheets SHEETS --out scores.json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro
from PIL import Image
from rich.progress import track

from pipeline.evaluation.photo_texture import PhotoItem, photo_scores, photo_tile, summary, texel_scores, views_beside
from pipeline.evaluation.results import ScoreFile
from pipeline.evaluation.script import run_script
from pipeline.evaluation.sheets import Tile, write_sheet
from pipeline.evaluation.tables import markdown_table
from recon.checks.asset import measure_asset
from recon.texture.evidence import EvidenceShares

AZIMUTHS = 0, 20, 40, 60, 90, 180, 270, 320
COLUMNS = "inside", "silhouette", "neutral", "changed", "jpeg", "kept", "iou"


@dataclass(frozen=True)
class Arguments:
    """Measure textures at the photo's camera."""

    items: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of finished items."""
    sheets: Path | None = None
    """Folder for pictures of each."""
    out: Path | None = None
    """Scores as JSON; items that it holds are not measured again."""
    side: int = 1024
    """Side of the textures."""
    tile: int = 256
    """Side of a picture on the sheets."""


def measure(folder: Path, arguments: Arguments) -> dict[str, dict[str, float]]:
    """Scores of one item before and after, and a sheet if asked for."""
    item = PhotoItem.read(folder)
    scores, rows = {}, []
    for name, reference in (("before", False), ("after", True)):
        mesh = item.textured(arguments.side, photo_is_reference=reference)
        scores[name] = photo_scores(mesh, item.photo) | texel_scores(mesh, item)
        pictures = [photo_tile(item.photo, arguments.tile), *views_beside(mesh, AZIMUTHS, arguments.tile)]
        rows.append([Image.fromarray(picture) for picture in pictures])
    assert mesh.evidence is not None
    shares = EvidenceShares.of(mesh.evidence, mesh.vertices, mesh.faces)
    cutout = float(item.views.metadata.get("cutout_confidence", 1.0))
    measures = measure_asset(item.vertices, item.faces, mesh.coloured(), shares, item.views, cutout)
    scores["measures"] = asdict(measures)
    if arguments.sheets is not None:
        arguments.sheets.mkdir(parents=True, exist_ok=True)
        sheet: list[list[Tile]] = list(rows)
        write_sheet(sheet, arguments.sheets / f"{item.name}.png")
    return scores


def main(arguments: Arguments) -> None:
    """Measure all items and print a table."""
    file = ScoreFile(arguments.out)
    for folder in track(arguments.items, "items"):
        if folder.name not in file.scores:
            file.scores[folder.name] = measure(folder, arguments)
            file.save()
    found = [file.scores[folder.name] for folder in arguments.items]
    rows = []
    for name in ("before", "after"):
        for key in COLUMNS:
            middle, least, most = summary([scores[name] for scores in found], key)
            rows.append([f"{key}, {name}", f"{middle:.3f}", f"{least:.3f}", f"{most:.3f}"])
    print(f"{len(found)} items\n")
    print(markdown_table(["score", "median", "least", "greatest"], rows))


if __name__ == "__main__":
    run_script(main, Arguments)
