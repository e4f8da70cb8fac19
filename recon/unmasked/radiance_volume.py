"""Radiance volumes: densities and colours of a box, and of its surroundings, fitted to pictures.

A density finds hollows and depth from any start, which a surface that can only creep cannot.

Source: DVGO (Sun et al. 2022) for direct voxel optimisation; mip-NeRF 360 (Barron et al. 2022) for the surroundings.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import ndimage

from recon.sdf_grid import kernels
from recon.sdf_grid.narrow_band import camera_rows
from recon.unmasked import radiance_kernels
from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from scene.camera import Camera
from scene.voxel_grid import VoxelGrid

_SHIFT = np.float32(-3.0)
"""Added to raw densities, so that a volume that knows nothing is nearly empty."""
_STEP = np.float32(0.8)
"""Spacing of samples in the box, voxels."""


@dataclass(eq=False)
class OptimizerState:
    """What the next steps of a volume's fit depend on, beside the volume itself.

    Args:
        moments: first and second, of the box's grid and of its surroundings'.
        rng: of the draws.
        step: steps that were taken.
    """

    moments: tuple[Float[np.ndarray, "x y z 4 2"], Float[np.ndarray, "s s s 4 2"]]
    rng: np.random.Generator
    step: int = 0

    @classmethod
    def begin(cls, volume: RadianceVolume, seed: list[int]) -> OptimizerState:
        """Before the first step."""
        inner, outer = (np.zeros((*grid.shape, 2), np.float32) for grid in (volume.inner, volume.outer))
        return cls((inner, outer), np.random.default_rng(seed))


@dataclass(eq=False)
class RadianceVolume:
    """Densities and colours of a box, and of what surrounds it.

    Args:
        box: the box.
        inner: raw density and sRGB of its voxels.
        outer: density and sRGB of the surroundings, contracted into a cube.
        background: samples in front of and behind the box.
    """

    box: VoxelGrid
    inner: Float[np.ndarray, "x y z 4"]
    outer: Float[np.ndarray, "s s s 4"]
    background: tuple[int, int]

    @classmethod
    def uniform(
        cls, box: VoxelGrid, colour: Float[np.ndarray, "3"], background: tuple[int, int], side: int = 64
    ) -> RadianceVolume:
        """A nearly empty volume of one colour."""
        inner, outer = np.zeros((*box.shape, 4), np.float32), np.zeros((side, side, side, 4), np.float32)
        inner[..., 1:] = outer[..., 1:] = colour
        return cls(box, inner, outer, background)

    def at(self, box: VoxelGrid) -> RadianceVolume:
        """The same at another resolution of the same box.

        Densities are per voxel and stay so: what was half clear is more solid on a finer grid. A start with the same
        opacity was tried, and gave a less accurate surface.
        """
        factor = np.array(box.shape) / self.box.shape
        # Both grids cover the same cube: their outermost centres do not coincide.
        inner = [ndimage.zoom(self.inner[..., c], factor, order=1, mode="nearest", grid_mode=True) for c in range(4)]
        return RadianceVolume(box, np.ascontiguousarray(np.stack(inner, -1)), self.outer, self.background)

    @property
    def frame(self) -> Float[np.ndarray, "4"]:
        """Middle of the box and radius of what is not contracted, voxels."""
        size = np.array(self.box.shape)
        return np.array([*((size - 1) / 2), size.max() / 2 * 1.2], np.float32)

    def fit(
        self,
        rays: RaySet,
        pixels: Pixels,
        optimizer: OptimizerState,
        *,
        count: int,
        steps: int,
        rate: float,
        decay: float,
    ) -> Iterator[None]:
        """Adam on random pixels, one step at a time.

        Args:
            rays: for the cameras; pixels: what is fitted.
            optimizer: how far it has come, kept up to date.
            count: rays in a step; steps: how many there are, with those that were taken before.
            rate: typical change of a raw density in a step, at first; decay: at the end, relative to that.
        """
        cameras = camera_rows(rays.cameras, self.box)
        grids = (self.inner, self.outer)
        grads = [np.zeros((kernels.LANES, *grid.shape), np.float32) for grid in grids]
        for step in range(optimizer.step, steps):
            index = pixels.draw(count, optimizer.rng)
            radiance_kernels.density_step(
                *grids,
                self.frame,
                _SHIFT,
                cameras,
                pixels.view[index],
                pixels.x[index],
                pixels.y[index],
                pixels.rgba[index, :3],
                pixels.weight[index],
                optimizer.rng.random(len(index), dtype=np.float32),
                _STEP,
                *self.background,
                *grads,
            )
            fall = decay ** (step / steps)
            for grid, grad, moment in zip(grids, grads, optimizer.moments, strict=True):
                radiance_kernels.volume_step(
                    grid,
                    np.ascontiguousarray(grid[..., 0]),
                    grad,
                    moment,
                    step + 1,
                    np.float32(rate * fall),
                    np.float32(0.03 * fall),
                    np.float32(1e-7),
                )
            optimizer.step = step + 1
            yield

    def render(
        self,
        cameras: Float[np.ndarray, "v 16"],
        view: Int[np.ndarray, "n"],
        x: Float[np.ndarray, "n"],
        y: Float[np.ndarray, "n"],
        *,
        empty: bool = False,
    ) -> Float[np.ndarray, "n 6"]:
        """Colour, opacity and distance (voxels) in the box, and opacity in front of it, of some pixels.

        Args:
            cameras: of the box, see ``camera_rows``.
            view, x, y: the pixels.
            empty: leave out what the box holds.
        """
        out = np.zeros((len(view), 6), np.float32)
        radiance_kernels.render_density(
            self.inner, self.outer, self.frame, _SHIFT, cameras, view, x, y, _STEP, *self.background, empty, out
        )
        return out

    def depth(self, camera: Camera) -> Float[np.ndarray, "h w"]:
        """Distances (voxels) to what the box holds along the rays of a camera.

        Infinite where it holds nothing, 0 where something in front of the box hides it.
        """
        y, x = np.mgrid[: camera.height, : camera.width].reshape(2, -1) + 0.5
        view = np.zeros(len(x), np.int32)
        out = self.render(camera_rows((camera,), self.box), view, x.astype(np.float32), y.astype(np.float32))
        depth = np.where(out[:, 5] > 0.3, 0, out[:, 4]).reshape(camera.height, camera.width)
        return ndimage.median_filter(depth, 3).astype(np.float32)
