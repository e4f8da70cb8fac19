"""A fit in the middle, on disk: a fit that continues from it gives the same bytes as one that was never stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recon.sdf_grid.narrow_band import NarrowBandSDF
from recon.settings import FitSettings
from recon.views.ray_set import RaySet
from scene.archives import npz_archive
from scene.documents import parse_json
from scene.errors import InputError
from scene.files import written_aside
from scene.voxel_grid import VoxelGrid

_MEMBERS = "arrays"
"""Key of the arrays' names among the numbers."""
_VERSION = 2
"""Of the states; raised when a fit goes on differently from the same state."""


def fit_digest(
    rays: RaySet, settings: FitSettings, prior: Float[np.ndarray, "p p p"] | None, maps: Sequence[np.ndarray] = ()
) -> str:
    """Names all that a fit depends on: only a fit of the same name may continue from its state."""
    digest = hashlib.sha256(json.dumps([_VERSION, asdict(settings), len(rays)]).encode())
    arrays = [rays.weight.numpy(), np.zeros(0) if prior is None else prior]
    for camera, colour, alpha, known in zip(rays.cameras, rays.colour, rays.alpha, rays.known, strict=True):
        lens = [camera.fx, camera.fy, camera.cx, camera.cy]
        arrays += [np.array(camera.c2w, np.float64), np.array(lens, np.float64), colour.numpy(), alpha.numpy()]
        arrays += [] if known is None else [known.numpy()]
    for array in (*arrays, *maps):
        # Shapes, too: the same numbers in other rows are another picture.
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def write_state(path: Path, plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write numbers and arrays aside and rename; ``plain["digest"]`` names the fit."""
    text = json.dumps({**plain, _MEMBERS: sorted(arrays)})
    with written_aside(path) as partial, partial.open("wb") as file:
        np.savez(file, text=np.array(text), **arrays)  # type: ignore[arg-type]


def read_state(path: Path, digest: str) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """Read what was written; None if there is nothing, if it is damaged, or if it belongs to another fit."""
    try:
        with npz_archive(path) as data:
            plain = parse_json(data.text("text"), path)
            if plain["digest"] != digest:
                return None
            members = plain.pop(_MEMBERS)
            # A name that is damaged would be a member that is missing.
            if set(members) != data.names - {"text"}:
                return None
            return plain, {name: data.array(name) for name in members}
    except (InputError, KeyError, TypeError):
        return None


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
        band: NarrowBandSDF,
        first: Float[np.ndarray, "x y z"],
        level: int,
        iteration: int,
        rng: np.random.Generator,
        limits: tuple[float, float],
        digest: str,
    ) -> FitState:
        """The state of a running fit."""
        names = ("grid", "colour", "moments_sdf", "moments_colour", "shading", "moments_shading")
        plain = {
            "low": band.box.low.tolist(),
            "voxel": band.box.voxel,
            "width": band.width,
            "steps": band.steps,
            "mean_square": band.mean_square,
        }
        arrays = {name: getattr(band, name) for name in names}
        return cls(arrays, plain, first, level, iteration, rng.bit_generator.state, limits, digest)

    def packed(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Numbers and arrays, for :func:`write_state`."""
        names = ("level", "iteration", "rng", "limits", "digest")
        return {**self.plain, **{name: getattr(self, name) for name in names}}, {"first": self.first, **self.arrays}

    @classmethod
    def unpacked(cls, plain: dict[str, Any], arrays: dict[str, np.ndarray]) -> FitState:
        """The state of which these are the numbers and arrays."""
        plain, arrays = dict(plain), dict(arrays)
        level, iteration, rng, limits, digest = (
            plain.pop(name) for name in ("level", "iteration", "rng", "limits", "digest")
        )
        low, high = limits
        return cls(arrays, plain, arrays.pop("first"), level, iteration, rng, (low, high), digest)

    def save(self, path: Path) -> None:
        """Write aside and rename."""
        write_state(path, *self.packed())

    @classmethod
    def resume(cls, path: Path, digest: str) -> FitState | None:
        """Read a state; None if there is none, if it is damaged, or if it belongs to another fit."""
        found = read_state(path, digest)
        return None if found is None else cls.unpacked(*found)

    def band(self) -> NarrowBandSDF:
        """The band as it was."""
        x, y, z = self.arrays["grid"].shape
        box = VoxelGrid(np.array(self.plain["low"]), self.plain["voxel"], (x, y, z))
        band = NarrowBandSDF(box, self.arrays["grid"].copy(), self.plain["width"])
        for name, array in self.arrays.items():
            if name != "grid":
                setattr(band, name, array.copy())
        band.steps, band.mean_square = self.plain["steps"], self.plain["mean_square"]
        return band
