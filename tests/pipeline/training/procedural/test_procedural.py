"""Procedural objects: closed, outward-facing, reproducible, of the right size."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.procedural import (
    FAMILIES,
    Part,
    Pattern,
    assemble,
    box,
    cylinder,
    lathe,
    moved,
    random_axes,
    random_colour,
    random_object,
    random_pattern,
    random_recolour,
    rotation,
    superellipsoid,
    torus,
)
from scene.camera import OBJECT_RADIUS

seeds = st.integers(0, 2**31 - 1)


def open_edges(faces: np.ndarray) -> int:
    """Directed edges that do not meet exactly one edge of the opposite direction."""
    edges = faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    there, count = np.unique(edges, axis=0, return_counts=True)
    back = {tuple(e) for e in there[:, ::-1].tolist()}
    return int((count != 1).sum()) + len(back - {tuple(e) for e in there.tolist()})


def volume(part: Part) -> float:
    """Signed volume: positive if faces look outwards."""
    vertices, faces = part
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def pieces(vertices: np.ndarray, faces: np.ndarray) -> list[Part]:
    """Connected pieces of a mesh."""
    root = np.arange(len(vertices))
    while True:
        low = root[faces].min(axis=1)
        after = root.copy()
        for k in range(3):
            np.minimum.at(after, faces[:, k], low)
        if np.array_equal(after, root):
            break
        root = after
    return [(vertices, faces[root[faces[:, 0]] == name]) for name in np.unique(root[faces[:, 0]])]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (box((0.2, 0.3, 0.5)), 8 * 0.2 * 0.3 * 0.5),
        (superellipsoid(1.0, 1.0, (0.4, 0.5, 0.6), 48, 96), 4 / 3 * math.pi * 0.4 * 0.5 * 0.6),
        (superellipsoid(0.01, 0.01, (0.4, 0.5, 0.6), 64, 128), 8 * 0.4 * 0.5 * 0.6),
        (cylinder(0.3, 0.8, segments=96), math.pi * 0.3**2 * 0.8),
        (cylinder(0.3, 0.8, 0.0, segments=96), math.pi * 0.3**2 * 0.8 / 3),
        (cylinder(0.4, 0.6, 0.2, segments=96), math.pi * 0.6 / 3 * (0.16 + 0.08 + 0.04)),
        (torus(0.5, 0.2, 96, 96), 2 * math.pi**2 * 0.5 * 0.2**2),
        (lathe(np.array([[0, 0], [1, 1], [0, 2.0]]), 96), 2 * math.pi / 3),
    ],
    ids=["box", "ellipsoid", "near box", "cylinder", "cone", "frustum", "torus", "double cone"],
)
def test_primitives_are_closed_and_of_known_volume(part: Part, expected: float) -> None:
    assert open_edges(part[1]) == 0
    assert volume(part) == pytest.approx(expected, rel=0.03)


def test_primitives_are_centred_and_z_up() -> None:
    for part in (box((1.0, 1.0, 2.0)), cylinder(1.0, 4.0), superellipsoid(1.0, 1.0, (1.0, 1.0, 2.0))):
        assert part[0].min(axis=0) == pytest.approx([-1, -1, -2], abs=1e-6)
        assert part[0].max(axis=0) == pytest.approx([1, 1, 2], abs=1e-6)
    assert torus(1.0, 0.25)[0][:, 2].max() == pytest.approx(0.25)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(6))
def test_every_part_of_every_family_is_closed_and_faces_outwards(family: str, seed: int) -> None:
    mesh = random_object(seed, family)
    assert open_edges(mesh.faces) == 0
    for part in pieces(mesh.vertices, mesh.faces):
        assert open_edges(part[1]) == 0
        assert volume(part) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_objects_fill_the_sphere_and_follow_from_their_seed(family: str) -> None:
    first, again, other = random_object(11, family), random_object(11, family), random_object(12, family)
    assert np.linalg.norm(first.vertices, axis=1).max() == pytest.approx(OBJECT_RADIUS, rel=1e-5)
    assert np.array_equal(first.vertices, again.vertices)
    assert np.array_equal(first.vertex_colours, again.vertex_colours)
    assert first.solid == again.solid
    assert first.vertices.shape != other.vertices.shape or not np.allclose(first.vertices, other.vertices)


def test_seeds_reach_every_family() -> None:
    sizes = {tuple(random_object(seed).faces.shape) for seed in range(60)}
    assert len(sizes) > 15


def test_assembled_parts_keep_their_colours() -> None:
    cube = box((1.0, 1.0, 1.0))
    mesh = assemble([(cube, (1.0, 0.0, 0.0)), (moved(cube, (5.0, 0.0, 0.0)), (0.0, 0.0, 1.0))])
    colours = mesh.colours_at(np.arange(24), np.full((24, 2), 1 / 3))
    assert colours[:12] == pytest.approx(np.broadcast_to([1.0, 0, 0], (12, 3)))
    assert colours[12:] == pytest.approx(np.broadcast_to([0.0, 0, 1], (12, 3)))
    assert mesh.vertices[8:, 0].min() == 4


@pytest.mark.parametrize(
    ("axis", "before", "after"), [("x", [0, 1, 0], [0, 0, 1]), ("y", [0, 0, 1], [1, 0, 0]), ("z", [1, 0, 0], [0, 1, 0])]
)
def test_rotations_are_right_handed(axis: str, before: list[float], after: list[float]) -> None:
    turn = rotation(axis, math.pi / 2)  # type: ignore[arg-type]
    assert turn @ np.array(before) == pytest.approx(np.array(after), abs=1e-12)
    vertices, _ = moved((np.array([before], float), np.zeros((0, 3), int)), (0.0, 0.0, 7.0), turn)
    assert vertices[0] == pytest.approx(np.array(after) + np.array([0, 0, 7]), abs=1e-12)


@given(seeds)
def test_random_colours_axes_and_patterns_are_valid(seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert all(0 <= c <= 1 for c in random_colour(rng))
    axes = np.array(random_axes(rng))
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-9)
    pattern = random_pattern(rng)
    points, base = rng.uniform(-1, 1, (64, 3)), rng.random((64, 3)).astype(np.float32)
    painted = pattern(points, base)
    low, high = np.minimum(base, pattern.colour), np.maximum(base, pattern.colour)
    assert (painted >= low - 1e-5).all()
    assert (painted <= high + 1e-5).all()


@given(seeds)
def test_recolouring_keeps_greys_grey(seed: int) -> None:
    grey = np.repeat(np.linspace(0, 0.9, 5, dtype=np.float32)[:, None], 3, axis=1)
    changed = random_recolour(np.random.default_rng(seed))(np.zeros((5, 3)), grey)
    assert np.ptp(changed, axis=1) == pytest.approx(0, abs=1e-5)
    assert changed.min() >= 0
    assert changed.max() <= 1


@pytest.mark.parametrize("kind", ["stripes", "checks", "spots"])
def test_patterns_repeat_along_their_axes(kind: str) -> None:
    turn = rotation("z", 0.5)
    rows = tuple(tuple(float(v) for v in row) for row in turn)
    pattern = Pattern(kind, (1.0, 0.0, 0.0), 2.0, rows, (0.3, 0.9, 0.4), 0.8)  # type: ignore[arg-type]
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3))
    base = np.zeros((200, 3), np.float32)
    here, along = pattern(points, base), pattern(points + turn[0] / 2, base)
    assert (np.abs(here - along).max(axis=1) > 1e-3).mean() < 0.02
    assert np.ptp(here[:, 0]) > 0.5
    assert here.max() <= 0.8 + 1e-6
