"""What a viewer or a printer would complain about in a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recon.mesh.topology import edges_of, face_components
from scene.mesh import Faces, Vertices, area_normals, signed_volume


@dataclass(frozen=True)
class MeshHealth:
    """What a viewer or printer would complain about.

    Args:
        vertices, faces, components: how many.
        watertight: every edge has two faces.
        boundary_edges: edges with one face.
        non_manifold_edges: edges with more than two.
        euler: vertices less edges plus faces.
        volume: positive if faces look outward.
        size: of the bounding box.
        degenerate_faces: faces that repeat a vertex, or are flatter than a millionth of their longest edge.
        consistent: the two faces of every edge agree on what is outside.
        genus: handles of all components together; None for a mesh that is not watertight.
    """

    vertices: int
    faces: int
    components: int
    watertight: bool
    boundary_edges: int
    non_manifold_edges: int
    euler: int
    volume: float
    size: tuple[float, float, float]
    degenerate_faces: int
    consistent: bool
    genus: int | None


def mesh_health(vertices: Vertices, faces: Faces) -> MeshHealth:
    """Count what can be wrong with a mesh."""
    edges = edges_of(faces)
    boundary, crowded = int((edges.uses == 1).sum()), int((edges.uses > 2).sum())
    watertight = boundary == 0 and crowded == 0
    euler = len(vertices) - len(edges.ends) + len(faces)
    components = int(face_components(faces, len(vertices)).max()) + 1
    size = vertices.max(axis=0) - vertices.min(axis=0)
    length = np.linalg.norm(vertices[edges.ends[:, 0]] - vertices[edges.ends[:, 1]], axis=1)
    height = np.linalg.norm(area_normals(vertices, faces), axis=1)  # times the longest edge
    return MeshHealth(
        len(vertices),
        len(faces),
        components,
        watertight,
        boundary,
        crowded,
        euler,
        signed_volume(vertices, faces),
        (float(size[0]), float(size[1]), float(size[2])),
        int((height <= 1e-6 * length[edges.of_face].max(axis=1) ** 2).sum()),
        bool((edges.orientation_sum[edges.uses == 2] == 0).all()),
        components - euler // 2 if watertight else None,
    )
