"""Depth and normal maps in a fit: hollows open, dents and creases come out, and wrong maps do little harm."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from pipeline.training.procedural import Part, lathe
from recon.fit import fit_surface
from recon.mesh.marching_cubes import extract_mesh
from recon.sdf_grid import kernels, supervision_kernels
from recon.sdf_grid.checkpoint import fit_digest
from recon.sdf_grid.narrow_band import NarrowBandSDF, camera_rows
from recon.sdf_grid.supervision import SupervisionMaps
from recon.settings import FitSettings
from recon.surface import Surface
from recon.surface_report import MapReport
from recon.views.ray_set import RaySet
from recon.views.visual_hull import Hull, visual_hull
from scene.camera import look_at, orbit_camera
from scene.errors import SettingsError
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.viewset import ViewSet
from scene.voxel_grid import VoxelGrid
from scene.voxels import sphere_cameras

TINY = FitSettings(
    levels=(16, 28), iterations=(60, 60), rays=768, image_side=64, hull_resolution=32, inv_s=(3.0, 6.0), sdf_lr=0.12
)
SHORT = replace(TINY, iterations=(2, 2), rays=256)
CAMERAS = sphere_cameras(12, 64, 1.5)
RADIUS, THICK = 0.5, 0.08


def with_maps(views: ViewSet, part: Part) -> ViewSet:
    """The same views with the depths and normals of what they show."""
    renderer = MeshRenderer(ColouredMesh(part[0].astype(np.float32), part[1].astype(np.int32)))
    out = []
    for view in views:
        seen = renderer.render(view.camera, samples=1)
        normal = (seen.normal @ view.camera.c2w[:3, :3]).astype(np.float32)
        out.append(replace(view, depth_source=seen.depth, normal_source=normal))
    return replace(views, views=tuple(out))


def only(views: ViewSet, kind: str) -> ViewSet:
    """Views with maps of one kind."""
    if kind == "depth":
        return replace(views, views=tuple(replace(view, normal_source=None) for view in views))
    return replace(views, views=tuple(replace(view, depth_source=None) for view in views))


def changed(views: ViewSet, change: Callable[[np.ndarray], np.ndarray], which: tuple[int, ...] = ()) -> ViewSet:
    """Views with other depths; all of them, or some."""
    out = []
    for k, view in enumerate(views):
        depth = view.depth()
        assert depth is not None
        new = change(depth).astype(np.float32) if not which or k in which else depth
        out.append(replace(view, depth_source=new))
    return replace(views, views=tuple(out))


def bare(views: ViewSet) -> ViewSet:
    """Views without maps."""
    return replace(views, views=tuple(replace(v, depth_source=None, normal_source=None) for v in views))


@pytest.fixture(scope="module")
def ball_maps(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> ViewSet:
    part = ball(RADIUS)
    return with_maps(shoot(part, CAMERAS), part)


@pytest.fixture(scope="module")
def bowl_maps(shoot: Callable[..., ViewSet]) -> ViewSet:
    """Half a hollow ball, open at the top, of one colour: neither outlines nor pictures tell that it is hollow."""
    angle = np.linspace(-math.pi / 2, 0, 16)
    rim = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    profile = np.concatenate([rim * RADIUS, rim[::-1] * (RADIUS - THICK)])
    profile[[0, -1], 0] = 0
    part = lathe(profile, 48)
    return with_maps(shoot(part, CAMERAS), part)


def distances(surface: Surface, points: np.ndarray) -> np.ndarray:
    """Signed distances at world points."""
    return ndimage.map_coordinates(surface.sdf, surface.box.to_grid(points).T, order=1, mode="nearest")


def height_on_axis(surface: Surface) -> float:
    """Where a probe that falls along the z axis meets the surface."""
    z = np.linspace(0.3, -0.7, 500)
    solid = distances(surface, np.stack([0 * z, 0 * z, z], -1)) < 0
    return float(z[solid.argmax()])


def off_ball(surface: Surface) -> np.ndarray:
    return np.linalg.norm(extract_mesh(surface)[0], axis=1) - RADIUS


def guides_of(views: ViewSet, settings: FitSettings = TINY) -> tuple[SupervisionMaps | None, Hull]:
    rays = RaySet.of(views, settings.image_side)
    hull = visual_hull(rays, settings.hull_resolution, settings.half_extent)
    return SupervisionMaps.of(views, rays, hull, settings), hull


# --- fits -------------------------------------------------------------------------------------------------------------


def test_depth_opens_a_bowl(bowl_maps: ViewSet) -> None:
    with_depth = fit_surface(only(bowl_maps, "depth"), TINY)
    without = fit_surface(bare(bowl_maps), TINY)
    assert height_on_axis(with_depth) == pytest.approx(THICK - RADIUS, abs=0.03)
    assert height_on_axis(without) > -0.2
    assert with_depth.report.maps == MapReport(depth=len(CAMERAS))
    assert with_depth.report.kept == "fit"


def test_maps_of_some_views_are_enough(bowl_maps: ViewSet) -> None:
    """Those that look into the bowl."""
    some = [
        view if view.camera.centre[2] > 0.5 else replace(view, depth_source=None, normal_source=None)
        for view in bowl_maps
    ]
    surface = fit_surface(replace(bowl_maps, views=tuple(some)), TINY)
    assert surface.report.maps is not None
    assert 0 < surface.report.maps.depth < len(CAMERAS) / 2
    assert height_on_axis(surface) == pytest.approx(THICK - RADIUS, abs=0.04)


def test_noisy_depth_with_holes_does_not_spoil_a_ball(ball_maps: ViewSet) -> None:
    rng = np.random.default_rng(0)

    def worn(depth: np.ndarray) -> np.ndarray:
        noisy = depth * (1 + 0.02 * rng.standard_normal(depth.shape))
        hole = rng.random(depth.shape)
        return np.where(hole < 0.1, np.nan, np.where(hole < 0.2, np.inf, noisy))

    plain = off_ball(fit_surface(bare(ball_maps), TINY))
    surface = fit_surface(changed(only(ball_maps, "depth"), worn), TINY)
    assert surface.report.maps is not None
    assert surface.report.maps.left_out == ()
    assert np.abs(off_ball(surface)).mean() < 1.2 * np.abs(plain).mean()
    assert np.quantile(np.abs(off_ball(surface)), 0.95) < 0.03


@pytest.mark.parametrize("factor", [0.8, 1.2], ids=["too near", "too far"])
def test_a_map_that_contradicts_the_others_is_left_out(factor: float, ball_maps: ViewSet) -> None:
    views = changed(only(ball_maps, "depth"), lambda depth: depth * factor, which=(4,))
    surface = fit_surface(views, TINY)
    assert surface.report.maps == MapReport(depth=len(CAMERAS) - 1, left_out=("04",))
    assert np.abs(off_ball(surface)).mean() < 0.01


def test_maps_that_are_all_wrong_are_left_out_and_stop_nothing(ball_maps: ViewSet) -> None:
    """Metres that were taken for millimetres."""
    views = changed(only(ball_maps, "depth"), lambda depth: depth / 1000)
    surface = fit_surface(views, replace(TINY, levels=(12,), iterations=(5,)))
    maps = surface.report.maps
    assert maps is not None
    assert (maps.depth, len(maps.left_out)) == (0, len(CAMERAS))


def test_one_wrong_patch_does_little_harm(ball_maps: ViewSet) -> None:
    """Not enough of a map to leave it out."""

    def torn(depth: np.ndarray) -> np.ndarray:
        out = depth.copy()
        out[24:36, 24:36] *= 1.3
        return out

    surface = fit_surface(changed(only(ball_maps, "depth"), torn, which=(4,)), TINY)
    assert surface.report.maps is not None
    assert surface.report.maps.left_out == ()
    assert np.abs(off_ball(surface)).max() < 0.05


def test_normals_flatten_what_pictures_leave_open(ball_maps: ViewSet) -> None:
    """A ball of one colour is pinned at its outlines only; normals round it between them."""

    def unevenness(surface: Surface) -> float:
        points = ball_points() * RADIUS
        slope = np.stack(
            [distances(surface, points + d) - distances(surface, points - d) for d in 0.01 * np.eye(3)], -1
        )
        cosine = np.einsum("nc,nc->n", slope, points) / np.linalg.norm(slope, axis=1) / RADIUS
        return float(np.arccos(np.clip(cosine, -1, 1)).mean())

    plain, guided = (unevenness(fit_surface(views, TINY)) for views in (bare(ball_maps), only(ball_maps, "normal")))
    assert guided < 0.75 * plain


def ball_points() -> np.ndarray:
    points = np.random.default_rng(1).standard_normal((2000, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_bases_are_cut_where_depth_maps_end(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """Seen from above, a ball hides its underside; outlines leave a cone there."""
    part = ball(RADIUS)
    above = with_maps(shoot(part, [orbit_camera(k * math.pi / 5, 0.6, 1.5, size=64) for k in range(10)]), part)
    surface = fit_surface(only(above, "depth"), TINY)
    guides, _ = guides_of(above)
    assert guides is not None
    shown = guides.measured()
    assert shown is not None
    assert surface.report.flat_base
    assert extract_mesh(surface)[0][:, 2].min() == pytest.approx(shown[:, 2].min(), abs=0.5 * surface.voxel)
    few = tuple(replace(v, depth_source=None) if k > 3 else v for k, v in enumerate(only(above, "depth")))
    guides, _ = guides_of(replace(above, views=few))
    assert guides is not None
    assert guides.measured() is None


@pytest.mark.parametrize("kind", ["depth", "normal"])
def test_without_weight_or_maps_nothing_changes(kind: str, ball_maps: ViewSet) -> None:
    plain = fit_surface(bare(ball_maps), SHORT)
    zero, much = (
        replace(SHORT, depth_weight=w) if kind == "depth" else replace(SHORT, normal_weight=w) for w in (0.0, 7.0)
    )
    ignored = fit_surface(only(ball_maps, kind), zero)
    heeded = fit_surface(only(ball_maps, kind), SHORT)
    for same in (ignored, fit_surface(bare(ball_maps), much)):
        assert (same.sdf.tobytes(), same.colour.tobytes(), same.report) == (
            plain.sdf.tobytes(),
            plain.colour.tobytes(),
            plain.report,
        )
    assert heeded.sdf.tobytes() != plain.sdf.tobytes()


def test_a_stopped_fit_with_maps_goes_on_to_the_same_bytes(
    ball_maps: ViewSet, tmp_path: Path, stopped: Callable[..., None]
) -> None:
    settings = replace(SHORT, levels=(8, 12), iterations=(10, 120), image_side=32, hull_resolution=24)
    path = tmp_path / "fit.npz"
    stopped(ball_maps, settings, path, 115)
    reported: list[int] = []
    again = fit_surface(ball_maps, settings, checkpoint=path, on_step=lambda done, total: reported.append(done))
    assert reported[0] == 111
    assert again.sdf.tobytes() == fit_surface(ball_maps, settings).sdf.tobytes()


def test_other_maps_are_another_fit(ball_maps: ViewSet) -> None:
    rays = RaySet.of(ball_maps, TINY.image_side)
    digests = {fit_digest(rays, TINY, None)}
    nearer = changed(ball_maps, lambda depth: depth * 1.001, which=(3,))
    for views in (ball_maps, only(ball_maps, "depth"), only(ball_maps, "normal"), nearer):
        guides, _ = guides_of(views)
        assert guides is not None
        digests.add(fit_digest(rays, TINY, None, guides.arrays))
    assert len(digests) == 5


def test_other_devices_say_that_maps_are_not_used(ball_maps: ViewSet) -> None:
    """Whether the surface is any good does not matter here."""
    tiny = replace(SHORT, iterations=(1, 0), rays=32, hull_resolution=16)
    device = torch.device("meta")
    with pytest.MonkeyPatch.context() as patch:
        flat = Surface.cube(np.ones((16, 16, 16), np.float32), np.zeros((2, 2, 2, 3), np.float32), tiny.half_extent)
        patch.setattr("recon.fit.fit_hash_grid", lambda *_: flat)
        assert fit_surface(ball_maps, tiny, device=device).report.maps == MapReport(ignored=True)
        assert fit_surface(bare(ball_maps), tiny, device=device).report.maps is None


def test_weights_are_checked() -> None:
    with pytest.raises(SettingsError, match="Give 0 to ignore them"):
        replace(TINY, depth_weight=-1.0)
    with pytest.raises(SettingsError, match="Give 0 to ignore them"):
        replace(TINY, normal_weight=math.nan)


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 32, 21])
def test_points_and_normals_are_where_they_were_measured(side: int, ball_maps: ViewSet) -> None:
    """At any thinning: z-depths become distances along rays, and normals turn with the camera."""
    guides, _ = guides_of(ball_maps, replace(TINY, image_side=side))
    assert guides is not None
    for guide, view in zip(guides.maps, ball_maps, strict=True):
        assert max(guide.camera.width, guide.camera.height) <= side
        assert guide.depth is not None
        assert guide.normal is not None
        points = guide.points()
        assert len(points) > 0.1 * side**2
        assert np.linalg.norm(points, axis=1) == pytest.approx(RADIUS, abs=5e-3)
        normal = guide.normal[guide.depth > 0]
        assert np.einsum("nc,nc->n", normal, points) / RADIUS == pytest.approx(1, abs=5e-3)
        pixels, _ = guide.camera.project(points)
        assert pixels % 1 == pytest.approx(0.5, abs=1e-6)
        # The thinned picture is part of the whole one.
        whole = view.camera.project(points)[0]
        assert np.abs(whole - 0.5 - np.round(whole - 0.5)).max() < 1e-6


def test_what_is_off_the_object_is_not_known(ball_maps: ViewSet) -> None:
    """Depth cameras measure the table, too."""
    table = changed(only(ball_maps, "depth"), lambda depth: np.where(depth > 0, depth, 2.0))
    guides, truth = guides_of(table)[0], guides_of(only(ball_maps, "depth"))[0]
    assert guides is not None
    assert truth is not None
    assert [np.count_nonzero(a) for a in guides.arrays] == pytest.approx(
        [np.count_nonzero(a) for a in truth.arrays], rel=0.06
    )
    assert np.linalg.norm(guides.maps[0].points(), axis=1).max() < 2


def test_noise_is_measured(ball_maps: ViewSet) -> None:
    rng = np.random.default_rng(2)
    for deviation in (0.0, 0.02):
        added = deviation * rng.standard_normal((64, 64))
        noisy = changed(only(ball_maps, "depth"), lambda depth, added=added: depth + (depth > 0) * added)  # type: ignore[misc]
        guides, _ = guides_of(noisy)
        assert guides is not None
        assert guides.noise == pytest.approx(deviation, abs=0.01)


def test_one_lone_map_is_trusted_unless_it_leaves_the_outlines(ball_maps: ViewSet) -> None:
    first, *rest = only(ball_maps, "depth").views
    others = tuple(replace(view, depth_source=None) for view in rest)
    lone = ViewSet((first, *others), True)
    for factor, kept in ((1.0, True), (0.6, False)):
        guides, _ = guides_of(changed_first(lone, factor))
        assert guides is not None
        assert bool(guides.maps) == kept


def changed_first(views: ViewSet, factor: float) -> ViewSet:
    first, *rest = views.views
    depth = first.depth()
    assert depth is not None
    return replace(views, views=(replace(first, depth_source=depth * np.float32(factor)), *rest))


def flat_band() -> NarrowBandSDF:
    """A band about the plane z = 8 of a grid, tilted a little."""
    x, _, z = np.indices((16, 16, 16)).astype(np.float32)
    return NarrowBandSDF(VoxelGrid(np.zeros(3), 1.0, (16, 16, 16)), z - 8 + np.float32(0.1) * (x - 8), 4.0)


def energy_of_points(grid: np.ndarray, points: np.ndarray, soft: float) -> float:
    f = trilinear(grid, points)
    return float((soft**2 / 2 * np.log1p((f / soft) ** 2)).sum())


def trilinear(grid: np.ndarray, points: np.ndarray) -> np.ndarray:
    base = points.astype(int)
    share = points - base
    total = np.zeros(len(points))
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(corner, share, 1 - share).prod(-1)
        total += weight * grid[tuple((base + corner).T)]
    return total


def test_the_pull_to_points_on_the_surface_is_the_energy_s_gradient() -> None:
    """Where a point is close to the surface, acting on the surface and on the point are the same."""
    band = flat_band()
    rng = np.random.default_rng(3)
    x, y = rng.uniform(3, 13, (2, 40))
    points = np.stack([x, y, 8 - 0.1 * (x - 8) + 1e-3], -1).astype(np.float32)
    gradient = np.zeros((kernels.LANES, len(band.cells) + 1), np.float32)
    weight = np.ones(40, np.float32)
    supervision_kernels.add_depth_loss(band.grid, band.index, points, weight, np.float32(1), gradient)
    _compare(band, gradient, lambda grid: energy_of_points(grid, points.astype(float), 1.0), 2e-2)


def test_points_off_the_surface_pull_at_the_surface() -> None:
    band = flat_band()
    above = np.array([[8.3, 8.4, 9.5]], np.float32)
    gradient = np.zeros((kernels.LANES, len(band.cells) + 1), np.float32)
    supervision_kernels.add_depth_loss(band.grid, band.index, above, np.ones(1, np.float32), np.float32(1), gradient)
    moved = band.cells[gradient.sum(0)[:-1] > 0]  # lower distances: the surface rises
    assert len(moved) == 8
    assert (np.abs(band.grid[tuple(moved.T)]) < 1.3).all()
    assert (gradient >= 0).all()


def test_the_pull_to_normals_is_the_energy_s_gradient() -> None:
    band = flat_band()
    rng = np.random.default_rng(4)
    points = rng.uniform(3, 12, (30, 3)).astype(np.float32)
    points[:, 2] = rng.uniform(7.1, 8.9, 30)
    normals = rng.standard_normal((30, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    gradient = np.zeros((kernels.LANES, len(band.cells) + 1), np.float32)
    supervision_kernels.add_normal_loss(
        band.grid, band.index, points, normals, np.ones(30, np.float32), np.float32(0.5), gradient
    )

    def energy(grid: np.ndarray) -> float:
        base = points.astype(int)
        share = points.astype(float) - base
        slope = np.zeros((30, 3))
        for corner in np.ndindex(2, 2, 2):
            value = grid[tuple((base + corner).T)]
            for axis in range(3):
                others = [a for a in range(3) if a != axis]
                weight = np.prod([share[:, a] if corner[a] else 1 - share[:, a] for a in others], axis=0)
                slope[:, axis] += (1 if corner[axis] else -1) * weight * value
        return float((0.125 * np.log1p(((slope - normals) ** 2).sum(-1) / 0.25)).sum())

    _compare(band, gradient, energy, 1e-3)


def _compare(band: NarrowBandSDF, gradient: np.ndarray, energy: Callable[[np.ndarray], float], rel: float) -> None:
    total = gradient.sum(0)[:-1]
    largest = np.argsort(-np.abs(total))[:12]
    step = 1e-5
    for slot in largest:
        ends = []
        for sign in (1, -1):
            grid = band.grid.astype(float)
            grid[tuple(band.cells[slot])] += sign * step
            ends.append(energy(grid))
        assert total[slot] == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=rel, abs=1e-4)


def test_free_space_is_what_lies_in_front() -> None:
    """One camera above a plane, along its axis."""
    box = VoxelGrid(np.full(3, -0.5), 0.05, (20, 20, 20))
    camera = replace(orbit_camera(0.0, 0.0, size=64), c2w=look_at(np.array([0.0, 1e-3, 2.0])))
    distance = np.full((64, 64), 2.0) / (camera.rays()[1] @ camera.forward) / box.voxel
    votes = np.zeros(box.shape, np.float32)
    row = camera_rows((camera,), box)[0]
    wanted = np.ones(box.shape, bool)
    wanted[:5] = False
    supervision_kernels.vote_free(distance.astype(np.float32), row, np.float32(0.5), np.float32(2.0), wanted, votes)
    assert (votes[:5] == 0).all()
    along = votes[10, 10]  # heights -0.475 to 0.475; the plane is at 0
    assert along.tolist() == [0.0] * 8 + [-0.5] * 2 + [0.5] * 2 + [1.0] * 8
    supervision_kernels.vote_free(np.zeros((64, 64), np.float32), row, np.float32(1), np.float32(2.0), wanted, votes)
    assert votes[10, 10].tolist() == along.tolist()


def test_a_full_ball_is_not_carved(ball_maps: ViewSet) -> None:
    """Good depths leave a ball as it is."""
    guides, _ = guides_of(only(ball_maps, "depth"))
    assert guides is not None
    box = VoxelGrid.of_voxel(np.full(3, -0.6), np.full(3, 0.6), 0.04)
    centres = np.stack(np.meshgrid(*box.centres(), indexing="ij"), -1)
    distance = ((np.linalg.norm(centres, axis=-1) - RADIUS) / box.voxel).astype(np.float32)
    kept = guides.carved(distance, box)
    assert np.count_nonzero((kept < 0) != (distance < 0)) < 0.02 * np.count_nonzero(distance < 0)
