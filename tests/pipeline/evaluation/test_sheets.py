"""Contact sheets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.evaluation.sheets import text_tile, tile, write_sheet


def test_tiles_are_square_and_transparency_is_white() -> None:
    wide = tile(Image.new("RGBA", (40, 10), (255, 0, 0, 255)), 20)
    assert wide.size == (20, 20)
    assert wide.getpixel((10, 10)) == (255, 0, 0)
    assert wide.getpixel((10, 1)) == (255, 255, 255)
    assert tile(Image.new("RGBA", (9, 9), (9, 9, 9, 0)), 9).getpixel((4, 4)) == (255, 255, 255)


def test_rows_of_unequal_length_fit_on_a_sheet(tmp_path: Path) -> None:
    red, failed = Image.new("RGB", (16, 16), "red"), text_tile("no", 48, 16)
    write_sheet([[red], [red, failed]], tmp_path / "folder" / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "folder" / "sheet.png"))
    assert sheet.shape == (32, 64, 3)
    assert (sheet[0, 0] == (255, 0, 0)).all()
    assert (sheet[0, -1] == 255).all()
