"""Run photos through `image2mesh` and put photo, cut-out, views and turntable of each into one picture.

Example: python scripts/contact_sheet.py PHOTO... --out OUT --sheet docs/pictures/photos.jpg
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

from pipeline.jobs.image2mesh import ItemResult, image2mesh
from pipeline.jobs.progress import ConsoleReporter
from pipeline.jobs.settings import Image2MeshSettings
from scene.viewset import ViewSet


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


def tile(image: Image.Image, side: int) -> Image.Image:
    """A square tile on white."""
    image = image.convert("RGBA")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", (side, side), "white")
    white.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return white.convert("RGB")


def row(photo: Path, result: ItemResult, arguments: Arguments) -> list[Image.Image]:
    """Tiles of one photo."""
    side = arguments.side
    tiles = [tile(Image.open(photo), side)]
    if result.error is not None:
        failed = Image.new("RGB", (side * 4, side), "white")
        ImageDraw.Draw(failed).text((4, side // 2), str(result.error)[:90], fill="red")
        return [*tiles, failed]
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


def main(arguments: Arguments) -> None:
    """Run the jobs, assemble the sheet, print what the checks said."""
    with ConsoleReporter() as reporter:
        results = image2mesh(arguments.photos, arguments.out, arguments.settings, reporter=reporter)
    rows = [row(photo, result, arguments) for photo, result in zip(arguments.photos, results, strict=True)]
    width = max(sum(t.width for t in tiles) for tiles in rows)
    sheet = Image.new("RGB", (width, arguments.side * len(rows)), "white")
    for y, tiles in enumerate(rows):
        x = 0
        for t in tiles:
            sheet.paste(t, (x, y * arguments.side))
            x += t.width
    arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(arguments.sheet, quality=88)
    print(
        "| photo | triangles | watertight | glTF errors, warnings | checked by | mask agreement | surface |\n"
        "|---|---|---|---|---|---|---|"
    )
    for result in results:
        if result.error is not None:
            print(f"| {result.name} | failed: {result.error} |")
            continue
        facts = json.loads((result.folder / "asset" / "asset.json").read_text(encoding="utf-8"))
        print(
            f"| {result.name} | {facts['health']['faces']} | {facts['health']['watertight']} | "
            f"{facts['validator_errors']}, {facts['validator_warnings']} | {facts['validator']} | "
            f"{facts['surface'].get('mask_consistency', '-')} | {facts['surface'].get('kept')} |"
        )


if __name__ == "__main__":
    main(tyro.cli(Arguments))
