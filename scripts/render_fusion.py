"""Render rings of views of procedural objects as latents, which ViewFusion is trained on.

Example: python scripts/render_fusion.py --out RINGS --count 8000 --workers 1
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from pipeline.training.data.fusion_rings import FusionRingSettings, extend_rings
from scene.resources import default_weights


@dataclass(frozen=True)
class Arguments:
    """Render rings of views as latents; a second run continues the first, and trainings may read meanwhile."""

    out: Path
    """Folder of the rings (about 0.1 MB each)."""
    count: int = 8000
    """Objects that the folder is to hold."""
    weights: Path | None = None
    """Checkpoint with the VAE; the embedded one by default."""
    rings: FusionRingSettings = FusionRingSettings()
    """How rings are rendered."""
    seed: int = 0
    """Objects of different seeds are different."""
    workers: int = 1
    """Processes of one thread each; 0 works in this one."""


def main(arguments: Arguments) -> None:
    """Fill the folder up to the count."""
    vae = (arguments.weights or default_weights()) / "vae"
    extend_rings(arguments.out, vae, arguments.rings, arguments.count, seed=arguments.seed, workers=arguments.workers)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
