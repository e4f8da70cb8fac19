"""Health of meshes with known faults."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.training.procedural import Part, box, torus
from recon.mesh.health import mesh_health


def together(*parts: Part) -> Part:
    """Parts side by side in one mesh."""
    starts = np.cumsum([0] + [len(p[0]) for p in parts[:-1]])
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] + s for p, s in zip(parts, starts)])


def test_health_of_known_meshes() -> None:
    vertices, faces = box((1.0, 0.5, 0.25))
    whole = mesh_health(vertices, faces)
    assert (whole.vertices, whole.faces, whole.components, whole.watertight) == (8, 12, 1, True)
    assert (whole.boundary_edges, whole.non_manifold_edges, whole.euler) == (0, 0, 2)
    assert (whole.volume, whole.size) == (pytest.approx(1.0), (2.0, 1.0, 0.5))
    assert (whole.degenerate_faces, whole.consistent, whole.genus) == (0, True, 0)
    open_box = mesh_health(vertices, faces[1:])
    assert (open_box.watertight, open_box.boundary_edges, open_box.euler) == (False, 3, 1)
    assert open_box.genus is None
    turned = mesh_health(vertices, np.concatenate([faces[:1, ::-1], faces[1:]]))
    assert (turned.watertight, turned.consistent) == (True, False)
    flat = vertices.copy()
    flat[0] = flat[1]
    assert mesh_health(flat, faces).degenerate_faces == (np.isin(faces, [0, 1]).sum(axis=1) == 2).sum() == 2
    ring = torus(0.5, 0.2)
    assert (mesh_health(*ring).euler, mesh_health(*ring).volume > 0) == (0, True)
    assert mesh_health(*together((vertices, faces), ring, ring)).components == 3
    assert mesh_health(*together((vertices, faces), ring, ring)).genus == 2


def test_edges_shared_by_four_faces_are_found() -> None:
    vertices = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, 0, 0], [0, -1, 0.0]])
    tent = lambda a, b: [[0, 1, a], [1, 0, b], [0, a, b], [1, b, a]]  # noqa: E731
    health = mesh_health(vertices, np.array(tent(2, 3) + tent(4, 5)))
    assert (health.non_manifold_edges, health.boundary_edges, health.watertight) == (1, 0, False)
