"""Cuts: rings come apart, slits stay closed, and nothing else changes."""

from __future__ import annotations

import numpy as np
import trimesh

from scene.skinning.cut import Topology, cut, without_islands


def ball() -> tuple[np.ndarray, np.ndarray]:
    mesh = trimesh.creation.icosphere(3)
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


def halves(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return np.asarray((vertices[faces].mean(axis=1)[:, 2] > 0.1).astype(np.int64))


def test_a_ball_has_two_faces_at_every_edge() -> None:
    _, faces = ball()
    topology = Topology.of(faces)
    assert topology.closed
    assert len(topology.first) == 3 * len(faces) // 2
    assert not Topology.of(faces[1:]).closed
    assert not Topology.of(np.concatenate([faces[:, ::-1][:1], faces[1:]])).closed


def test_a_face_that_was_folded_flat_does_no_harm() -> None:
    _, faces = ball()
    a, b, c = faces[0]
    split = np.concatenate([faces[1:], [[a, b, 900], [900, b, c], [a, 900, c]], [[a, a, b]]])
    assert Topology.of(split).closed


def test_a_ring_comes_apart_into_two_bowls() -> None:
    vertices, faces = ball()
    topology, labels = Topology.of(faces), halves(vertices, faces)
    glued = labels[topology.first // 3] != labels[topology.second // 3]
    opened = cut(topology, glued)
    assert len(opened.loops) == 2
    assert opened.open == 0
    assert all(len(ring) == glued.sum() for ring in opened.loops)
    upper, lower = (set(opened.corners[labels == side].reshape(-1)) for side in (1, 0))
    assert not upper & lower
    assert len(upper | lower) == len(vertices) + glued.sum()
    # Within a half everything hangs together as it did.
    assert all(len({tuple(f) for f in faces[labels == s]}) == (labels == s).sum() for s in (0, 1))


def test_nothing_to_cut_changes_nothing() -> None:
    vertices, faces = ball()
    topology = Topology.of(faces)
    opened = cut(topology, np.zeros(len(topology.first), bool))
    assert opened.loops == []
    assert len(np.unique(opened.corners)) == len(vertices)
    pairs = set(zip(opened.corners.reshape(-1).tolist(), faces.reshape(-1).tolist(), strict=True))
    assert len(pairs) == len(vertices)


def test_a_slit_is_a_ring_and_a_single_edge_none() -> None:
    vertices, faces = ball()
    topology, labels = Topology.of(faces), halves(vertices, faces)
    ring = np.nonzero(labels[topology.first // 3] != labels[topology.second // 3])[0]
    angle = np.arctan2(*vertices[topology.middles[ring]].mean(axis=1)[:, 1::-1].T)
    slit = np.zeros(len(topology.first), bool)
    slit[ring[np.argsort(angle)[:6]]] = True
    opened = cut(topology, slit)
    assert [len(ring) for ring in opened.loops] == [12]
    assert len(np.unique(opened.corners)) == len(vertices) + 5  # its ends stay one
    single = np.zeros(len(topology.first), bool)
    single[ring[0]] = True
    assert cut(topology, single).loops == []


def test_small_patches_go_with_what_surrounds_them() -> None:
    vertices, faces = ball()
    topology, labels = Topology.of(faces), halves(vertices, faces)
    spotted = labels.copy()
    spotted[np.nonzero(labels == 0)[0][5]] = 1
    glued = spotted[topology.first // 3] != spotted[topology.second // 3]
    np.testing.assert_array_equal(without_islands(topology, vertices, spotted, glued), labels)
