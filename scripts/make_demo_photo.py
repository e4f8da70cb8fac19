"""Render the demo's photo: a procedural animal, cut out on transparency. No photograph is needed to try viewloom.

Example: python scripts/make_demo_photo.py docs/demo/photo.png
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from PIL import Image

from pipeline.training.data.samples import to_bytes
from pipeline.training.procedural import random_object
from scene.camera import orbit_camera
from scene.files import written_aside
from scene.render import MeshRenderer


@dataclass(frozen=True)
class Arguments:
    """Render the demo's photo."""

    out: tyro.conf.Positional[Path]
    """File to write."""
    seed: int = 1001
    """Of the object."""
    family: str = "creature"
    """Of the object."""
    side: int = 512
    """Of the picture, pixels."""


def main(arguments: Arguments) -> None:
    """Render and write."""
    renderer = MeshRenderer(random_object(arguments.seed, arguments.family), smooth=False)
    rgba = renderer.render(orbit_camera(0.7, np.radians(18), size=arguments.side), samples=16).rgba
    with written_aside(arguments.out) as partial:
        Image.fromarray(to_bytes(rgba)).save(partial)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
