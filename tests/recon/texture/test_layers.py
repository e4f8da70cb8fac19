"""Textures in layers: a photo stays what it is among generated views, which continue it where it ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.training.procedural import Part, Pattern
from recon.mesh.topology import edges_of
from recon.texture.bake import TexturedMesh, _adjacency, bake
from recon.texture.evidence import COLOURS, KINDS, EvidenceShares, evidence_colours
from recon.texture.layers import SurfaceGraph, agreement, matched_gain, matching_shift
from recon.texture.visibility import Visibility
from scene.camera import Camera, orbit_camera
from scene.mesh import sample_image
from scene.render import UNLIT, MeshRenderer
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

STRIPES = Pattern("checks", (0.1, 0.2, 0.7), 4.0, ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)), (0.3, 0.7, 1.1))
WHITE, GREEN = (235, 235, 235), (150, 235, 190)


@dataclass(frozen=True)
class Plain:
    """A model of one colour."""

    colour: tuple[float, float, float] = (0.5, 0.5, 0.5)

    def colours_at(self, points: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array(self.colour, np.float32), points.shape).copy()


PHOTO = orbit_camera(0.0, 0.2, 1.5, size=256)
AROUND = sphere_cameras(10, 64, 1.5)


def scene_of(
    part: Part,
    shoot: Callable[..., ViewSet],
    photo_colour: tuple[int, int, int],
    others: tuple[int, int, int],
    *,
    solid: tuple[Pattern, ...] = (),
    photo: Camera = PHOTO,
) -> ViewSet:
    """A photo of one colour, perhaps with a pattern, and views drawn in another."""
    first = replace(shoot(part, [photo], solid, photo_colour).views[0], name="photo")
    drawn = [replace(v, name=f"view_{v.name}", origin="generated") for v in shoot(part, AROUND, (), others)]
    return ViewSet((first, *drawn), True)


def cosines(mesh: TexturedMesh, camera: Camera) -> np.ndarray:
    """Cosine between each vertex's normal and the direction to a camera."""
    towards = camera.centre - mesh.vertices
    return np.einsum("vc,vc->v", mesh.normals, towards) / np.linalg.norm(towards, axis=1)


def colours(mesh: TexturedMesh) -> np.ndarray:
    """What a viewer shows at the vertices, of 255."""
    return 255 * sample_image(mesh.texture, mesh.uv.astype(np.float32))


