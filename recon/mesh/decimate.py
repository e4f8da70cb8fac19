"""Fewer triangles for the same shape: quadric decimation whose result stays closed."""

from __future__ import annotations

import fast_simplification
import numpy as np

from recon.mesh.topology import (
    contract_short_edges,
    drop_doubles,
    edges_of,
    part_touching_sheets,
    refill_faults,
    remove_small_components,
    remove_unreferenced_vertices,
    spread_touching,
)
from scene.mesh import Faces, OtherFaces, OtherVertices, Vertices

_AGGRESSIVENESS = (3.0, 5.0, 7.0)
"""How fast the decimator's error bound grows. Slow growth gives half the error of its default, but may stop early."""
_CRUMB = 0.001
"""Fraction of the largest component's area below which a component is what parting has split off."""


def decimate(vertices: Vertices, faces: Faces, target: int) -> tuple[OtherVertices, OtherFaces]:
    """Quadric decimation to at most ``target`` faces, seldom fewer than nine tenths; what is closed stays closed.

    The decimator now and then joins two sheets along an edge, or leaves faces back to back. Sheets that touch are
    parted (and moved apart a little, lest merging equal positions joins them again); where that is not enough, the
    faces about the fault are cut out and the hole is filled. Open meshes keep their borders and are only parted.

    Args:
        vertices, faces: the mesh.
        target: the most faces.
    """
    if len(faces) <= target:
        return vertices, faces
    mend = _closed if edges_of(faces).closed else _parted
    best, aim = (vertices, faces), target
    for _ in range(5):
        points, triangles = mend(*_collapse(vertices, faces, aim))
        if len(best[1]) > target or len(best[1]) < len(triangles) <= target:
            best = (points, triangles)
        if 0.93 * target <= len(triangles) <= target:
            break
        # Mending may take faces away, and filling holes may add some.
        aim = min(len(faces) - 1, max(4, aim + int(0.97 * target) - len(triangles)))
    return best if len(best[1]) else (vertices, faces)


def _collapse(vertices: Vertices, faces: Faces, target: int) -> tuple[OtherVertices, OtherFaces]:
    """The decimator, on a mesh of size 1, since its error bounds are absolute."""
    low = vertices.min(axis=0)
    size = float((vertices.max(axis=0) - low).max()) or 1.0
    points, triangles = np.ascontiguousarray((vertices - low) / size, np.float64), np.ascontiguousarray(faces, np.int64)
    for aggressiveness in _AGGRESSIVENESS:
        points, triangles = fast_simplification.simplify(points, triangles, target_count=target, agg=aggressiveness)
        points, triangles = np.asarray(points, np.float64), np.asarray(triangles, np.int64)
        if len(triangles) <= target:
            break
    # It leaves needles between vertices that have come to the same place.
    points, triangles = contract_short_edges(*remove_unreferenced_vertices(points, triangles), 1e-6)
    return points * size + low, triangles


def _closed(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    vertices, faces = part_touching_sheets(*remove_unreferenced_vertices(vertices, drop_doubles(faces)))
    if len(faces) and not edges_of(faces).closed:
        vertices, faces = refill_faults(vertices, faces)
    return _parted(vertices, faces)


def _parted(vertices: Vertices, faces: Faces) -> tuple[OtherVertices, OtherFaces]:
    if not len(faces):
        return vertices, faces
    vertices, faces = remove_small_components(*part_touching_sheets(vertices, faces), _CRUMB)
    return spread_touching(vertices, faces), faces
