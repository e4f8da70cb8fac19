"""Fitting a surface to masked views: a signed distance band with NeuS weights, coarse to fine, from the visual hull."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from recon.sdf_grid import kernels
from recon.sdf_grid.checkpoint import FitState, fit_digest
from recon.sdf_grid.flat_base import with_flat_base
from recon.sdf_grid.narrow_band import NarrowBandSDF, VoxelGrid, camera_rows, redistanced
from recon.sdf_grid.supervision import LevelSupervision, SupervisionMaps
from recon.settings import FitSettings
from recon.surface import Surface
from recon.view_dependence import ViewColourFit
from recon.views.pixel_sampler import Pixels
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull, signed_distance, silhouette_iou, visual_hull
from scene.camera import OBJECT_RADIUS
from scene.viewset import ViewSet

Progress = Callable[[int, int], None]

_REFRESH = 50
"""Steps between looks at where the surface has gone."""


def fit_surface(
    views: ViewSet,
    settings: FitSettings = FitSettings(),
    *,
    prior: Float[np.ndarray, "p p p"] | None = None,
    device: torch.device = torch.device("cpu"),
    on_step: Progress | None = None,
    checkpoint: Path | None = None,
) -> Surface:
    """Fit a surface to masked views of a normalised object.

    A fit whose outlines agree clearly less with the masks than the hull's do has lost parts; then the hull is returned,
    and ``facts["kept"]`` says so.

    Args:
        views: posed pictures with masks; the object lies in the cube of ``settings.half_extent`` about the origin.
            Depth and normal maps guide the fit, of however many views.
        settings: see there.
        prior: occupancy probability over the cube ``[-0.6, 0.6]^3``, a vote for sides that no view shows well.
        device: the CPU has compiled kernels; any other device fits a hash grid with torch, without the maps.
        on_step: called with (step, steps).
        checkpoint: file to continue from if it exists and to write now and then; what comes out is the same as without
            the interruption. It is left for the caller to remove.

    Raises:
        InputError: no masks, masks without a common inside, or a map that cannot be read.
    """
    if prior is not None:
        views = _shared_out(views, settings.photo_view_weights)
    rays = RaySet.of(views, settings.image_side)
    wide = None if prior is None else _padded(prior, settings.half_extent)
    hull = visual_hull(
        rays,
        settings.hull_resolution,
        settings.half_extent,
        vote=settings.hull_threshold,
        prior=wide,
        prior_weight=settings.prior_weight,
    )
    measured = None
    if device.type != "cpu":
        from recon.hash_sdf.fit import fit_hash_grid

        surface = fit_hash_grid(rays, hull, settings, device, on_step)
        if any(view.depth_source is not None or view.normal_source is not None for view in views):
            surface = replace(surface, facts={**surface.facts, "maps": "not used"})
    else:
        guides = SupervisionMaps.of(views, rays, hull, settings)
        start = _Start(rays, hull, settings, wide, guides)
        digest = fit_digest(rays, settings, prior, guides.arrays if guides is not None else ())
        surface = _fit_band(rays, start, settings, on_step, checkpoint, digest)
        measured = guides.measured() if guides is not None else None
    surface = _judged(surface, hull, rays, settings)
    return with_flat_base(surface, views, measured) if settings.flat_base else surface


def _shared_out(views: ViewSet, shares: tuple[float, float]) -> ViewSet:
    first, others = shares
    weighted = tuple(replace(view, weight=view.weight * (others if k else first)) for k, view in enumerate(views))
    return replace(views, views=weighted)


@dataclass(eq=False)
class _Start:
    """Hulls at any resolution, without what depth maps see through."""

    rays: RaySet
    hull: Hull
    settings: FitSettings
    prior: Float[Tensor, "p p p"] | None
    guides: SupervisionMaps | None = None

    def box(self, level: int, margin: float = 5.0) -> VoxelGrid:
        """The box about the hull for a level, with a margin in voxels."""
        low, high = self._corners
        voxel = VoxelGrid.around(low, high, level**3).voxel
        return VoxelGrid.of_voxel(low - margin * voxel, high + margin * voxel, voxel)

    def distances(self, box: VoxelGrid) -> Float[np.ndarray, "x y z"]:
        """Signed distance to the carved hull, in voxels of the box."""
        inside = self._inside(box, 0.0)
        if not (inside >= self.hull.vote).any():  # too coarse for a thin thing
            inside = np.where(inside >= inside.max(), self.hull.vote, inside)
        distance = signed_distance(inside, self.hull.vote, box.shape[0] / 2)
        return distance if self.guides is None else self.guides.carved(distance, box)

    @cached_property
    def _corners(self) -> tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]]:
        """Of what the masks may hold, including parts that lie between the voxel centres of the hull."""
        voxel = 2 * self.settings.half_extent / self.hull.sdf.shape[0]
        cube = VoxelGrid(np.full(3, -self.settings.half_extent), voxel, self.hull.sdf.shape)
        wide = self._inside(cube, math.sqrt(0.75) * voxel) >= self.hull.vote
        solid = np.argwhere(wide | (self.hull.sdf < voxel))
        low, high = cube.low + solid.min(0) * voxel, cube.low + (solid.max(0) + 1) * voxel
        if self.prior is None:
            return low, high
        # A prior that outvotes the masks lacks thin parts; the photo shows how far they reach, about half-way back.
        row, column = np.nonzero(self.rays.alpha[0].numpy() >= 0.5)
        photo = self.rays.cameras[0]
        depth = float(photo.project((low + high)[None] / 2)[1][0])
        if len(row) == 0 or depth <= 0:
            return low, high
        shown = photo.unproject(np.stack([column + 0.5, row + 0.5], axis=-1), np.full(len(row), depth))
        reach = self.settings.half_extent
        return np.minimum(low, shown.min(0)).clip(-reach, reach), np.maximum(high, shown.max(0)).clip(-reach, reach)

    def _inside(self, box: VoxelGrid, reach: float) -> Float[np.ndarray, "x y z"]:
        """Share of the masks that cover a voxel's centre, or anything within ``reach`` (world units) of it."""
        votes, total = np.zeros(box.shape, np.float32), np.zeros(box.shape, np.float32)
        for k, row in enumerate(camera_rows(self.rays.cameras, box)):
            alpha, camera = np.ascontiguousarray(self.rays.alpha[k].numpy()), self.rays.cameras[k]
            if reach > 0:
                # About as many pixels as it covers in the middle of the scene.
                pixels = math.ceil(reach * camera.fx / max(float(np.linalg.norm(camera.centre)), reach))
                alpha = ndimage.maximum_filter(alpha, size=2 * pixels + 1)
            kernels.vote_masks(alpha, row, np.float32(self.rays.weight[k]), self.rays.shows_all(k), votes, total)
        inside = np.where(total > 0, votes / np.maximum(total, 1e-6), 0)
        if self.prior is not None and self.settings.prior_weight > 0:
            inside = inside + self.settings.prior_weight * self._prior_at(box)
            inside = inside / (1 + self.settings.prior_weight)
        return inside

    def _prior_at(self, box: VoxelGrid) -> Float[np.ndarray, "x y z"]:
        assert self.prior is not None
        axes = [torch.from_numpy(a / self.settings.half_extent).float() for a in box.centres()]
        grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1)[None]
        return F.grid_sample(self.prior[None, None].float(), grid, align_corners=False)[0, 0].numpy()


