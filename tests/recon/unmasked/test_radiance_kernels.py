"""The compiled density phase against slow references: automatic differentiation, Adam by hand, planes and slabs."""

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

from recon.sdf_grid.kernels import LANES
from recon.sdf_grid.narrow_band import camera_rows
from recon.unmasked import radiance_kernels
from scene.camera import Camera, look_at, orbit_camera
from scene.voxel_grid import VoxelGrid

BOX = VoxelGrid(np.array([-0.46, -0.41, -0.33]), 0.1, (9, 8, 7))
CAMERAS = tuple(orbit_camera(1.1 * k, 0.5 - 0.4 * k, 1.3, size=16) for k in range(3))
SIDE = 10
"""Voxels along each side of the surroundings' grid."""
SHIFT = -2.0


def facing(centre: tuple[float, float, float], target: tuple[float, float, float], size: int) -> Camera:
    return replace(orbit_camera(0.0, 0.0, size=size), c2w=look_at(np.array(centre), np.array(target)))


@dataclass
class Shot:
    """A volume, rays, and all else that a step is told."""

    inner: np.ndarray
    outer: np.ndarray
    view: np.ndarray
    pixels: np.ndarray
    target: np.ndarray
    weight: np.ndarray
    jitter: np.ndarray
    cameras: tuple[Camera, ...] = CAMERAS
    step: float = 0.8
    before: int = 0
    beyond: int = 0
    box: VoxelGrid = BOX

    @classmethod
    def of(cls, count: int = 120) -> Shot:
        rng = np.random.default_rng(6)
        inner, outer = (rng.random((*shape, 4)).astype(np.float32) for shape in (BOX.shape, (SIDE,) * 3))
        for grid in (inner, outer):
            grid[..., 0] = rng.normal(size=grid.shape[:3])
        return cls(
            inner,
            outer,
            np.sort(rng.integers(len(CAMERAS), size=count)).astype(np.int32),
            (rng.random((count, 2)) * 16).astype(np.float32),
            rng.random((count, 3)).astype(np.float32),
            (rng.random(count) + 0.5).astype(np.float32),
            rng.random(count).astype(np.float32),
        )

    @property
    def frame(self) -> np.ndarray:
        size = np.array(self.box.shape)
        return np.array([*((size - 1) / 2), size.max() * 0.6], np.float32)

    def gradients(self) -> tuple[np.ndarray, np.ndarray]:
        """Run the kernel; the lanes of both grids."""
        inner, outer = (np.zeros((LANES, *grid.shape), np.float32) for grid in (self.inner, self.outer))
        self.add_to(inner, outer)
        return inner, outer

    def add_to(self, inner: np.ndarray, outer: np.ndarray) -> None:
        radiance_kernels.density_step(
            self.inner,
            self.outer,
            self.frame,
            np.float32(SHIFT),
            camera_rows(self.cameras, self.box),
            self.view,
            self.pixels[:, 0].copy(),
            self.pixels[:, 1].copy(),
            self.target,
            self.weight,
            self.jitter,
            np.float32(self.step),
            self.before,
            self.beyond,
            inner,
            outer,
        )

    def picture(self, *, empty: bool = False) -> np.ndarray:
        """Run the kernel that renders: colour, opacity, distance, opacity in front."""
        out = np.full((len(self.view), 6), np.nan, np.float32)
        radiance_kernels.render_density(
            self.inner,
            self.outer,
            self.frame,
            np.float32(SHIFT),
            camera_rows(self.cameras, self.box),
            self.view,
            self.pixels[:, 0].copy(),
            self.pixels[:, 1].copy(),
            np.float32(self.step),
            self.before,
            self.beyond,
            empty,
            out,
        )
        return out

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """Origins and unit directions, grid coordinates."""
        found = [self.cameras[v].rays(p.astype(float)) for v, p in zip(self.view, self.pixels, strict=True)]
        return self.box.to_grid(np.array([f[0] for f in found])), np.array([f[1] for f in found])


