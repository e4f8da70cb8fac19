"""Depth and normal supervision of a fit: maps open what silhouettes do not show, and hold the surface in its place.

Depth maps vote on which voxels of the hull are empty, so that a fit starts with its hollows open; then their points
and the normals add losses beside that of the colours. Maps are measurements: those that contradict the others or the
silhouettes as a whole are left out, and single values count less the more they differ from the surface.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

from recon.sdf_grid import kernels, supervision_kernels
from recon.sdf_grid.narrow_band import NarrowBandSDF, camera_rows, redistanced
from recon.settings import FitSettings
from recon.surface_report import MapReport
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull
from scene.camera import Camera
from scene.viewset import ViewSet
from scene.voxel_grid import VoxelGrid

_TOLERANCE = 0.05
"""Fraction of the object's longest side within which two depth maps agree."""
_PROBES = 400
"""Points of each map that are looked up in the others."""
_NEIGHBOURS = 12
"""Nearest views in which every value of a map is looked up."""
_DRAWN = 8
"""Normals that are placed at once, in steps' worth: until the surface has moved."""


@dataclass(frozen=True, eq=False)
class SupervisionMap:
    """The maps of one view, thinned to about the size of the fit's pictures.

    Args:
        camera: at the size of the maps.
        depth: distance along each pixel's ray, world units; 0 where it is unknown or not on the object.
        normal: unit world normals; 0 where unknown.
        weight: confidence of the view.
    """

    camera: Camera
    depth: Float[np.ndarray, "h w"] | None
    normal: Float[np.ndarray, "h w 3"] | None
    weight: float

    def points(self) -> Float[np.ndarray, "n 3"]:
        """What the depth map shows, world frame."""
        if self.depth is None:
            return np.zeros((0, 3))
        origin, direction = self.camera.rays()
        seen = self.depth > 0
        return origin[seen] + direction[seen] * self.depth[seen, None]


@dataclass(frozen=True, eq=False)
class SupervisionMaps:
    """The maps of a set of views.

    Args:
        maps: of the views that have any.
        views: how many views the set has.
        noise: deviation of the depths from each other, world units; 0 if nothing is known of it.
        left_out: names of views whose depths contradict the others.
    """

    maps: tuple[SupervisionMap, ...]
    views: int
    noise: float
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(cls, views: ViewSet, rays: RaySet, hull: Hull, settings: FitSettings) -> SupervisionMaps | None:
        """The maps of views; None if there are none, or if the settings give them no weight.

        Args:
            views: the views; rays: the same, for their masks.
            hull: nothing is outside it.
            settings: weights, and the size to which maps are thinned.

        Raises:
            InputError: a map cannot be read.
        """
        maps, names = [], []
        for view, alpha in zip(views, rays.alpha, strict=True):
            depth = view.depth() if settings.depth_weight > 0 else None
            normal = view.normals() if settings.normal_weight > 0 else None
            if depth is None and normal is None:
                continue
            stride = max(1, math.ceil(max(view.camera.width, view.camera.height) / settings.image_side))
            maps.append(_thinned(view.camera, depth, normal, alpha.numpy(), stride, view.weight))
            names.append(view.name)
        if not maps:
            return None
        extent = np.argwhere(hull.sdf < 0)
        voxel = 2 * settings.half_extent / hull.sdf.shape[0]
        tolerance = _TOLERANCE * voxel * float((extent.max(0) - extent.min(0)).max() + 1)
        support, conflict, noise = _agreement(maps, hull, settings.half_extent, tolerance)
        wrong = _contradicting(support, conflict)
        kept = [replace(m, depth=None) if k in wrong else m for k, m in enumerate(maps)]
        sound = [m for m in kept if m.depth is not None or m.normal is not None]
        return cls(_without_outliers(sound, tolerance), len(views), noise, tuple(names[k] for k in sorted(wrong)))

    @property
    def arrays(self) -> list[np.ndarray]:
        """All values, for digests."""
        empty = np.zeros(0, np.float32)
        both = [(m.depth, m.normal) for m in self.maps]
        return [empty if a is None else a for pair in both for a in pair]

    @property
    def report(self) -> MapReport:
        """How many maps there are, and which were left out."""
        depths = sum(m.depth is not None for m in self.maps)
        return MapReport(depths, sum(m.normal is not None for m in self.maps), self.left_out)

    def measured(self) -> Float[np.ndarray, "n 3"] | None:
        """What the depth maps show, world frame; None if less than half of the views have one."""
        points = [m.points() for m in self.maps if m.depth is not None]
        return np.concatenate(points) if 2 * len(points) >= self.views else None

    def carved(self, distance: Float[np.ndarray, "x y z"], box: VoxelGrid) -> Float[np.ndarray, "x y z"]:
        """Signed distances (voxels) to the hull without what depth maps see through.

        Args:
            distance: to the hull, voxels.
            box: their grid.
        """
        solid = distance < 0
        votes = np.zeros(box.shape, np.float32)
        margin = np.float32(max(1.5, 2.5 * self.noise / box.voxel))
        for view_map in self.maps:
            if view_map.depth is not None:
                row = camera_rows((view_map.camera,), box)[0]
                depth = (view_map.depth / box.voxel).astype(np.float32)
                supervision_kernels.vote_free(depth, row, np.float32(view_map.weight), margin, solid, votes)
        # Single voxels are noise; and what is empty is open to the outside, or no camera could have seen it.
        trust = float(np.mean([m.weight for m in self.maps if m.depth is not None] or [1.0]))
        rest = ndimage.binary_fill_holes(solid & (ndimage.gaussian_filter(votes, 0.7) <= 0.5 * trust))
        empty = solid & ~rest
        if not empty.any() or not rest.any():
            return distance
        away = ndimage.distance_transform_edt(~empty)
        within = ndimage.distance_transform_edt(empty)
        of_empty = np.where(empty, within - 0.5, 0.5 - away)
        return redistanced(np.maximum(distance, of_empty).astype(np.float32))

    def at(self, box: VoxelGrid, settings: FitSettings, level: int) -> LevelSupervision:
        """The supervision of a level of the fit."""
        return LevelSupervision(self, box, settings, level)