def _fit_band(
    rays: RaySet, start: _Start, settings: FitSettings, on_step: Progress | None, checkpoint: Path | None, digest: str
) -> Surface:
    pixels = Pixels.of(rays)
    total = sum(settings.iterations)
    state = FitState.resume(checkpoint, digest) if checkpoint is not None else None
    band: NarrowBandSDF | None = None
    first: Float[np.ndarray, "x y z"] | None = None
    losses: dict[str, float] = {}
    for level in range(len(settings.levels)):
        done = sum(settings.iterations[:level])
        if state is not None and level < state.level:
            continue
        box = start.box(settings.levels[level])
        if state is not None and level == state.level:
            band, first, begin = state.band(), state.first, state.iteration
            rng = np.random.default_rng()
            rng.bit_generator.state = state.rng
            limits = state.limits
        else:
            hull = start.distances(box)
            band = next_band(box, hull, band, first, pixels, _reach(settings, level))
            first, begin, limits = hull.copy(), 0, (math.inf, math.inf)
            rng = np.random.default_rng([settings.seed, level])
        guides = None if start.guides is None else start.guides.at(box, settings, level)
        level_fit = LevelFit(band, pixels, camera_rows(rays.cameras, box), settings, level, guides=guides)
        for step in range(begin, settings.iterations[level]):
            losses, limits = level_fit.step(step, rng, limits)
            if (step + 1) % _REFRESH == 0:
                band.refresh()
                # Not after a level's last step: what a fit tells of its losses comes from a step after the state.
                due = (step + 1) % (2 * _REFRESH) == 0 and step + 1 < settings.iterations[level]
                if checkpoint is not None and due:
                    FitState.of(band, first, level, step + 1, rng, limits, digest).save(checkpoint)
            if on_step is not None:
                on_step(done + step + 1, total)
        band.refresh()
    assert band is not None
    told = {} if start.guides is None else start.guides.facts
    surface = band_surface(band, {**{f"loss_{k}": round(v, 5) for k, v in losses.items()}, **told})
    if level_fit.view_colour is None or level_fit.view_colour.found is None:
        return surface
    facts = {**surface.facts, **level_fit.view_colour.facts}
    return replace(surface, gloss=level_fit.view_colour.found.gloss, facts=facts)


