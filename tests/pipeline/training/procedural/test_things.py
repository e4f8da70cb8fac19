"""The named families: closed, whole, standing, mirrored, hollow where things are, and of all colours."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import Delaunay

from pipeline.training.procedural import (
    THINGS,
    CsgModel,
    Painted,
    Pattern,
    choose,
    generate,
    generate_any,
    is_closed,
    polygonise,
)
from pipeline.training.procedural.palette import hsv, shade, vivid, wild, wood
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.raycast import mesh_caster
from scene.voxels import sphere_cameras

DESIGNED = sorted(set(THINGS) - {"composition"})
STANDING = ["chair", "sofa", "table", "cabinet", "mug", "bottle", "bowl", "barrel", "car", "truck", "house", "rocket"]


def model_of(name: str, seed: int) -> CsgModel:
    return THINGS[name](np.random.default_rng([seed, *name.encode()]))


def volume_and_centre(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray]:
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    parts = (a * np.cross(b, c)).sum(axis=1) / 6
    return float(parts.sum()), (parts[:, None] * (a + b + c) / 4).sum(axis=0) / parts.sum()


def genus(mesh: ColouredMesh) -> int:
    edges = np.unique(np.sort(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    return 1 - (len(mesh.vertices) - len(edges) + len(mesh.faces)) // 2


@pytest.mark.parametrize("name", THINGS)
@pytest.mark.parametrize("seed", range(3))
def test_every_family_gives_one_closed_surface_that_faces_outwards(name: str, seed: int) -> None:
    mesh = generate(name, seed)
    assert is_closed(mesh.faces)
    assert 2000 <= len(mesh.faces) <= 20_000
    volume, centre = volume_and_centre(mesh.vertices, mesh.faces)
    assert volume > 1e-4
    assert np.linalg.norm(centre) < OBJECT_RADIUS
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(OBJECT_RADIUS, rel=1e-4)
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)
    # Closed and of one orientation: from far away, the first face that a ray meets looks at the ray's origin.
    camera = sphere_cameras(5, 24)[seed]
    origins, directions = (a.reshape(-1, 3) for a in camera.rays())
    hits = mesh_caster(mesh.vertices, mesh.faces).cast(origins, directions)
    hit = hits.face >= 0
    towards = np.einsum("nc,nc->n", mesh.face_normals()[hits.face[hit]], directions[hit])
    assert hit.sum() > 5
    assert (towards < 0.05).mean() > 0.97


@pytest.mark.parametrize("name", DESIGNED)
@pytest.mark.parametrize("seed", range(20, 23))
def test_designed_things_hang_together(name: str, seed: int) -> None:
    """Nothing floats: the solid itself, before the mesh keeps its largest piece, is one."""
    model = model_of(name, seed)
    low, high = np.asarray(model.bounds)
    voxel = float((high - low).max()) / 100
    start = low - 1.5 * voxel
    if model.mirror:
        start[1] = 0.0
    shape = tuple(int(n) for n in np.ceil((high - start) / voxel + 2))
    labels, _ = ndimage.label(model.on_grid(start, voxel, shape) < 0, structure=np.ones((3, 3, 3)))  # type: ignore[arg-type]
    sizes = np.bincount(labels.reshape(-1))[1:]
    # Sharp tips may come apart on a grid.
    assert sizes.max() > 0.99 * sizes.sum()


@pytest.mark.parametrize("name", THINGS)
def test_objects_follow_from_their_seed(name: str) -> None:
    first, again, other = generate(name, 5), generate(name, 5), generate(name, 6)
    assert np.array_equal(first.vertices, again.vertices)
    assert np.array_equal(first.faces, again.faces)
    assert np.array_equal(first.vertex_colours, again.vertex_colours)
    assert first.vertices.shape != other.vertices.shape or not np.allclose(first.vertices, other.vertices, atol=1e-3)


@pytest.mark.parametrize("name", ["chair", "car", "animal", "teapot", "boat", "sofa"])
def test_mirrored_things_are_mirrored_to_the_last_bit(name: str) -> None:
    model = model_of(name, 2)
    assert model.mirror
    vertices, faces = polygonise(model)
    assert {tuple(v) for v in vertices.tolist()} == {(x, -y, z) for x, y, z in vertices.tolist()}
    assert volume_and_centre(vertices, faces)[1][1] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", STANDING)
@pytest.mark.parametrize("seed", range(4))
def test_things_stand_on_what_they_have_below(name: str, seed: int) -> None:
    mesh = generate(name, seed)
    low, high = mesh.vertices[:, 2].min(), mesh.vertices[:, 2].max()
    feet = mesh.vertices[mesh.vertices[:, 2] < low + 0.03 * (high - low)][:, :2].astype(np.float64)
    _, centre = volume_and_centre(mesh.vertices, mesh.faces)
    assert Delaunay(feet).find_simplex(centre[None, :2])[0] >= 0


@pytest.mark.parametrize("seed", range(6))
def test_mugs_hold_water_and_have_one_handle(seed: int) -> None:
    mesh = generate("mug", seed)
    assert genus(mesh) == 1
    low, high = mesh.vertices[:, 2].min(), mesh.vertices[:, 2].max()
    # The axis of the mug is where its rim is centred; the handle only moves the whole.
    rim = mesh.vertices[mesh.vertices[:, 2] > high - 0.02 * (high - low)]
    axis = (rim.min(axis=0) + rim.max(axis=0)) / 2
    caster = mesh_caster(mesh.vertices, mesh.faces)
    down = caster.cast(np.array([[axis[0], axis[1], high + 1.0]]), np.array([[0.0, 0.0, -1.0]]))
    floor = high + 1.0 - float(down.distance[0])
    assert low + 0.01 < floor < low + 0.25 * (high - low)
    assert mesh.face_normals()[down.face[0]][2] > 0.9
    # Water up to near the rim touches a wall in every direction, and gets out nowhere.
    angle = np.linspace(0, 2 * math.pi, 72, endpoint=False)
    sideways = np.stack([np.cos(angle), np.sin(angle), np.zeros(72)], axis=1)
    for level in (0.4, 0.7, 0.95):
        origins = np.broadcast_to([axis[0], axis[1], low + level * (high - low)], (72, 3)).copy()
        hits = caster.cast(origins, sideways)
        assert (hits.face >= 0).all()
        assert hits.distance.max() < 2.2 * hits.distance.min()


@pytest.mark.parametrize("name", ["vase", "bowl"])
def test_vessels_are_open_above(name: str) -> None:
    deep = 0
    for seed in range(6):
        mesh = generate(name, seed)
        low, high = mesh.vertices[:, 2].min(), mesh.vertices[:, 2].max()
        centre = (mesh.vertices.min(axis=0) + mesh.vertices.max(axis=0)) / 2
        ray = mesh_caster(mesh.vertices, mesh.faces).cast(
            np.array([[centre[0], centre[1], high + 1.0]]), np.array([[0.0, 0.0, -1.0]])
        )
        deep += high + 1.0 - float(ray.distance[0]) < low + 0.7 * (high - low)
    assert deep >= 3


@pytest.mark.parametrize("name", ["car", "truck", "shoe", "boat", "plane", "fish"])
def test_things_that_head_somewhere_are_long_along_x_or_wide_in_their_wings(name: str) -> None:
    sizes = np.ptp(generate(name, 1).vertices, axis=0)
    assert sizes[0] > (0.5 if name == "plane" else 1.2) * sizes[1]


@pytest.mark.parametrize("name", ["car", "figure", "mug"])
def test_colours_are_those_of_the_model_and_stay_when_the_mesh_moves(name: str) -> None:
    mesh = generate(name, 4)
    face = np.arange(len(mesh.faces))
    bary = np.full((len(face), 2), 1 / 3)
    colours = mesh.colours_at(face, bary)
    assert colours.min() >= 0
    assert colours.max() <= 1
    assert len(np.unique(colours.round(2), axis=0)) > 1
    built = mesh.texture_space
    assert built is not None
    centres = built[mesh.faces].mean(axis=1)
    model = model_of(name, 4)
    assert colours == pytest.approx(Painted(model)(centres, np.full_like(centres, 0.7)), abs=1e-5)
    # The surface belongs to some step everywhere.
    assert (model.owners(np.ascontiguousarray(centres.T)) >= 0).mean() > 0.999
    turn = np.eye(4)
    turn[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    assert mesh.transformed(turn).colours_at(face, bary) == pytest.approx(colours, abs=1e-5)


def test_colours_go_round_the_circle_and_patterns_are_of_every_kind() -> None:
    hues, kinds, grey, bright = [], set(), 0, 0
    steps = [step for seed in range(4) for name in THINGS for step in model_of(name, seed).steps]
    for step in steps:
        if step.material is None:
            continue
        hue, saturation, value = colorsys.rgb_to_hsv(*step.material.colour)
        grey += saturation < 0.25
        bright += saturation > 0.6
        if saturation > 0.3 and value > 0.2:
            hues.append(hue)
        kinds |= {pattern.kind for pattern in step.material.patterns if isinstance(pattern, Pattern)}
    counts = np.histogram(hues, 12, (0, 1))[0]
    assert counts.min() > 0.015 * len(hues)
    assert grey > 0.15 * len(steps)
    assert bright > 0.2 * len(steps)
    assert kinds == {"stripes", "checks", "gradient", "noise", "spots"}


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 4))
def test_hsv_is_the_usual_one_and_shades_stay_colours(hue: float, saturation: float, value: float, by: float) -> None:
    colour = hsv(hue, saturation, value)
    assert colour == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, value), abs=1e-9)
    changed = shade(colour, by)
    assert 0 <= min(changed) <= max(changed) <= 1
    lighter, darker = np.array(changed) >= np.array(colour) - 1e-9, np.array(changed) <= np.array(colour) + 1e-9
    assert (lighter if by >= 1 else darker).all()


@pytest.mark.parametrize("make", [wood, wild])
def test_materials_differ(make) -> None:  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(0)
    assert len({make(rng).colour for _ in range(20)}) == 20
    assert max(vivid(rng)) > 0.5


def test_weights_choose_the_family() -> None:
    drawn = [choose(seed, {"mug": 3.0, "chair": 1.0, "car": 0.0}) for seed in range(400)]
    assert set(drawn) == {"mug", "chair"}
    assert drawn.count("mug") / 400 == pytest.approx(0.75, abs=0.08)
    assert len({choose(seed) for seed in range(400)}) == len(THINGS)
    name = choose(7)
    assert np.array_equal(generate_any(7).vertices, generate(name, 7).vertices)
    assert np.array_equal(generate_any(7, {"mug": 1}).vertices, generate("mug", 7).vertices)


def test_more_faces_are_had_for_the_asking() -> None:
    assert len(generate("bottle", 1, faces=4000).faces) < 5600 < len(generate("bottle", 1, faces=9000).faces)


def test_unknown_names_and_odd_weights_are_refused() -> None:
    with pytest.raises(InputError, match="'unicorn'"):
        generate("unicorn", 0)
    for weights in ({"unicorn": 1.0}, {"mug": -1.0}, {"mug": 0.0}, {}, {"mug": math.nan}):
        with pytest.raises(InputError, match=r"unicorn|weights"):
            generate_any(0, weights)