class LevelSupervision:
    """Losses of points and normals at one level of the fit.

    All draws depend on the step alone, so that a fit can go on from any state.
    """

    def __init__(self, maps: SupervisionMaps, box: VoxelGrid, settings: FitSettings, level: int) -> None:
        self.settings, self.level, self.count = settings, level, settings.rays
        self.soft = np.float32(max(1.0, maps.noise / box.voxel))
        points = [box.to_grid(m.points()) for m in maps.maps]
        shuffle = np.random.default_rng([settings.seed, level, 2]).permutation(sum(len(p) for p in points))
        # All maps may contradict each other, and be left out.
        self.points = np.concatenate([np.zeros((0, 3)), *points]).astype(np.float32)[shuffle]
        weights = [np.full(len(p), m.weight) for p, m in zip(points, maps.maps, strict=True)]
        confidence = np.concatenate([np.zeros(0), *weights])
        # A map weighs the same however many there are, and a noisy one (of more than a voxel) less.
        fraction = sum(m.depth is not None for m in maps.maps) / maps.views
        fraction /= 1 + (maps.noise / box.voxel) ** 2
        self.weight = (settings.depth_weight * fraction / self.count * confidence).astype(np.float32)[shuffle]
        self._with_normals([m for m in maps.maps if m.normal is not None], box, maps.views)

    def _with_normals(self, maps: Sequence[SupervisionMap], box: VoxelGrid, views: int) -> None:
        self.cameras = camera_rows(tuple(m.camera for m in maps), box)
        view, x, y, normal, weight = [], [], [], [], []
        for k, view_map in enumerate(maps):
            assert view_map.normal is not None
            row, column = np.nonzero(np.abs(view_map.normal).sum(-1) > 0)
            direction = view_map.camera.rays(np.stack([column, row], -1) + 0.5)[1]
            towards = np.einsum("nc,nc->n", direction, view_map.normal[row, column]) < 0
            row, column = row[towards], column[towards]
            view.append(np.full(len(row), k, np.int32))
            x.append(column + 0.5)
            y.append(row + 0.5)
            normal.append(view_map.normal[row, column])
            weight.append(
                np.full(len(row), view_map.weight * self.settings.normal_weight * len(maps) / views / self.count)
            )
        self.view = np.concatenate(view) if view else np.zeros(0, np.int32)
        self.x, self.y, self.normal_weight = (
            np.concatenate(part).astype(np.float32) if part else np.zeros(0, np.float32) for part in (x, y, weight)
        )
        self.normal = np.concatenate(normal).astype(np.float32) if normal else np.zeros((0, 3), np.float32)
        self.drawn: Int[np.ndarray, "d"] = np.zeros(0, int)
        self.places: Float[np.ndarray, "d 3"] = np.zeros((0, 3), np.float32)

    def locate_normals(self, band: NarrowBandSDF, step: int) -> None:
        """Find where on the surface some of the normals are; to be called before the first step, and when the surface
        has moved.

        Args:
            band: the surface; step: of the level.
        """
        if not len(self.view):
            return
        rng = np.random.default_rng([self.settings.seed, self.level, 3, step])
        drawn = rng.permutation(len(self.view))[: _DRAWN * self.count]
        view, x, y = self.view[drawn], self.x[drawn], self.y[drawn]
        out = np.zeros((len(drawn), 5), np.float32)
        sampling = kernels.Sampling(np.float32(3.0), np.float32(0.5), np.float32(2.0))
        kernels.render_rays(band.field, kernels.Rays(self.cameras, view, x, y), sampling, out)
        seen = out[:, 3] > 0.5
        self.drawn = drawn[seen]
        row = self.cameras[view[seen]]
        a, b = (x[seen] - row[:, 14]) / row[:, 12], -(y[seen] - row[:, 15]) / row[:, 13]
        direction = np.einsum("nij,nj->ni", row[:, 3:12].reshape(-1, 3, 3), np.stack([a, b, -np.ones_like(a)], -1))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        self.places = (row[:, :3] + out[seen, 4:5] * direction).astype(np.float32)

    def add_gradients(self, band: NarrowBandSDF, step: int) -> None:
        """Add the gradients of a step's points and normals to the band's."""
        if len(self.points):
            turn = (step * self.count + np.arange(self.count)) % len(self.points)
            supervision_kernels.add_depth_loss(
                band.grid, band.index, self.points[turn], self.weight[turn], self.soft, band.grad_sdf
            )
        if len(self.drawn):
            turn = (step * self.count + np.arange(self.count)) % len(self.drawn)
            chosen = self.drawn[turn]
            supervision_kernels.add_normal_loss(
                band.grid,
                band.index,
                self.places[turn],
                self.normal[chosen],
                self.normal_weight[chosen],
                np.float32(0.5),
                band.grad_sdf,
            )


