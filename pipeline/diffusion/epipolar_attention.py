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
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pipeline.diffusion.epipolar import (
    Pixels,
    lookup,
    lookup_of_masked,
    masked,
    nearest_views,
    points_on_rays,
    pooled_depth,
    projected,
    ray_pluecker,
    stratified_offsets,
)
from pipeline.diffusion.modules.poses import Poses
from scene.camera import DEFAULT_RADIUS, OBJECT_RADIUS

Reach = Literal["truncated", "line", "dense", "beside", "none"]
"""Which points of other views a pixel reads: those about its depth, those of its whole ray within the object's bounding
sphere, all pixels of the other views, the front's at its own place in the picture, as if maps were concatenated, or
none, so that a layer works on its own features (all but the first are for comparison)."""
COLOURS = 3
"""Channels that are copied."""
_OCTAVES = 6
_OFFSET_FACTS = 1 + 2 * _OCTAVES
_FACTS = _OFFSET_FACTS + 6 + 6 + 6
"""Offset, own ray, visibility and flags, and the ray of the view that is read: what is known of a token."""


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

    def of(self, views: Int[Tensor, "m"]) -> Guide:
        """The same for some views, in the order given."""
        return replace(self, poses=self.poses[views], depth=self.depth[views])

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
        copies: whether results end with differences of colours, a triple for each head: what its tokens show in the
            mean, less the pixel's own colour, the null token counting as no difference.
    """

    def __init__(
        self,
        channels: int,
        front_channels: int,
        settings: EpipolarSettings = EpipolarSettings(),
        group: int = 4096,
        *,
        copies: bool = False,
    ) -> None:
        super().__init__()
        width, copied = settings.width, COLOURS * settings.heads if copies else 0
        self.settings, self.group, self.copies = settings, group, copies
        self.own = nn.Conv2d(channels, width, 1)
        self.others = nn.Conv2d(channels, width, 1) if settings.nearest else None
        self.front = nn.Conv2d(front_channels, width, 1) if settings.front else None
        self.geometry = nn.Sequential(nn.Linear(_FACTS, width), nn.SiLU(), nn.Linear(width, width))
        self.query_norm, self.token_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.null_key, self.null_value = (nn.Parameter(torch.zeros(width)) for _ in range(2))
        self.mix = nn.Sequential(nn.Linear(2 * width + copied, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        # Tokens off the surface, hidden, or beside it weigh little from the start, so that what is read is of use at
        # once: logits lose this much of the squared residual, of the squared offset, and where nothing is shown.
        self.prior = nn.Parameter(torch.tensor([[4.0, 1.0, 4.0]]).repeat(settings.heads, 1)) if copies else None

    @property
    def width(self) -> int:
        """Channels of the results."""
        return self.settings.width + (COLOURS * self.settings.heads if self.copies else 0)

    def forward(
        self,
        maps: Float[Tensor, "v c s s"],
        guide: Guide,
        front: Float[Tensor, "1 d t t"] | None = None,
        colours: Float[Tensor, "v 3 s s"] | None = None,
    ) -> Float[Tensor, "v e s s"]:
        """What pixels learn.

        Args:
            maps: features of all views of one object.
            guide: cameras and depth.
            front: features of the front view; their last channels are its picture with alpha.
            colours: of the views, where colours are copied; what is copied is the difference to them.
        """
        side = maps.shape[-1]
        depth = pooled_depth(guide.depth, side)
        own, others, fronts = self.own(maps), [], []
        if self.others is not None:
            values = self.others(maps)
            others = [
                _Source(
                    values[k : k + 1],
                    depth[k : k + 1],
                    guide.poses[k : k + 1],
                    False,
                    None if colours is None else colours[k : k + 1],
                )
                for k in range(len(maps))
            ]
        if self.front is not None and front is not None:
            assert guide.front_depth is not None
            assert guide.front_pose is not None
            shown = front[:, -COLOURS - 1 : -1] if self.copies else None
            fronts = [_Source(self.front(front), guide.front_depth, guide.front_pose, True, shown)]
        near = nearest_views(guide.poses, self.settings.nearest if self.settings.reach != "dense" else len(maps))
        out = []
        for view, rows in enumerate(own.flatten(2).mT):
            read = [*(others[k] for k in near[view].tolist() if others), *fronts]
            pixels = Pixels.of(depth[view])
            result = rows.new_zeros(len(rows), self.width)
            if read and len(pixels):
                base = None if colours is None else colours[view].flatten(1).T
                found = [
                    self._attend(rows[p.index], read, guide.poses[view], p, None if base is None else base[p.index])
                    for p in pixels.split(self.group)
                ]
                result = result.index_copy(0, pixels.index, torch.cat(found).to(rows.dtype))
            out.append(result.mT.unflatten(1, (side, side)))
        return torch.stack(out)

    def _attend(
        self,
        own: Float[Tensor, "n e"],
        sources: Sequence[_Source],
        pose: Poses,
        pixels: Pixels,
        base: Float[Tensor, "n 3"] | None,
    ) -> Float[Tensor, "n d"]:
        """Results of some pixels of one view.

        Keys and values of tokens are not made, as that is most of the work: a query times a key is the query, taken
        through the key's matrix backwards, times the token; and a mean of values is the value of the mean token.
        """
        read = self._read(sources, pose, pixels)
        heads, d = self.settings.heads, self.settings.width // self.settings.heads
        queries = self.query(self.query_norm(own)).unflatten(-1, (heads, d))
        keys, norm = self.key.weight.unflatten(0, (heads, d)), self.token_norm
        backwards = torch.einsum("nhd,hde->nhe", queries, keys)
        constant = torch.einsum("nhd,hd->nh", queries, self.key.bias.unflatten(0, (heads, d)))
        # The null token is first; a pixel's row then always has a token to attend to.
        scores = [torch.einsum("nhd,hd->nh", queries, self.null_key.unflatten(0, (heads, d)))[..., None]]
        for one in read:
            normed = F.layer_norm(one.tokens, norm.normalized_shape, norm.weight, norm.bias, norm.eps)
            form = "nhe,nte->nht" if len(normed) > 1 else "nhe,mte->nht"
            scores.append(torch.einsum(form, backwards, normed) + constant[..., None])
        logits = torch.cat(scores, -1).float() / math.sqrt(d)
        if self.prior is not None and read and all(one.doubts is not None for one in read):
            doubts = torch.cat([cast(Tensor, one.doubts) for one in read], 1)
            logits = logits - F.pad(torch.einsum("ntk,hk->nht", doubts, self.prior), (1, 0))
        seen = torch.cat([one.seen.expand(len(own), -1) for one in read], 1) if read else own.new_zeros(len(own), 0) > 0
        weights = logits.masked_fill(~F.pad(seen, (1, 0), value=True)[:, None], -torch.inf).softmax(-1).to(own.dtype)
        null, *shares = weights.split([1, *(one.tokens.shape[1] for one in read)], -1)
        mean = torch.zeros_like(backwards)
        copied = own.new_zeros(len(own), heads, COLOURS)
        for one, share in zip(read, shares, strict=True):
            mean = mean + torch.einsum("nht,nte->nhe" if len(one.tokens) > 1 else "nht,mte->nhe", share, one.tokens)
            if self.copies and one.colours is not None and base is not None:
                # The mean of differences to one colour.
                copied = copied + torch.einsum("nht,ntc->nhc", share, one.colours.to(own.dtype))
                copied = copied - share.sum(-1, keepdim=True) * base[:, None].to(own.dtype)
        values = self.value.weight.unflatten(0, (heads, d))
        attended = torch.einsum("nhe,hde->nhd", mean, values) + null * self.null_value.unflatten(0, (heads, d))
        attended = (attended + (1 - null) * self.value.bias.unflatten(0, (heads, d))).flatten(1)
        parts = [own, attended]
        if not self.copies:
            return self.mix(torch.cat(parts, -1))
        return torch.cat([self.mix(torch.cat([*parts, copied.flatten(1)], -1)), copied.flatten(1)], -1)

    def _read(self, sources: Sequence[_Source], pose: Poses, pixels: Pixels) -> list[_Tokens]:
        """What pixels may read, of each source."""
        if self.settings.reach == "dense":
            return [self._all_pixels(source) for source in sources]
        if self.settings.reach == "none":
            return []
        if self.settings.reach == "beside":
            return [self._beside(source, pixels) for source in sources if source.front]
        return self._along_rays(sources, pose, pixels)

    def _along_rays(self, sources: Sequence[_Source], pose: Poses, pixels: Pixels) -> list[_Tokens]:
        """Points of pixels' rays, as each source shows them."""
        s, count, device = self.settings, len(pixels), pixels.depth.device
        offsets = stratified_offsets(count, s.samples, device, jitter=self.training)
        half_width, about = s.half_width * OBJECT_RADIUS, pixels
        if s.reach == "line":
            # The depth of the world's origin, where objects stand, plus and minus their radius.
            middle = (pose.c2w[:3, 3] * pose.c2w[:3, 2]).sum()
            half_width, about = OBJECT_RADIUS, Pixels(pixels.index, pixels.places, middle.expand(count))
        points = points_on_rays(pose, about, offsets, half_width).flatten(0, 1)
        # The first layer of the facts' network in parts: a pixel's own ray is one for all its points and sources, and
        # between pixels offsets differ in training alone.
        first = cast(nn.Linear, self.geometry[0])
        by_offset, by_own, by_rest = first.weight.split([_OFFSET_FACTS, 6, 12], 1)
        own_ray = ray_pluecker(pose.c2w[:3, 3], points.unflatten(0, (count, s.samples))[:, 0], DEFAULT_RADIUS)
        places_on_ray = offsets if self.training else offsets[:1]
        common = F.linear(_harmonics(places_on_ray).to(first.weight.dtype), by_offset, first.bias)
        common = (common + F.linear(own_ray.to(first.weight.dtype), by_own)[:, None]).flatten(0, 1)
        away = offsets.flatten().square() if s.reach == "truncated" else torch.zeros_like(offsets).flatten()
        read = []
        for source in sources:
            places, there, inside = projected(source.pose, points)
            surface, share = lookup_of_masked(source.surface, places)
            covered = (share[0] > 0) & inside[0]
            # Beyond the surface that the other view sees: hidden there. Linear layers cannot tell a residual near 0.
            residual = torch.where(covered, ((there[0] - surface[0, :, 0]) / half_width).clamp(-2, 2), 0.0)
            known = [residual, (-4 * residual.square()).exp(), (2 * residual).tanh(), share[0], covered.float()]
            facts = torch.stack([*known, torch.full_like(residual, float(source.front))], -1)
            ray = ray_pluecker(source.pose.c2w[0, :3, 3], points, DEFAULT_RADIUS)
            hidden = torch.addmm(common, torch.cat([facts, ray], -1).to(common.dtype), by_rest.T)
            tokens = lookup(source.values, places)[0] + self.geometry[2](self.geometry[1](hidden))
            colours = doubts = None
            if source.colours is not None:
                colours = lookup_of_masked(source.shown, places)[0][0].unflatten(0, (count, s.samples))
                # In units that do not grow with the reach: what is on the surface is so on a whole ray, too.
                off = (residual * (half_width / (s.half_width * OBJECT_RADIUS))).clamp(-2, 2).square()
                doubts = torch.stack([off, away, 1 - covered.float()], -1).unflatten(0, (count, s.samples))
            seen = inside[0].unflatten(0, (count, s.samples))
            read.append(_Tokens(tokens.unflatten(0, (count, s.samples)), seen, colours, doubts))
        return read

    def _beside(self, source: _Source, pixels: Pixels) -> _Tokens:
        """What a source shows at the pixels' own places, whatever lies there."""
        shown, share = lookup_of_masked(
            source.shown if source.colours is not None else source.surface, pixels.places[None]
        )
        facts = pixels.places.new_zeros(1, _FACTS)
        facts[:, -7] = float(source.front)
        tokens = lookup(source.values, pixels.places[None])[0] + self.geometry(facts.to(self.null_key.dtype))
        doubts = torch.stack([torch.zeros_like(share[0]), torch.zeros_like(share[0]), 1 - share[0]], -1)
        colours = shown[0][:, None] if source.colours is not None else None
        seen = torch.ones(len(pixels), 1, dtype=torch.bool, device=tokens.device)
        return _Tokens(tokens[:, None], seen, colours, doubts[:, None])

    def _all_pixels(self, source: _Source) -> _Tokens:
        """A token for every pixel of another view, the same for all pixels that ask."""
        centre, directions = source.pose.rays(source.values.shape[-1])
        facts = directions.new_zeros(directions[0, ..., 0].numel(), _FACTS)
        facts[:, -6:] = ray_pluecker(centre[0], centre[0] + directions[0].flatten(0, 1), DEFAULT_RADIUS)
        facts[:, -7] = float(source.front)
        tokens = source.values[0].flatten(1).mT + self.geometry(facts.to(self.null_key.dtype))
        return _Tokens(tokens[None], torch.ones(1, len(tokens), dtype=torch.bool, device=tokens.device), None, None)


