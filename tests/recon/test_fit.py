"""Fits of analytic objects: near the truth, never worse than the hull, the same every time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.training.procedural import Part, box, moved
from recon.fit import fit_surface, hull_surface, prior_surface
from recon.mesh.health import mesh_health
from recon.mesh.marching_cubes import extract_mesh
from recon.mesh.metrics import compare_meshes
from recon.mesh.topology import remove_small_components
from recon.settings import FitSettings
from recon.surface import Surface
from scene.camera import OBJECT_RADIUS, orbit_camera
from scene.errors import InputError, SettingsError
from scene.mesh import signed_volume
from scene.raycast import mesh_caster
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras, voxel_centres

TINY = FitSettings(
    levels=(16, 32), iterations=(60, 60), rays=1024, image_side=64, hull_resolution=32, inv_s=(3.0, 6.0), sdf_lr=0.12
)
SHORT = replace(TINY, iterations=(2, 2), rays=256)
VOXEL = 2 * TINY.half_extent / TINY.hull_resolution
CAMERAS = sphere_cameras(16, 64, 1.5)
POINTS = voxel_centres(TINY.hull_resolution, TINY.half_extent)


class RedAndBlue:
    """Red where x is positive, blue where it is not."""

    def __call__(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        return np.where(points[:, :1] > 0, [[0.9, 0.1, 0.1]], [[0.1, 0.1, 0.9]]).astype(np.float32)


@pytest.fixture(scope="module")
def two_colours(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> ViewSet:
    return shoot(ball(0.5), CAMERAS, solid=(RedAndBlue(),))


@pytest.fixture(scope="module")
def fitted(two_colours: ViewSet) -> Surface:
    return fit_surface(two_colours, TINY)


def test_a_ball_is_found(fitted: Surface, ball: Callable[..., Part]) -> None:
    vertices, faces = extract_mesh(fitted)
    off = np.abs(np.linalg.norm(vertices, axis=1) - 0.5)
    # Between the outlines of the views nothing pins the surface of a plain ball.
    assert np.quantile(off, 0.95) < VOXEL
    assert off.max() < 2 * VOXEL
    assert np.linalg.norm(vertices, axis=1).mean() == pytest.approx(0.5, abs=0.2 * VOXEL)
    assert compare_meshes(vertices, faces, *ball(0.5), samples=2000).chamfer < 0.02
    assert mesh_health(vertices, faces).components == 1


def test_a_fit_is_nearer_to_a_ball_than_its_hull(fitted: Surface, two_colours: ViewSet) -> None:
    hull = hull_surface(two_colours, TINY)
    error, of_hull = (np.abs(np.linalg.norm(extract_mesh(s)[0], axis=1) - 0.5).mean() for s in (fitted, hull))
    assert error < 0.8 * of_hull


def test_colours_are_where_they_were_seen(fitted: Surface) -> None:
    vertices, _ = extract_mesh(fitted)
    colours = fitted.colours_at(vertices)
    assert np.median(colours[vertices[:, 0] > 0.1], axis=0) == pytest.approx([0.9, 0.1, 0.1], abs=0.12)
    assert np.median(colours[vertices[:, 0] < -0.1], axis=0) == pytest.approx([0.1, 0.1, 0.9], abs=0.12)


def test_the_report_says_how_it_went(fitted: Surface) -> None:
    report = fitted.report
    assert (report.kept, report.fell_back, report.masked) == ("fit", False, True)
    assert {"colour", "mask"} == {*report.losses}
    assert report.hull_threshold is not None
    for score in (report.mask_consistency, report.fit_silhouette_iou, report.hull_silhouette_iou):
        assert score is not None
        assert score > 0.9
    assert len(report.shading) == 3
    assert fitted.colour.shape == (*fitted.sdf.shape, 3)
    assert 0.8 * 32**3 < fitted.sdf.size < 6 * 32**3


def test_the_same_seed_gives_the_same_surface(ball_views: ViewSet) -> None:
    first = fit_surface(ball_views, SHORT)
    torch.manual_seed(77)
    again = fit_surface(ball_views, SHORT)
    other = fit_surface(ball_views, replace(SHORT, seed=1))
    assert (first.sdf == again.sdf).all()
    assert (first.colour == again.colour).all()
    assert first.report == again.report
    assert (first.sdf != other.sdf).any()


THIN = {
    "plate": box((0.45, 0.45, 0.03)),
    "upright plate": box((0.03, 0.45, 0.45)),
    "rod": box((0.03, 0.03, 0.5)),
    "rod off the middle": moved(box((0.4, 0.03, 0.03)), (0.0, 0.2, -0.3)),
}


@pytest.mark.parametrize("part", THIN.values(), ids=THIN.keys())
def test_thin_parts_survive_at_their_size_and_place(part: Part, shoot: Callable[..., ViewSet]) -> None:
    """Half a voxel and a half thick: a coarse grid alone would lose them."""
    surface = fit_surface(shoot(part, CAMERAS), TINY)
    vertices, faces = remove_small_components(*extract_mesh(surface))
    assert vertices.min(axis=0) == pytest.approx(part[0].min(axis=0), abs=1.6 * VOXEL)
    assert vertices.max(axis=0) == pytest.approx(part[0].max(axis=0), abs=1.6 * VOXEL)
    assert mesh_health(vertices, faces).components == 1
    scores = surface.report.fit_silhouette_iou, surface.report.hull_silhouette_iou
    assert scores[0] is not None
    assert scores[1] is not None
    assert (scores[0] > scores[1] - 0.03) is not surface.report.fell_back


def test_a_fit_that_loses_the_object_gives_back_the_hull(ball_views: ViewSet) -> None:
    wild = fit_surface(ball_views, replace(SHORT, sdf_lr=200.0, iterations=(6, 6)))
    hull = hull_surface(ball_views, SHORT)
    assert (wild.report.kept, wild.report.fell_back) == ("hull", True)
    assert mesh_health(*extract_mesh(wild)).volume == pytest.approx(mesh_health(*extract_mesh(hull)).volume, rel=0.1)
    assert hull.report.hull_threshold == wild.report.hull_threshold


def test_the_chosen_vote_is_used(ball_views: ViewSet) -> None:
    volumes = []
    for vote in (0.5, 0.99):
        surface = hull_surface(ball_views, replace(TINY, hull_threshold=vote))
        assert surface.report.hull_threshold == vote
        volumes.append(signed_volume(*extract_mesh(surface)))
    assert volumes[0] > 1.1 * volumes[1]


def test_views_without_confidence_do_not_count(ball_views: ViewSet) -> None:
    """Every camera has a second picture, of something larger and green, that nobody trusts."""
    wrong = np.zeros((64, 64, 4), np.uint8)
    wrong[2:62, 2:62] = (0, 255, 0, 255)
    doubts = [replace(view, name=f"no {view.name}", pixels=wrong, weight=0.0) for view in ball_views]
    surface = fit_surface(ViewSet((*ball_views.views, *doubts), True), TINY)
    vertices, _ = extract_mesh(surface)
    assert surface.report.kept == "fit"
    assert np.linalg.norm(vertices, axis=1).mean() == pytest.approx(0.5, abs=0.4 * VOXEL)
    assert np.median(surface.colours_at(vertices), axis=0) * 255 == pytest.approx((200, 60, 20), abs=25)


def test_progress_is_told_at_every_step(ball_views: ViewSet) -> None:
    reported: list[tuple[int, int]] = []
    fit_surface(ball_views, SHORT, on_step=lambda done, total: reported.append((done, total)))
    assert reported == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_prior_votes_over_the_object_cube(shoot: Callable[..., ViewSet]) -> None:
    """Two views from opposite sides leave the depth open; the prior's cube is smaller than the fit's."""
    views = shoot(box((0.1, 0.3, 0.3)), [orbit_camera(k * math.pi, 0.0, 8.0, size=64, fov=0.15) for k in range(2)])
    prior = (np.abs(voxel_centres(24)[..., 0]) < 0.45).astype(np.float32)
    settings = replace(SHORT, prior_weight=0.5, hull_threshold=0.9, iterations=(1, 1), sdf_lr=1e-3)
    deep = extract_mesh(fit_surface(views, settings))[0]
    flat = extract_mesh(fit_surface(views, settings, prior=prior))[0]
    assert deep[:, 0].max() > 0.6
    assert np.abs(flat).max(axis=0) == pytest.approx([0.45, 0.3, 0.3], abs=VOXEL)


@pytest.fixture(scope="module")
def ball_with_a_pole(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> ViewSet:
    """A photo of a ball with a pole on it, and views to which the pole is unknown."""
    (a, f), (b, g) = ball(0.3), moved(box((0.03, 0.03, 0.12)), (0.0, 0.0, 0.38))
    whole = np.concatenate([a, b]), np.concatenate([f, g + len(a)])
    photo = shoot(whole, [orbit_camera(0.0, 0.1, size=64)])
    others = shoot(ball(0.3), [orbit_camera(k * math.pi / 3, 0.3, size=64) for k in range(6)])
    named = tuple(replace(view, name=f"view_{k}", origin="generated") for k, view in enumerate(others))
    return ViewSet((*photo, *named), True)


def test_a_fit_with_a_prior_follows_the_photo_where_the_prior_lacks_parts(ball_with_a_pole: ViewSet) -> None:
    prior = (np.linalg.norm(voxel_centres(32), axis=-1) < 0.3).astype(np.float32)
    settings = replace(
        TINY, iterations=(80, 80), sdf_lr=0.25, prior_weight=30.0, laplacian_weight=0.01, flat_base=False
    )
    tops = {}
    for shares in ((1.0, 1.0), (8.0, 0.1)):
        surface = fit_surface(ball_with_a_pole, replace(settings, photo_view_weights=shares), prior=prior)
        vertices, _ = extract_mesh(surface)
        tops[shares] = vertices[:, 2].max()
        # Where photo and prior agree, the prior's shape stays, back side included.
        below = vertices[vertices[:, 2] < 0.15]
        assert np.quantile(np.abs(np.linalg.norm(below, axis=1) - 0.3), 0.9) < 1.5 * VOXEL
    assert tops[1.0, 1.0] < 0.4
    assert tops[8.0, 0.1] == pytest.approx(0.5, abs=2 * VOXEL)


@pytest.mark.parametrize("shares", [(0.0, 1.0), (1.0, -1.0), (math.inf, 1.0), (1.0, math.nan)])
def test_shares_of_the_weights_are_weights(shares: tuple[float, float]) -> None:
    with pytest.raises(SettingsError, match="are no weights"):
        FitSettings(photo_view_weights=shares)


def test_masks_without_a_common_inside_are_the_inputs_error(ball: Callable[..., Part], shoot: Callable) -> None:
    apart = [
        shoot(ball(0.1, (0.0, 0.0, height)), [orbit_camera(azimuth, 0.0, size=64)])
        for height, azimuth in ((0.4, 0.0), (-0.4, math.pi / 2))
    ]
    views = ViewSet(tuple(replace(s.views[0], name=str(k)) for k, s in enumerate(apart)), True)
    with pytest.raises(InputError, match=r"no common inside\. Check that the cameras look at the same object"):
        fit_surface(views, replace(SHORT, hull_threshold=0.99))


def test_views_without_masks_are_refused(ball_views: ViewSet) -> None:
    with pytest.raises(InputError, match="needs masks"):
        fit_surface(replace(ball_views, has_masks=False), SHORT)


def test_a_coarse_volume_becomes_a_surface_at_its_place_and_in_its_colours() -> None:
    points = voxel_centres(24)
    centre = np.array([0.2, -0.1, 0.0])
    occupancy = 1 / (1 + np.exp((np.linalg.norm(points - centre, axis=-1) - 0.3) * 40))
    colours = points / (2 * OBJECT_RADIUS) + 0.5
    surface = prior_surface(occupancy.astype(np.float32), colours.astype(np.float32), TINY)
    vertices, faces = extract_mesh(surface)
    assert np.linalg.norm(vertices - centre, axis=1) == pytest.approx(0.3, abs=VOXEL)
    assert mesh_health(vertices, faces).watertight
    assert surface.colours_at(vertices) == pytest.approx(vertices / (2 * OBJECT_RADIUS) + 0.5, abs=0.04)
    assert (surface.report.kept, surface.report.fell_back) == ("coarse volume", True)


def test_a_faint_coarse_volume_is_cut_at_half_of_its_most() -> None:
    occupancy = np.where(np.linalg.norm(voxel_centres(24), axis=-1) < 0.3, 0.2, 0.02).astype(np.float32)
    surface = prior_surface(occupancy, np.zeros((24, 24, 24, 3), np.float32), TINY)
    assert np.linalg.norm(extract_mesh(surface)[0], axis=1) == pytest.approx(0.3, abs=1.5 * VOXEL)


def test_an_empty_coarse_volume_is_refused() -> None:
    with pytest.raises(InputError, match="no common inside"):
        prior_surface(np.zeros((8, 8, 8), np.float32), np.zeros((8, 8, 8, 3), np.float32), TINY)


@pytest.mark.parametrize("changes", [{"levels": (16,)}, {"iterations": (1, 2, 3)}, {"levels": (), "iterations": ()}])
def test_levels_need_their_iterations(changes: dict[str, tuple[int, ...]]) -> None:
    with pytest.raises(SettingsError, match="Give each level its number of iterations"):
        replace(TINY, **changes)


class Letters:
    """Dark marks on a cream label on red, on every side."""

    def __call__(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        y, z = points[:, 1], points[:, 2]
        label = (np.abs(y) < 0.22) & (np.abs(z) < 0.2)
        ink = label & (np.abs(z) < 0.13) & ((np.floor(y / 0.06) % 2 == 0) | (np.abs(z) < 0.04))
        red, cream, blue = (np.array(c) for c in ((0.8, 0.2, 0.15), (0.95, 0.9, 0.8), (0.1, 0.1, 0.45)))
        return np.where(ink[:, None], blue, np.where(label[:, None], cream, red)).astype(np.float32)


@pytest.mark.parametrize("pull", [0.0, 1.0])
def test_print_on_one_photo_is_not_relief(pull: float, shoot: Callable[..., ViewSet]) -> None:
    """The same block, volume and camera, with and without print: what differs in depth is the print's doing."""
    half = np.array([0.25, 0.4, 0.4])
    prior = (np.abs(voxel_centres(32)) < half).all(-1).astype(np.float32)
    settings = replace(TINY, prior_weight=30.0, colour_pull=pull, shading_lr=0.0, flat_base=False, sdf_lr=0.25)
    fronts, colours = [], []
    for solid in ((), (Letters(),)):
        photo = shoot(box(tuple(half)), [orbit_camera(0.0, 0.1, size=64)], solid=solid)
        surface = fit_surface(photo, settings, prior=prior)
        y, z = (v.ravel() for v in np.meshgrid(*[np.linspace(-0.2, 0.2, 12)] * 2))
        origins = np.stack([np.full_like(y, 1.5), y, z], axis=-1)
        caster = mesh_caster(*extract_mesh(surface))
        fronts.append(caster.cast(origins, np.broadcast_to([-1.0, 0, 0], origins.shape)).distance)
        colours.append(surface.colours_at(np.array([[0.25, 0.18, 0.17], [0.25, 0.3, 0.3]])))
    relief = float(np.std(fronts[1] - fronts[0]))
    assert (relief < 0.05 * VOXEL) if pull == 0 else (relief > 0.1 * VOXEL)
    # Colours are learned all the same: cream has more green than red.
    assert colours[1][0, 1] - colours[1][1, 1] > 0.02


