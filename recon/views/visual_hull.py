"""The soft visual hull: what most masks agree is inside, as a signed distance grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from recon.views.ray_set import RaySet
from scene.errors import InputError
from scene.volume_rendering import ray_box_span
from scene.voxel_grid import VoxelGrid


@dataclass(frozen=True, eq=False)
class Hull:
    """A voted hull.

    Args:
        inside: fraction of the (weighted) masks that say inside, per voxel; axes (x, y, z).
        sdf: signed distance to the chosen level of ``inside``, positive outside, world units.
        threshold: the chosen level.
        silhouette_iou: mean weighted IoU of the hull's silhouettes with the masks; 1 if the masks fit one solid.
    """

    inside: Float[np.ndarray, "r r r"]
    sdf: Float[np.ndarray, "r r r"]
    threshold: float
    silhouette_iou: float


def cube_points(resolution: int, half: float, device: torch.device = torch.device("cpu")) -> Float[Tensor, "n 3"]:
    """Voxel centres of the cube ``[-half, half]^3``, z running fastest."""
    axis = (torch.arange(resolution, device=device) + 0.5) / resolution * 2 * half - half
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)


def vote_inside(
    rays: RaySet, resolution: int, half: float, prior: Float[Tensor, "p p p"] | None = None, prior_weight: float = 0.0
) -> Float[np.ndarray, "r r r"]:
    """Fraction of the views that vote on a voxel whose mask covers it, weighted by the views' confidence.

    Who votes on what: see :meth:`recon.views.ray_set.RaySet.votes`. A voxel that no view votes on is outside.

    Args:
        rays: the views.
        resolution: voxels along each side of the cube ``[-half, half]``.
        half: half side of the cube.
        prior: an occupancy estimate over the same cube that votes like ``prior_weight`` times all views together.
    """
    device = rays.weight.device
    points = cube_points(resolution, half, device)
    total, votes = torch.zeros(len(points), device=device), torch.zeros(len(points), device=device)
    for k in range(len(rays)):
        cover, voted = rays.votes(k, points)
        votes += rays.weight[k] * cover * voted
        total += rays.weight[k] * voted
    inside = torch.where(total > 0, votes / total.clamp(min=1e-6), 0.0)
    if prior is not None and prior_weight > 0:
        wide = F.interpolate(
            prior[None, None].float().to(device), (resolution,) * 3, mode="trilinear", align_corners=False
        )[0, 0]
        inside = (inside + prior_weight * wide.reshape(-1)) / (1 + prior_weight)
    return inside.reshape(resolution, resolution, resolution).cpu().numpy()


def signed_distance(inside: Float[np.ndarray, "x y z"], level: float, half: float) -> Float[np.ndarray, "x y z"]:
    """Signed distance (positive outside, world units) to a level set of a soft grid, accurate below a voxel near it.

    ``half`` is half the grid's extent along x.
    """
    solid = inside >= level
    voxel = 2 * half / inside.shape[0]
    if not solid.any():
        raise InputError("the masks have no common inside", fix="Check that the cameras look at the same object.")
    if solid.all():
        raise InputError("the masks cover all there is", fix="Check the masks: black must be what is not the object.")
    outside = ndimage.distance_transform_edt(~solid)
    within = ndimage.distance_transform_edt(solid)
    # Voxel centres are half a voxel from the boundary between voxels.
    distance = np.where(solid, 0.5 - within, outside - 0.5)
    smooth = ndimage.gaussian_filter(distance, 0.6)
    # Smoothing must not change what is inside: a rod of one voxel would be gone.
    return (np.where((smooth < 0) == solid, smooth, distance) * voxel).astype(np.float32)


def visual_hull(
    rays: RaySet,
    resolution: int,
    half: float,
    *,
    threshold: float | None = None,
    prior: Float[Tensor, "p p p"] | None = None,
    prior_weight: float = 0.0,
) -> Hull:
    """The hull whose silhouettes match the masks best.

    Args:
        rays: the views.
        resolution: voxels along each side.
        half: half side of the cube.
        threshold: fraction of the masks that must cover a voxel; by default several are tried on a coarse grid. Masks
            that fit one solid choose nearly 1, contradicting ones less.
        prior, prior_weight: as in :func:`vote_inside`.

    Raises:
        InputError: no voxel is inside.
    """
    coarse = vote_inside(rays, min(48, resolution), half, prior, prior_weight)
    levels = [threshold] if threshold is not None else [0.99, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5]
    scores = [silhouette_iou(rays, torch.from_numpy(coarse), level, half) for level in levels]
    best = int(np.argmax(scores))
    inside = vote_inside(rays, resolution, half, prior, prior_weight)
    return Hull(inside, signed_distance(inside, levels[best], half), levels[best], scores[best])


def silhouette_iou(
    rays: RaySet, inside: Float[Tensor, "x y z"], level: float, extent: float | VoxelGrid, size: int = 48
) -> float:
    """Weighted mean IoU between the silhouettes of a level set and the masks, at ``size`` pixels.

    Args:
        rays: the views.
        inside: the grid; at or above ``level`` is inside.
        level: see there.
        extent: the grid's box, or half the side of a cube about the origin.
        size: longest side of the compared silhouettes.
    """
    device = rays.weight.device
    solid = (inside.to(device) >= level).float()[None, None]
    half = np.full(3, extent) if isinstance(extent, float) else (extent.high - extent.low) / 2
    middle = np.zeros(3) if isinstance(extent, float) else (extent.low + extent.high) / 2
    extents, centre = (torch.from_numpy(v).float().to(device) for v in (half, middle))
    steps = 2 * max(inside.shape)
    spread = (torch.arange(steps, device=device) + 0.5) / steps
    total = weight = 0.0
    for k in range(len(rays)):
        origin, direction, mask, known = rays.small(k, size)
        near, far = ray_box_span(origin - centre, direction, -extents, extents)
        t = near[:, None] + (far - near).clamp(min=0)[:, None] * spread
        points = (origin - centre)[:, None] + direction[:, None] * t[..., None]
        values = F.grid_sample(solid, (points / extents).flip(-1)[None, None], align_corners=False)[0, 0, 0]
        found, mask = (values.amax(-1) > 0.5) & (far > near) & known, mask & known
        either = float((found | mask).sum())
        total += float(rays.weight[k]) * (float((found & mask).sum()) / either if either else 1.0)
        weight += float(rays.weight[k])
    return total / max(weight, 1e-6)
