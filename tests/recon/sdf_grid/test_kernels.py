"""Compiled loops against slow references: automatic differentiation, marching in plain Python, known distances."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numba
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from recon.sdf_grid import band_kernels, kernels
from recon.sdf_grid.narrow_band import NarrowBandSDF, camera_rows, redistanced
from recon.views.ray_set import RaySet
from scene.camera import Camera, orbit_camera
from scene.viewset import ViewSet
from scene.voxel_grid import VoxelGrid

BOX = VoxelGrid(np.array([-0.62, -0.5, -0.38]), 0.08, (15, 13, 11))
CAMERAS = tuple(orbit_camera(1.1 * k, 0.5 - 0.4 * k, 1.5, size=24) for k in range(3))
LIMIT = kernels.MAX_INTERVALS


def bumpy_ball(box: VoxelGrid = BOX, radius: float = 3.6, noise: float = 0.3) -> np.ndarray:
    """Distances (voxels) to a ball, with bumps."""
    points = box.to_grid(np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1))
    middle = (np.array(box.shape) - 1) / 2 + [0.2, -0.3, 0.1]
    bumps = np.random.default_rng(4).normal(size=box.shape) * noise
    return (np.linalg.norm(points - middle, axis=-1) - radius + bumps).astype(np.float32)


def random_band(width: float = 3.0) -> NarrowBandSDF:
    """A band with albedo and shading of its own."""
    band = NarrowBandSDF(BOX, bumpy_ball(), width)
    rng = np.random.default_rng(5)
    band.colour[:] = rng.random(band.colour.shape)
    band.shading[:] = [0.3, -0.2, 0.25]
    return band


@dataclass
class Shot:
    """Rays and all else that a step is told."""

    band: NarrowBandSDF
    view: np.ndarray
    pixels: np.ndarray
    rgba: np.ndarray
    weight: np.ndarray
    backdrop: np.ndarray
    jitter: np.ndarray
    inv_s: float = 1.1
    step: float = 0.5
    truncation: float = 1e3
    mask_weight: float = 0.5
    limits: tuple[float, float] = (math.inf, math.inf)
    pull: float = 1.0

    @classmethod
    def of(cls, band: NarrowBandSDF, count: int = 200) -> Shot:
        rng = np.random.default_rng(6)
        return cls(
            band,
            np.sort(rng.integers(len(CAMERAS), size=count)).astype(np.int32),
            (rng.integers(24, size=(count, 2)) + 0.5).astype(np.float32),
            rng.random((count, 4)).astype(np.float32),
            (rng.random(count) + 0.5).astype(np.float32),
            rng.random((count, 3)).astype(np.float32),
            rng.random(count).astype(np.float32),
        )

    def compiled(self) -> tuple[np.ndarray, np.ndarray]:
        """Run the kernel, the gradients into the band's lanes; returns errors and the backdrop's gradient."""
        count, band = len(self.view), self.band
        error, of_backdrop = np.zeros((count, 3), np.float32), np.zeros((count, 3), np.float32)
        x, y = self.pixels[:, 0].copy(), self.pixels[:, 1].copy()
        kernels.fit_step(
            band.field,
            kernels.Rays(camera_rows(CAMERAS, band.box), self.view, x, y),
            self.sampling,
            kernels.Target(self.rgba[:, :3], self.rgba[:, 3], self.weight, self.backdrop, self.jitter),
            kernels.Loss(*(np.float32(v) for v in (self.mask_weight, *self.limits, self.pull))),
            kernels.Gradients(band.grad_sdf, band.grad_colour, band.grad_shading, of_backdrop),
            error,
        )
        return error, of_backdrop

    @property
    def sampling(self) -> kernels.Sampling:
        return kernels.Sampling(np.float32(self.inv_s), np.float32(self.step), np.float32(self.truncation))

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Origins and unit directions, grid coordinates."""
        found = [CAMERAS[v].rays(p.astype(float)) for v, p in zip(self.view, self.pixels, strict=True)]
        return self.band.box.to_grid(np.array([f[0] for f in found])), np.array([f[1] for f in found])


def look_up(grid: Tensor, points: Tensor) -> Tensor:
    """Trilinear values at grid coordinates, by torch."""
    last = torch.tensor(grid.shape, dtype=grid.dtype) - 1
    where = (points / last * 2 - 1).flip(-1).reshape(1, 1, 1, -1, 3)
    return F.grid_sample(grid[None, None], where, align_corners=True).reshape(points.shape[:-1])


