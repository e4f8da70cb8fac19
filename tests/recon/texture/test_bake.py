"""Textures: colours on the side they were seen from, sharp, matched, without what stood before the object."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from pipeline.training.procedural import Part, Pattern, box
from recon.texture.bake import TexturedMesh, bake
from recon.texture.visibility import visible
from scene.camera import Camera, look_at, orbit_camera
from scene.mesh import sample_image
from scene.metrics import psnr
from scene.raycast import mesh_caster
from scene.render import UNLIT, MeshRenderer
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

ORANGE = (200, 60, 20)


@dataclass(frozen=True)
class Plain:
    """A model of one colour."""

    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def colours_at(self, points: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array(self.colour, np.float32), points.shape).copy()


GREY = Plain()


class ByPlace:
    """Colours that tell where they are: a mirrored or turned texture shows at once."""

    def __call__(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        return (points + 0.5).astype(np.float32)


CHECKS = Pattern("checks", (0.1, 0.2, 0.7), 3.0, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.3, 0.7, 1.1))
"""Sharp borders: what is blurred loses here."""
WAVES = Pattern("noise", (0.2, 0.6, 0.3), 2.0, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.1, 0.2, 0.3))
"""Smooth blotches."""


def true_colours(mesh: TexturedMesh, solid: Pattern) -> np.ndarray:
    """The pattern on orange, as :func:`shoot` draws it, in the middle of each face."""
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    return solid(middles, np.broadcast_to(np.array(ORANGE, np.float32) / 255, middles.shape))


def shown_colours(mesh: TexturedMesh) -> np.ndarray:
    """What a viewer shows in the middle of each face."""
    return sample_image(mesh.texture, mesh.uv[mesh.faces].mean(axis=1).astype(np.float32))


def score(mesh: TexturedMesh, solid: Pattern, best: float = 1.0) -> float:
    """PSNR in the middle of the faces, of the given share with the smallest errors."""
    error = np.square(shown_colours(mesh) - true_colours(mesh, solid)).mean(axis=1)
    return float(-10 * np.log10(np.sort(error)[: int(best * len(error))].mean()))


def changed(views: ViewSet, change: Callable[[int, np.ndarray], np.ndarray]) -> ViewSet:
    """The same views with other colours in the mask."""
    out = []
    for k, view in enumerate(views):
        rgba = view.rgba().copy()
        rgba[..., :3] = np.round(np.clip(change(k, rgba[..., :3].astype(float)), 0, 255))
        out.append(replace(view, pixels=rgba))
    return ViewSet(tuple(out), views.has_masks)


def vertex_colours(mesh: TexturedMesh) -> np.ndarray:
    """What a viewer shows at the vertices."""
    return sample_image(mesh.texture, mesh.uv.astype(np.float32))


def mixture(points: np.ndarray, normals: np.ndarray, views: ViewSet, part: Part, best: int = 3) -> np.ndarray:
    """Mean colour of the views that see each point most squarely: what a plain projection would paint."""
    caster = mesh_caster(*part)
    weights, colours = [], []
    for view in views:
        towards = view.camera.centre - points
        cosine = np.einsum("nc,nc->n", towards, normals) / np.linalg.norm(towards, axis=1)
        weights.append(np.where(visible(view.camera, points, cosine > 0.1, caster), cosine, 0) ** 4)
        uv = view.camera.project(points)[0] / (view.camera.width, view.camera.height)
        colours.append(sample_image(view.rgba()[..., :3], np.clip(uv, 0, 1).astype(np.float32)))
    weight = np.stack(weights)
    weight[weight < np.sort(weight, axis=0)[-best]] = 0
    return np.einsum("vn,vnc->nc", weight, np.stack(colours)) / weight.sum(axis=0)[:, None]


# --- whole bakes -------------------------------------------------------------------------------------------------


def test_colours_come_to_the_places_they_were_seen_at(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=3)
    mesh = bake(*part, shoot(part, sphere_cameras(16, 96, 1.5), solid=(ByPlace(),)), GREY, 256)
    assert mesh.texture.shape == (256, 256, 3)
    assert np.abs(vertex_colours(mesh) - (mesh.vertices + 0.5)).mean() < 0.015
    assert np.abs(vertex_colours(mesh) - (mesh.vertices + 0.5)).max() < 0.1


def test_one_colour_stays_that_colour_in_every_texel(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """No gamma, no background at outlines or between charts."""
    part = ball(0.5, subdivisions=3)
    views = []
    for view in shoot(part, sphere_cameras(16, 96, 1.5)):
        rgba = view.rgba().copy()
        rgba[rgba[..., 3] < 250, :3] = (0, 255, 0)
        views.append(replace(view, pixels=rgba))
    same = Plain((200 / 255, 60 / 255, 20 / 255))
    mesh = bake(*part, ViewSet(tuple(views), True), same, 128)
    assert mesh.texture.astype(int) == pytest.approx(np.broadcast_to(ORANGE, (128, 128, 3)), abs=3)


def test_what_no_view_sees_has_the_colour_of_the_model(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    part = ball(0.5, subdivisions=3)
    mesh = bake(*part, shoot(part, [orbit_camera(0.0, 0.0, size=96)]), Plain((0, 0, 1)), 128)
    colours = vertex_colours(mesh)
    front, back = mesh.vertices[:, 0] > 0.45, mesh.vertices[:, 0] < 0.1
    assert colours[front] * 255 == pytest.approx(np.broadcast_to(ORANGE, (front.sum(), 3)), abs=24)
    assert colours[back] == pytest.approx(np.broadcast_to([0, 0, 1], (back.sum(), 3)), abs=0.01)


def test_normals_are_continuous_over_chart_borders(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=2)
    mesh = bake(*part, shoot(part, [orbit_camera(0.0, 0.0, size=32)]), GREY, 64)
    assert len(mesh.vertices) > len(part[0])  # there are borders
    assert mesh.normals == pytest.approx(mesh.vertices / 0.5, abs=0.03)


@pytest.mark.parametrize("solid", [CHECKS, WAVES])
def test_textures_are_sharper_than_mixtures_of_views(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet], solid: Pattern
) -> None:
    """Against the mean of the three best views at each point."""
    part = ball(0.5)
    views = shoot(part, sphere_cameras(16, 128, 1.5), solid=(solid,))
    mesh = bake(*part, views, Plain((0.5, 0.4, 0.3)), 512)
    middles = mesh.vertices[mesh.faces].mean(axis=1)
    mixed = mixture(middles, middles / 0.5, views, part)
    before = psnr(mixed[None], true_colours(mesh, solid)[None])
    assert score(mesh, solid) > before + (0.3 if solid is CHECKS else 1.5)


def test_brightness_and_colour_of_views_are_matched(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """Every other view is darker or lighter and tinted; no border may show between what they see."""
    part = ball(0.5)
    views = shoot(part, sphere_cameras(16, 96, 1.5), solid=(WAVES,))
    gains = np.random.default_rng(3).uniform(0.85, 1.15, (16, 3))
    dull = changed(views, lambda k, rgb: rgb * gains[k])
    matched, plain = (bake(*part, dull, GREY, 256, match_brightness=on) for on in (True, False))
    assert score(matched, WAVES) > score(plain, WAVES) + 1.5
    assert score(matched, WAVES) > 30


def test_views_that_agree_are_left_as_they_are(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=3)
    views = shoot(part, sphere_cameras(12, 96, 1.5), solid=(WAVES,))
    one, other = (bake(*part, views, GREY, 128, match_brightness=on) for on in (True, False))
    assert np.array_equal(one.texture, other.texture)


def test_what_stood_before_the_object_leaves_no_ghost(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """A green stick in two of the views, straight before what they see best."""
    part = ball(0.5)
    views = shoot(part, sphere_cameras(24, 96, 1.5), solid=(WAVES,))

    def stick(k: int, rgb: np.ndarray) -> np.ndarray:
        out = rgb.copy()
        if k in (5, 13):
            out[:, 40:56] = (0, 255, 0)
        return out

    hidden = bake(*part, changed(views, stick), GREY, 256)
    clean = bake(*part, views, GREY, 256)
    assert score(hidden, WAVES) > score(clean, WAVES) - 1.5
    greener = shown_colours(hidden)[:, 1] - shown_colours(clean)[:, 1]
    assert np.percentile(greener, 99.5) < 0.06


def test_the_boundary_of_what_is_seen_has_no_background_in_it(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    """One view, whose pixels beside the object are bright green; the model is purple."""
    part = ball(0.5, subdivisions=3)
    view = next(iter(shoot(part, [orbit_camera(0.0, 0.0, size=128)])))
    rgba = view.rgba().copy()
    rgba[rgba[..., 3] < 255, :3] = (0, 255, 0)
    mesh = bake(*part, ViewSet((replace(view, pixels=rgba),), True), Plain((0.8, 0, 0.8)), 256)
    assert mesh.texture[..., 1].max() <= ORANGE[1] + 6


def test_large_faces_take_several_views(shoot: Callable[..., ViewSet]) -> None:
    """A box of twelve faces, and cameras so near that each sees a part of a face only."""
    part = box((0.5, 0.5, 0.1))
    cameras = [
        Camera(look_at(np.array([x, y, 0.5]), np.array([x, y, 0.0])), 150.0, 150.0, 48.0, 48.0, 96, 96)
        for x in (-0.35, -0.12, 0.12, 0.35)
        for y in (-0.35, -0.12, 0.12, 0.35)
    ]
    mesh = bake(*part, shoot(part, cameras, solid=(ByPlace(),)), Plain((0, 0, 0)), 256)
    assert len(mesh.faces) == 12
    top = mesh.faces[(mesh.vertices[mesh.faces][..., 2] > 0.09).all(axis=1)]
    assert len(top) == 2
    for face in top:
        for share in np.random.default_rng(0).dirichlet((2, 2, 2), 50):
            place = share @ mesh.vertices[face]
            shown = sample_image(mesh.texture, (share @ mesh.uv[face])[None].astype(np.float32))[0]
            assert shown == pytest.approx(place + 0.5, abs=0.03)


class TwoTone:
    """Dark in front, light behind."""

    def __call__(self, points: np.ndarray, base: np.ndarray) -> np.ndarray:
        return np.where(points[:, :1] > 0.28, 0.1, 0.8) * np.ones((1, 3), np.float32)


@pytest.fixture(scope="module")
def two_balls(ball: Callable[..., Part]) -> Part:
    """A small ball before a large one."""
    large, small = ball(0.4, (-0.15, 0, 0), subdivisions=3), ball(0.1, (0.4, 0, 0), subdivisions=3)
    return np.concatenate([large[0], small[0]]), np.concatenate([large[1], small[1] + len(large[0])])


def test_what_one_part_hides_of_another_is_not_painted_with_it(two_balls: Part, shoot: Callable[..., ViewSet]) -> None:
    """The small ball is dark: in no place behind it may its picture lie."""
    views = shoot(two_balls, [orbit_camera(0.0, 0.0, size=128)], solid=(TwoTone(),))
    mesh = bake(*two_balls, views, Plain((0.8, 0.8, 0.8)), 256)
    behind = mesh.vertices[mesh.faces].mean(axis=1)[:, 0] < 0.27
    assert shown_colours(mesh)[behind].min() > 0.6


def test_what_the_best_view_does_not_see_comes_from_another(two_balls: Part, shoot: Callable[..., ViewSet]) -> None:
    """Faces partly behind the small ball: the model's purple must not show where either of two views sees them."""
    cameras = [orbit_camera(azimuth, 0.0, size=128) for azimuth in (-0.5, 0.5)]
    mesh = bake(*two_balls, shoot(two_balls, cameras, solid=(TwoTone(),)), Plain((0.8, 0, 0.8)), 256)
    caster = mesh_caster(*two_balls)
    shares = np.random.default_rng(1).dirichlet((1, 1, 1), 8)
    points = np.einsum("sk,fkc->sfc", shares, mesh.vertices[mesh.faces]).reshape(-1, 3)
    uv = np.einsum("sk,fkc->sfc", shares, mesh.uv[mesh.faces]).reshape(-1, 2)
    normals = (points - [-0.15, 0, 0]) / 0.4
    seen = np.zeros(len(points), bool)
    for camera in cameras:
        away = points - camera.centre
        distance = np.linalg.norm(away, axis=1)
        hits = caster.cast(np.broadcast_to(camera.centre, away.shape), away / distance[:, None])
        cosine = -np.einsum("nc,nc->n", away, normals) / distance
        seen |= (hits.distance > distance - 1e-3) & (cosine > 0.6) & (points[:, 0] < 0.27)
    assert seen.sum() > 1000
    shown = sample_image(mesh.texture, uv[seen].astype(np.float32))
    purple = shown[:, 0] - shown[:, 1]
    assert np.percentile(purple, 99) < 0.1


def test_held_out_views_look_like_the_object(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5)
    mesh = bake(*part, shoot(part, sphere_cameras(16, 128, 1.5), solid=(CHECKS,)), GREY, 512)
    camera = orbit_camera(0.9, 0.4, size=128)
    shown = MeshRenderer(mesh.coloured(), UNLIT).render(camera).rgba
    true = next(iter(shoot(part, [camera], solid=(CHECKS,)))).rgba() / 255
    assert psnr(shown[..., :3], true[..., :3], true[..., 3] > 0.99) > 25


def test_the_same_input_gives_the_same_bytes(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether or not all pictures are held in memory."""
    part = ball(0.5, subdivisions=3)
    views = shoot(part, sphere_cameras(8, 64, 1.5), solid=(CHECKS,))
    one = bake(*part, views, GREY, 128)
    monkeypatch.setattr("recon.texture.bake._HELD_PIXELS", 1000)
    other = bake(*part, views, GREY, 128)
    assert np.array_equal(one.texture, other.texture)
    assert np.array_equal(one.uv, other.uv)
