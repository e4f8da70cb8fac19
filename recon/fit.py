"""Fitting a surface to masked views: from the visual hull, on the CPU by compiled kernels, elsewhere by torch."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from recon.hash_sdf.fit import fit_hash_grid
from recon.sdf_grid.fit import fit_narrow_band
from recon.sdf_grid.flat_base import with_flat_base
from recon.sdf_grid.initial_sdf import InitialSDF
from recon.sdf_grid.supervision import SupervisionMaps
from recon.settings import FitSettings
from recon.surface import Surface
from recon.surface_report import MapReport, SurfaceReport, ViewsReport
from recon.views.choice import evenly_chosen
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull, signed_distance, silhouette_iou, visual_hull
from scene.camera import OBJECT_RADIUS
from scene.viewset import ViewSet

_LOG = logging.getLogger("viewloom")
_HULL_MARGIN = 0.03
"""How much of the hull's silhouette IoU a fit may lose: the hull's is high by construction, a fit trades it for the
right depth."""
_GREY = 0.7
"""Colour of surfaces that have none, sRGB."""


def fit_surface(
    views: ViewSet,
    settings: FitSettings = FitSettings(),
    *,
    prior: Float[np.ndarray, "p p p"] | None = None,
    device: torch.device = torch.device("cpu"),
    on_step: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
) -> Surface:
    """Fit a surface to masked views of a normalised object.

    A fit whose silhouettes agree clearly less with the masks than the hull's do has lost parts; then the hull is
    returned, and ``report.fell_back`` says so.

    Args:
        views: posed pictures with masks; the object lies in the cube of ``settings.half_extent`` about the origin.
            Depth and normal maps supervise the fit, of however many views.
        settings: see there.
        prior: occupancy probability over the cube ``[-0.6, 0.6]^3``, a vote for sides that no view shows well.
        device: the CPU has compiled kernels; any other device fits a hash grid with torch, without the maps.
        on_step: called with (step, steps).
        checkpoint: file to continue from if it exists and to write now and then; what comes out is the same as without
            the interruption. It is left for the caller to remove.

    Of more photos than ``settings.max_views`` some are chosen, and ``report.views`` says so.

    Raises:
        InputError: no masks, masks without a common inside, or a map that cannot be read.
    """
    given, views = len(views), evenly_chosen(views, settings.max_views)
    if prior is None:
        settings = replace(settings, colour_pull=1.0)
    else:
        views = _reweighted(views, settings.photo_view_weights)
    rays = RaySet.of(views, settings.image_side)
    wide, since = None if prior is None else _padded(prior, settings.half_extent), time.monotonic()
    hull = visual_hull(
        rays,
        settings.hull_resolution,
        settings.half_extent,
        threshold=settings.hull_threshold,
        prior=wide,
        prior_weight=settings.prior_weight,
    )
    _LOG.debug(
        "hull: grid of %d, %d views of at most %d pixels, mean IoU with the masks %.3f, %.1f s",
        settings.hull_resolution,
        len(rays),
        settings.image_side,
        hull.silhouette_iou,
        time.monotonic() - since,
    )
    measured = None
    if device.type == "cpu":
        maps = SupervisionMaps.of(views, rays, hull, settings)
        start = InitialSDF(rays, hull, settings, wide, maps)
        surface = fit_narrow_band(rays, start, settings, prior=prior, on_step=on_step, checkpoint=checkpoint)
        measured = None if maps is None else maps.measured()
    else:
        surface = fit_hash_grid(rays, hull, settings, device, on_step)
        if any(view.depth_source is not None or view.normal_source is not None for view in views):
            surface = replace(surface, report=replace(surface.report, maps=MapReport(ignored=True)))
    surface = _or_hull(surface, hull, rays, settings)
    if len(views) < given:
        surface = replace(surface, report=replace(surface.report, views=ViewsReport(len(views), given)))
    return with_flat_base(surface, views, measured) if settings.flat_base else surface


def hull_surface(views: ViewSet, settings: FitSettings = FitSettings()) -> Surface:
    """The visual hull alone, as a surface without colours: the baseline of every fit.

    Raises:
        InputError: no masks, or masks without a common inside.
    """
    rays = RaySet.of(views, settings.image_side)
    hull = visual_hull(rays, settings.hull_resolution, settings.half_extent, threshold=settings.hull_threshold)
    start = InitialSDF(rays, hull, settings)
    box = start.box(settings.levels[-1])
    report = SurfaceReport("hull", hull_threshold=hull.threshold, mask_consistency=round(hull.silhouette_iou, 4))
    return Surface(start.distances(box) * np.float32(box.voxel), _grey(), box.low, box.voxel, report)


def prior_surface(
    occupancy: Float[np.ndarray, "p p p"], colours: Float[np.ndarray, "p p p 3"], settings: FitSettings = FitSettings()
) -> Surface:
    """A coarse volume as a surface of its own: the mesh of last resort.

    Args:
        occupancy: probability over the cube ``[-0.6, 0.6]^3``; colours: sRGB in [0, 1] there.
        settings: size and resolution of the surface's grid.
    """
    size = (settings.hull_resolution,) * 3
    wide = F.interpolate(
        _padded(occupancy, settings.half_extent)[None, None], size, mode="trilinear", align_corners=False
    )[0, 0].numpy()
    sdf = signed_distance(wide, min(0.5, max(float(wide.max()) * 0.5, 1e-3)), settings.half_extent)
    painted = np.stack([_padded(colours[..., k], settings.half_extent).numpy() for k in range(3)], -1)
    return Surface.cube(sdf, painted, settings.half_extent, SurfaceReport("coarse volume"))


def _reweighted(views: ViewSet, weights: tuple[float, float]) -> ViewSet:
    """The views with factors on the weights of the photo, mirrored or not, and of views that a model drew."""
    photo, drawn = weights
    weighted = tuple(
        replace(view, weight=view.weight * (drawn if view.origin == "generated" else photo)) for view in views
    )
    return replace(views, views=weighted)


def _padded(prior: Float[np.ndarray, "p p p"], half: float) -> Float[Tensor, "p p p"]:
    """The prior, whose cube is the object's, over the (larger) cube ``[-half, half]^3`` of the fit; 0 outside."""
    r = prior.shape[0]
    axis = ((torch.arange(r) + 0.5) / r * 2 - 1) * half / OBJECT_RADIUS
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flip(-1)[None]
    return F.grid_sample(torch.from_numpy(prior).float()[None, None], grid, align_corners=False)[0, 0]