def _thinned(
    camera: Camera,
    depth: Float[np.ndarray, "h w"] | None,
    normal: Float[np.ndarray, "h w 3"] | None,
    alpha: Float[np.ndarray, "mh mw"],
    stride: int,
    weight: float,
) -> SupervisionMap:
    """Every ``stride``-th pixel of the maps, on the object only, in the world: values are not mixed with others."""
    first = min(stride // 2, camera.width - 1, camera.height - 1)
    row, column = np.arange(first, camera.height, stride), np.arange(first, camera.width, stride)
    small = replace(
        camera,
        fx=camera.fx / stride,
        fy=camera.fy / stride,
        cx=(camera.cx - first - 0.5) / stride + 0.5,
        cy=(camera.cy - first - 0.5) / stride + 0.5,
        width=len(column),
        height=len(row),
    )
    rows = (row * alpha.shape[0] // camera.height)[:, None]
    solid = alpha[rows, column * alpha.shape[1] // camera.width] > 0.5
    thin_depth = thin_normal = None
    if depth is not None:
        along = small.rays()[1] @ camera.forward
        thin_depth = (np.where(solid, depth[row[:, None], column], 0) / along).astype(np.float32)
    if normal is not None:
        turned = normal[row[:, None], column] @ camera.c2w[:3, :3].T
        thin_normal = np.where(solid[..., None], turned, 0).astype(np.float32)
    return SupervisionMap(small, thin_depth, thin_normal, weight)


def _agreement(
    maps: Sequence[SupervisionMap], hull: Hull, half: float, tolerance: float
) -> tuple[Float[np.ndarray, "m m"], Float[np.ndarray, "m m"], float]:
    """How often points of a map (row) lie on the surface of another (column), and how often these see through them.

    On the diagonal: points within the hull, a tenth, since there is much space in it, and points clearly outside it.

    Returns:
        Both counts, and the deviation of the maps from each other, world units.
    """
    support, conflict = np.zeros((len(maps), len(maps))), np.zeros((len(maps), len(maps)))
    differences = [np.zeros(0)]
    for k, view_map in enumerate(maps):
        points = view_map.points()
        points = points[:: max(1, len(points) // _PROBES)]
        at = ((points / half + 1) / 2 * hull.sdf.shape[0] - 0.5).T
        outside = ndimage.map_coordinates(hull.sdf, at, order=1, mode="nearest") > tolerance
        outside |= (np.abs(points) > half + tolerance).any(-1)
        support[k, k], conflict[k, k] = 0.1 * (~outside).sum(), outside.sum()
        for j, other in enumerate(maps):
            if j == k or other.depth is None or not len(points):
                continue
            ahead = _ahead(other, points)[0]
            agreeing = np.abs(ahead) < tolerance
            support[k, j], conflict[k, j] = agreeing.sum(), (ahead >= tolerance).sum()
            differences.append(ahead[agreeing])
    spread = np.abs(np.concatenate(differences))
    noise = 1.48 * float(np.median(spread)) / math.sqrt(2) if len(spread) else 0.0
    return support, conflict, noise


def _ahead(
    view_map: SupervisionMap, points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n"], Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """How far behind points a map sees (world units; minus infinity if it does not know), and its rows and columns."""
    assert view_map.depth is not None
    pixels, z = view_map.camera.project(points)
    inside = (z > 1e-6) & (pixels >= 0).all(-1) & (pixels < [view_map.camera.width, view_map.camera.height]).all(-1)
    column, row = np.where(inside[:, None], pixels, 0).astype(int).T
    seen = np.where(inside, view_map.depth[row, column], 0)
    distance = np.linalg.norm(points - view_map.camera.centre, axis=-1)
    return np.where(seen > 0, seen - distance, -np.inf), row, column


def _without_outliers(maps: Sequence[SupervisionMap], tolerance: float) -> tuple[SupervisionMap, ...]:
    """Maps without the depths that see through the points of other maps, or are seen through, more often than agree.

    Others' points do not fall on every pixel, so that neighbours speak for each other.
    """
    balance = [None if m.depth is None else np.zeros(m.depth.shape, np.float32) for m in maps]
    centres = np.array([m.camera.centre for m in maps])
    for k, view_map in enumerate(maps):
        mine = balance[k]
        if view_map.depth is None or mine is None:
            continue
        points, own = view_map.points(), np.zeros(np.count_nonzero(view_map.depth > 0), np.float32)
        for j in np.linalg.norm(centres - centres[k], axis=1).argsort()[1 : _NEIGHBOURS + 1]:
            other = balance[j]
            if other is None:
                continue
            ahead, row, column = _ahead(maps[j], points)
            vote = np.where(np.abs(ahead) < tolerance, 1, np.where(ahead >= tolerance, -1, 0)).astype(np.float32)
            own += vote
            np.add.at(other, (row, column), vote)
        mine[view_map.depth > 0] += own
    return tuple(
        m if b is None else replace(m, depth=_without(m.depth, ndimage.gaussian_filter(b, 1.0) < -1e-3))
        for m, b in zip(maps, balance, strict=True)
    )


def _without(depth: Float[np.ndarray, "h w"] | None, wrong: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"] | None:
    """A depth map without wrong pixels and their neighbours: at the rim of a wrong patch right ones outvote its own."""
    return None if depth is None else np.where(ndimage.binary_dilation(wrong), np.float32(0), depth)


def _contradicting(support: Float[np.ndarray, "m m"], conflict: Float[np.ndarray, "m m"]) -> set[int]:
    """Maps that are seen through, or see through others, more often than they agree; the worst goes first."""
    agree, differ = support + support.T, conflict + conflict.T
    left = list(range(len(support)))
    wrong: set[int] = set()
    while left:
        good, bad = agree[np.ix_(left, left)].sum(1), differ[np.ix_(left, left)].sum(1)
        agreeing = good / np.maximum(good + bad, 1)
        agreeing[bad == 0] = 1
        worst = int(agreeing.argmin())
        if agreeing[worst] >= 0.5:
            break
        wrong.add(left.pop(worst))
    return wrong