def look_up(grid: Tensor, points: Tensor) -> Tensor:
    """Trilinear values [n 4] at grid coordinates, by torch."""
    last = torch.tensor(grid.shape[:3], dtype=grid.dtype) - 1
    where = (points / last * 2 - 1).flip(-1)[None, None, None]
    return F.grid_sample(grid.permute(3, 0, 1, 2)[None], where, align_corners=True)[0, :, 0, 0].T


def contracted(points: Tensor, frame: np.ndarray) -> Tensor:
    """mip-NeRF 360, equation 10, into the coordinates of the surroundings' grid."""
    middle, radius = torch.from_numpy(frame[:3]).double(), float(frame[3])
    scaled = (points - middle) / radius
    norm = scaled.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    scaled = torch.where(norm > 1, (2 - 1 / norm) * scaled / norm, scaled)
    return (SIDE - 1) / 2 + scaled / 2 * (SIDE - 1.02) / 2


def segments(shot: Shot, origin: np.ndarray, direction: np.ndarray, jitter: float) -> list[tuple[str, float, float]]:
    """(where, distance, length) of all samples of a ray, in plain Python."""
    with np.errstate(divide="ignore"):
        a, b = (0.01 - origin) / direction, (np.array(shot.box.shape) - 1.01 - origin) / direction
    near, far = max(0.0, float(np.minimum(a, b).max())), float(np.maximum(a, b).min())
    inside = []
    if near < far:
        inside = [("inside", float(t), shot.step) for t in np.arange(near + jitter * shot.step, far, shot.step)]
    else:
        towards = shot.frame[:3] - origin
        near = far = max(float(towards @ direction), 0.3 * float(np.linalg.norm(towards)))
    length = 0.7 * near / max(shot.before, 1)
    front = [("front", 0.3 * near + (s + jitter) * length, length) for s in range(shot.before)]
    far = max(far, 0.1 * float(shot.frame[3]))
    back = []
    for s in range(shot.beyond):
        t, after = (far / max(1 - (s + k + jitter) / shot.beyond, 0.02) for k in (0, 1))
        back.append(("behind", t, max(after - t, 1e-3) * (far / t) ** 2))
    return front + inside + back