def slope_at(grid: Tensor, points: Tensor) -> Tensor:
    """Gradient of the trilinear function, exact: differences between opposite sides of the cell."""
    parts = []
    for axis in range(3):
        low, high = points.clone(), points.clone()
        low[..., axis] = points[..., axis].floor()
        high[..., axis] = low[..., axis] + 1
        parts.append(look_up(grid, high) - look_up(grid, low))
    return torch.stack(parts, -1)


def march(shot: Shot, grid: Tensor, origin: np.ndarray, direction: np.ndarray, jitter: float) -> list[float]:
    """Interval starts of one ray, in plain Python."""
    low, high = np.full(3, 0.01), np.array(grid.shape) - 1.01
    a, b = (low - origin) / direction, (high - origin) / direction
    near, far = max(0.0, float(np.minimum(a, b).max())), float(np.maximum(a, b).min())
    value = lambda t: float(look_up(grid, torch.from_numpy(origin + t * direction)[None])[0])  # noqa: E731
    sigmoid = lambda x: 1 / (1 + math.exp(-shot.inv_s * x))  # noqa: E731
    starts: list[float] = []
    through, t = 1.0, near + jitter * shot.step
    while t < far and len(starts) < LIMIT:
        here = value(t)
        if here > shot.truncation:
            t += max(here - shot.truncation, shot.step) + 1e-3
            continue
        if t + shot.step >= far:
            break
        starts.append(t)
        before, after = sigmoid(here), sigmoid(value(t + shot.step))
        through *= 1 - max(0.0, (before - after) / (before + 1e-5))
        if through < 3e-3 or here < -shot.truncation:
            break
        t += shot.step
    return starts


@dataclass
class Reference:
    """What automatic differentiation says."""

    error: np.ndarray
    sdf: np.ndarray
    colour: np.ndarray
    shading: np.ndarray
    backdrop: np.ndarray
    picture: np.ndarray
    """Premultiplied colour, opacity and distance."""


