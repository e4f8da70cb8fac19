"""The fit with torch and a hash grid: for devices that have no compiled kernels here, such as GPUs."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.hash_sdf.field import HashField
from recon.hash_sdf.ray_intervals import interval_ends
from recon.neus import neus_alpha
from recon.settings import FitSettings
from recon.surface import Surface
from recon.surface_report import SurfaceReport
from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull
from scene.hashgrid import HashLayout
from scene.volume_rendering import composite, ray_box_span, render_weights

_LOG = logging.getLogger("viewloom")
INTERVALS = 32
"""Intervals along a ray; a third of them spread over the box."""
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
    since = time.monotonic()
    for step in range(total):
        progress = step / max(1, total - 1)
        field.set_progress(progress)
        soft, sharp = settings.inv_s
        inv_s = math.exp(math.log(soft) * (1 - progress) + math.log(sharp) * progress) / voxel
        for group, rate in zip(optimiser.param_groups, base, strict=True):
            group["lr"] = rate * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * progress)))
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
            inv_s,
            settings.loss_trim_fraction if step else 1.0,
            generator,
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if on_step is not None:
            on_step(step + 1, total)
    said = "".join(f", loss of {name} {value:.4f}" for name, value in last.items())
    _LOG.debug("fit: hash grid on %s, %d steps in %.1f s%s", device, total, time.monotonic() - since, said)
    return _surface(field, hull, settings, last)


def _loss(
    field: HashField,
    origin: Tensor,
    direction: Tensor,
    rgba: Tensor,
    weight: Tensor,
    settings: FitSettings,
    inv_s: float,
    keep: float,
    generator: torch.Generator,
) -> tuple[Tensor, dict[str, float]]:
    half = settings.half_extent
    near, far = ray_box_span(origin, direction, -half, half)
    far = torch.maximum(far, near + 1e-3)
    t = interval_ends(
        field,
        origin,
        direction,
        near,
        far,
        inv_s,
        probes=2 * INTERVALS,
        count=INTERVALS,
        jitter=True,
        generator=generator,
    )
    ends = origin[:, None] + direction[:, None] * t[..., None]
    at_ends = field.sdf(ends)
    length = t.diff(dim=-1)
    slope = at_ends.diff(dim=-1) / length.clamp(min=1e-6)
    weights = render_weights(neus_alpha((at_ends[:, 1:] + at_ends[:, :-1]) / 2, slope, length, inv_s))
    cover = weights.sum(-1)
    seen = weights
    if settings.colour_pull < 1:
        seen = weights.detach() + settings.colour_pull * (weights - weights.detach())
    colour = composite(seen, field.rgb((ends[:, 1:] + ends[:, :-1]) / 2)) + 1 - seen.sum(-1)[:, None]
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


def trimmed_mean(error: Float[Tensor, "n"], keep: float, weight: Float[Tensor, "n"] | None = None) -> Float[Tensor, ""]:
    """Weighted mean of the smallest errors.

    Generated views contradict each other in places; the largest errors are those contradictions.

    Args:
        error: of each ray, 0 and more.
        keep: fraction of the errors that count, in (0, 1].
        weight: of each ray; alike by default.
    """
    if not len(error):
        return error.sum()
    kept, index = torch.topk(error, max(1, round(keep * len(error))), largest=False)
    if weight is None:
        return kept.mean()
    chosen = weight[index]
    return (kept * chosen).sum() / chosen.sum().clamp(min=1e-6)


def _surface(field: HashField, hull: Hull, settings: FitSettings, last: dict[str, float]) -> Surface:
    resolution = max(settings.levels[-1], settings.hull_resolution)
    sdf = field.dense((resolution,) * 3)
    axis = ((torch.arange(96, device=sdf.device) + 0.5) / 96 * 2 - 1) * settings.half_extent
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
    with torch.no_grad():
        colour = torch.stack([field.rgb(plane) for plane in points])
    report = SurfaceReport(losses={name: round(value, 5) for name, value in last.items()})
    return Surface.cube(sdf.cpu().numpy(), colour.cpu().numpy(), settings.half_extent, report)
