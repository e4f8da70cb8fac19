"""A signed distance grid of which only a narrow band is learned: memory and time follow the surface."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from recon.sdf_grid import band_kernels, kernels
from scene.camera import Camera
from scene.voxel_grid import VoxelGrid


def camera_rows(cameras: tuple[Camera, ...], box: VoxelGrid) -> Float[np.ndarray, "v 16"]:
    """Cameras as the kernels want them, in grid coordinates: centre, rotation by rows, fx, fy, cx, cy."""
    rows = [
        np.concatenate([box.to_grid(c.centre), c.c2w[:3, :3].reshape(-1), [c.fx, c.fy, c.cx, c.cy]]) for c in cameras
    ]
    return np.array(rows, np.float32).reshape(-1, 16)


@dataclass(eq=False)
class NarrowBandSDF:
    """Distances (voxels, positive outside) and albedo about the surface, with their Adam moments.

    :meth:`refresh` must be called when the surface has moved; it keeps what was learned near the surface and completes
    the distances elsewhere.

    Args:
        box: the grid.
        grid: signed distance at voxel centres, voxels.
        width: half the width of the band, voxels: voxels nearer to the surface than this have a slot.

    Attributes:
        index: slot of each voxel; those outside the band have the last slot, whose gradients are not used.
        cells: voxel of each slot; near: slots of its six neighbours.
        colour: albedo of each slot, sRGB.
        shading: colours are albedo times ``1 + shading . normal`` (Lambertian light from all sides).
        steps: that were taken; mean_square: running mean of the squared gradients of the distances.
    """

    box: VoxelGrid
    grid: Float[np.ndarray, "x y z"]
    width: float = 4.5
    index: Int[np.ndarray, "x y z"] = field(init=False)
    cells: Int[np.ndarray, "s 3"] = field(init=False)
    near: Int[np.ndarray, "s 6"] = field(init=False)
    colour: Float[np.ndarray, "t 3"] = field(init=False)
    moments_sdf: Float[np.ndarray, "s 2"] = field(init=False)
    moments_colour: Float[np.ndarray, "s 3 2"] = field(init=False)
    grad_sdf: Float[np.ndarray, "l t"] = field(init=False)
    grad_colour: Float[np.ndarray, "l t 3"] = field(init=False)
    steps: int = 0
    shading: Float[np.ndarray, "3"] = field(default_factory=lambda: np.zeros(3, np.float32))
    grad_shading: Float[np.ndarray, "l 3"] = field(default_factory=lambda: np.zeros((kernels.LANES, 3), np.float32))
    moments_shading: Float[np.ndarray, "3 2"] = field(default_factory=lambda: np.zeros((3, 2)))
    mean_square: float = 0.0

    def __post_init__(self) -> None:
        self.grid = np.ascontiguousarray(self.grid, np.float32)
        self._select()
        count = len(self.cells)
        self.colour = np.full((count + 1, 3), 0.5, np.float32)
        self.moments_sdf = np.zeros((count, 2), np.float32)
        self.moments_colour = np.zeros((count, 3, 2), np.float32)

    def _select(self) -> None:
        near = np.abs(self.grid) < self.width
        for axis in range(3):  # regularity looks at neighbours
            for end in (0, -1):
                np.moveaxis(near, axis, 0)[end] = False
        self.cells = np.argwhere(near).astype(np.int32)
        self.index = np.full(self.grid.shape, len(self.cells), np.int32)
        self.index[near] = np.arange(len(self.cells), dtype=np.int32)
        self.near = np.empty((len(self.cells), 6), np.int32)
        band_kernels.find_neighbours(self.index, self.cells, self.near)
        self.grad_sdf = np.zeros((kernels.LANES, len(self.cells) + 1), np.float32)
        self.grad_colour = np.zeros((kernels.LANES, len(self.cells) + 1, 3), np.float32)
        self._slope = np.zeros((len(self.cells) + 1, 3), np.float32)
        self._bend = np.zeros(len(self.cells) + 1, np.float32)
        self._total = np.zeros(len(self.cells) + 1, np.float32)

    @property
    def field(self) -> kernels.Field:
        """As the kernels take it."""
        return kernels.Field(self.grid, self.index, self.colour, self.shading)

    def refresh(self) -> None:
        """Complete distances away from the surface, and move the band with it."""
        old_index, old_colour = self.index, self.colour
        old_sdf, old_moments = self.moments_sdf, self.moments_colour
        self.grid = redistanced(self.grid)
        self._select()
        before = old_index[tuple(self.cells.T)]
        known = before < len(old_sdf)
        count = len(self.cells)
        self.colour = np.empty((count + 1, 3), np.float32)
        self.colour[-1] = old_colour[-1]
        self.colour[:-1] = old_colour[before]
        self.moments_sdf = np.zeros((count, 2), np.float32)
        self.moments_colour = np.zeros((count, 3, 2), np.float32)
        self.moments_sdf[known] = old_sdf[before[known]]
        self.moments_colour[known] = old_moments[before[known]]

    def regularise(self, eikonal: float, laplacian: float, albedo_tv: float = 0.0) -> None:
        """Add weighted gradients of eikonal and thin-plate energies and of the albedo's total variation."""
        if not len(self.cells):  # the surface is lost
            return
        if albedo_tv > 0:
            band_kernels.add_albedo_tv(self.near, self.colour, albedo_tv, np.float32(0.02), self.grad_colour[0])
        band_kernels.add_regularity(
            self.grid, self.cells, self.near, eikonal, laplacian, self._slope, self._bend, self.grad_sdf[0]
        )

    def step(self, rate_sdf: float, rate_colour: float, *, blur: int = 0, floor: float = 1.0) -> None:
        """Move distances and colours along their gradients, and clear these.

        Args:
            rate_sdf: typical change of a distance, voxels.
            rate_colour: typical change of a colour.
            blur: passes of blur over the distances' gradient, so that neighbours move together.
            floor: fraction of the mean second moment that every voxel's own has at least.
        """
        self.steps += 1
        self.grad_sdf[:, -1] = 0
        self.grad_colour[:, -1] = 0
        band_kernels.sum_lanes(self.grad_sdf, self._total)
        for _ in range(blur):
            band_kernels.blur_band(self.near, self._total, self._bend)
            self._total, self._bend = self._bend, self._total
            self._total[-1] = 0
        sums = self._total.astype(np.float64)
        moved = max(1, int(np.count_nonzero(self._total)))
        mean = float(sums @ sums) / moved
        self.mean_square = mean if self.steps == 1 else 0.97 * self.mean_square + 0.03 * mean
        band_kernels.move_band(
            self.grid,
            self.cells,
            self._total,
            self.moments_sdf,
            self.steps,
            np.float32(rate_sdf),
            np.float32(floor * self.mean_square + 1e-30),
            np.float32(4 * rate_sdf),
        )
        band_kernels.colour_step(
            self.cells, self.colour, self.grad_colour, self.moments_colour, self.steps, np.float32(rate_colour)
        )

    def step_shading(self, rate: float) -> None:
        """One Adam step of the Lambertian shading."""
        gradient = self.grad_shading.sum(axis=0).astype(np.float64)
        self.grad_shading[:] = 0
        first, second = self.moments_shading[:, 0], self.moments_shading[:, 1]
        first += 0.1 * (gradient - first)
        second += 0.05 * (gradient**2 - second)
        step = rate * (first / (1 - 0.9**self.steps)) / (np.sqrt(second / (1 - 0.95**self.steps)) + 1e-12)
        self.shading -= step.astype(np.float32)
        size = float(np.linalg.norm(self.shading))
        if size > 0.6:  # never dark enough to hide a colour
            self.shading *= np.float32(0.6 / size)

    def dense_colour(self) -> Float[np.ndarray, "x y z 3"]:
        """Colour of every voxel; those outside the band take the nearest one's."""
        nearest = ndimage.distance_transform_edt(
            self.index == len(self.cells), return_distances=False, return_indices=True
        )
        return self.colour[self.index[tuple(nearest)]]


def redistanced(grid: Float[np.ndarray, "x y z"], keep: float = 1.5) -> Float[np.ndarray, "x y z"]:
    """Distances (voxels) completed from those within ``keep`` of the surface."""
    size = np.abs(grid)
    # Voxels next to a change of sign are the only ones whose distance is sure to be the surface's.
    solid = grid < 0
    crossing = np.zeros(grid.shape, bool)
    for axis in range(3):
        a = [slice(None)] * 3
        b = [slice(None)] * 3
        a[axis], b[axis] = slice(None, -1), slice(1, None)
        change = solid[tuple(a)] != solid[tuple(b)]
        crossing[tuple(a)] |= change
        crossing[tuple(b)] |= change
    known = np.where(crossing, np.minimum(size, 1.7), np.float32(1e6)).astype(np.float32)
    band_kernels.spread_distance(known)
    # Near the surface the learned values stay, unless they claim a surface that is not there.
    out = np.where((size < keep) & (known < 2 * keep), size, known)
    return np.where(solid, -out, out).astype(np.float32)
