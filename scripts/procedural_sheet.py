"""Draw a contact sheet of the procedural families: a row each, a seed to a column.

Example: python scripts/procedural_sheet.py docs/pictures/procedural.jpg
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

from pipeline.training.procedural.generate import THINGS, generate
from scene.camera import orbit_camera
from scene.errors import InputError
from scene.files import written_aside
from scene.render import MeshRenderer, over_white


@dataclass(frozen=True)
class Arguments:
    """Draw a contact sheet of the procedural families; prints seconds and faces of each."""

    out: tyro.conf.Positional[Path]
    """Picture to write."""
    families: tuple[str, ...] = tuple(THINGS)
    """Families drawn."""
    seeds: int = 6
    """Objects of each."""
    first_seed: int = 0
    """The first one's seed."""
    side: int = 96
    """Side of each tile, pixels."""
    columns: int = 2
    """Families side by side."""
    quality: int = 80
    """Of the JPEG."""


def main(arguments: Arguments) -> None:
    """Make the objects, draw them, write the sheet."""
    if not arguments.families or min(arguments.seeds, arguments.side, arguments.columns) < 1:
        raise InputError("a sheet needs at least one family, seed, column and pixel")
    side, label = arguments.side, 14
    rows = -(-len(arguments.families) // arguments.columns)
    sheet = Image.new("RGB", (arguments.columns * arguments.seeds * side, rows * (side + label)), "white")
    draw = ImageDraw.Draw(sheet)
    for n, name in enumerate(arguments.families):
        left, top = n // rows * arguments.seeds * side, n % rows * (side + label)
        draw.text((left + 4, top + 1), name, fill="black")
        seconds, faces = [], []
        for k in range(arguments.seeds):
            start = time.perf_counter()
            mesh = generate(name, arguments.first_seed + k)
            seconds.append(time.perf_counter() - start)
            faces.append(len(mesh.faces))
            # Two columns show the far side: handles and tails are there.
            camera = orbit_camera(2.4 if k % 3 == 1 else 0.6, 0.35, size=side)
            picture = over_white(MeshRenderer(mesh).render(camera).rgba)
            sheet.paste(Image.fromarray(np.round(picture * 255).astype(np.uint8)), (left + k * side, top + label))
        print(
            f"{name:12s} {1e3 * float(np.median(seconds)):5.0f} ms (at most {1e3 * max(seconds):.0f}), "
            f"{min(faces)} to {max(faces)} faces"
        )
    with written_aside(arguments.out) as partial:
        sheet.save(partial, quality=arguments.quality, optimize=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
