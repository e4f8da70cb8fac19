"""A fit without masks in the middle, on disk: of its volume, or of the surface that was started from the volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from recon.sdf_grid.checkpoint import FitState, fit_digest, read_state, write_state
from recon.settings import FitSettings
from recon.unmasked.radiance_volume import OptimizerState, RadianceVolume
from recon.views.ray_set import RaySet
from scene.voxel_grid import VoxelGrid

_VERSION = 2
"""Of the states; raised when a fit goes on differently from the same state."""


def scene_digest(rays: RaySet, settings: FitSettings) -> str:
    """Names all that a fit without masks depends on."""
    return f"scene {_VERSION} {fit_digest(rays, settings, None)}"


@dataclass(frozen=True, eq=False)
class SceneState:
    """Everything that the rest of a fit depends on.

    Args:
        inner, outer: grids of the volume.
        level: of the volume.
        digest: of what the fit depends on, see :func:`scene_digest`.
        optimizer: state of the volume's fit, while it lasts.
        band: the surface's fit, once it has begun. How it started is worked out from the volume again, which is
            smaller than what every pixel sees behind the surface.
    """

    inner: Float[np.ndarray, "x y z 4"]
    outer: Float[np.ndarray, "s s s 4"]
    level: int
    digest: str
    optimizer: OptimizerState | None = None
    band: FitState | None = None

    def save(self, path: Path) -> None:
        """Write aside and rename."""
        plain: dict[str, Any] = {"level": self.level, "digest": self.digest, "optimizer": None, "band": None}
        arrays = {"inner": self.inner, "outer": self.outer}
        if self.optimizer is not None:
            plain["optimizer"] = {"step": self.optimizer.step, "rng": self.optimizer.rng.bit_generator.state}
            arrays["moments_inner"], arrays["moments_outer"] = self.optimizer.moments
        if self.band is not None:
            plain["band"], of_band = self.band.packed()
            arrays |= {f"band_{name}": array for name, array in of_band.items()}
        write_state(path, plain, arrays)

    @classmethod
    def resume(cls, path: Path, digest: str) -> SceneState | None:
        """Read a state; None if there is none, if it is damaged, or if it belongs to another fit."""
        found = read_state(path, digest)
        if found is None:
            return None
        plain, arrays = found
        optimizer = band = None
        if plain["optimizer"] is not None:
            rng = np.random.default_rng()
            rng.bit_generator.state = plain["optimizer"]["rng"]
            moments = arrays["moments_inner"], arrays["moments_outer"]
            optimizer = OptimizerState(moments, rng, plain["optimizer"]["step"])
        if plain["band"] is not None:
            of_band = {name[5:]: array for name, array in arrays.items() if name.startswith("band_")}
            band = FitState.unpacked(plain["band"], of_band)
        return cls(arrays["inner"], arrays["outer"], plain["level"], plain["digest"], optimizer, band)

    def volume(self, box: VoxelGrid, background: tuple[int, int]) -> RadianceVolume:
        """The volume as it was, for going on with."""
        return RadianceVolume(box, self.inner, self.outer, background)
