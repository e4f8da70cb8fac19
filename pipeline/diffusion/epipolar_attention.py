"""Attention from each pixel of a view to a few points of its ray, as other views and the clean front view show them.

The set form: a token for each other view and each point, all of one softmax, so any number of views in any order fits.
Tokens that no camera sees are left out; a learned null token stays, so that a pixel that nobody else sees attends to
something, and to nothing else. Features are projected to few channels before they are sampled, background pixels are
skipped, and pixels are worked on in groups, so that memory does not grow with the views.

Source: Tang et al. 2024 (arXiv 2408.14016), section on depth-truncated epipolar attention, of which no code is public;
the set form, the visibility residual (as in MVDiffusion's depth-conditioned attention) and the null token are ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pipeline.diffusion.epipolar import (
    Pixels,
    lookup,
    masked_lookup,
    nearest_views,
    points_on_rays,
    pooled_depth,
    projected,
    ray_pluecker,
    stratified_offsets,
)
from pipeline.diffusion.modules.poses import Poses
from scene.camera import DEFAULT_RADIUS, OBJECT_RADIUS

Reach = Literal["truncated", "line", "dense"]
"""Which points of other views a pixel reads: those about its depth, those of its whole ray within the object's bounding
sphere, or all pixels of the other views (the last two are for comparison)."""
_OCTAVES = 6
_FACTS = (1 + 2 * _OCTAVES) + 6 + 6 + 6
"""Offset, two rays, visibility and flags of a token."""


@dataclass(frozen=True)
class EpipolarSettings:
    """What a layer reads.

    Args:
        width: channels of queries, tokens and results.
        heads: of the attention.
        samples: points of a ray.
        half_width: of the interval about the depth that they cover, in units of the object's radius.
        nearest: other views that are read, those of the nearest cameras; 0 for the front alone.
        front: whether the front view is read.
        reach: which points are read.
    """

    width: int = 48
    heads: int = 2
    samples: int = 8
    half_width: float = 0.1
    nearest: int = 8
    front: bool = True
    reach: Reach = "truncated"


@dataclass(frozen=True, eq=False)
class Guide:
    """What is known of the views of one object besides their latents.

    Args:
        poses: of the views.
        depth: of a first surface in the views, z-depth, 0 for background; of any size.
        front: the clean front view on white, with alpha, in [-1, 1]; None if there is none.
        front_pose: its camera, a batch of one.
        front_depth: of the same surface in it.
    """

    poses: Poses
    depth: Float[Tensor, "v h w"]
    front: Float[Tensor, "4 f f"] | None = None
    front_pose: Poses | None = None
    front_depth: Float[Tensor, "1 k k"] | None = None

    def to(self, device: torch.device) -> Guide:
        """The same on a device."""
        return Guide(
            self.poses.to(device),
            self.depth.to(device),
            None if self.front is None else self.front.to(device),
            None if self.front_pose is None else self.front_pose.to(device),
            None if self.front_depth is None else self.front_depth.to(device),
        )


class EpipolarAttention(nn.Module):
    """One layer: maps of all views to what each pixel learns of the others; background stays 0.

    Args:
        channels: of the maps.
        front_channels: of the front's maps.
        settings: what it reads.
        group: pixels at a time.
    """

    def __init__(
        self, channels: int, front_channels: int, settings: EpipolarSettings = EpipolarSettings(), group: int = 4096
    ) -> None:
        super().__init__()
        width = settings.width
        self.settings, self.group = settings, group
        self.own = nn.Conv2d(channels, width, 1)
        self.others = nn.Conv2d(channels, width, 1) if settings.nearest else None
        self.front = nn.Conv2d(front_channels, width, 1) if settings.front else None
        self.geometry = nn.Sequential(nn.Linear(_FACTS, width), nn.SiLU(), nn.Linear(width, width))
        self.query_norm, self.token_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.null_key, self.null_value = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))

    def forward(
        self, maps: Float[Tensor, "v c s s"], guide: Guide, front: Float[Tensor, "1 d t t"] | None = None
    ) -> Float[Tensor, "v e s s"]:
        """What pixels learn.

        Args:
            maps: features of all views of one object.
            guide: cameras and depth.
            front: features of the front view.
        """
        side = maps.shape[-1]
        depth = pooled_depth(guide.depth, side)
        own, others, fronts = self.own(maps), [], []
        if self.others is not None:
            values = self.others(maps)
            others = [
                _Source(values[k : k + 1], depth[k : k + 1], guide.poses[k : k + 1], False) for k in range(len(maps))
            ]
        if self.front is not None and front is not None:
            assert guide.front_depth is not None
            assert guide.front_pose is not None
            fronts = [_Source(self.front(front), guide.front_depth, guide.front_pose, True)]
        near = nearest_views(guide.poses, self.settings.nearest if self.settings.reach != "dense" else len(maps))
        out = []
        for view, rows in enumerate(own.flatten(2).mT):
            read = [*(others[k] for k in near[view].tolist() if others), *fronts]
            pixels = Pixels.of(depth[view])
            result = torch.zeros_like(rows)
            if read and len(pixels):
                found = [self._attend(rows[p.index], read, guide.poses[view], p) for p in pixels.split(self.group)]
                result = result.index_copy(0, pixels.index, torch.cat(found).to(rows.dtype))
            out.append(result.mT.unflatten(1, (side, side)))
        return torch.stack(out)

    def _attend(
        self, own: Float[Tensor, "n e"], sources: Sequence[_Source], pose: Poses, pixels: Pixels
    ) -> Float[Tensor, "n e"]:
        """Results of some pixels of one view."""
        if self.settings.reach == "dense":
            tokens, seen = self._all_pixels(sources)
        else:
            tokens, seen = self._along_rays(sources, pose, pixels)
        normed = self.token_norm(tokens)

        def heads(x: Float[Tensor, "*n e"]) -> Float[Tensor, "*n h d"]:
            return x.unflatten(-1, (self.settings.heads, -1))

        # The null token is first; a pixel's row then always has a token to attend to.
        null_key, null_value = (x.expand(len(tokens), 1, -1) for x in (self.null_key, self.null_value))
        keys, values = self.key(normed), self.value(tokens)
        keys = heads(torch.cat([null_key.to(keys.dtype), keys], 1))
        values = heads(torch.cat([null_value.to(values.dtype), values], 1))
        queries = heads(self.query(self.query_norm(own)))
        mask = F.pad(seen, (1, 0), value=True)
        scores = torch.einsum("nhd,nthd->nht" if len(tokens) > 1 else "nhd,mthd->nht", queries, keys)
        scores = (scores.float() / math.sqrt(keys.shape[-1])).masked_fill(~mask[:, None], -torch.inf)
        weights = scores.softmax(-1).to(values.dtype)
        attended = torch.einsum("nht,nthd->nhd" if len(tokens) > 1 else "nht,mthd->nhd", weights, values).flatten(1)
        return self.mix(torch.cat([own, attended.to(own.dtype)], -1))

    def _along_rays(
        self, sources: Sequence[_Source], pose: Poses, pixels: Pixels
    ) -> tuple[Float[Tensor, "n t e"], Bool[Tensor, "n t"]]:
        """Tokens of points of pixels' rays, and whether their views show them."""
        s, count, device = self.settings, len(pixels), pixels.depth.device
        offsets = stratified_offsets(count, s.samples, device, jitter=self.training)
        half_width, about = s.half_width * OBJECT_RADIUS, pixels
        if s.reach == "line":
            # The depth of the world's origin, where objects stand, plus and minus their radius.
            middle = (pose.c2w[:3, 3] * pose.c2w[:3, 2]).sum()
            half_width, about = OBJECT_RADIUS, Pixels(pixels.index, pixels.places, middle.expand(count))
        points = points_on_rays(pose, about, offsets, half_width).flatten(0, 1)
        common = torch.cat([_harmonics(offsets.flatten()), ray_pluecker(pose.c2w[:3, 3], points, DEFAULT_RADIUS)], -1)
        values, facts, seen = [], [], []
        for source in sources:
            places, there, inside = projected(source.pose, points)
            values.append(lookup(source.values, places)[0])
            surface, share = masked_lookup(source.depth[:, None], (source.depth > 0).float(), places)
            covered = (share[0] > 0) & inside[0]
            # Beyond the surface that the other view sees: hidden there. Linear layers cannot tell a residual near 0.
            residual = torch.where(covered, ((there[0] - surface[0, :, 0]) / half_width).clamp(-2, 2), 0.0)
            visible = torch.stack([residual, (-4 * residual.square()).exp(), (2 * residual).tanh()], -1)
            flags = torch.stack([share[0], covered.float(), torch.full_like(residual, float(source.front))], -1)
            ray = ray_pluecker(source.pose.c2w[0, :3, 3], points, DEFAULT_RADIUS)
            facts.append(torch.cat([common, visible, flags, ray], -1))
            seen.append(inside[0])
        geometry = self.geometry(torch.stack(facts, 1).to(self.null_key.dtype))
        tokens = torch.stack(values, 1) + geometry
        shape = (count, s.samples)
        return tokens.unflatten(0, shape).flatten(1, 2), torch.stack(seen, 1).unflatten(0, shape).flatten(1)

    def _all_pixels(self, sources: Sequence[_Source]) -> tuple[Float[Tensor, "1 t e"], Bool[Tensor, "1 t"]]:
        """A token for every pixel of the other views, the same for all pixels that ask."""
        tokens = []
        for source in sources:
            centre, directions = source.pose.rays(source.values.shape[-1])
            facts = directions.new_zeros(directions[0, ..., 0].numel(), _FACTS)
            facts[:, -6:] = ray_pluecker(centre[0], centre[0] + directions[0].flatten(0, 1), DEFAULT_RADIUS)
            facts[:, -7] = float(source.front)
            tokens.append(source.values[0].flatten(1).mT + self.geometry(facts.to(self.null_key.dtype)))
        joined = torch.cat(tokens)[None]
        return joined, torch.ones(joined.shape[:2], dtype=torch.bool, device=joined.device)


@dataclass(frozen=True, eq=False)
class _Source:
    """A view that is read: its projected features, its depth, its camera (a batch of one)."""

    values: Float[Tensor, "1 e h w"]
    depth: Float[Tensor, "1 k k"]
    pose: Poses
    front: bool


def _harmonics(x: Float[Tensor, "n"]) -> Float[Tensor, "n e"]:
    """A value in [-1, 1] with sine and cosine of it at octaves."""
    angles = x[:, None] * (math.pi / 2 * 2.0 ** torch.arange(_OCTAVES, device=x.device))
    return torch.cat([x[:, None], angles.sin(), angles.cos()], -1)
