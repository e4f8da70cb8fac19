"""What hangs together: edges and their faults, doubles, sheets that touch, holes that are filled."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.procedural import Part, box, moved, torus
from recon.mesh.health import mesh_health
from recon.mesh.marching_cubes import clean_mesh
from recon.mesh.topology import (
    contract_short_edges,
    drop_doubles,
    edges_of,
    merge_vertices,
    part_touching_sheets,
    refill_faults,
    remove_unreferenced_vertices,
    spread_touching,
)


def test_edges_know_their_faces_and_whether_these_agree() -> None:
    faces = np.array([[0, 1, 2], [2, 1, 3], [1, 2, 4], [5, 6, 7]])
    edges = edges_of(faces)
    shared = int(np.nonzero((edges.ends == [1, 2]).all(axis=1))[0][0])
    assert (edges.uses[shared], edges.orientation_sum[shared]) == (3, 1)
    assert sorted(edges.uses.tolist()) == [1] * 9 + [3]
    assert (np.sort(faces[:, [0, 1]], axis=1) == edges.ends[edges.of_face[:, 0]]).all()
    turned = edges_of(np.array([[0, 1, 2], [1, 2, 3]]))
    assert turned.faulty.sum() == 1
    assert edges_of(np.array([[0, 1, 2], [2, 1, 3]])).faulty.sum() == 0


def test_pairs_are_the_faces_on_both_sides_of_an_edge() -> None:
    faces = box((1.0, 1.0, 1.0))[1]
    edges = edges_of(faces)
    pairs = edges.pairs()
    assert edges.closed
    assert len(pairs) == 18
    for one, other in pairs:
        assert len(set(faces[one]) & set(faces[other])) == 2
    assert len({tuple(sorted(p)) for p in pairs.tolist()}) == 18


def test_doubles_go_and_so_do_faces_back_to_back() -> None:
    faces = np.array([[3, 4, 5], [0, 1, 2], [4, 5, 3], [2, 1, 0], [6, 7, 8], [8, 6, 7], [7, 6, 8]])
    assert drop_doubles(faces).tolist() == [[3, 4, 5], [6, 7, 8]]
    assert drop_doubles(faces[:0]).shape == (0, 3)


def test_equal_positions_become_one_vertex() -> None:
    vertices, faces = box((1.0, 0.5, 0.25))
    points, triangles = merge_vertices(vertices[faces].reshape(-1, 3), np.arange(36).reshape(12, 3))
    assert len(points) == 8
    assert mesh_health(points, triangles).watertight


def test_short_edges_vanish_with_the_faces_beside_them(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    vertices = vertices.copy()
    start, end = faces[0, :2]
    vertices[start] = vertices[end] + 1e-9
    points, triangles = contract_short_edges(vertices, faces, 1e-6)
    assert (len(points), len(triangles)) == (len(vertices) - 1, len(faces) - 2)
    assert edges_of(triangles).closed


@settings(max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_whatever_is_glued_together_is_closed_again(seed: int, glued: int) -> None:
    """Vertices that fall together at random make edges of four faces, of two that disagree, and doubles."""
    rng = np.random.default_rng(seed)
    vertices, faces = torus(0.5, 0.2, rings=12, segments=8)
    names = np.arange(len(vertices))
    names[rng.integers(len(vertices), size=glued)] = rng.integers(len(vertices), size=glued)
    points, triangles = refill_faults(vertices, names[faces])
    edges = edges_of(triangles)
    assert edges.closed
    assert (np.sort(triangles, axis=1)[:, :-1] != np.sort(triangles, axis=1)[:, 1:]).all()
    assert len(np.unique(triangles)) == len(points)
    # Every vertex has one fan: Euler numbers of closed surfaces are even.
    assert (len(points) - len(edges.ends) + len(triangles)) % 2 == 0


def test_what_is_whole_is_not_refilled(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    points, triangles = refill_faults(vertices, faces)
    assert np.array_equal(points[triangles], vertices[faces])


def test_touching_parts_stay_parted_when_equal_positions_are_merged() -> None:
    """Two boxes with a common edge, each closed."""
    one, other = box((0.5, 0.5, 0.5)), moved(box((0.5, 0.5, 0.5)), (1.0, 1.0, 0.0))
    vertices, faces = merge_vertices(
        np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1] + len(one[0])])
    )
    assert mesh_health(vertices, faces).non_manifold_edges > 0
    points, triangles = part_touching_sheets(vertices, faces)
    assert not mesh_health(*merge_vertices(points, triangles)).watertight
    apart = spread_touching(points, triangles)
    assert np.abs(apart - points).max() < 0.05
    health = mesh_health(*merge_vertices(apart, triangles))
    assert (health.watertight, health.components, health.genus) == (True, 2, 0)
    assert health.volume == pytest.approx(2, rel=0.05)


def test_cleaning_takes_a_soup_of_triangles_to_a_closed_mesh(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    speck = ball(0.02, (2, 0, 0), subdivisions=1)
    corners = np.concatenate([vertices[faces], speck[0][speck[1]], vertices[faces[:5]]]).reshape(-1, 3)
    soup = np.arange(len(corners)).reshape(-1, 3)
    soup = np.concatenate([soup, [[0, 0, 1], [3, 4, 4]]])
    points, triangles = clean_mesh(corners, soup)
    health = mesh_health(points, triangles)
    assert (health.vertices, health.faces, health.watertight) == (len(vertices), len(faces), True)
    assert (health.degenerate_faces, health.consistent, health.genus) == (0, True, 0)


def test_compacting_keeps_the_order_of_vertices() -> None:
    points, faces = remove_unreferenced_vertices(np.arange(12.0).reshape(4, 3), np.array([[3, 1, 0]]))
    assert points[:, 0].tolist() == [0, 3, 9]
    assert faces.tolist() == [[2, 1, 0]]
