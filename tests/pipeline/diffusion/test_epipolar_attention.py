"""Attention along rays: what it must not depend on, and what it must."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from pipeline.diffusion.epipolar import Pixels
from pipeline.diffusion.epipolar_attention import EpipolarAttention, EpipolarSettings, Guide, Reach, _Tokens
from pipeline.diffusion.modules.poses import Poses
from scene.camera import OBJECT_RADIUS

SIDE, CHANNELS = 12, 6
SMALL = EpipolarSettings(width=8, samples=4, nearest=8)


def sphere_depth(poses: Poses, side: int) -> Tensor:
    """Z-depth of the object's bounding sphere, made a little smaller, at pixel centres."""
    centre, directions = poses.rays(side)
    half = (centre[:, None, None] * directions).sum(-1)
    root = half**2 - (centre**2).sum(-1)[:, None, None] + (0.8 * OBJECT_RADIUS) ** 2
    forward = -poses.c2w[:, None, None, :3, 2]
    return torch.where(root > 0, (-half - root.clamp(min=0).sqrt()) * (directions * forward).sum(-1), 0.0)


def ring(count: int, *, front: bool = True) -> Guide:
    """Views around a sphere, and a front view."""
    orbits = torch.tensor([[k * 2 * math.pi / count, 0.2, 1.5] for k in range(count)])
    poses, front_pose = Poses.of_orbits(orbits), Poses.of_orbits(torch.tensor([[0.0, 0.3, 1.6]]))
    if not front:
        return Guide(poses, sphere_depth(poses, SIDE))
    picture = torch.rand(4, 2 * SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Guide(poses, sphere_depth(poses, SIDE), picture, front_pose, sphere_depth(front_pose, 2 * SIDE))


def features(count: int) -> Tensor:
    return torch.randn(count, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def layer() -> EpipolarAttention:
    torch.manual_seed(0)
    return EpipolarAttention(CHANNELS, 4, SMALL).eval()


def front_maps(guide: Guide) -> Tensor:
    assert guide.front is not None
    return guide.front[None]


@torch.no_grad()
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_number_of_views_and_no_background(layer: EpipolarAttention, count: int) -> None:
    guide = ring(count)
    out = layer(features(count), guide, front_maps(guide))
    assert out.shape == (count, 8, SIDE, SIDE)
    shown = guide.depth > 0
    assert out.abs().sum(1)[~shown].max() == 0
    assert out.abs().sum(1)[shown].min() > 0


@torch.no_grad()
def test_the_order_of_views_does_not_matter(layer: EpipolarAttention) -> None:
    guide, maps, order = ring(5), features(5), torch.tensor([3, 0, 4, 2, 1])
    other = replace(guide, poses=guide.poses[order], depth=guide.depth[order])
    found = layer(maps[order], other, front_maps(guide))
    assert torch.allclose(found, layer(maps, guide, front_maps(guide))[order], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("reach", ["truncated", "dense"])
def test_attention_is_that_of_keys_and_values(layer: EpipolarAttention, reach: Reach) -> None:
    """Keys and values are never made; made here for every token, they give the same."""
    # The front stands so near that it cuts the object off.
    near, maps = Poses.of_orbits(torch.tensor([[0.0, 0.3, 0.8]])), features(3)
    guide = replace(ring(3), front_pose=near, front_depth=sphere_depth(near, 2 * SIDE))
    layer.settings = replace(SMALL, reach=reach)
    torch.nn.init.normal_(layer.null_key)
    torch.nn.init.normal_(layer.null_value)
    found = layer(maps, guide, front_maps(guide))[1]
    caught: list[list[_Tokens]] = []
    plain = layer._read
    layer._read = lambda *given: caught.append(plain(*given)) or caught[-1]  # type: ignore[assignment,func-returns-value]
    layer(maps, guide, front_maps(guide))
    pixels = Pixels.of(guide.depth[1])
    rows = layer.own(maps)[1].flatten(1).T[pixels.index]
    tokens = torch.cat([one.tokens.expand(len(rows), -1, -1) for one in caught[1]], 1)
    seen = torch.cat([one.seen.expand(len(rows), -1) for one in caught[1]], 1)
    assert seen.all() == (reach == "dense")

    def heads(x: Tensor) -> Tensor:
        return x.unflatten(-1, (SMALL.heads, -1)).transpose(1, 2)

    null_key, null_value = (x.expand(len(rows), 1, -1) for x in (layer.null_key, layer.null_value))
    keys = heads(torch.cat([null_key, layer.key(layer.token_norm(tokens))], 1))
    values = heads(torch.cat([null_value, layer.value(tokens)], 1))
    queries = heads(layer.query(layer.query_norm(rows))[:, None])
    mask = torch.nn.functional.pad(seen, (1, 0), value=True)[:, None, None]
    attended = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, mask)
    known = layer.mix(torch.cat([rows, attended.transpose(1, 2).flatten(1)], 1))
    assert torch.allclose(found.flatten(1).T[pixels.index], known, atol=1e-5)


@torch.no_grad()
def test_groups_of_pixels_do_not_matter(layer: EpipolarAttention) -> None:
    guide, maps = ring(3), features(3)
    whole = layer(maps, guide, front_maps(guide))
    layer.group = 7
    assert torch.allclose(layer(maps, guide, front_maps(guide)), whole, atol=1e-5)


@torch.no_grad()
def test_nothing_to_read_gives_nothing(layer: EpipolarAttention) -> None:
    alone, empty = ring(1, front=False), ring(3)
    assert layer(features(1), alone).abs().max() == 0
    empty = replace(empty, depth=torch.zeros_like(empty.depth))
    assert layer(features(3), empty, front_maps(ring(3))).abs().max() == 0


@torch.no_grad()
def test_a_layer_that_reads_nothing_works_on_its_own_features() -> None:
    torch.manual_seed(0)
    layer = EpipolarAttention(CHANNELS, 4, replace(SMALL, reach="none"), copies=True).eval()
    guide, maps = ring(3), features(3)
    out = layer(maps, guide, front_maps(guide), maps[:, :3])
    assert torch.equal(out, layer(maps, guide, 2 * front_maps(guide), maps[:, :3]))
    assert out[:, : SMALL.width].abs().max() > 0
    assert not out[:, SMALL.width :].any()


@torch.no_grad()
def test_far_views_are_not_read() -> None:
    """Of a ring of 8, view 0 reads its two neighbours: others may hold anything."""
    torch.manual_seed(0)
    layer = EpipolarAttention(CHANNELS, 4, replace(SMALL, nearest=2)).eval()
    guide, maps = ring(8, front=False), features(8)
    changed = maps.clone()
    changed[2:7] += 1
    assert torch.equal(layer(maps, guide)[0], layer(changed, guide)[0])
    changed[1] += 1
    assert not torch.allclose(layer(maps, guide)[0], layer(changed, guide)[0])


def gradient_of_front(reach: Reach, half_width: float = 0.1) -> tuple[Tensor, Guide]:
    """Where in the front's maps the results of one view's middle row come from."""
    torch.manual_seed(0)
    settings = EpipolarSettings(width=8, samples=4, nearest=0, reach=reach, half_width=half_width)
    layer = EpipolarAttention(CHANNELS, 4, settings).eval()
    guide = ring(8)
    one = replace(guide, poses=guide.poses[1:2], depth=guide.depth[1:2])
    maps = front_maps(guide).clone().requires_grad_(True)
    out = layer(features(8)[1:2], one, maps)
    out[0, :, SIDE // 2, SIDE // 2].sum().backward()
    assert maps.grad is not None
    return maps.grad.abs().sum(1)[0], guide


def test_truncated_reads_less_than_a_whole_line_and_that_less_than_all() -> None:
    reached = {reach: int((gradient_of_front(reach)[0] > 0).sum()) for reach in ("truncated", "line", "dense")}
    assert 0 < reached["truncated"] <= 4 * 4
    assert reached["truncated"] < reached["line"] < reached["dense"] == (2 * SIDE) ** 2


def test_what_is_read_lies_where_the_surface_is() -> None:
    gradient, guide = gradient_of_front("truncated", half_width=1e-4)
    assert guide.front_pose is not None
    depth = guide.depth[1, SIDE // 2, SIDE // 2]
    place = torch.full((1, 2), (SIDE // 2 + 0.5) / SIDE)
    point = guide.poses[1].unproject(place, depth[None])
    x, y = (guide.front_pose.project(point[None])[0][0, 0] * 2 * SIDE - 0.5).tolist()
    rows, columns = torch.nonzero(gradient, as_tuple=True)
    assert set(rows.tolist()) <= {math.floor(y), math.ceil(y)}
    assert set(columns.tolist()) <= {math.floor(x), math.ceil(x)}


def test_pixels_that_nobody_sees_attend_to_the_null_token() -> None:
    """A camera that looks away: its features do not matter, and nothing is NaN, not even a gradient."""
    torch.manual_seed(0)
    layer = EpipolarAttention(CHANNELS, 4, replace(SMALL, front=False)).eval()
    guide = ring(2, front=False)
    c2w = guide.poses.c2w.clone()
    c2w[1, :3, :3] = c2w[1, :3, :3] @ torch.diag(torch.tensor([-1.0, 1.0, -1.0]))
    away = replace(guide, poses=Poses(c2w, guide.poses.focal, guide.poses.centre))
    maps = features(2)
    out = layer(maps, away)
    assert torch.equal(out[0], layer(maps * torch.tensor([1.0, 5.0])[:, None, None, None], away)[0])
    out.square().sum().backward()
    grads = [p.grad for p in layer.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in grads)
    assert layer.null_value.grad is not None
    assert layer.null_value.grad.abs().max() > 0


def test_it_learns_to_read_the_front() -> None:
    """The target is the front's red where a pixel's surface lies in it, which only geometry tells."""
    torch.manual_seed(0)
    layer = EpipolarAttention(CHANNELS, 4, EpipolarSettings(width=8, samples=2, nearest=0, half_width=0.02))
    guide = ring(8)
    one = replace(guide, poses=guide.poses[1:2], depth=guide.depth[1:2])
    # The colour of a pixel is the cube of its x.
    shade = (((torch.arange(2 * SIDE) + 0.5) / SIDE - 1) ** 3).expand(1, 4, 2 * SIDE, 2 * SIDE)
    rows, columns = torch.nonzero(one.depth[0], as_tuple=True)
    places = (torch.stack([columns, rows], -1) + 0.5) / SIDE
    assert guide.front_pose is not None
    there = guide.front_pose.project(guide.poses[1].unproject(places, one.depth[0][rows, columns])[None])[0][0]
    target = (there[:, 0] * 2 - 1) ** 3
    optimiser = torch.optim.Adam(layer.parameters(), lr=1e-2)
    errors = []
    for _ in range(150):
        found = layer(features(1), one, shade)[0, 0, rows, columns]
        loss = (found - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < 0.05 * float(target.var())


@torch.no_grad()
def test_beside_is_the_front_at_the_same_place(layer: EpipolarAttention) -> None:
    """As if the front's maps were concatenated: depth and cameras do not matter, and other places do not."""
    layer.settings = replace(SMALL, reach="beside")
    guide, maps = ring(3), features(3)
    front = front_maps(guide)
    found = layer(maps, guide, front)
    shown = guide.depth > 0
    deeper = replace(guide, depth=guide.depth * 1.2, poses=guide.poses[torch.tensor([1, 2, 0])])
    assert torch.allclose(layer(maps, deeper, front), found, atol=1e-5)
    changed = front.clone()
    changed[..., : SIDE // 2] += 1
    differs = (layer(maps, guide, changed) - found).abs().sum(1) > 1e-4
    half = torch.arange(SIDE) < SIDE // 4
    assert differs[shown & half].all()
    # A place at the border of the two reads both.
    assert not differs[shown & (torch.arange(SIDE) > SIDE // 4)].any()
