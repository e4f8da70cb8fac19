"""Run photos through `image2mesh` and put photo, cut-out, views and turntable of each into one picture.

Example: python scripts/contact_sheet.py PHOTO... --out OUT --sheet docs/pictures/photos.jpg
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from pipeline.evaluation.script import run_script
from pipeline.evaluation.sheets import Tile, text_tile, tile, write_sheet
from pipeline.evaluation.tables import table_head, table_row
from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.progress import ConsoleReporter
from pipeline.jobs.settings import Image2MeshSettings
from pipeline.jobs.stages.asset import AssetReport
from scene.viewset import ViewSet

COLUMNS = "photo", "triangles", "watertight", "glTF errors, warnings", "checked by", "mask agreement", "surface"


@dataclass(frozen=True)
class Arguments:
    """Make a contact sheet of photos and their assets."""

    photos: tyro.conf.Positional[tuple[Path, ...]]
    """Photos."""
    out: Path
    """Where the jobs write; finished ones are kept."""
    sheet: Path
    """The picture to write."""
    views: int = 6
    """Generated views shown of each."""
    frames: int = 6
    """Turntable frames shown of each."""
    side: int = 128
    """Side of each tile."""
    settings: Image2MeshSettings = Image2MeshSettings()
    """Settings of the jobs."""


def row(photo: Path, result: ItemResult, arguments: Arguments) -> list[Tile]:
    """Tiles of one photo."""
    side = arguments.side
    tiles = [tile(Image.open(photo), side)]
    if result.error is not None:
        return [*tiles, text_tile(str(result.error)[:90], side * 4, side)]
    folder = result.folder
    tiles.append(tile(Image.open(folder / "prepare" / "framed.png"), side))
    views = list(ViewSet.load(folder / "views"))[1:]
    for k in np.linspace(0, len(views) - 1, arguments.views).round().astype(int):
        tiles.append(tile(Image.fromarray(views[k].rgba()), side))
    with Image.open(folder / "asset" / "turntable.webp") as animation:
        count = animation.n_frames  # type: ignore[attr-defined]
        for k in range(arguments.frames):
            animation.seek(k * count // arguments.frames)
            tiles.append(tile(animation.convert("RGB"), side))
    return tiles


def checks(result: ItemResult) -> str:
    """What the checks of an asset said, as a row of a table."""
    if result.error is not None:
        return f"| {result.name} | failed: {result.error} |"
    asset = AssetReport.read(result.folder / "asset" / "asset.json")
    cells = result.name, asset.health.faces, asset.health.watertight
    found = f"{asset.validator_errors}, {asset.validator_warnings}", asset.validator
    return table_row([*cells, *found, asset.surface.mask_consistency or "-", asset.surface.kept])


def main(arguments: Arguments) -> None:
    """Run the jobs, assemble the sheet, print what the checks said."""
    with ConsoleReporter() as reporter:
        results = image2mesh(arguments.photos, arguments.out, arguments.settings, reporter=reporter)
    rows = [row(photo, result, arguments) for photo, result in zip(arguments.photos, results, strict=True)]
    write_sheet(rows, arguments.sheet)
    print("\n".join([table_head(COLUMNS), *map(checks, results)]))


if __name__ == "__main__":
    run_script(main, Arguments)