def differentiated(shot: Shot) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same loss in torch, in double precision: gradients of both grids, and the rays' colours."""
    inner, outer = (torch.from_numpy(grid).double().requires_grad_() for grid in (shot.inner, shot.outer))
    loss, colours = torch.zeros(()).double(), []
    for r, (origin, direction) in enumerate(zip(*shot.rays(), strict=True)):
        found = segments(shot, origin, direction, float(shot.jitter[r]))
        if not found:
            colours.append([0.0, 0.0, 0.0])
            loss = loss + float(shot.weight[r]) * (torch.from_numpy(shot.target[r]).double() ** 2).mean()
            continue
        where = np.array([f[0] for f in found])
        points = torch.from_numpy(origin + np.array([f[1] for f in found])[:, None] * direction)
        values = look_up(outer, contracted(points, shot.frame))
        boxed = torch.from_numpy(where == "inside")
        values = torch.where(boxed[:, None], look_up(inner, points), values)
        density = F.softplus(values[:, 0] + SHIFT)
        alpha = 1 - torch.exp(-density * torch.tensor([f[2] for f in found]).double())
        if where[-1] == "behind":  # the last one of them is opaque
            alpha = torch.cat([alpha[:-1], torch.ones(1).double()])
        kept: list[int] = np.flatnonzero(where == "front").tolist()
        left = 1 - alpha.detach().numpy()
        light = float(left[kept].prod())
        for s in np.flatnonzero(where == "inside").tolist():
            if light > 1e-3:  # nothing is looked up where no light arrives
                kept.append(s)
                light *= float(left[s])
        if light > 1e-3:
            kept += np.flatnonzero(where == "behind").tolist()
        alpha, values = alpha[kept], values[kept]
        passed = torch.cumprod(torch.cat([torch.ones(1).double(), 1 - alpha[:-1]]), 0)
        seen = ((alpha * passed)[:, None] * values[:, 1:]).sum(0)
        colours.append(seen.detach().tolist())
        loss = loss + float(shot.weight[r]) * (seen - torch.from_numpy(shot.target[r]).double()).square().mean()
    (loss / len(shot.view)).backward()
    of_inner, of_outer = (np.zeros(tuple(x.shape)) if x.grad is None else x.grad.numpy() for x in (inner, outer))
    return of_inner, of_outer, np.array(colours)


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal to what single precision allows, by the size of the largest."""
    return bool(np.abs(ours - theirs).max() < 2e-3 * np.abs(theirs).max() + 1e-9)


def with_opaque_voxels(shot: Shot) -> Shot:
    """Some voxels that let no light through at all, in single precision."""
    inner = shot.inner.copy()
    inner[4:6, 3:5, 2:5, 0] = 40.0
    return replace(shot, inner=inner)


def denser(shot: Shot) -> Shot:
    inner = shot.inner.copy()
    inner[..., 0] += 4.0
    return replace(shot, inner=inner)


CASES: dict[str, Callable[[Shot], Shot]] = {
    "box": lambda s: s,
    "behind it": lambda s: replace(s, beyond=6),
    "in front of it and behind it": lambda s: replace(s, before=3, beyond=6),
    "in front of it": lambda s: replace(s, before=3),
    "small steps": lambda s: replace(s, step=0.3, beyond=6),
    "dense": lambda s: replace(denser(s), beyond=6),
    "opaque": lambda s: replace(with_opaque_voxels(s), beyond=6),
    "opaque, black behind": with_opaque_voxels,
    "from inside": lambda s: replace(
        s, before=2, beyond=6, cameras=tuple(orbit_camera(1.1 * k, 0.3, 0.2, size=16) for k in range(3))
    ),
    "away from the box": lambda s: replace(
        s, beyond=6, cameras=tuple(facing((1.3, 0.1 * k, 0.2), (2.0, 0.0, 0.0), 16) for k in range(3))
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_gradients_are_those_of_automatic_differentiation(case: Callable[[Shot], Shot]) -> None:
    shot = case(Shot.of())
    inner, outer = (lanes.sum(axis=0) for lanes in shot.gradients())
    of_inner, of_outer, _ = differentiated(shot)
    for channels in (slice(0, 1), slice(1, 4)):
        assert same(inner[..., channels], of_inner[..., channels])
        assert same(outer[..., channels], of_outer[..., channels])
    assert of_inner.any() == (case is not CASES["away from the box"])
    assert of_outer.any() == (shot.before + shot.beyond > 0)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_rendered_rays_are_those_of_the_reference(case: Callable[[Shot], Shot]) -> None:
    shot = case(Shot.of())
    shot = replace(shot, jitter=np.full_like(shot.jitter, 0.5))
    _, _, colours = differentiated(shot)
    assert shot.picture()[:, :3] == pytest.approx(colours, abs=1e-4)


def test_opaque_voxels_still_learn_their_colour() -> None:
    shot = with_opaque_voxels(Shot.of())
    lanes, _ = shot.gradients()
    assert (np.abs(lanes.sum(axis=0)[4:6, 3:5, 2:5, 1:]).max(axis=(0, 1, 2)) > 0).all()


def test_lanes_are_added_to_and_cover_all_rays() -> None:
    shot = replace(Shot.of(), beyond=6)
    lanes = shot.gradients()
    once = [grad.copy() for grad in lanes]
    assert all((np.abs(grad).max(axis=(1, 2, 3, 4)) > 0).all() for grad in once)
    shot.add_to(*lanes)
    for grad, first in zip(lanes, once, strict=True):
        assert grad == pytest.approx(2 * first, rel=1e-5, abs=1e-9)


def test_no_ray_changes_what_is_far_from_all_of_them() -> None:
    shot = Shot.of(count=2)
    moved = np.abs(shot.gradients()[0]).sum(axis=(0, 4)) > 0
    voxels = np.stack(np.meshgrid(*[np.arange(n) for n in BOX.shape], indexing="ij"), -1).astype(float)
    distance = np.full(BOX.shape, np.inf)
    for origin, direction in zip(*shot.rays(), strict=True):
        offset = voxels - origin
        distance = np.minimum(distance, np.linalg.norm(offset - (offset @ direction)[..., None] * direction, axis=-1))
    assert moved.any()
    assert distance[moved].max() < math.sqrt(3)


@pytest.mark.skipif(numba.get_num_threads() < 2, reason="one core has one thread")
def test_the_number_of_threads_changes_no_byte() -> None:
    shot = replace(Shot.of(count=500), before=2, beyond=6)
    before = numba.get_num_threads()
    try:
        found = []
        for threads in (1, 2):
            numba.set_num_threads(threads)
            found.append([x.tobytes() for x in (*shot.gradients(), shot.picture())])
    finally:
        numba.set_num_threads(before)
    assert found[0] == found[1]


# --- steps ------------------------------------------------------------------------------------------------------------


def test_steps_are_those_of_adam() -> None:
    rng = np.random.default_rng(3)
    grid = rng.random((5, 4, 6, 4)).astype(np.float32)
    own, first, second = grid.astype(float), np.zeros(grid.shape), np.zeros(grid.shape)
    moments = np.zeros((*grid.shape, 2), np.float32)
    for step in range(1, 6):
        lanes = rng.normal(size=(LANES, *grid.shape)).astype(np.float32)
        lanes[:, 2] = 0  # no ray has been here
        gradient = lanes.sum(axis=0)
        first = np.where(gradient == 0, first, 0.9 * first + 0.1 * gradient)
        second = np.where(gradient == 0, second, 0.99 * second + 0.01 * gradient.astype(float) ** 2)
        change = (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.99**step)) + 1e-12)
        own = np.where(gradient == 0, own, own - np.array([0.5, 0.03, 0.03, 0.03]) * change)
        own[..., 1:] = own[..., 1:].clip(0, 1)
        before = np.ascontiguousarray(grid[..., 0])
        radiance_kernels.volume_step(
            grid, before, lanes, moments, step, np.float32(0.5), np.float32(0.03), np.float32(0)
        )
        assert not lanes.any()
        assert grid == pytest.approx(own, abs=1e-4)
    assert grid[..., 0].min() < -0.2  # densities have no bounds
    assert grid[..., 1:].min() == 0
    assert grid[..., 1:].max() == 1


def test_flatness_is_the_gradient_of_the_densities_variation() -> None:
    rng = np.random.default_rng(3)
    grid = rng.normal(size=(6, 5, 7, 4)).astype(np.float32)
    before = torch.from_numpy(grid[..., 0].copy()).double().requires_grad_()
    energy = torch.zeros(()).double()
    for axis in range(3):
        size = before.diff(dim=axis).abs()
        energy = energy + (size - 0.1 * torch.log(size + 0.1)).sum()  # its slope is size / (size + 0.1)
    (0.3 * energy).backward()
    assert before.grad is not None
    lanes = np.zeros((LANES, *grid.shape), np.float32)
    lanes[1, ..., 0] = 0.01 * rng.normal(size=grid.shape[:3])
    expected = lanes[1, ..., 0].copy()
    inner = (slice(1, -1),) * 3
    expected[inner] += before.grad.numpy()[inner]
    moments = np.zeros((*grid.shape, 2), np.float32)
    known = before.detach().numpy().astype(np.float32)
    rates = (np.float32(0.5), np.float32(0.03))
    radiance_kernels.volume_step(grid, known, lanes, moments, 1, rates[0], rates[1], np.float32(0.3))
    assert moments[..., 0, 0] == pytest.approx(0.1 * expected, abs=1e-6)
    assert not moments[..., 1:, :].any()


# --- rendering --------------------------------------------------------------------------------------------------------


def slab(low: float, high: float, shape: tuple[int, int, int] = (24, 10, 10), count: int = 60) -> Shot:
    """A solid between two planes of constant x (voxels), seen obliquely from its -x side."""
    box = VoxelGrid(np.array([-0.05 * n for n in shape]), 0.1, shape)
    camera = facing((-0.05 * shape[0] - 1.0, 0.3, 0.2), (0.0, 0.0, 0.0), 16)
    shot = replace(Shot.of(count), box=box, cameras=(camera,), step=0.4)
    x = np.arange(shape[0])
    inner = np.zeros((*shape, 4), np.float32)
    inner[..., 0] = np.where((x > low) & (x < high), 30.0, -30.0)[:, None, None]
    inner[..., 1:] = (0.2, 0.5, 0.8)
    pixels = np.random.default_rng(2).uniform(7.8, 8.2, (count, 2)).astype(np.float32)
    return replace(shot, inner=inner, view=np.zeros(count, np.int32), pixels=pixels)


@pytest.mark.parametrize(
    ("low", "high", "shape"),
    [(8.0, 14.0, (24, 10, 10)), (15.5, 22.0, (24, 10, 10)), (380.5, 390.0, (400, 30, 30))],
    ids=["near", "far", "at the end of a long way"],
)
def test_an_opaque_slab_is_where_it_is(low: float, high: float, shape: tuple[int, int, int]) -> None:
    shot = slab(low, high, shape)
    out = shot.picture()
    origins, directions = shot.rays()
    hit = origins + out[:, 4:5] * directions
    assert (out[:, 4] > 0).all()
    assert (np.abs(hit[:, 0] - low) < 1.0).all()  # between the last empty voxel and the first that is full
    assert out[:, 3] == pytest.approx(1, abs=1e-3)
    assert out[:, :3] == pytest.approx(np.tile([0.2, 0.5, 0.8], (len(out), 1)), abs=2e-3)
    assert not out[:, 5].any()


def test_an_empty_box_shows_what_is_behind_it() -> None:
    shot = slab(8.0, 14.0)
    outer = np.zeros_like(shot.outer)
    outer[..., 1:] = (0.9, 0.1, 0.3)
    shot = replace(shot, outer=outer, beyond=8)
    solid, empty = shot.picture(), shot.picture(empty=True)
    thin = replace(shot, inner=np.where(np.arange(4) == 0, np.float32(-30), shot.inner)).picture()
    assert solid[:, :3] == pytest.approx(np.tile([0.2, 0.5, 0.8], (len(solid), 1)), abs=2e-3)
    for out in (empty, thin):
        assert out[:, :3] == pytest.approx(np.tile([0.9, 0.1, 0.3], (len(solid), 1)), abs=1e-4)
        assert not out[:, [3, 5]].round(6).any()
        assert np.isinf(out[:, 4]).all()


def test_what_stands_in_front_of_the_box_hides_it() -> None:
    shot = slab(8.0, 14.0)
    outer = np.full_like(shot.outer, 0.5)
    outer[..., 0] = 30.0
    out = replace(shot, outer=outer, before=4).picture()
    assert np.isinf(out[:, 4]).all()
    assert out[:, 5] == pytest.approx(1, abs=1e-3)
    assert out[:, 3] == pytest.approx(0, abs=1e-3)


def test_one_colour_everywhere_is_seen_everywhere_with_any_number_of_samples() -> None:
    shot = Shot.of()
    for grid in (shot.inner, shot.outer):
        grid[..., 1:] = (0.25, 0.5, 0.75)
    out = replace(shot, before=150, beyond=400).picture()
    assert out[:, :3] == pytest.approx(np.tile([0.25, 0.5, 0.75], (len(out), 1)), abs=1e-4)
    assert not replace(shot, before=150, beyond=400, target=out[:, :3].copy()).gradients()[0][..., 1:].round(5).any()