def _reach(settings: FitSettings, level: int) -> float:
    """Distance (voxels) at which sections begin: where a density of the level's first sharpness has faded."""
    return min(5.0, 3.5 / _sharpness(settings, level)[0])


def _sharpness(settings: FitSettings, level: int) -> tuple[float, float]:
    soft, sharp = settings.inv_s
    if level + 1 < len(settings.levels):
        return soft, min(3 * soft, sharp)
    return (min(2 * soft, sharp), sharp) if level else (soft, sharp)


def next_band(
    box: VoxelGrid,
    hull: Float[np.ndarray, "x y z"],
    last: NarrowBandSDF | None,
    first: Float[np.ndarray, "lx ly lz"] | None,
    pixels: Pixels,
    reach: float,
) -> NarrowBandSDF:
    """The band of a level: the hull, changed as the levels before changed their own.

    What they could not hold stays as the hull has it, so that thin parts survive.

    Args:
        box: of the level; hull: distances to the hull there, voxels.
        last: the band of the level before; first: distances to the hull there.
        pixels: for the mean colour.
        reach: distance at which rays begin to look, voxels.
    """
    width = reach + 2.5
    if last is None or first is None:
        band = NarrowBandSDF(box, hull, width)
        band.colour[:] = pixels.mean_colour()
        return band
    scale = last.box.voxel / box.voxel
    where = np.stack(np.meshgrid(*box.centres(), indexing="ij"))
    local = (where - last.box.low[:, None, None, None]) / last.box.voxel - 0.5
    change = ndimage.map_coordinates(last.grid - first, local, order=1, mode="nearest") * scale
    # Where the coarser grid saw another surface, such as the next thicker part, its changes are not of this one.
    known = ndimage.map_coordinates(first, local, order=1, mode="nearest") * scale
    change[np.abs(known - hull) > scale + 1] = 0
    band = NarrowBandSDF(box, redistanced((hull + change).astype(np.float32)), width)
    if (band.grid >= 0).all():
        band = NarrowBandSDF(box, hull, width)
    if len(band.cells):
        nearest = np.round(local[(slice(None), *band.cells.T)]).astype(int)
        nearest = np.clip(nearest, 0, np.array(last.box.shape)[:, None] - 1)
        band.colour[:-1] = last.dense_colour()[tuple(nearest)]
    band.colour[-1] = last.colour[-1]
    band.light = last.light.copy()
    return band


