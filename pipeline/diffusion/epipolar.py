"""Where pixels of one view lie in others: pooled depth, points along rays about it, projection, bilinear lookup.

Depth is z-depth along the optical axis, never the length of a ray; 0 is background. Places in pictures are over the
picture's side: (0, 0) is the upper left corner, (0.5, 0.5) the middle, the first pixel's centre is half a pixel in. So
lookups need ``align_corners=False``. Coordinates stay in single precision under autocast.

Source: Tang et al. 2024, "Pixel-Aligned Multi-View Generation with Depth Guided Decoder" (arXiv 2408.14016), whose code
is not public; masks in pooling and lookup are ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pipeline.diffusion.modules.poses import Poses

NEAR = 0.05
"""World units before a camera in which nothing is seen."""


def pooled_depth(depth: Float[Tensor, "v h w"], side: int) -> Float[Tensor, "v s s"]:
    """Depth maps at another size: means over the foreground of each block; background where a block has none.

    Plain means would mix zeros into silhouettes and put points before the surface. A size that does not divide the
    maps', or a larger one, takes the nearest pixel.
    """
    height, width = depth.shape[-2:]
    if height % side or width % side:
        return F.interpolate(depth[:, None], (side, side), mode="nearest-exact")[:, 0]
    kernel = (height // side, width // side)
    share = F.avg_pool2d((depth > 0).float()[:, None], kernel)[:, 0]
    # A block's only pixel of 64 still counts whole.
    return F.avg_pool2d(depth[:, None], kernel)[:, 0] / torch.where(share > 0, share, 1.0)


@dataclass(frozen=True, eq=False)
class Pixels:
    """Foreground pixels of one view.

    Args:
        index: into the rows of the flattened map.
        places: of their centres, over the side.
        depth: z-depth, positive.
    """

    index: Int[Tensor, "n"]
    places: Float[Tensor, "n 2"]
    depth: Float[Tensor, "n"]

    @classmethod
    def of(cls, depth: Float[Tensor, "s s"]) -> Pixels:
        """Pixels of a depth map that show something."""
        side = depth.shape[-1]
        index = torch.nonzero(depth.flatten() > 0)[:, 0]
        row, column = torch.div(index, side, rounding_mode="floor"), index % side
        places = (torch.stack([column, row], -1).float() + 0.5) / side
        return cls(index, places, depth.flatten()[index])

    def __len__(self) -> int:
        return len(self.index)

    def split(self, count: int) -> list[Pixels]:
        """Groups of at most ``count``."""
        parts = (self.index.split(count), self.places.split(count), self.depth.split(count))
        return [Pixels(*part) for part in zip(*parts, strict=True)]


def stratified_offsets(
    count: int, samples: int, device: torch.device, generator: torch.Generator | None = None, *, jitter: bool = False
) -> Float[Tensor, "n s"]:
    """Offsets in (-1, 1), one in each of ``samples`` equal parts: at random in it, or in its middle.

    Args:
        count: rows.
        samples: offsets of a row, in rising order.
        device: of the result.
        generator: of the random places.
        jitter: random places, as in training.
    """
    within = torch.full((count, samples), 0.5, device=device)
    if jitter:
        within = torch.rand(count, samples, device=device, generator=generator)
    return 2 * (torch.arange(samples, device=device) + within) / samples - 1


def points_on_rays(
    pose: Poses, pixels: Pixels, offsets: Float[Tensor, "n s"], half_width: float
) -> Float[Tensor, "n s 3"]:
    """World points of one view's pixels at z-depths ``depth + half_width * offset``, never nearer than :data:`NEAR`."""
    depth = (pixels.depth[:, None] + half_width * offsets).clamp(min=NEAR)
    places = pixels.places[:, None].expand(-1, offsets.shape[1], -1)
    return pose.unproject(places.flatten(0, 1), depth.flatten()).unflatten(0, offsets.shape)


def surface_points(pose: Poses, pixels: Pixels) -> Float[Tensor, "n 3"]:
    """World points that one view's pixels show."""
    return points_on_rays(pose, pixels, torch.zeros(len(pixels), 1, device=pixels.depth.device), 1.0)[:, 0]


def projected(
    poses: Poses, points: Float[Tensor, "n 3"]
) -> tuple[Float[Tensor, "m n 2"], Float[Tensor, "m n"], Bool[Tensor, "m n"]]:
    """Places of points in other views, their z-depths there, and whether they are seen at all.

    A place is finite always: points behind a camera, nearer than :data:`NEAR` or outside the picture are not seen and
    lie at the picture's corner.
    """
    places, depth = poses.project(points.expand(len(poses), *points.shape))
    seen = (depth > NEAR) & ((places >= 0) & (places <= 1)).all(-1)
    return torch.where(seen[..., None], places, 0.0), depth, seen


