"""Fitting a surface to masked views: a dense grid with NeuS weights, coarse to fine, started from the visual hull."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.field import GridField, Surface
from recon.hull import Hull, box_span, outline_agreement, signed_distance, visual_hull
from recon.neus import neus_alpha, render_weights, trimmed_mean
from recon.rays import RaySet
from recon.settings import FitSettings
from scene.camera import OBJECT_RADIUS
from scene.viewset import ViewSet


@dataclass(eq=False)
class _Rays:
    """Pixels worth looking at, in two groups."""

    origin: Float[Tensor, "n 3"]
    direction: Float[Tensor, "n 3"]
    colour: Float[Tensor, "n 3"]
    alpha: Float[Tensor, "n"]
    weight: Float[Tensor, "n"]
    inside: Float[Tensor, "i"] = field(init=False)
    around: Float[Tensor, "a"] = field(init=False)


def fit_surface(
    views: ViewSet,
    settings: FitSettings = FitSettings(),
    *,
    prior: Float[np.ndarray, "p p p"] | None = None,
    device: torch.device = torch.device("cpu"),
    on_step: Callable[[int, int], None] | None = None,
) -> Surface:
    """Fit a surface to masked views of a normalised object.

    A fit whose outlines agree clearly less with the masks than the hull's do has lost parts; then the hull is returned,
    and ``facts["kept"]`` says so.

    Args:
        views: posed pictures with masks; the object lies in the cube of ``settings.half`` about the origin.
        settings: see there.
        prior: occupancy probability over the cube ``[-0.6, 0.6]^3``, a vote for sides that no view shows well.
        device: where to compute; ray draws are the same on every device.
        on_step: called with (step, steps).

    Raises:
        InputError: no masks, or masks without a common inside.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    rays = RaySet.of(views, settings.image_side).to(device)
    hull = visual_hull(
        rays,
        settings.resolution,
        settings.half,
        vote=settings.vote,
        prior=None if prior is None else _padded(prior, settings.half),
        prior_weight=settings.prior_weight,
    )
    grid = GridField(torch.from_numpy(hull.sdf), settings.half, settings.levels[0]).to(device)
    pixels = _pixels(rays)
    with torch.no_grad():
        grid.colour.add_(torch.logit(_mean_colour(pixels).clamp(0.02, 0.98)).view(1, 3, 1, 1, 1))
    voxel = 2 * settings.half / settings.resolution
    total, done = sum(settings.iterations), 0
    last: dict[str, float] = {}
    for level, (resolution, iterations) in enumerate(zip(settings.levels, settings.iterations, strict=True)):
        if level:
            grid.refine(resolution)
        optimiser = torch.optim.Adam(
            [{"params": [grid.change], "lr": settings.step * voxel}, {"params": [grid.colour], "lr": 0.15}],
            betas=(0.9, 0.95),
        )
        for step in range(iterations):
            share = done / max(1, total - 1)
            soft, sharp = settings.sharpness
            sharpness = math.exp(math.log(soft) * (1 - share) + math.log(sharp) * share) / voxel
            for group, base in zip(optimiser.param_groups, (settings.step * voxel, 0.15), strict=True):
                group["lr"] = base * (0.1 + 0.9 * (1 - step / iterations))
            loss, last = _loss(grid, pixels, settings, sharpness, settings.keep if level else 1.0, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            done += 1
            if on_step is not None:
                on_step(done, total)
    return _result(grid, hull, rays, settings, last)


def _loss(
    grid: GridField, pixels: _Rays, settings: FitSettings, sharpness: float, keep: float, generator: torch.Generator
) -> tuple[Tensor, dict[str, float]]:
    index = _draw(pixels, settings.rays, generator)
    origin, direction = pixels.origin[index], pixels.direction[index]
    t = _sections(grid, origin, direction, settings, sharpness, generator)
    ends = origin[:, None] + direction[:, None] * t[..., None]
    at_ends = grid.sdf(ends)
    length = t.diff(dim=-1)
    middle = (at_ends[:, 1:] + at_ends[:, :-1]) / 2
    alpha = neus_alpha(middle, at_ends.diff(dim=-1) / length.clamp(min=1e-6), length, sharpness)
    weights = render_weights(alpha)
    cover = weights.sum(-1)
    colour = (weights[..., None] * grid.rgb((ends[:, 1:] + ends[:, :-1]) / 2)).sum(1)
    true_alpha, confidence = pixels.alpha[index], pixels.weight[index]
    # On white, so that colour errors at outlines do not fight the mask.
    error = (
        (colour + (1 - cover[:, None]) - pixels.colour[index] * true_alpha[:, None] - (1 - true_alpha[:, None]))
        .abs()
        .mean(-1)
    )
    front = true_alpha > 0.5
    colour_loss = trimmed_mean(error[front], keep, confidence[front])
    entropy = F.binary_cross_entropy(cover.clamp(1e-3, 1 - 1e-3), true_alpha, reduction="none")
    mask_loss = trimmed_mean(entropy, max(keep, 0.9) if keep < 1 else 1.0, confidence)
    whole = F.interpolate(grid.start, grid.change.shape[2:], mode="trilinear", align_corners=False) + grid.change
    cell = 2 * grid.reach / whole.shape[-1]
    slope = torch.stack(
        [
            (whole[..., 2:, 1:-1, 1:-1] - whole[..., :-2, 1:-1, 1:-1]),
            (whole[..., 1:-1, 2:, 1:-1] - whole[..., 1:-1, :-2, 1:-1]),
            (whole[..., 1:-1, 1:-1, 2:] - whole[..., 1:-1, 1:-1, :-2]),
        ]
    ) / (2 * cell)
    near = (whole[..., 1:-1, 1:-1, 1:-1].abs() < 4 * cell).float()
    eikonal = (((slope.square().sum(0) + 1e-12).sqrt() - 1).square() * near).sum() / near.sum().clamp(min=1)
    change = grid.change
    rough = sum(change.diff(n=2, dim=d).square().mean() for d in (2, 3, 4)) / cell**2
    loss = colour_loss + settings.mask_weight * mask_loss + settings.eikonal * eikonal + settings.smooth * rough
    return loss, {
        "colour": float(colour_loss.detach()),
        "mask": float(mask_loss.detach()),
        "eikonal": float(eikonal.detach()),
    }


@torch.no_grad()
def _sections(
    grid: GridField,
    origin: Tensor,
    direction: Tensor,
    settings: FitSettings,
    sharpness: float,
    generator: torch.Generator,
) -> Float[Tensor, "r s"]:
    """Section ends along rays: a third spread over the box, the rest where the surface is now."""
    near, far = box_span(origin, direction, grid.reach)
    far = torch.maximum(far, near + 1e-3)
    probes = 2 * settings.samples
    device = origin.device
    u = ((torch.arange(probes) + torch.rand(len(origin), 1, generator=generator)) / probes).to(device)
    t = near[:, None] + (far - near)[:, None] * u
    sdf = grid.sdf(origin[:, None] + direction[:, None] * t[..., None])
    length = t.diff(dim=-1)
    alpha = neus_alpha((sdf[:, 1:] + sdf[:, :-1]) / 2, sdf.diff(dim=-1) / length, length, sharpness * 0.5)
    chance = render_weights(alpha) + 0.3 * torch.exp(-sdf[:, 1:].abs() * sharpness * 0.5) + 1e-4
    cumulative = torch.cat([torch.zeros(len(origin), 1, device=device), chance.cumsum(-1)], -1)
    cumulative = cumulative / cumulative[:, -1:]
    fine = settings.samples - settings.samples // 3
    wanted = ((torch.arange(fine) + torch.rand(len(origin), 1, generator=generator)) / fine).to(device)
    slot = torch.searchsorted(cumulative, wanted, right=True).clamp(1, probes - 1)
    low, high = cumulative.gather(1, slot - 1), cumulative.gather(1, slot)
    part = (wanted - low) / (high - low).clamp(min=1e-6)
    t_fine = t.gather(1, slot - 1) + part * (t.gather(1, slot) - t.gather(1, slot - 1))
    spread = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, settings.samples // 3 + 1, device=device)
    return torch.cat([spread, t_fine], -1).sort(-1).values


def _pixels(rays: RaySet) -> _Rays:
    pixels = _Rays(*rays.flat())
    around = []
    for alpha in rays.alpha:
        margin = max(3, round(0.08 * max(alpha.shape)))
        wide = F.max_pool2d((alpha > 0.02).float()[None, None], 2 * margin + 1, 1, margin)[0, 0]
        around.append(((wide > 0) & (alpha <= 0.5)).reshape(-1))
    pixels.inside = torch.nonzero(pixels.alpha > 0.5)[:, 0]
    pixels.around = torch.nonzero(torch.cat(around))[:, 0]
    return pixels


def _draw(pixels: _Rays, count: int, generator: torch.Generator) -> Tensor:
    """Half of the rays through the object, most others close around it."""
    half, some = count // 2, count // 10

    def draw(group: Tensor | int, number: int) -> Tensor:
        size = group if isinstance(group, int) else len(group)
        index = torch.randint(size, (number,), generator=generator).to(pixels.alpha.device)
        return index if isinstance(group, int) else group[index]

    parts = [draw(pixels.inside, half), draw(len(pixels.alpha), some)]
    if len(pixels.around):
        parts.append(draw(pixels.around, count - half - some))
    return torch.cat(parts)


def _mean_colour(pixels: _Rays) -> Float[Tensor, "3"]:
    chosen, weight = pixels.colour[pixels.inside], pixels.weight[pixels.inside, None]
    return (chosen * weight).sum(0) / weight.sum().clamp(min=1e-6)


def _padded(prior: Float[np.ndarray, "p p p"], half: float) -> Float[Tensor, "p p p"]:
    """The prior's cube is the object's; look it up over the (larger) cube of the fit."""
    r = prior.shape[0]
    axis = ((torch.arange(r) + 0.5) / r * 2 - 1) * half / OBJECT_RADIUS
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flip(-1)[None]
    return F.grid_sample(torch.from_numpy(prior).float()[None, None], grid, align_corners=False)[0, 0]


def _result(grid: GridField, hull: Hull, rays: RaySet, settings: FitSettings, last: dict[str, float]) -> Surface:
    fitted = grid.dense(settings.resolution).cpu()
    fit_score = outline_agreement(rays, -fitted, 0.0, settings.half)
    hull_score = outline_agreement(rays, -torch.from_numpy(hull.sdf), 0.0, settings.half)
    # A hull fits outlines by construction; a good fit trades up to this much of them for the right depth.
    keep_hull = fit_score < hull_score - 0.03 or not bool((fitted < 0).any())
    with torch.no_grad():
        colour = torch.sigmoid(grid.colour)[0].movedim(0, -1).cpu().numpy()
    facts: dict[str, object] = {
        "vote": hull.vote,
        "mask_agreement": round(hull.agreement, 4),
        "fit_outline_iou": round(fit_score, 4),
        "hull_outline_iou": round(hull_score, 4),
        "kept": "hull" if keep_hull else "fit",
        **{f"loss_{k}": round(v, 5) for k, v in last.items()},
    }
    return Surface(hull.sdf if keep_hull else fitted.numpy(), colour, settings.half, facts)


def hull_surface(views: ViewSet, settings: FitSettings = FitSettings()) -> Surface:
    """The visual hull alone, as a surface without colours: the baseline of every fit."""
    rays = RaySet.of(views, settings.image_side)
    hull = visual_hull(rays, settings.resolution, settings.half, vote=settings.vote)
    grey = np.full((2, 2, 2, 3), 0.7, np.float32)
    return Surface(hull.sdf, grey, settings.half, {"vote": hull.vote, "mask_agreement": round(hull.agreement, 4)})


def prior_surface(
    occupancy: Float[np.ndarray, "p p p"], colours: Float[np.ndarray, "p p p 3"], settings: FitSettings = FitSettings()
) -> Surface:
    """A coarse volume as a surface of its own: the mesh of last resort."""
    wide = F.interpolate(
        _padded(occupancy, settings.half)[None, None], (settings.resolution,) * 3, mode="trilinear", align_corners=False
    )[0, 0].numpy()
    sdf = signed_distance(wide, min(0.5, max(float(wide.max()) * 0.5, 1e-3)), settings.half)
    painted = np.stack([_padded(colours[..., k], settings.half).numpy() for k in range(3)], -1)
    return Surface(sdf, painted, settings.half, {"kept": "coarse volume"})