class LevelFit:
    """One level of the fit.

    Args:
        band: what is fitted.
        pixels: of the views; cameras: rows for the band's box.
        settings, level: see there.
        backdrop: sRGB behind the box for every pixel, for views without masks.
        guides: depth and normal maps, if there are any.
    """

    def __init__(
        self,
        band: NarrowBandSDF,
        pixels: Pixels,
        cameras: Float[np.ndarray, "v 16"],
        settings: FitSettings,
        level: int,
        *,
        backdrop: Float[np.ndarray, "n 3"] | None = None,
        guides: LevelSupervision | None = None,
    ) -> None:
        self.band, self.pixels, self.cameras, self.level = band, pixels, cameras, level
        self.settings = settings.filled(masked=backdrop is None)
        self.smooth, self.flat = float(self.settings.laplacian_weight or 0), float(self.settings.albedo_tv_weight or 0)
        self.light_step = float(self.settings.shading_lr or 0)
        self.backdrop, self.guides = backdrop, guides
        # The first level is too coarse to tell what is mirrored.
        shiny = settings.view_dependence and level > 0 and backdrop is None
        self.view_colour = ViewColourFit(pixels, cameras) if shiny else None
        count = settings.rays
        self.error = np.zeros((count, 3), np.float32)
        self.grad_backdrop = np.zeros((count, 3), np.float32)
        self.white = np.ones((count, 3), np.float32)

    def step(
        self, step: int, rng: np.random.Generator, limits: tuple[float, float]
    ) -> tuple[dict[str, float], tuple[float, float]]:
        """One step; returns mean losses, and the limits above which errors count as contradictions."""
        settings, band = self.settings, self.band
        if self.view_colour is not None and step % _REFRESH == 0:
            self.pixels = self.view_colour.corrected(band)
        pixels = self.pixels
        last = self.level + 1 == len(settings.levels)
        share = step / max(1, settings.iterations[self.level] - 1)
        soft, sharp = _sharpness(settings, self.level)
        index = pixels.draw(settings.rays, rng)
        rgba = pixels.rgba[index]
        kernels.fit_step(
            band.grid,
            band.index,
            band.colour,
            self.cameras,
            pixels.view[index],
            pixels.x[index],
            pixels.y[index],
            rgba[:, :3],
            rgba[:, 3],
            pixels.weight[index],
            self.white if self.backdrop is None else self.backdrop[index].astype(np.float32),
            rng.random(len(index), dtype=np.float32),
            np.float32(math.exp(math.log(soft) * (1 - share) + math.log(sharp) * share)),
            np.float32(0.5 if last else 0.7),
            np.float32(_reach(settings, self.level)),
            np.float32(settings.mask_weight if self.backdrop is None else -1),
            np.float32(limits[0]),
            np.float32(limits[1]),
            band.light,
            band.grad_sdf,
            band.grad_colour,
            band.grad_light,
            self.grad_backdrop,
            self.error,
        )
        if step % 2 == 0:  # every second step with twice the weight: half the time
            band.regularise(2 * settings.eikonal_weight, 2 * self.smooth, 2 * self.flat)
        if self.guides is not None:
            if step % _REFRESH == 0:
                self.guides.look(band, step)
            self.guides.pull(band, step)
        # Full speed for the first quarter of a level, then down to almost nothing, which averages the noise away.
        fall = 0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * max(0.0, (share - 0.25) / 0.75)))
        rate = settings.sdf_lr * (0.5 if last and self.level else 1.0) * fall
        band.step(rate, settings.colour_lr * fall, blur=settings.blur)
        if self.light_step > 0:
            band.step_light(self.light_step * fall)
        return self._told(rgba[:, 3] > 0.5), self._limits(rgba[:, 3] > 0.5, limits)

    def _told(self, front: np.ndarray) -> dict[str, float]:
        colour = self.error[front, 0]
        return {"colour": float(colour.mean()) if len(colour) else 0.0, "mask": float(self.error[:, 1].mean())}

    def _limits(self, front: np.ndarray, limits: tuple[float, float]) -> tuple[float, float]:
        keep = self.settings.loss_trim_fraction
        if keep >= 1 or self.level == 0 or not front.any():
            return math.inf, math.inf
        colour = float(np.quantile(self.error[front, 0], keep))
        mask = float(np.quantile(self.error[:, 1], max(keep, 0.9)))
        if not math.isfinite(limits[0]):
            return colour, mask
        return 0.9 * limits[0] + 0.1 * colour, 0.9 * limits[1] + 0.1 * mask