def lookup(maps: Float[Tensor, "m c h w"], places: Float[Tensor, "m n 2"]) -> Float[Tensor, "m n c"]:
    """Bilinear values of maps at places; zeros lie around a map. Half precision would not tell neighbours apart."""
    grid = (2 * places - 1)[:, None].float()
    found = F.grid_sample(maps.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return found[:, :, 0].mT.to(maps.dtype)


def masked(maps: Float[Tensor, "m c h w"], masks: Float[Tensor, "m h w"]) -> Float[Tensor, "m d h w"]:
    """Maps made ready for :func:`lookup_of_masked`: what masks show, and the masks behind it.

    Args:
        maps: any maps; what lies outside the masks does not matter, not even if it is not finite.
        masks: shares in [0, 1].
    """
    return torch.cat([torch.where(masks[:, None] > 0, maps * masks[:, None], 0.0), masks[:, None]], 1)


def lookup_of_masked(
    maps: Float[Tensor, "m d h w"], places: Float[Tensor, "m n 2"]
) -> tuple[Float[Tensor, "m n c"], Float[Tensor, "m n"]]:
    """Bilinear values of what masks show only, and how much of the four pixels that is.

    Args:
        maps: of :func:`masked`.
        places: over the side.

    Returns:
        Values, 0 where the mask shows nothing; and shares in [0, 1].
    """
    found = lookup(maps, places)
    values, share = found[..., :-1], found[..., -1:]
    return torch.where(share > 0, values / share.clamp(min=1e-6), 0.0), share[..., 0]


def masked_lookup(
    maps: Float[Tensor, "m c h w"], masks: Float[Tensor, "m h w"], places: Float[Tensor, "m n 2"]
) -> tuple[Float[Tensor, "m n c"], Float[Tensor, "m n"]]:
    """:func:`lookup_of_masked` of maps that are read once."""
    return lookup_of_masked(masked(maps, masks), places)


def shown(
    poses: Poses, depth: Float[Tensor, "m h w"], points: Float[Tensor, "n 3"], behind: float
) -> tuple[Float[Tensor, "m n 2"], Bool[Tensor, "m n"]]:
    """Places of points in other views, and whether their surface is what the views show there.

    Args:
        poses: of the views.
        depth: z-depth in them, 0 for background.
        points: in the world.
        behind: world units by which a point may lie behind the surface that a view shows.
    """
    places, there, inside = projected(poses, points)
    surface, share = masked_lookup(depth[:, None], (depth > 0).float(), places)
    return places, inside & (share > 0.5) & (there - surface[..., 0] < behind)


def nearest_views(poses: Poses, count: int) -> Int[Tensor, "v k"]:
    """For each view the others in rising distance of their cameras, at most ``count``."""
    centres = poses.c2w[:, :3, 3]
    distance = torch.cdist(centres, centres)
    distance.fill_diagonal_(torch.inf)
    return distance.argsort(dim=1, stable=True)[:, : min(count, len(poses) - 1)]


def azimuth_order(poses: Poses, front: Poses | None = None) -> Int[Tensor, "v"]:
    """Views by rising azimuth about the world's upright axis, from the one nearest to the front's camera.

    Args:
        poses: of the views.
        front: the front's camera, a batch of one; the first view counts as nearest without it.
    """
    centres = poses.c2w[:, :3, 3]
    first = 0 if front is None else int((centres - front.c2w[:, :3, 3]).norm(dim=-1).argmin())
    azimuth = torch.atan2(centres[:, 1], centres[:, 0])
    # Counted from the first view, lest it come last by a rounding error.
    return (
        ((azimuth - azimuth[first]) % (2 * torch.pi))
        .index_fill(0, torch.tensor([first], device=azimuth.device), -1)
        .argsort(stable=True)
    )


def ray_pluecker(centre: Float[Tensor, "*#b 3"], points: Float[Tensor, "*b 3"], scale: float) -> Float[Tensor, "*b 6"]:
    """Plücker coordinates (moment / ``scale``, unit direction) of the rays from camera centres to points."""
    direction = F.normalize(points - centre, dim=-1)
    return torch.cat([torch.cross(centre.expand_as(direction), direction, dim=-1) / scale, direction], -1)
