"""The fit with torch and a hash grid: for devices that have no compiled kernels here, such as GPUs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from recon.hash_sdf.field import HashField
from recon.neus import neus_alpha, render_weights, trimmed_mean
from recon.settings import FitSettings
from recon.surface import Surface
from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull, box_span
from scene.hashgrid import HashLayout

SECTIONS = 32
"""Sections along a ray; a third of them spread over the box."""
FINEST = 256
"""Finest cells of the hash grid along the box."""


def fit_hash_grid(
    rays: RaySet,
    hull: Hull,
    settings: FitSettings,
    device: torch.device,
    on_step: Callable[[int, int], None] | None = None,
) -> Surface:
    """Fit a hash grid's change of the hull's distances, and its colours.

    Args:
        rays: the views, on the CPU.
        hull: to start from.
        settings: levels are the finest ones' steps and rays; the hash grid has its own levels, which join in turn.
        device: where to compute; ray draws are the same everywhere.
        on_step: called with (step, steps).
    """
    generator = torch.Generator().manual_seed(settings.seed)
    torch_seed = torch.Generator().manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    pixels = Pixels.of(rays)
    half = settings.half_extent
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=torch_seed)))
        field = HashField(
            torch.full((3,), -half),
            torch.full((3,), half),
            layout=HashLayout(finest=FINEST),
            start=torch.from_numpy(hull.sdf),
        ).to(device)
    field.set_mean_colour(torch.from_numpy(pixels.mean_colour()).float().to(device))
    origins = torch.from_numpy(np.stack([c.centre for c in rays.cameras])).float().to(device)
    rows = torch.from_numpy(np.stack([c.c2w[:3, :3] for c in rays.cameras])).float().to(device)
    lens = torch.tensor([[c.fx, c.fy, c.cx, c.cy] for c in rays.cameras]).float().to(device)
    optimiser = torch.optim.Adam(field.parameter_groups(1e-3), betas=(0.9, 0.99), eps=1e-15)
    base = [group["lr"] for group in optimiser.param_groups]
    total = sum(settings.iterations)
    voxel = 2 * half / settings.hull_resolution
    last: dict[str, float] = {}
    for step in range(total):
        share = step / max(1, total - 1)
        field.set_progress(share)
        soft, sharp = settings.inv_s
        sharpness = math.exp(math.log(soft) * (1 - share) + math.log(sharp) * share) / voxel
        for group, rate in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = rate * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * share)))
        index = pixels.draw(settings.rays, rng)
        view = torch.from_numpy(pixels.view[index]).long().to(device)
        x, y = (torch.from_numpy(v[index]).to(device) for v in (pixels.x, pixels.y))
        fx, fy, cx, cy = lens[view].unbind(-1)
        local = torch.stack([(x - cx) / fx, -(y - cy) / fy, -torch.ones_like(x)], -1)
        direction = F.normalize(torch.einsum("nij,nj->ni", rows[view], local), dim=-1)
        rgba = torch.from_numpy(pixels.rgba[index]).to(device)
        weight = torch.from_numpy(pixels.weight[index]).to(device)
        loss, last = _loss(
            field,
            origins[view],
            direction,
            rgba,
            weight,
            settings,
            sharpness,
            settings.loss_trim_fraction if step else 1.0,
            generator,
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if on_step is not None:
            on_step(step + 1, total)
    return _surface(field, hull, settings, last)


def _loss(
    field: HashField,
    origin: Tensor,
    direction: Tensor,
    rgba: Tensor,
    weight: Tensor,
    settings: FitSettings,
    sharpness: float,
    keep: float,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    t = _sections(field, origin, direction, settings.half_extent, sharpness, generator)
    ends = origin[:, None] + direction[:, None] * t[..., None]
    at_ends = field.sdf(ends)
    length = t.diff(dim=-1)
    slope = at_ends.diff(dim=-1) / length.clamp(min=1e-6)
    weights = render_weights(neus_alpha((at_ends[:, 1:] + at_ends[:, :-1]) / 2, slope, length, sharpness))
    cover = weights.sum(-1)
    colour = (weights[..., None] * field.rgb((ends[:, 1:] + ends[:, :-1]) / 2)).sum(1) + 1 - cover[:, None]
    alpha = rgba[:, 3]
    # On white, so that colour errors at outlines do not fight the mask.
    error = (colour - rgba[:, :3] * alpha[:, None] - (1 - alpha[:, None])).abs().mean(-1)
    front = alpha > 0.5
    colour_loss = trimmed_mean(error[front], keep, weight[front])
    entropy = F.binary_cross_entropy(cover.clamp(1e-3, 1 - 1e-3), alpha, reduction="none")
    mask_loss = trimmed_mean(entropy, max(keep, 0.9) if keep < 1 else 1.0, weight)
    # Eikonal and curvature where the surface is, a few points of each ray.
    near = ends.detach().reshape(-1, 3)[at_ends.detach().abs().reshape(-1).argsort()[: len(origin)]]
    gradient, bend = field.gradient_and_laplacian(near)
    eikonal = ((gradient.square().sum(-1) + 1e-12).sqrt() - 1).square().mean()
    curvature = bend.abs().mean()
    loss = colour_loss + settings.mask_weight * mask_loss + settings.eikonal_weight * eikonal + 5e-4 * curvature
    return loss, {"colour": float(colour_loss.detach()), "mask": float(mask_loss.detach())}


@torch.no_grad()
def _sections(
    field: HashField, origin: Tensor, direction: Tensor, half: float, sharpness: float, generator: torch.Generator
) -> Tensor:
    """Section ends along rays: a third spread over the box, the rest where the surface is now."""
    near, far = box_span(origin, direction, half)
    far = torch.maximum(far, near + 1e-3)
    probes = 2 * SECTIONS
    device = origin.device
    u = ((torch.arange(probes) + torch.rand(len(origin), 1, generator=generator)) / probes).to(device)
    t = near[:, None] + (far - near)[:, None] * u
    sdf = field.sdf(origin[:, None] + direction[:, None] * t[..., None])
    length = t.diff(dim=-1)
    alpha = neus_alpha((sdf[:, 1:] + sdf[:, :-1]) / 2, sdf.diff(dim=-1) / length, length, sharpness * 0.5)
    chance = render_weights(alpha) + 0.3 * torch.exp(-sdf[:, 1:].abs() * sharpness * 0.5) + 1e-4
    cumulative = torch.cat([torch.zeros(len(origin), 1, device=device), chance.cumsum(-1)], -1)
    cumulative = cumulative / cumulative[:, -1:]
    fine = SECTIONS - SECTIONS // 3
    wanted = ((torch.arange(fine) + torch.rand(len(origin), 1, generator=generator)) / fine).to(device)
    slot = torch.searchsorted(cumulative, wanted, right=True).clamp(1, probes - 1)
    low, high = cumulative.gather(1, slot - 1), cumulative.gather(1, slot)
    part = (wanted - low) / (high - low).clamp(min=1e-6)
    t_fine = t.gather(1, slot - 1) + part * (t.gather(1, slot) - t.gather(1, slot - 1))
    spread = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, SECTIONS // 3 + 1, device=device)
    return torch.cat([spread, t_fine], -1).sort(-1).values


def _surface(field: HashField, hull: Hull, settings: FitSettings, last: dict[str, float]) -> Surface:
    resolution = max(settings.levels[-1], settings.hull_resolution)
    sdf = field.dense((resolution,) * 3)
    axis = ((torch.arange(96, device=sdf.device) + 0.5) / 96 * 2 - 1) * settings.half_extent
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    with torch.no_grad():
        colour = torch.stack([field.rgb(plane) for plane in points])
    facts: dict[str, object] = {f"loss_{k}": round(v, 5) for k, v in last.items()}
    return Surface.cube(sdf.cpu().numpy(), colour.cpu().numpy(), settings.half_extent, facts)
