"""Turntables are told from walks around a thing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from pipeline.jobs.posing.turntable import background_stands_still


def pictures(folder: Path, *, still: bool, count: int = 8, structure: float = 600.0, turns: int = 11) -> list[Path]:
    """A thing that turns in a room, or a room that one walks through."""
    rng = np.random.default_rng(0)
    room = ndimage.gaussian_filter(rng.normal(size=(64, 256)), 2) * structure + 128
    thing = ndimage.gaussian_filter(rng.normal(size=(40, 256)), 2) * 600 + 128
    found = []
    for k in range(count):
        at = 0 if still else 9 * k
        shown = room[:, at : at + 64].copy()
        shown[12:52, 12:52] = thing[:, turns * k : turns * k + 40]
        grainy = (shown + rng.normal(size=shown.shape)).clip(0, 255).astype(np.uint8)
        path = folder / f"{k:02d}.png"
        Image.fromarray(grainy).resize((320, 320), Image.Resampling.BICUBIC).save(path)
        found.append(path)
    return found


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"still": True}, True),
        ({"still": False}, False),
        ({"still": True, "structure": 2.0}, False),  # a plain wall matches nothing
        ({"still": True, "count": 4}, False),
        ({"still": True, "turns": 0}, False),
    ],
    ids=["turntable", "walk", "plain wall", "few", "nothing turns"],
)
def test_turntables_are_told_from_walks(changes: dict[str, object], told: bool, tmp_path: Path) -> None:
    assert background_stands_still(pictures(tmp_path, **changes)) is told  # type: ignore[arg-type]
