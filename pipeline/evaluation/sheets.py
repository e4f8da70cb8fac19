"""Contact sheets: tiles of one size, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from scene.files import written_aside

Tile = Image.Image


def tile(image: Image.Image, side: int) -> Tile:
    """A square tile on white."""
    image = image.convert("RGBA")
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    white = Image.new("RGBA", (side, side), "white")
    white.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return white.convert("RGB")


def text_tile(text: str, width: int, side: int) -> Tile:
    """A tile that holds a line of red text in place of an image that could not be made."""
    out = Image.new("RGB", (width, side), "white")
    ImageDraw.Draw(out).text((4, side // 2), text, fill="red")
    return out


def write_sheet(rows: Sequence[Sequence[Tile]], path: Path, quality: int = 88) -> None:
    """Write rows of tiles of the same height as one image."""
    side = rows[0][0].height
    width = max(sum(t.width for t in tiles) for tiles in rows)
    sheet = Image.new("RGB", (width, side * len(rows)), "white")
    for y, tiles in enumerate(rows):
        x = 0
        for t in tiles:
            sheet.paste(t, (x, y * side))
            x += t.width
    with written_aside(path) as partial:
        sheet.save(partial, quality=quality)