def _or_hull(surface: Surface, hull: Hull, rays: RaySet, settings: FitSettings) -> Surface:
    """The fitted surface, or the hull in its colours where the fit has lost parts; with how both agree with masks."""
    of_hull = Surface.cube(hull.sdf, _grey(), settings.half_extent)
    fit_score = silhouette_iou(rays, -torch.from_numpy(surface.sdf), 0.0, surface.box)
    hull_score = silhouette_iou(rays, -torch.from_numpy(hull.sdf), 0.0, of_hull.box)
    keep_hull = fit_score < hull_score - _HULL_MARGIN or not bool((surface.sdf < 0).any())
    report = replace(
        surface.report,
        kept="hull" if keep_hull else "fit",
        hull_threshold=hull.threshold,
        mask_consistency=round(hull.silhouette_iou, 4),
        fit_silhouette_iou=round(fit_score, 4),
        hull_silhouette_iou=round(hull_score, 4),
    )
    if not keep_hull:
        return replace(surface, report=report)
    x, y, z = np.meshgrid(*of_hull.box.centres(), indexing="ij")
    colour = surface.colours_at(np.stack([x, y, z], -1).reshape(-1, 3)).reshape(*hull.sdf.shape, 3)
    return Surface.cube(hull.sdf, colour, settings.half_extent, report)


def _grey() -> Float[np.ndarray, "2 2 2 3"]:
    return np.full((2, 2, 2, 3), _GREY, np.float32)
