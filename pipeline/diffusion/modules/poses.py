"""Batches of cameras as tensors, for conditioning and volume rendering; conventions as in :mod:`scene.camera`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.modules.conditioning import FourthEntry
from scene.camera import DEFAULT_RADIUS, ZERO123_FOV, Camera


@dataclass(frozen=True, eq=False)
class Poses:
    """Cameras of a batch.

    Args:
        c2w: camera-to-world, OpenGL axes.
        focal: focal length over the image side.
        centre: principal point over the image side, (x, y).
    """

    c2w: Float[Tensor, "*b 4 4"]
    focal: Float[Tensor, "*b"]
    centre: Float[Tensor, "*b 2"]

    @classmethod
    def of(cls, cameras: Sequence[Camera]) -> Poses:
        """From square cameras with square pixels."""
        return cls(
            torch.tensor([c.c2w.tolist() for c in cameras], dtype=torch.float32),
            torch.tensor([c.fx / c.width for c in cameras], dtype=torch.float32),
            torch.tensor([[c.cx / c.width, c.cy / c.height] for c in cameras], dtype=torch.float32),
        )

    @classmethod
    def of_sources(cls, descriptions: Float[Tensor, "*b 4"], azimuth: Float[Tensor, "*b"] | None = None) -> Poses:
        """From source descriptions (elevation, focal, cx, cy), at azimuth 0 unless given, and the default radius."""
        elevation = descriptions[..., 0]
        azimuth = torch.zeros_like(elevation) if azimuth is None else azimuth
        orbit = torch.stack([azimuth, elevation, torch.full_like(elevation, DEFAULT_RADIUS)], -1)
        return cls(orbit_c2w(orbit), descriptions[..., 1], descriptions[..., 2:])

    @classmethod
    def of_orbits(cls, orbits: Float[Tensor, "*b 3"]) -> Poses:
        """From (azimuth, elevation, radius) with Zero123's field of view."""
        focal = torch.full_like(orbits[..., 0], 0.5 / math.tan(ZERO123_FOV / 2))
        return cls(orbit_c2w(orbits), focal, torch.full_like(orbits[..., :2], 0.5))

    def __getitem__(self, index: object) -> Poses:
        return Poses(self.c2w[index], self.focal[index], self.centre[index])  # type: ignore[index]

    def __len__(self) -> int:
        return len(self.c2w)

    def to(self, device: torch.device) -> Poses:
        """The same cameras on a device."""
        return Poses(self.c2w.to(device), self.focal.to(device), self.centre.to(device))

    def reshape(self, *shape: int) -> Poses:
        """Change the batch shape."""
        return Poses(self.c2w.reshape(*shape, 4, 4), self.focal.reshape(*shape), self.centre.reshape(*shape, 2))

    def rays(self, size: int) -> tuple[Float[Tensor, "*b 3"], Float[Tensor, "*b s s 3"]]:
        """Camera centres, and unit world directions through the pixel centres of a square image."""
        axis = (torch.arange(size, device=self.c2w.device, dtype=torch.float32) + 0.5) / size
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        local_x = (x - self.centre[..., 0, None, None]) / self.focal[..., None, None]
        local_y = -(y - self.centre[..., 1, None, None]) / self.focal[..., None, None]
        # Sums of products instead of a matrix product: mixed precision would round coordinates to 8 bits.
        right, up, back = (self.c2w[..., None, None, :3, k] for k in range(3))
        world = local_x[..., None] * right + local_y[..., None] * up - back
        return self.c2w[..., :3, 3], world / world.norm(dim=-1, keepdim=True)

    def project(self, points: Float[Tensor, "*b n 3"]) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n"]]:
        """Image coordinates over the image side (0..1 inside), and z-depth."""
        offset = points - self.c2w[..., None, :3, 3]
        right, up, back = ((offset * self.c2w[..., None, :3, k]).sum(-1) for k in range(3))
        depth = -back
        x = self.centre[..., 0, None] + self.focal[..., None] * right / depth
        y = self.centre[..., 1, None] - self.focal[..., None] * up / depth
        return torch.stack([x, y], -1), depth

    def unproject(self, places: Float[Tensor, "*b n 2"], depth: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n 3"]:
        """World points at image coordinates over the image side and z-depths: the inverse of :meth:`project`."""
        x = (places[..., 0] - self.centre[..., 0, None]) / self.focal[..., None]
        y = -(places[..., 1] - self.centre[..., 1, None]) / self.focal[..., None]
        right, up, back = (self.c2w[..., None, :3, k] for k in range(3))
        offset = x[..., None] * right + y[..., None] * up - back
        return self.c2w[..., None, :3, 3] + depth[..., None] * offset


def orbit_c2w(orbits: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 4 4"]:
    """Poses on spheres about the origin from (azimuth, elevation, radius); as :func:`scene.camera.orbit_camera`."""
    azimuth, elevation, radius = orbits.unbind(-1)
    ca, sa, ce, se = azimuth.cos(), azimuth.sin(), elevation.cos(), elevation.sin()
    zero, one = torch.zeros_like(ca), torch.ones_like(ca)
    right = torch.stack([-sa, ca, zero, zero], -1)
    up = torch.stack([-se * ca, -se * sa, ce, zero], -1)
    back = torch.stack([ce * ca, ce * sa, se, zero], -1)
    last = torch.cat([back[..., :3] * radius[..., None], one[..., None]], -1)
    return torch.stack([right, up, back, last], -1)


def pose_tokens(
    sources: Float[Tensor, "*#b 4"], orbits: Float[Tensor, "*#b 3"], fourth: FourthEntry = "radius"
) -> Float[Tensor, "*#b 4"]:
    """Zero123's ``[dtheta, sin dphi, cos dphi, last]`` of targets, for sources at azimuth 0 and the default radius.

    Args:
        sources: descriptions (elevation, focal, cx, cy).
        orbits: (azimuth, elevation, radius) of the targets.
        fourth: what the last number is: ``dr``, or the polar angle of the source, in radians.
    """
    azimuth, elevation, radius = orbits.unbind(-1)
    dtheta = sources[..., 0] - elevation
    last = radius - DEFAULT_RADIUS if fourth == "radius" else (math.pi / 2 - sources[..., 0]).expand_as(dtheta)
    return torch.stack([dtheta, azimuth.sin(), azimuth.cos(), last], -1)


def identity_poses(sources: Float[Tensor, "*b 4"], fourth: FourthEntry = "radius") -> Float[Tensor, "*b 4"]:
    """The pose that leads from a source to itself, as :func:`pose_tokens` writes it."""
    still = torch.tensor([0.0, 0.0, 1.0, 0.0], device=sources.device).expand(sources.shape)
    if fourth == "radius":
        return still
    return torch.cat([still[..., :3], math.pi / 2 - sources[..., :1]], -1)


def pluecker_maps(poses: Poses, size: int) -> Float[Tensor, "*b 6 s s"]:
    """Plücker coordinates of pixel rays (moment, direction), world frame; moments in units of the default radius."""
    centre, directions = poses.rays(size)
    moment = torch.cross(centre[..., None, None, :].expand_as(directions), directions, dim=-1) / DEFAULT_RADIUS
    return torch.cat([moment, directions], -1).movedim(-1, -3)