def band_surface(band: NarrowBandSDF, facts: dict[str, object]) -> Surface:
    """What a band has learned, with the light on its colours."""
    slope = np.stack(np.gradient(band.grid), -1)
    normal = slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
    colour = np.clip(band.dense_colour() * (1 + normal @ band.light)[..., None], 0, 1)
    light = [round(float(v), 4) for v in band.light]
    return Surface(
        (band.grid * band.box.voxel).astype(np.float32),
        colour.astype(np.float32),
        band.box.low,
        band.box.voxel,
        {**facts, "light": light},
    )


def _padded(prior: Float[np.ndarray, "p p p"], half: float) -> Float[Tensor, "p p p"]:
    """The prior's cube is the object's; look it up over the (larger) cube of the fit."""
    r = prior.shape[0]
    axis = ((torch.arange(r) + 0.5) / r * 2 - 1) * half / OBJECT_RADIUS
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).flip(-1)[None]
    return F.grid_sample(torch.from_numpy(prior).float()[None, None], grid, align_corners=False)[0, 0]


def _judged(surface: Surface, hull: Hull, rays: RaySet, settings: FitSettings) -> Surface:
    of_hull = Surface.cube(hull.sdf, np.full((2, 2, 2, 3), 0.7, np.float32), settings.half_extent, {})
    fit_score = silhouette_iou(rays, -torch.from_numpy(surface.sdf), 0.0, surface.box)
    hull_score = silhouette_iou(rays, -torch.from_numpy(hull.sdf), 0.0, of_hull.box)
    # A hull fits outlines by construction; a good fit trades up to this much of them for the right depth.
    keep_hull = fit_score < hull_score - 0.03 or not bool((surface.sdf < 0).any())
    facts: dict[str, object] = {
        "vote": hull.vote,
        "mask_agreement": round(hull.agreement, 4),
        "fit_outline_iou": round(fit_score, 4),
        "hull_outline_iou": round(hull_score, 4),
        "kept": "hull" if keep_hull else "fit",
        **surface.facts,
    }
    if not keep_hull:
        return replace(surface, facts=facts)
    x, y, z = np.meshgrid(*of_hull.box.centres(), indexing="ij")
    colour = surface.colours_at(np.stack([x, y, z], -1).reshape(-1, 3)).reshape(*hull.sdf.shape, 3)
    return Surface.cube(hull.sdf, colour, settings.half_extent, facts)


def hull_surface(views: ViewSet, settings: FitSettings = FitSettings()) -> Surface:
    """The visual hull alone, as a surface without colours: the baseline of every fit."""
    rays = RaySet.of(views, settings.image_side)
    hull = visual_hull(rays, settings.hull_resolution, settings.half_extent, vote=settings.hull_threshold)
    start = _Start(rays, hull, settings, None)
    box = start.box(settings.levels[-1])
    grey = np.full((2, 2, 2, 3), 0.7, np.float32)
    facts: dict[str, object] = {"vote": hull.vote, "mask_agreement": round(hull.agreement, 4)}
    return Surface(start.distances(box) * np.float32(box.voxel), grey, box.low, box.voxel, facts)


def prior_surface(
    occupancy: Float[np.ndarray, "p p p"], colours: Float[np.ndarray, "p p p 3"], settings: FitSettings = FitSettings()
) -> Surface:
    """A coarse volume as a surface of its own: the mesh of last resort."""
    size = (settings.hull_resolution,) * 3
    wide = F.interpolate(
        _padded(occupancy, settings.half_extent)[None, None], size, mode="trilinear", align_corners=False
    )[0, 0].numpy()
    sdf = signed_distance(wide, min(0.5, max(float(wide.max()) * 0.5, 1e-3)), settings.half_extent)
    painted = np.stack([_padded(colours[..., k], settings.half_extent).numpy() for k in range(3)], -1)
    return Surface.cube(sdf, painted, settings.half_extent, {"kept": "coarse volume"})