def test_without_a_volume_colours_bend_the_surface(ball_views: ViewSet) -> None:
    one, other = (fit_surface(ball_views, replace(SHORT, colour_pull=pull)) for pull in (0.0, 1.0))
    assert np.array_equal(one.sdf, other.sdf)


def test_what_hides_the_object_cuts_nothing_off(ball_views: ViewSet) -> None:
    """A bar before the ball in every second picture: taken for background it would cut the ball in two."""
    views = []
    for k, view in enumerate(ball_views):
        rgba, bar = view.rgba().copy(), np.zeros((64, 64), np.uint8)
        if k % 2:
            bar[26:38] = 255
        rgba[bar > 0] = (10, 200, 10, 0)
        views.append(replace(view, pixels=rgba, unknown_source=bar if bar.any() else None))
    settings = replace(TINY, hull_threshold=0.95)
    found = fit_surface(replace(ball_views, views=tuple(views)), settings)
    whole = fit_surface(ball_views, settings)
    cut = tuple(replace(view, unknown_source=None) for view in views)
    torn = fit_surface(replace(ball_views, views=cut), settings)
    solid, wanted, lost = ((s.sdf < 0).sum() * s.voxel**3 for s in (found, whole, torn))
    assert solid == pytest.approx(wanted, rel=0.03)
    assert lost < 0.8 * wanted
    assert np.ptp(found.colours_at(np.array([[0.5, 0, 0], [0, 0.5, 0], [-0.5, 0, 0]])), axis=0).max() < 0.1
