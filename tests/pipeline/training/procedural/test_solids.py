"""Solids and their meshes: exact distances, exact volumes, closed surfaces."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import beta

from pipeline.training.procedural import CsgModel, Material, Painted, add, cut, is_closed, paint, polygonise
from pipeline.training.procedural.outlines import (
    Extrusion,
    Lathe,
    curved,
    cylinder,
    outline_distance,
    oval,
    regular,
    rod,
)
from pipeline.training.procedural.solids import Ball, Blend, Box, HalfSpace, Solid, Superquadric, Torus, Tube
from scene.errors import InputError, ViewloomError

RED, BLUE, GREEN = (Material((1.0, 0.0, 0.0)), Material((0.0, 0.0, 1.0)), Material((0.0, 1.0, 0.0)))
lengths = st.floats(0.1, 0.6)
exponents = st.floats(0.2, 1.8)


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def euler(vertices: np.ndarray, faces: np.ndarray) -> int:
    edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
    return len(vertices) - len(edges) + len(faces)


def at(solid: Solid, *points: tuple[float, float, float]) -> np.ndarray:
    return solid.distance(np.array(points, np.float32).T)


def closed_volume(*steps: object, mirror: bool = False, faces: int = 10_000) -> float:
    vertices, triangles = polygonise(CsgModel(steps, mirror), faces)  # type: ignore[arg-type]
    assert is_closed(triangles)
    return volume(vertices, triangles)


# --- distances ---------------------------------------------------------------------------------------------------


def test_distances_of_simple_solids_are_exact() -> None:
    assert at(Ball(0.5), (0, 0, 2), (0.1, 0, 0)) == pytest.approx([1.5, -0.4], abs=1e-6)
    corner = math.sqrt(3) * 0.5
    assert at(Box((0.5, 0.5, 0.5)), (1, 1, 1), (0.4, 0, 0), (0.9, 0, 0)) == pytest.approx([corner, -0.1, 0.4], abs=1e-6)
    assert at(Box((0.5, 0.5, 0.5), 0.2), (1, 1, 1)) == pytest.approx([0.7 * math.sqrt(3) - 0.2], abs=1e-6)
    assert at(Torus(0.5, 0.1), (0.5, 0, 0), (0, 0, 0), (0, 1, 0)) == pytest.approx([-0.1, 0.4, 0.4], abs=1e-6)
    assert at(rod((0, 0, 0), (1, 0, 0), 0.1), (0.5, 0.3, 0), (2, 0, 0)) == pytest.approx([0.2, 0.9], abs=1e-6)
    assert at(cylinder(0.3, 1.0), (0, 0, 0.5), (0.6, 0, 1.4), (0, 0, -1)) == pytest.approx([-0.3, 0.5, 1], abs=1e-6)
    assert at(HalfSpace((0.0, 0.0, 1.0), 0.5), (3, 4, 2)) == pytest.approx([1.5], abs=1e-6)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=20), st.integers(3, 9))
def test_the_distance_to_a_polygon_is_that_to_its_nearest_edge(points: list[tuple[float, float]], corners: int) -> None:
    polygon = regular(corners, 0.5, 0.3)
    u, v = np.array(points, np.float64).T
    found = outline_distance(polygon, u, v)
    # A regular polygon is the intersection of half planes: inside, the nearest line is the nearest edge.
    middle = 0.3 + (2 * np.arange(corners) + 1) * math.pi / corners
    lines = u[:, None] * np.cos(middle) + v[:, None] * np.sin(middle) - 0.5 * math.cos(math.pi / corners)
    inside = lines.max(axis=1)
    assert np.where(inside < -1e-9, found, inside) == pytest.approx(inside, abs=1e-6)
    assert (found[inside > 1e-9] >= inside[inside > 1e-9] - 1e-6).all()


@given(st.floats(-3, 3), lengths, lengths)
def test_placing_and_combining_change_distances_as_they_should(angle: float, x: float, z: float) -> None:
    points = np.random.default_rng(1).uniform(-1, 1, (3, 50)).astype(np.float32)
    one, two = Box((0.3, 0.2, 0.4)), Ball(0.35).moved(x, 0, z)
    moved = one.turned("z", angle).moved(x, -x, z)
    back = np.array([[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    local = (back @ (points - np.array([[x], [-x], [z]]))).astype(np.float32)
    assert moved.distance(points) == pytest.approx(one.distance(local), abs=2e-6)
    a, b = one.distance(points), two.distance(points)
    assert np.array_equal((one | two).distance(points), np.minimum(a, b))
    assert np.array_equal((one & two).distance(points), np.maximum(a, b))
    assert np.array_equal((one - two).distance(points), np.maximum(a, -b))
    blend = Blend((one, two), 0.1).distance(points)
    assert (blend <= np.minimum(a, b) + 1e-7).all()
    assert (blend >= np.minimum(a, b) - 0.025 - 1e-6).all()
    assert (np.abs(a - b) < 0.1).sum() >= (blend < np.minimum(a, b) - 1e-6).sum()


@given(st.integers(2, 8), st.floats(-3, 3))
def test_copies_about_the_axis_are_alike(count: int, angle: float) -> None:
    ring = Ball(0.1).moved(0.6, 0, 0.2).around(count)
    turns = angle + 2 * math.pi * np.arange(count) / count
    points = np.stack([0.5 * np.cos(turns), 0.5 * np.sin(turns), np.full(count, 0.1)]).astype(np.float32)
    distances = ring.distance(points)
    assert np.ptp(distances) < 1e-5
    low, high = np.asarray(ring.bounds)
    assert (low <= [-0.6, -0.6, 0.1]).all()
    assert (high >= [0.6, 0.6, 0.3]).all()


SOLIDS = [
    Superquadric((0.3, 0.2, 0.4), 0.4, 1.5),
    Lathe(((0, 0), (0.3, 0.1), (0.1, 0.6), (0, 0.6)), 0.05),
    Extrusion(oval(0.4, 0.2), 0.1, "yz", 0.05),
    Tube(((0, 0, 0), (0.3, 0.2, 0.1), (0.3, 0.5, 0.5)), (0.1, 0.05, 0.08)),
    Torus(0.4, 0.1).turned("x", 0.7).moved(0.1, 0.2, 0.3),
    Ball(0.2).moved(0.4, 0.1, 0).mirrored("x").stretched(1.0, 2.0, 0.5),
    Blend((Ball(0.3), Ball(0.2).moved(0.3, 0, 0)), 0.2),
    Box((0.2, 0.3, 0.1)).moved(0.5, 0, 0).around(5),
    Ball(0.3) & HalfSpace((1.0, 0.0, 0.0), 0.1),
]


@pytest.mark.parametrize("solid", SOLIDS, ids=lambda s: type(s).__name__)
def test_bounds_hold_every_solid(solid: Solid) -> None:
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (3, 30_000)).astype(np.float32)
    inside = points[:, solid.distance(points) < 0]
    low, high = np.asarray(solid.bounds)
    assert inside.shape[1] > 20
    assert (inside >= low[:, None] - 1e-6).all()
    assert (inside <= high[:, None] + 1e-6).all()


# --- meshes of known volume --------------------------------------------------------------------------------------


@given(lengths, lengths, lengths, exponents, exponents)
@settings(max_examples=15, deadline=None)
def test_superquadrics_have_the_closed_form_s_volume(a: float, b: float, c: float, e1: float, e2: float) -> None:
    expected = 2 * a * b * c * e1 * e2 * beta(e1 / 2 + 1, e1) * beta(e2 / 2, e2 / 2)
    assert closed_volume(add(Superquadric((a, b, c), e1, e2), RED)) == pytest.approx(expected, rel=0.02)


@given(st.floats(0.25, 0.5), st.floats(0.25, 0.5), st.floats(0.2, 0.9))
@settings(max_examples=15, deadline=None)
def test_a_ball_cut_by_a_ball_loses_the_lens(r: float, s: float, share: float) -> None:
    d = abs(r - s) + 0.05 + share * (r + s - abs(r - s) - 0.1)
    lens = math.pi * (r + s - d) ** 2 * (d * d + 2 * d * (r + s) - 3 * (r - s) ** 2) / (12 * d)
    ball = 4 / 3 * math.pi * r**3
    assert closed_volume(add(Ball(r), RED), cut(Ball(s).moved(x=d))) == pytest.approx(ball - lens, rel=4e-3, abs=2e-4)
    union = closed_volume(add(Ball(r), RED), add(Ball(s).moved(x=d), RED))
    assert union == pytest.approx(ball + 4 / 3 * math.pi * s**3 - lens, rel=4e-3)


@given(lengths, lengths, lengths, st.floats(0, 3))
@settings(max_examples=12, deadline=None)
def test_boxes_keep_their_edges_at_any_angle(x: float, y: float, z: float, angle: float) -> None:
    solid = Box((x, y, z)).turned("x", angle).turned("z", 1 - angle)
    vertices, faces = polygonise(CsgModel((add(solid, RED),)))
    assert volume(vertices, faces) == pytest.approx(8 * x * y * z, rel=2e-3)
    corners = np.array([[i, j, k] for i in (-x, x) for j in (-y, y) for k in (-z, z)])
    turned = solid.turn.T @ vertices.T  # type: ignore[attr-defined]
    gap = np.linalg.norm(turned.T[None] - corners[:, None], axis=2).min(axis=1)
    # Marching cubes alone would cut corners by half a cell or more.
    cell = math.sqrt(12 * (2 * x * y + 2 * y * z + 2 * z * x) / 14_000)
    assert gap.max() < 0.6 * cell
    assert np.median(gap) < 0.25 * cell


@pytest.mark.parametrize(
    ("solid", "expected"),
    [
        (Torus(0.4, 0.15), 2 * math.pi**2 * 0.4 * 0.15**2),
        (cylinder(0.3, 0.8, 0.2), math.pi * 0.8 / 3 * (0.09 + 0.06 + 0.04)),
        (rod((0, 0, 0), (0, 0.3, 0.4), 0.1), math.pi * 0.01 * 0.5 + 4 / 3 * math.pi * 1e-3),
        (Extrusion(regular(5, 0.4), 0.1), 0.2 * 5 / 2 * 0.16 * math.sin(2 * math.pi / 5)),
        (Lathe(((0.2, 0), (0.4, 0), (0.4, 0.3), (0.2, 0.3))), math.pi * (0.16 - 0.04) * 0.3),
        (Ball(0.3).stretched(1.0, 2.0, 0.5), 4 / 3 * math.pi * 0.027),
    ],
    ids=["torus", "frustum", "capsule", "pentagon", "pipe", "ellipsoid"],
)
def test_meshes_of_solids_have_known_volumes(solid: Solid, expected: float) -> None:
    assert closed_volume(add(solid, RED)) == pytest.approx(expected, rel=6e-3)


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_any_mixture_of_solids_is_one_closed_surface(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = [add(Box((0.3, 0.3, 0.3)), RED)]
    for _ in range(4):
        solid = SOLIDS[rng.integers(len(SOLIDS))].moved(*rng.uniform(-0.3, 0.3, 3))
        steps.append(add(solid, BLUE) if rng.random() < 0.6 else cut(solid))
    vertices, faces = polygonise(CsgModel(tuple(steps), mirror=bool(seed % 2)), 3000)
    assert is_closed(faces)
    assert volume(vertices, faces) > 0
    assert np.isfinite(vertices).all()
    assert euler(vertices, faces) % 2 == 0


def test_the_number_of_faces_follows_from_the_wish() -> None:
    model = CsgModel((add(Box((0.3, 0.2, 0.5)), RED), add(rod((0, 0, 0), (0, 0, 0.9), 0.03), RED)))
    for wish in (2500, 6000, 14_000):
        assert 0.6 * wish < len(polygonise(model, wish)[1]) < 1.35 * wish
    assert len(polygonise(model, voxel=0.1)[1]) < len(polygonise(model, voxel=0.05)[1])


def test_what_nobody_can_see_is_not_meshed() -> None:
    hollow = CsgModel((add(Ball(0.5), RED), cut(Ball(0.4))))
    vertices, faces = polygonise(hollow)
    assert volume(vertices, faces) == pytest.approx(4 / 3 * math.pi * 0.125, rel=5e-3)
    assert euler(vertices, faces) == 2
    apart = CsgModel((add(Ball(0.3), RED), add(Ball(0.1).moved(x=0.8), RED)))
    assert polygonise(apart)[0][:, 0].max() < 0.31


def test_tunnels_give_handles() -> None:
    plate = add(Box((0.5, 0.5, 0.1)), RED)
    drilled = [cut(cylinder(0.1, 1).moved(x, 0, -0.5)) for x in (-0.3, 0.0, 0.3)]
    for count in range(4):
        assert euler(*polygonise(CsgModel((plate, *drilled[:count])))) == 2 - 2 * count


# --- mirrors -----------------------------------------------------------------------------------------------------


def mirrored_model() -> CsgModel:
    arm = curved([(0, 0.1, 0), (0.2, 0.4, 0.2), (0.1, 0.6, 0.5)], [0.08, 0.05])
    return CsgModel((add(Box((0.3, 0.2, 0.2)), RED), add(arm, BLUE), cut(Ball(0.15).moved(0.3, 0.1, 0.2))), mirror=True)


def test_mirrored_models_give_exactly_mirrored_meshes() -> None:
    vertices, faces = polygonise(mirrored_model())
    assert is_closed(faces)
    there = {tuple(v) for v in vertices.tolist()}
    assert there == {(x, -y, z) for x, y, z in there}
    assert len(there) == len(vertices)
    index = {tuple(v): k for k, v in enumerate(vertices.tolist())}
    other = np.array([index[x, -y, z] for x, y, z in vertices.tolist()])

    def rings(triangles: np.ndarray) -> set[tuple[int, ...]]:
        first = triangles.argmin(axis=1)
        return {tuple(np.roll(t, -k).tolist()) for t, k in zip(triangles, first, strict=True)}

    assert rings(faces) == rings(other[faces][:, ::-1])


def test_a_mirrored_model_is_the_model_with_both_sides_built() -> None:
    half = mirrored_model()
    full = CsgModel(
        (
            half.steps[0],
            add(half.steps[1].solid.mirrored("y"), BLUE),
            cut(Ball(0.15).moved(0.3, 0.1, 0.2).mirrored("y")),
        )
    )
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (3, 400)).astype(np.float32)
    assert np.array_equal(half.distance(points, near=9), full.distance(points, near=9))
    assert volume(*polygonise(half)) == pytest.approx(volume(*polygonise(full)), rel=2e-3)
    assert half.bounds == pytest.approx(np.array(full.bounds), abs=0.2)


# --- fields and colours ------------------------------------------------------------------------------------------


def test_the_grid_and_the_points_agree_near_the_surface() -> None:
    model = mirrored_model()
    low, voxel, shape = np.array([-0.4, 0.0, -0.3]), 0.03, (30, 25, 32)
    grid = model.on_grid(low, voxel, shape)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")).reshape(3, -1)
    points = (low[:, None] + voxel * index).astype(np.float32)
    single = model.distance(points, near=9)
    near = np.abs(single) < 0.5 * voxel
    assert near.sum() > 200
    assert grid.reshape(-1)[near] == pytest.approx(single[near], abs=1e-5)
    assert np.array_equal(grid.reshape(-1) < 0, single < 0)


def test_the_last_step_that_made_the_surface_colours_it() -> None:
    model = CsgModel(
        (
            add(Box((0.5, 0.5, 0.5)), RED),
            add(Ball(0.2).moved(z=0.5), BLUE),
            cut(Ball(0.2).moved(x=0.5), GREEN),
            cut(Ball(0.2).moved(x=-0.5)),
            paint(HalfSpace((0.0, 1.0, 0.0), -0.45), GREEN),
        )
    )
    points = np.array([[0, 0.5, 0.0], [0, 0, 0.7], [0.3, 0, 0], [-0.3, 0, 0], [0.1, -0.5, 0], [0, 9, 9]], np.float32)
    white = np.ones((6, 3), np.float32)
    found = Painted(model)(points, white)
    expected = [RED.colour, BLUE.colour, GREEN.colour, RED.colour, GREEN.colour, (1.0, 1.0, 1.0)]
    assert found == pytest.approx(np.array(expected))


def test_flush_surfaces_get_the_later_colour() -> None:
    model = CsgModel((add(Box((0.5, 0.5, 0.5)), RED), add(Box((0.2, 0.2, 0.5)), BLUE)))
    top = np.array([[0.0, 0.0, 0.5], [0.4, 0.0, 0.5]], np.float32)
    assert Painted(model)(top, np.zeros((2, 3), np.float32)) == pytest.approx(np.array([[0, 0, 1.0], [1.0, 0, 0]]))


# --- mistakes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "build",
    [
        lambda: Box((0.1, 0.2, 0.3), 0.2),
        lambda: Superquadric((0.1, 0.2, 0.3), 0.01, 1.0),
        lambda: Superquadric((0.1, 0.2, 0.3), 1.0, 2.5),
        lambda: Tube(((0, 0, 0),), (1.0,)),
        lambda: Tube(((0, 0, 0), (1, 0, 0)), (1.0,)),
        lambda: Lathe(((0, 0), (-0.1, 0), (0, 1))),
        lambda: Extrusion(((0, 0), (1, 0)), 0.1),
        lambda: Extrusion(regular(3, 1), 0.1, rounding=0.2),
        lambda: CsgModel(()),
        lambda: CsgModel((cut(Ball(1.0)),)),
        lambda: CsgModel((add(HalfSpace((0.0, 0.0, 1.0)), RED),)),
    ],
)
def test_impossible_solids_are_refused(build: object) -> None:
    with pytest.raises(InputError):
        build()  # type: ignore[operator]


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(ViewloomError, match="closed surface"):
        polygonise(CsgModel((add(Ball(0.3), RED), cut(Ball(0.5)))))


def test_open_and_twisted_faces_are_told_from_closed_ones() -> None:
    tetrahedron = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]])
    assert is_closed(tetrahedron)
    assert not is_closed(tetrahedron[:3])
    twisted = tetrahedron.copy()
    twisted[0] = twisted[0, ::-1]
    assert not is_closed(twisted)
    assert not is_closed(np.concatenate([tetrahedron, tetrahedron]))