@pytest.fixture(scope="module")
def two_tone(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> TexturedMesh:
    """A ball that is white in its photo and green in sixteen generated views."""
    part = ball(0.5, subdivisions=4)
    return bake(*part, scene_of(part, shoot, WHITE, GREEN), Plain(), 512)


def test_generated_views_do_not_outvote_the_photo(two_tone: TexturedMesh) -> None:
    ahead = cosines(two_tone, PHOTO) > 0.5
    assert np.abs(colours(two_tone)[ahead] - WHITE).max() <= 2


def test_the_far_side_is_matched_to_the_photo(two_tone: TexturedMesh) -> None:
    """All that differs is the tint, which is the views' fault: it is taken off everywhere."""
    behind = cosines(two_tone, PHOTO) < -0.3
    assert np.abs(colours(two_tone)[behind] - WHITE).max() <= 8


def test_equals_are_what_photos_and_views_were(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=3)
    mesh = bake(*part, scene_of(part, shoot, WHITE, GREEN), Plain(), 256, photo_is_reference=False)
    ahead = cosines(mesh, PHOTO) > 0.5
    assert np.abs(colours(mesh)[ahead] - WHITE)[:, 0].mean() > 30


def test_the_photo_is_there_pixel_by_pixel(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=4)
    views = scene_of(part, shoot, (200, 60, 20), GREEN, solid=(STRIPES,))
    mesh = bake(*part, views, Plain(), 1024)
    shown = MeshRenderer(mesh.coloured(), UNLIT).render(PHOTO).rgba
    photo = views.views[0].rgba() / 255
    inside = (photo[..., 3] == 1) & (shown[..., 3] == 1)
    error = np.square(shown - photo)[..., :3][inside]
    assert -10 * np.log10(error.mean()) > 26  # the outermost ring is not the photo's
    middle = inside[96:160, 96:160]
    assert np.abs(shown - photo)[96:160, 96:160, :3][middle].mean() < 0.01


def test_the_border_is_no_line(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """Where a patterned photo ends, colours fade over the width, in steps that no one can point at."""
    part = ball(0.5, subdivisions=5)
    axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    dark = Pattern("checks", (0.1, 0.2, 0.7), 0.01, axes, (0.3, 0.7, 1.1))
    mesh = bake(*part, scene_of(part, shoot, (180, 120, 60), (90, 120, 200), solid=(dark,)), Plain(), 1024)
    cosine, shown = cosines(mesh, PHOTO), colours(mesh)
    rings = [shown[(cosine > low) & (cosine <= low + 0.1)].mean(axis=0) for low in np.arange(-0.9, 0.9, 0.1)]
    steps = np.abs(np.diff(rings, axis=0)).max(axis=1)
    assert steps.max() < 14
    ends = edges_of(mesh.faces).ends
    assert np.percentile(np.abs(shown[ends[:, 0]] - shown[ends[:, 1]]).max(axis=1), 99.9) < 16


def test_a_thin_part_keeps_the_photo_in_its_middle(shoot: Callable[..., ViewSet]) -> None:
    """A stick as thin as the width over which the photo fades out on broad parts."""
    stick = trimesh.creation.cylinder(0.02, 0.8, sections=24).subdivide().subdivide().subdivide()
    part = np.asarray(stick.vertices), np.asarray(stick.faces)
    mesh = bake(*part, scene_of(part, shoot, (200, 60, 20), (20, 60, 200)), Plain(), 512)
    middle = (cosines(mesh, PHOTO) > 0.9) & (np.abs(mesh.vertices[:, 2]) < 0.3)
    assert middle.any()
    assert np.abs(colours(mesh)[middle] - (200, 60, 20)).max() <= 8


def test_behind_the_rim_there_is_no_halo(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    """The photo's outermost pixels are mixed with a black background; the unseen side must not continue that."""
    part = ball(0.5, subdivisions=4)
    views = scene_of(part, shoot, WHITE, (170, 170, 170))
    rgba = views.views[0].rgba().copy()
    rim = rgba[..., 3] < 255
    rim |= np.roll(rim, 1, 0) | np.roll(rim, -1, 0) | np.roll(rim, 1, 1) | np.roll(rim, -1, 1)
    rgba[rim & (rgba[..., 3] > 0), :3] //= 3
    mesh = bake(*part, ViewSet((replace(views.views[0], pixels=rgba), *views.views[1:]), True), Plain(), 512)
    behind = (cosines(mesh, PHOTO) < 0.05) & (cosines(mesh, PHOTO) > -0.35)
    assert colours(mesh)[behind].min() > 215


def test_blotches_of_generated_views_are_not_painted(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=4)
    views, rng = scene_of(part, shoot, WHITE, WHITE), np.random.default_rng(0)
    blotched = [views.views[0]]
    for view in views.views[1:]:
        rgba = view.rgba().copy()
        noise = np.repeat(np.repeat(rng.normal(0, 30, (16, 16, 1)), 4, 0), 4, 1)
        rgba[..., :3] = np.clip(rgba[..., :3] + noise, 0, 255)
        blotched.append(replace(view, pixels=rgba))
    mesh = bake(*part, ViewSet(tuple(blotched), True), Plain(), 512)
    behind = cosines(mesh, PHOTO) < -0.3
    assert colours(mesh)[behind].std(axis=0).max() < 12  # the views' is 30


def test_a_mirrored_photo_colours_the_other_side(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=4)
    views = scene_of(part, shoot, (200, 60, 20), GREEN, solid=(STRIPES,))
    other = orbit_camera(np.pi, 0.2, 1.5, size=256)
    mirrored = replace(shoot(part, [other], (STRIPES,), (200, 60, 20)).views[0], name="mirrored", origin="mirrored")
    mesh = bake(*part, ViewSet((views.views[0], mirrored, *views.views[1:]), True), Plain(), 1024)
    shown = MeshRenderer(mesh.coloured(), UNLIT).render(other).rgba
    truth = mirrored.rgba() / 255
    inside = (truth[..., 3] == 1) & (shown[..., 3] == 1)
    error = np.square(shown - truth)[..., :3][inside]
    assert -10 * np.log10(error.mean()) > 26
    assert mesh.evidence is not None
    mean = mesh.evidence.mean(axis=0)
    assert mean[KINDS.index("mirrored")] > 0.22
    assert mean[KINDS.index("seen")] > mean[KINDS.index("mirrored")] - 0.05  # the photo goes first where both see


def test_photos_alone_are_blended_as_equals(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    part = ball(0.5, subdivisions=3)
    views = shoot(part, sphere_cameras(8, 96, 1.5), (STRIPES,))
    one, two = (bake(*part, views, Plain(), 128, photo_is_reference=flag) for flag in (True, False))
    assert one.texture.tobytes() == two.texture.tobytes()
    generated = ViewSet(tuple(replace(view, origin="generated") for view in views), True)
    three = bake(*part, generated, Plain(), 128)
    assert three.texture.tobytes() == one.texture.tobytes()
    assert one.evidence is not None
    assert three.evidence is not None
    assert one.evidence[:, KINDS.index("seen")].mean() > 0.95
    assert three.evidence[:, KINDS.index("generated")].mean() > 0.95


@pytest.mark.parametrize("what", ["black", "white", "empty", "elsewhere"])
def test_photos_that_say_nothing_do_no_harm(
    what: str, ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    part = ball(0.5, subdivisions=3)
    views = scene_of(part, shoot, {"black": (0, 0, 0), "white": (255, 255, 255)}.get(what, WHITE), GREEN)
    photo = views.views[0]
    if what == "empty":
        photo = replace(photo, pixels=np.zeros_like(photo.rgba()))
    if what == "elsewhere":
        turned = photo.camera.c2w.copy()
        turned[:3, [0, 2]] *= -1  # looks away from the object
        photo = replace(photo, camera=replace(photo.camera, c2w=turned))
    mesh = bake(*part, ViewSet((photo, *views.views[1:]), True), Plain(), 256)
    behind = cosines(mesh, PHOTO) < -0.8
    shown = colours(mesh)
    assert np.isfinite(shown).all()
    assert mesh.evidence is not None
    seen = mesh.evidence[:, KINDS.index("seen")]
    if what in ("empty", "elsewhere"):
        assert seen.max() == 0
        assert np.abs(shown - GREEN).max() <= 8
    else:
        assert np.abs(shown[cosines(mesh, PHOTO) > 0.5] - (0 if what == "black" else 255)).max() <= 2
        assert np.ptp(shown[behind], axis=0).max() < 30


# --- evidence ---------------------------------------------------------------------------------------------------------


def test_evidence_adds_up_and_seen_is_what_the_photo_sees(two_tone: TexturedMesh) -> None:
    evidence = two_tone.evidence
    assert evidence is not None
    assert np.allclose(evidence.sum(axis=1), 1)
    cosine, seen = cosines(two_tone, PHOTO), evidence[:, KINDS.index("seen")]
    assert (seen[cosine > 0.45] > 0.95).all()
    assert (seen[cosine < 0.15] == 0).all()
    assert (evidence[cosine < 0.1][:, KINDS.index("generated")] > 0.6).mean() > 0.9


def test_shares_are_fractions_of_the_area(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=3)
    evidence = np.zeros((len(vertices), 4))
    evidence[:, 3] = 1
    evidence[vertices[:, 0] > 0] = (1, 0, 0, 0)
    shares = EvidenceShares.of(evidence, vertices, faces)
    assert shares.seen == pytest.approx(0.5, abs=0.03)
    assert shares.invented == pytest.approx(0.5, abs=0.03)
    assert shares.mirrored == shares.generated == 0
    assert evidence_colours(np.eye(4)).tolist() == [list(colour) for colour in COLOURS]


def test_agreement_counts_views_that_show_the_same() -> None:
    weight = np.array([[1, 1, 0, 1], [1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]], np.float32)
    colour = np.full((4, 4, 3), 0.5, np.float32)
    colour[2:, 1] = 0.9  # two against two: the median is between them, near neither
    seen = Visibility(weight, colour, np.zeros((4, 1), np.uint8))
    assert agreement(seen).tolist() == pytest.approx([1, 0, 0, 1 / 3])


# --- the graph --------------------------------------------------------------------------------------------------------


def graph_of(part: Part) -> SurfaceGraph:
    """Of a mesh."""
    vertices, faces = part
    ends = edges_of(faces).ends
    return SurfaceGraph.of(vertices, faces, ends, _adjacency(ends, len(vertices)))


def test_distances_run_along_the_surface(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=5)
    graph = graph_of((vertices, faces))
    pole = vertices[:, 2] > 0.4999
    distance = graph.distance(pole, 0.4)
    arc = 0.5 * np.arccos(np.clip(vertices[:, 2] / 0.5, -1, 1))
    near = distance < 0.35
    assert near.sum() > 500
    assert (distance[near] >= arc[near] - 0.02).all()
    assert (distance[near] <= 1.16 * arc[near] + 0.01).all()  # along edges, which zigzag
    assert np.isinf(distance[arc > 0.45]).all()
    assert np.isinf(graph.distance(np.zeros(len(vertices), bool), 1.0)).all()
    assert graph.area.sum() == pytest.approx(np.pi, rel=0.01)


@pytest.mark.parametrize("width", [0.04, 0.1])
def test_smoothing_has_the_width_that_it_is_asked_for(ball: Callable[..., Part], width: float) -> None:
    """A point spreads to a bell whose standard deviation along the surface is the width."""
    vertices, faces = ball(0.5, subdivisions=5)
    graph = graph_of((vertices, faces))
    point = np.zeros(len(vertices), np.float32)
    point[np.argmax(vertices[:, 2])] = 1
    spread = graph.spread(point, width).astype(np.float64) * graph.area
    arc = 0.5 * np.arccos(np.clip(vertices[:, 2] / 0.5, -1, 1))
    assert np.sqrt((spread * arc**2).sum() / spread.sum() / 2) == pytest.approx(width, rel=0.2)


def test_parts_are_large_by_their_area(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=4)
    graph = graph_of((vertices, faces))
    marked = (vertices[:, 2] > 0.3) | (np.linalg.norm(vertices - (0, 0, -0.5), axis=1) < 0.05)
    kept = graph.large_parts(marked, 0.1)
    assert (kept == (vertices[:, 2] > 0.3)).all()
    assert not graph.large_parts(np.zeros(len(vertices), bool), 0.1).any()


def test_gains_are_robust_and_bounded() -> None:
    rng = np.random.default_rng(0)
    below = rng.uniform(0.2, 0.5, (500, 3))
    above = below * (1.2, 0.9, 1.0)
    above[:100] = rng.uniform(0, 1, (100, 3))  # something else
    weight = np.ones(500)
    assert matched_gain(below, above, weight) == pytest.approx([1.2, 0.9, 1.0], abs=0.01)
    assert matched_gain(below, above, np.zeros(500)).tolist() == [1, 1, 1]
    assert matched_gain(np.full((500, 3), 0.1), np.full((500, 3), 0.9), weight).max() == pytest.approx(1.6)
    assert matched_gain(below, np.zeros((500, 3)), weight).tolist() == [1, 1, 1]


def test_shifts_continue_the_layer_above_and_fade(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=4)
    graph = graph_of((vertices, faces))
    below = np.full((len(vertices), 3), 0.4, np.float32)
    above = np.full((len(vertices), 3), 0.7, np.float32)
    cover = (vertices[:, 0] > 0).astype(np.float32)
    shift = matching_shift(graph, below, above, cover)
    assert shift[np.abs(vertices[:, 0]) < 0.04].min() > 0.27
    assert shift[vertices[:, 0] < -0.49].max() < 0.02
    assert np.abs(matching_shift(graph, below, above, np.zeros_like(cover))).max() == 0


def test_origins_are_kept_in_capture_folders(
    tmp_path: Path, ball: Callable[..., Part], shoot: Callable[..., ViewSet]
) -> None:
    views = scene_of(ball(0.5, subdivisions=2), shoot, WHITE, GREEN)
    mirrored = View("other", PHOTO, views.views[0].rgba(), origin="mirrored")
    ViewSet((*views.views, mirrored), True).save(tmp_path)
    loaded = ViewSet.load(tmp_path)
    assert [view.origin for view in loaded] == ["photo", *["generated"] * len(AROUND), "mirrored"]
    assert (tmp_path / "transforms.json").read_text().count("viewloom_origin") == len(AROUND) + 1
