"""A fit in the middle, on disk: a fit that continues from it gives the same bytes as one that was never stopped."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recon.band import Band, Box
from scene.files import written_aside


@dataclass(frozen=True, eq=False)
class FitState:
    """Everything that the rest of a fit depends on, taken right after a refresh of the band.

    Args:
        arrays: of the band, by field name.
        plain: its numbers.
        first: the level's distances at its beginning, voxels.
        level, iteration: where the fit continues.
        rng: state of the generator of ray draws.
        limits: above which errors count as contradictions.
    """

    arrays: dict[str, np.ndarray]
    plain: dict[str, Any]
    first: Float[np.ndarray, "x y z"]
    level: int
    iteration: int
    rng: Any
    limits: tuple[float, float]

    @classmethod
    def of(
        cls,
        band: Band,
        first: Float[np.ndarray, "x y z"],
        level: int,
        iteration: int,
        rng: np.random.Generator,
        limits: tuple[float, float],
    ) -> FitState:
        """The state of a running fit."""
        names = ("grid", "colour", "moments_sdf", "moments_colour", "light", "moments_light")
        plain = {
            "low": band.box.low.tolist(),
            "voxel": band.box.voxel,
            "width": band.width,
            "steps": band.steps,
            "mean_square": band.mean_square,
        }
        arrays = {name: getattr(band, name) for name in names}
        return cls(arrays, plain, first, level, iteration, rng.bit_generator.state, limits)

    def save(self, path: Path) -> None:
        """Write aside and rename."""
        text = json.dumps(
            {**self.plain, "level": self.level, "iteration": self.iteration, "rng": self.rng, "limits": self.limits}
        )
        with written_aside(path) as partial, partial.open("wb") as file:
            np.savez(file, first=self.first, text=np.array(text), **self.arrays)  # type: ignore[arg-type]

    @classmethod
    def resume(cls, path: Path) -> FitState | None:
        """Read a state; None if there is none, or none that can be used."""
        try:
            with zipfile.ZipFile(path), np.load(path, allow_pickle=False) as data:
                plain = json.loads(str(data["text"]))
                arrays = {name: data[name] for name in data.files if name not in ("first", "text")}
                level, iteration, rng = plain.pop("level"), plain.pop("iteration"), plain.pop("rng")
                low, high = plain.pop("limits")
                return cls(arrays, plain, data["first"], level, iteration, rng, (low, high))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def band(self) -> Band:
        """The band as it was."""
        x, y, z = self.arrays["grid"].shape
        box = Box(np.array(self.plain["low"]), self.plain["voxel"], (x, y, z))
        band = Band(box, self.arrays["grid"].copy(), self.plain["width"])
        for name, array in self.arrays.items():
            if name != "grid":
                setattr(band, name, array.copy())
        band.steps, band.mean_square = self.plain["steps"], self.plain["mean_square"]
        return band