@dataclass(frozen=True, eq=False)
class _Source:
    """A view that is read: its projected features, its depth, its camera (a batch of one), colours to copy."""

    values: Float[Tensor, "1 e h w"]
    depth: Float[Tensor, "1 k k"]
    pose: Poses
    front: bool
    colours: Float[Tensor, "1 3 h w"] | None

    @cached_property
    def surface(self) -> Float[Tensor, "1 2 k k"]:
        """Its depth, to be looked up."""
        return masked(self.depth[:, None], (self.depth > 0).float())

    @cached_property
    def shown(self) -> Float[Tensor, "1 4 h w"]:
        """Colours of the pixels that the object fills, to be looked up, lest background be copied."""
        assert self.colours is not None
        share = F.adaptive_avg_pool2d((self.depth > 0).float(), self.colours.shape[-1])
        return masked(self.colours, (share > 0.99).float())


@dataclass(frozen=True, eq=False)
class _Tokens:
    """What one source shows of pixels' points: tokens, whether it shows them, colours, and what speaks against them
    (see :attr:`EpipolarAttention.prior`). One row stands for all pixels where these read the same.
    """

    tokens: Float[Tensor, "#n t e"]
    seen: Bool[Tensor, "#n t"]
    colours: Float[Tensor, "n t 3"] | None
    doubts: Float[Tensor, "n t 3"] | None


def _harmonics(x: Float[Tensor, "*n"]) -> Float[Tensor, "*n e"]:
    """A value in [-1, 1] with sine and cosine of it at octaves."""
    angles = x[..., None] * (math.pi / 2 * 2.0 ** torch.arange(_OCTAVES, device=x.device))
    return torch.cat([x[..., None], angles.sin(), angles.cos()], -1)
