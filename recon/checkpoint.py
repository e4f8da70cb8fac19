"""A fit in the middle, on disk: a fit that continues from it gives the same bytes as one that was never stopped."""

from __future__ import annotations

import hashlib
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recon.band import Band, Box
from recon.rays import RaySet
from recon.settings import FitSettings
from scene.files import written_aside

_VERSION = 1
"""Of the states; raised when a fit goes on differently from the same state."""


def fit_digest(rays: RaySet, settings: FitSettings, prior: Float[np.ndarray, "p p p"] | None) -> str:
    """Names all that a fit depends on: only a fit of the same name may continue from its state."""
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(settings), len(rays)]).encode())
    arrays = [rays.weight.numpy(), np.zeros(0) if prior is None else prior]
    for camera, colour, alpha in zip(rays.cameras, rays.colour, rays.alpha, strict=True):
        lens = [camera.fx, camera.fy, camera.cx, camera.cy]
        arrays += [np.array(camera.c2w, np.float64), np.array(lens, np.float64), colour.numpy(), alpha.numpy()]
    for array in arrays:
        # Shapes, too: the same numbers in other rows are another picture.
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
        digest: of what the fit depends on, see :func:`fit_digest`.
    """

    arrays: dict[str, np.ndarray]
    plain: dict[str, Any]
    first: Float[np.ndarray, "x y z"]
    level: int
    iteration: int
    rng: Any
    limits: tuple[float, float]
    digest: str

    @classmethod
    def of(
        cls,
        band: Band,
        first: Float[np.ndarray, "x y z"],
        level: int,
        iteration: int,
        rng: np.random.Generator,
        limits: tuple[float, float],
        digest: str,
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
        return cls(arrays, plain, first, level, iteration, rng.bit_generator.state, limits, digest)

    def save(self, path: Path) -> None:
        """Write aside and rename."""
        names = ("level", "iteration", "rng", "limits", "digest")
        text = json.dumps({**self.plain, **{name: getattr(self, name) for name in names}})
        with written_aside(path) as partial, partial.open("wb") as file:
            np.savez(file, first=self.first, text=np.array(text), **self.arrays)  # type: ignore[arg-type]

    @classmethod
    def resume(cls, path: Path, digest: str) -> FitState | None:
        """Read a state; None if there is none, if it is damaged, or if it belongs to another fit."""
        try:
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:
                    return None
            with np.load(path, allow_pickle=False) as data:
                plain = json.loads(str(data["text"]))
                if plain["digest"] != digest:
                    return None
                arrays = {name: data[name] for name in data.files if name not in ("first", "text")}
                first = data["first"]
        # An archive whose headers are damaged may ask for a password or for an unknown compression.
        except (OSError, ValueError, KeyError, TypeError, EOFError, RuntimeError, zipfile.BadZipFile):
            return None
        level, iteration, rng = plain.pop("level"), plain.pop("iteration"), plain.pop("rng")
        low, high = plain.pop("limits")
        return cls(arrays, plain, first, level, iteration, rng, (low, high), plain.pop("digest"))

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
