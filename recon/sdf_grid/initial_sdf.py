"""What the fit starts from: signed distances to the visual hull at any resolution, carved by depth maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from recon.sdf_grid import kernels
from recon.sdf_grid.narrow_band import camera_rows
from recon.sdf_grid.supervision import SupervisionMaps
from recon.settings import FitSettings
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull, signed_distance
from scene.voxel_grid import VoxelGrid


@dataclass(eq=False)
class InitialSDF:
    """Hulls at any resolution, without what depth maps see through.

    Args:
        rays: the views.
        hull: of the views, on a coarse grid.
        settings: of the fit.
        prior: occupancy probability over the cube ``[-half_extent, half_extent]^3``, if there is one.
        maps: depth and normal maps, if there are any.
    """

    rays: RaySet
    hull: Hull
    settings: FitSettings
    prior: Float[Tensor, "p p p"] | None = None
    maps: SupervisionMaps | None = None

    def box(self, level: int, margin: float = 5.0) -> VoxelGrid:
        """The grid about the hull for a level (side of a cube with as many voxels), with a margin in voxels."""
        low, high = self._corners
        voxel = VoxelGrid.around(low, high, level**3).voxel
        return VoxelGrid.of_voxel(low - margin * voxel, high + margin * voxel, voxel)

    def distances(self, box: VoxelGrid) -> Float[np.ndarray, "x y z"]:
        """Signed distance to the carved hull, in voxels of the box."""
        inside = self._inside(box, 0.0)
        if not (inside >= self.hull.threshold).any():  # too coarse for a thin thing
            inside = np.where(inside >= inside.max(), self.hull.threshold, inside)
        distance = signed_distance(inside, self.hull.threshold, box.shape[0] / 2)
        return distance if self.maps is None else self.maps.carved(distance, box)

    @cached_property
    def _corners(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Of what the masks may hold, including parts that lie between the voxel centres of the hull."""
        half = self.settings.half_extent
        voxel = 2 * half / self.hull.sdf.shape[0]
        cube = VoxelGrid(np.full(3, -half), voxel, self.hull.sdf.shape)
        wide = self._inside(cube, math.sqrt(0.75) * voxel) >= self.hull.threshold
        solid = np.argwhere(wide | (self.hull.sdf < voxel))
        low, high = cube.low + solid.min(0) * voxel, cube.low + (solid.max(0) + 1) * voxel
        if self.prior is None:
            return low, high
        # A prior that outvotes the masks lacks thin parts; the photo shows how wide they are, about half-way back.
        row, column = np.nonzero(self.rays.alpha[0].numpy() >= 0.5)
        photo = self.rays.cameras[0]
        depth = float(photo.project((low + high)[None] / 2)[1][0])
        if len(row) == 0 or depth <= 0:
            return low, high
        shown = photo.unproject(np.stack([column + 0.5, row + 0.5], axis=-1), np.full(len(row), depth))
        return np.minimum(low, shown.min(0)).clip(-half, half), np.maximum(high, shown.max(0)).clip(-half, half)

    def _inside(self, box: VoxelGrid, margin: float) -> Float[np.ndarray, "x y z"]:
        """Fraction of the masks that cover a voxel's centre, or anything within ``margin`` (world units) of it."""
        votes, total = np.zeros(box.shape, np.float32), np.zeros(box.shape, np.float32)
        for k, row in enumerate(camera_rows(self.rays.cameras, box)):
            alpha, camera = np.ascontiguousarray(self.rays.alpha[k].numpy()), self.rays.cameras[k]
            if margin > 0:
                # About as many pixels as it covers in the middle of the scene.
                pixels = math.ceil(margin * camera.fx / max(float(np.linalg.norm(camera.centre)), margin))
                alpha = ndimage.maximum_filter(alpha, size=2 * pixels + 1)
            held = self.rays.known[k]
            known = np.ones((1, 1), bool) if held is None else np.ascontiguousarray(held.numpy())
            kernels.vote_masks(alpha, known, row, np.float32(self.rays.weight[k]), self.rays.shows_all(k), votes, total)
        inside = np.where(total > 0, votes / np.maximum(total, 1e-6), 0)
        if self.prior is not None and self.settings.prior_weight > 0:
            inside = inside + self.settings.prior_weight * self._prior_at(box)
            inside = inside / (1 + self.settings.prior_weight)
        return inside

    def _prior_at(self, box: VoxelGrid) -> Float[np.ndarray, "x y z"]:
        assert self.prior is not None
        axes = [torch.from_numpy(a / self.settings.half_extent).float() for a in box.centres()]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1)[None]
        return F.grid_sample(self.prior[None, None].float(), grid, align_corners=False)[0, 0].numpy()
