"""Grids of cubic voxels in the world: where their centres are, and grid coordinates of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """A grid of cubic voxels in the world.

    Args:
        low: the corner with the smallest coordinates.
        voxel: side of a voxel, world units.
        shape: voxels along x, y, z.
    """

    low: Float[np.ndarray, "3"]
    voxel: float
    shape: tuple[int, int, int]

    @property
    def high(self) -> Float[np.ndarray, "3"]:
        """The opposite corner."""
        return self.low + self.voxel * np.array(self.shape)

    @classmethod
    def around(cls, low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], voxels: int) -> VoxelGrid:
        """A box of about ``voxels`` cubic voxels, centred on the one given and at least as large."""
        size = np.maximum(np.asarray(high, float) - low, 1e-6)
        voxel = float(np.cbrt(np.prod(size) / voxels))
        return cls.of_voxel(low, high, voxel)

    @classmethod
    def of_voxel(cls, low: Float[np.ndarray, "3"], high: Float[np.ndarray, "3"], voxel: float) -> VoxelGrid:
        """A box of voxels of a given side, centred on the one given and at least as large."""
        shape = np.maximum(np.ceil((np.asarray(high, float) - low) / voxel - 1e-6).astype(int), 8)
        middle = (np.asarray(low, float) + high) / 2
        return cls(middle - shape * voxel / 2, voxel, (int(shape[0]), int(shape[1]), int(shape[2])))

    def to_grid(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Grid coordinates of world points; the first voxel's centre is 0."""
        return (points - self.low) / self.voxel - 0.5

    def coordinates_in(self, other: VoxelGrid) -> Float[np.ndarray, "3 x y z"]:
        """Grid coordinates of this grid's voxel centres in another grid: what resampling looks up."""
        where = np.stack(np.meshgrid(*self.centres(), indexing="ij"))
        return (where - other.low[:, None, None, None]) / other.voxel - 0.5

    def centres(self) -> tuple[Float[np.ndarray, "x"], Float[np.ndarray, "y"], Float[np.ndarray, "z"]]:
        """World coordinates of voxel centres along each axis."""
        x, y, z = (self.low[a] + (np.arange(self.shape[a]) + 0.5) * self.voxel for a in range(3))
        return x, y, z