def differentiated(shot: Shot) -> Reference:
    """The same loss in torch, in double precision."""
    band = shot.band
    grid = torch.from_numpy(band.grid).double().requires_grad_()
    colour = torch.from_numpy(band.colour).double().requires_grad_()
    shading = torch.from_numpy(band.shading).double().requires_grad_()
    behind = torch.from_numpy(shot.backdrop).double().requires_grad_()
    dense = colour[torch.from_numpy(band.index).long()]
    errors, pictures, losses = [], [], []
    count = len(shot.view)
    for r, (origin, direction) in enumerate(zip(*shot.rays(), strict=True)):
        starts = torch.tensor(march(shot, grid.detach(), origin, direction, float(shot.jitter[r])))
        at = lambda t, o=origin, d=direction: torch.from_numpy(o) + t.double()[:, None] * torch.from_numpy(d)  # noqa: E731
        before = torch.sigmoid(shot.inv_s * look_up(grid, at(starts)))
        after = torch.sigmoid(shot.inv_s * look_up(grid, at(starts + shot.step)))
        alpha = ((before - after) / (before + 1e-5)).relu()
        transmittance = torch.cumprod(torch.cat([torch.ones(1), 1 - alpha]), 0)
        weight, through = alpha * transmittance[:-1], transmittance[-1]
        middle = at(starts + shot.step / 2)
        slope = slope_at(grid, middle)
        normal = slope / (slope.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        painted = torch.stack([look_up(dense[..., c], middle) for c in range(3)], -1)
        # What of the colour's gradient does not reach the distances.
        weight, behind_all, normal = (v.detach() + shot.pull * (v - v.detach()) for v in (weight, through, normal))
        seen = (weight[:, None] * painted * (1 + normal @ shading)[:, None]).sum(0)
        target, a = torch.from_numpy(shot.rgba[r, :3]).double(), float(shot.rgba[r, 3])
        off = seen + behind_all * behind[r] - target * a - (1 - a) * behind[r].detach()
        size = float(off.detach().abs().mean())
        opacity = 1 - through
        clipped = opacity + (opacity.clamp(1e-3, 1 - 1e-3) - opacity).detach()
        masked, scale = shot.mask_weight >= 0, float(shot.weight[r]) / count
        entropy = -(a * clipped.log() + (1 - a) * (1 - clipped).log()) if masked else torch.zeros(())
        if size <= shot.limits[0] and (a > 0.5 or not masked):
            losses.append(scale * F.huber_loss(off, torch.zeros(3).double(), delta=0.02) / 0.02)
        if masked and float(entropy.detach()) <= shot.limits[1]:
            if clipped.requires_grad:
                bound = 10 * shot.mask_weight / count
                clipped.register_hook(lambda g, b=bound: g.clamp(-b, b))
            losses.append(shot.mask_weight * scale * entropy)
        errors.append([size, float(entropy.detach()), float(opacity.detach())])
        depth = float((weight * (starts + shot.step / 2)).sum().detach()) / max(float(opacity.detach()), 1e-6)
        pictures.append([*seen.detach().tolist(), errors[-1][2], depth])
    torch.stack(losses).sum().backward()
    gradients = [
        np.zeros(tuple(x.shape)) if x.grad is None else x.grad.numpy() for x in (grid, colour, shading, behind)
    ]
    return Reference(np.array(errors), *gradients, np.array(pictures))


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal to what single precision allows, by the size of the largest."""
    return bool(np.abs(ours - theirs).max() < 2e-3 * np.abs(theirs).max() + 1e-9)


CASES: dict[str, Callable[[Shot], Shot]] = {
    "intervals everywhere": lambda s: s,
    "intervals near the surface": lambda s: replace(s, truncation=1.5, step=0.7),
    "sharp": lambda s: replace(s, inv_s=4.0, truncation=2.0),
    "without masks": lambda s: replace(s, mask_weight=-1.0),
    "hard masks": lambda s: replace(s, rgba=np.where(np.arange(4) < 3, s.rgba, s.rgba.round()).astype(np.float32)),
    "contradictions": lambda s: replace(s, limits=(0.3, 0.7)),
    "colours that pull less": lambda s: replace(s, pull=0.3),
    "colours that do not pull": lambda s: replace(s, pull=0.0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_gradients_are_those_of_automatic_differentiation(case: Callable[[Shot], Shot]) -> None:
    shot = case(Shot.of(random_band()))
    error, of_backdrop = shot.compiled()
    truth, band = differentiated(shot), shot.band
    assert 0.05 < (truth.error[:, 2] > 0.5).mean() < 0.9  # hits and misses
    assert same(error, truth.error)
    slots = tuple(band.cells.T)
    assert same(band.grad_sdf.sum(axis=0)[:-1], truth.sdf[slots])
    assert same(band.grad_colour.sum(axis=0)[:-1], truth.colour[:-1])
    assert same(band.grad_shading.sum(axis=0), truth.shading)
    assert same(of_backdrop, truth.backdrop)
    assert all(np.abs(g).max() > 0 for g in (truth.sdf, truth.colour, truth.shading, truth.backdrop))


def test_lanes_are_added_to_and_cover_all_rays() -> None:
    shot = Shot.of(random_band())
    shot.compiled()
    once = shot.band.grad_sdf.copy()
    assert (np.abs(once).max(axis=1) > 0).all()
    shot.compiled()
    assert shot.band.grad_sdf == pytest.approx(2 * once, rel=1e-5, abs=1e-9)


def test_voxels_that_no_ray_passes_have_no_gradient() -> None:
    shot = Shot.of(random_band(), count=3)
    shot.compiled()
    points = shot.band.cells.astype(float)
    distance = np.full(len(points), np.inf)
    for origin, direction in zip(*shot.rays(), strict=True):
        offset = points - origin
        distance = np.minimum(distance, np.linalg.norm(offset - (offset @ direction)[:, None] * direction, axis=1))
    moved = shot.band.grad_sdf.sum(axis=0)[:-1] != 0
    assert moved.any()
    assert distance[moved].max() < math.sqrt(3)


def test_rendered_rays_are_those_of_the_reference() -> None:
    shot = Shot.of(random_band())
    shot = replace(shot, jitter=np.full_like(shot.jitter, 0.5), truncation=1.5)
    out = np.zeros((len(shot.view), 5), np.float32)
    band = shot.band
    x, y = shot.pixels[:, 0].copy(), shot.pixels[:, 1].copy()
    kernels.render_rays(band.field, kernels.Rays(camera_rows(CAMERAS, band.box), shot.view, x, y), shot.sampling, out)
    truth = differentiated(shot).picture
    assert same(out[:, :4], truth[:, :4])
    hit = truth[:, 3] > 0.01
    assert hit.any()
    assert out[hit, 4] == pytest.approx(truth[hit, 4], rel=1e-3)


def results(threads: int) -> list[bytes]:
    """Everything a step with all its terms changes."""
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        shot = Shot.of(random_band(), count=500)
        error, of_backdrop = shot.compiled()
        shot.band.regularise(0.1, 0.05, 1.0)
        shot.band.step(0.2, 0.03, blur=2)
        shot.band.step_shading(0.03)
        band = shot.band
        return [x.tobytes() for x in (error, of_backdrop, band.grid, band.colour, band.shading)]
    finally:
        numba.set_num_threads(before)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one core has one thread")
def test_the_number_of_threads_changes_no_byte() -> None:
    assert results(1) == results(2)


# --- regularity -------------------------------------------------------------------------------------------------------


def test_regularity_is_the_gradient_of_its_energies() -> None:
    band = random_band()
    band.regularise(0.3, 0.02)
    grid = torch.from_numpy(band.grid).double().requires_grad_()
    i, j, k = torch.from_numpy(band.cells).long().T
    sides = [(grid[i - 1, j, k], grid[i + 1, j, k]), (grid[i, j - 1, k], grid[i, j + 1, k])]
    sides.append((grid[i, j, k - 1], grid[i, j, k + 1]))
    norm = (torch.stack([(b - a) / 2 for a, b in sides]).square().sum(0) + 1e-12).sqrt()
    assert bool((norm > 0.05).all())  # flatter places have no direction
    bend = sum(a + b for a, b in sides) - 6 * grid[i, j, k]
    (0.3 * (norm - 1).square().mean() + 0.02 * bend.square().mean()).backward()
    assert grid.grad is not None
    assert same(band.grad_sdf.sum(axis=0)[:-1], grid.grad.numpy()[tuple(band.cells.T)])


def test_a_true_distance_has_no_eikonal_gradient() -> None:
    x = np.arange(15)[:, None, None] * np.ones((1, 13, 11))
    band = NarrowBandSDF(BOX, (0.6 * x + 0.8 * np.arange(13)[:, None] - 8).astype(np.float32), 3.0)
    band.regularise(1.0, 0.0)
    assert np.abs(band.grad_sdf).max() < 1e-6


def test_flatness_pulls_small_differences_together_and_lets_edges_be() -> None:
    band = random_band()
    band.colour[:] = 0.5 + 0.01 * (band.colour - 0.5)
    right = band.cells[:, 0] > 7
    band.colour[:-1][right] += 0.4
    band.regularise(0.0, 0.0, 2.0)
    edge, count = 0.02, len(band.cells)
    expected = np.zeros((count, 3))
    for s in range(count):
        for t in band.near[s]:
            if t < count:
                difference = band.colour[s].astype(float) - band.colour[t]
                expected[s] += 2.0 * edge / count * difference / (difference @ difference + edge**2)
    found = band.grad_colour.sum(axis=0)[:-1]
    assert same(found, expected)
    assert found.sum(axis=0) == pytest.approx([0, 0, 0], abs=1e-5)
    # The same difference pulls a hundred times less across an edge.
    slope = lambda d: d / (3 * d**2 + edge**2)  # noqa: E731
    assert slope(0.4) / 0.4 < 0.01 * slope(0.005) / 0.005


# --- blur, steps ------------------------------------------------------------------------------------------------------


def test_blur_keeps_constants_inside_and_lowers_the_rim() -> None:
    band = random_band()
    count = len(band.cells)
    source, target = np.full(count + 1, 3.0, np.float32), np.zeros(count + 1, np.float32)
    source[-1] = 0
    band_kernels.blur_band(band.near, source, target)
    inner = (band.near < count).all(axis=1)
    assert inner.any()
    assert not inner.all()
    assert target[:-1][inner] == pytest.approx(3.0, abs=1e-6)
    assert (target[:-1][~inner] < 2.99).all()


def test_blur_spreads_half_of_a_peak_over_its_neighbours() -> None:
    band = random_band()
    count = len(band.cells)
    peak = int(np.nonzero((band.near < count).all(axis=1))[0][10])
    source, target = np.zeros(count + 1, np.float32), np.zeros(count + 1, np.float32)
    source[peak] = 1.2
    band_kernels.blur_band(band.near, source, target)
    assert target[peak] == pytest.approx(0.6)
    assert target[band.near[peak]] == pytest.approx(0.1)
    assert target.sum() == pytest.approx(1.2)


def test_lanes_are_summed_and_cleared() -> None:
    lanes = np.random.default_rng(0).normal(size=(kernels.LANES, 50)).astype(np.float32)
    expected, total = lanes.sum(axis=0), np.full(50, 7.0, np.float32)
    band_kernels.sum_lanes(lanes, total)
    assert total[:-1] == pytest.approx(expected[:-1], abs=1e-6)
    assert total[-1] == 0  # what lies outside the band does not move
    assert not lanes.any()


# --- distances --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [5.0, 9.3])
def test_distances_to_a_ball_are_completed_from_those_at_its_surface(radius: float) -> None:
    points = np.stack(np.meshgrid(*[np.arange(32) - 15.3] * 3, indexing="ij"), -1)
    true = (np.linalg.norm(points, axis=-1) - radius).astype(np.float32)
    known = np.where(np.abs(true) < 1.5, true, 50 * np.sign(true)).astype(np.float32)
    found = redistanced(known)
    assert ((found < 0) == (true < 0)).all()
    assert (found[np.abs(true) < 1.5] == known[np.abs(true) < 1.5]).all()
    error = np.abs(found) - np.abs(true)
    within = np.abs(true) < 6
    assert (np.abs(error) < 0.1 * np.abs(true) + 0.15)[within].all()
    assert (np.abs(error / true)[within & (np.abs(true) > 3)]).max() < 0.1
    assert error.max() < 0.6  # too long by an eighth, and rays would step over what is thin
    assert error.min() > -1e-3
    assert redistanced(found) == pytest.approx(found, abs=1e-5)


def test_claims_of_a_surface_that_is_not_there_are_forgotten() -> None:
    grid = np.full((20, 20, 20), 9.0, np.float32)
    grid[:4] = -3.0
    grid[12, 10, 10] = 0.2
    found = redistanced(grid)
    assert found[12, 10, 10] > 5
    assert (found[:4] < 0).all()


def test_spreading_measures_from_what_is_known() -> None:
    distance = np.full((9, 8, 7), 1e6, np.float32)
    distance[2, 3, 1] = 0.5
    distance[8, 7, 6] = 2.0
    band_kernels.spread_distance(distance)
    index = np.stack(np.indices(distance.shape), -1)
    first, second = (np.linalg.norm(index - np.array(at), axis=-1) for at in ([2, 3, 1], [8, 7, 6]))
    assert distance == pytest.approx(np.minimum(first + 0.5, second + 2.0), abs=1e-4)


# --- votes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
def test_hidden_pixels_have_no_vote(ball_views: ViewSet, whole: bool) -> None:
    bar = np.zeros((64, 64), np.uint8)
    bar[20:30] = 255
    rays = RaySet.of(ViewSet((replace(ball_views.views[0], unknown_source=bar),), has_masks=True), 64)
    known = rays.known[0]
    assert known is not None
    votes, total = np.zeros(BOX.shape, np.float32), np.zeros(BOX.shape, np.float32)
    row = camera_rows(rays.cameras, BOX)[0]
    alpha = np.ascontiguousarray(rays.alpha[0].numpy())
    kernels.vote_masks(alpha, known.numpy(), row, np.float32(2), whole, votes, total)
    points = torch.from_numpy(np.stack(np.meshgrid(*BOX.centres(), indexing="ij"), -1)).float().reshape(-1, 3)
    voted = rays.votes(0, points)[1].reshape(BOX.shape).numpy()
    # Where a bar ends between two pixels, single precision decides.
    assert (np.abs(total - 2 * voted) > 1e-3).mean() < 0.05
    assert 0.1 < (total == 0).mean() < 0.5


@pytest.mark.parametrize("whole", [True, False])
def test_votes_are_the_masks_at_the_voxels_projections(ball_views: ViewSet, whole: bool) -> None:
    """From afar all voxels are in the picture; from close by some are beside it, or behind the camera."""
    close: Camera = orbit_camera(0.3, 0.2, 0.5, size=64)
    views = (*ball_views.views[:2], replace(ball_views.views[2], camera=close))
    rays = RaySet.of(ViewSet(views, has_masks=True), 64)
    votes, total = np.zeros(BOX.shape, np.float32), np.zeros(BOX.shape, np.float32)
    points = torch.from_numpy(np.stack(np.meshgrid(*BOX.centres(), indexing="ij"), -1)).float()
    expected, among = torch.zeros(BOX.shape), torch.zeros(BOX.shape)
    for k, row in enumerate(camera_rows(rays.cameras, BOX)):
        weight = np.float32(0.5 + k)
        kernels.vote_masks(
            np.ascontiguousarray(rays.alpha[k].numpy()), np.ones((1, 1), bool), row, weight, whole, votes, total
        )
        cover, seen = (x.reshape(BOX.shape) for x in rays.sample_alpha(k, points.reshape(-1, 3)))
        expected += float(weight) * cover
        among += float(weight) * (torch.ones_like(seen) if whole else seen)
    assert votes == pytest.approx(expected.numpy(), abs=0.01)
    assert total == pytest.approx(among.numpy())
    assert whole or (total < total.max()).any()
    assert len(np.unique(votes.round(2))) > 10
