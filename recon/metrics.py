"""Scores of meshes against meshes.

Protocol: each mesh is scaled so that its longest side is 1 and centred by its bounding box, about the vertical it has;
no registration. Distances are from points drawn evenly on one surface to the triangles of the other, not squared.
Solids are compared on a grid of 64 voxels along the bounding sphere's diameter, 37 along the longest side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import cKDTree

from recon.mesh import Faces, OtherFaces, OtherVertices, Vertices
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.render import MeshRenderer
from scene.voxels import carve_solid


@dataclass(frozen=True)
class MeshScores:
    """Chamfer: mean of both directions; F-scores: at 1 % and 5 % of the longest side; IoU: of 64^3 solids."""

    chamfer: float
    f_score_1: float
    f_score_5: float
    iou: float


def unit_box(vertices: Vertices) -> Vertices:
    """Centred, longest side 1."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return (vertices - (low + high) / 2) / (high - low).max()


def sample_surface(
    vertices: Vertices, faces: Faces, count: int, seed: int = 0
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "n"]]:
    """Points drawn evenly by area, and the faces they lie on."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum() > 0:
        raise InputError("a mesh without area cannot be measured")
    rng = np.random.default_rng(seed)
    face = np.searchsorted(np.cumsum(area) / area.sum(), rng.random(count), side="right").clip(max=len(faces) - 1)
    u, v = rng.random((2, count, 1))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return a[face] + u * (b[face] - a[face]) + v * (c[face] - a[face]), face


def distance_to_mesh(
    points: Float[np.ndarray, "n 3"],
    vertices: Vertices,
    faces: Faces,
    *,
    candidates: int = 12,
    density: int = 100_000,
    seed: int = 1,
) -> Float[np.ndarray, "n"]:
    """Distance from points to a triangle mesh.

    The triangles of the ``candidates`` nearest of ``density`` surface samples are measured exactly, so there is no
    sampling floor: a point on the surface gets 0.
    """
    samples, owner = sample_surface(vertices, faces, density, seed)
    # Corners stand in for triangles too small to be sampled.
    samples = np.concatenate([samples, vertices[faces].mean(axis=1)])
    owner = np.concatenate([owner, np.arange(len(faces))])
    _, nearest = cKDTree(samples).query(points, k=min(candidates, len(samples)), workers=-1)
    best = np.full(len(points), np.inf)
    for column in np.atleast_2d(nearest.T):
        triangle = vertices[faces[owner[column]]]
        best = np.minimum(best, point_triangle_distance(points, triangle))
    return best


def point_triangle_distance(
    points: Float[np.ndarray, "n 3"], triangles: Float[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, "n"]:
    """Distance of each point to its triangle: to the face if the point projects into it, else to the nearest edge."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    ab, ac, ap = b - a, c - a, points - a
    d00, d01, d11 = (np.einsum("ij,ij->i", x, y) for x, y in ((ab, ab), (ab, ac), (ac, ac)))
    d20, d21 = np.einsum("ij,ij->i", ap, ab), np.einsum("ij,ij->i", ap, ac)
    denominator = d00 * d11 - d01 * d01
    safe = np.where(denominator > 1e-20, denominator, 1)
    v, w = (d11 * d20 - d01 * d21) / safe, (d00 * d21 - d01 * d20) / safe
    normal = np.cross(ab, ac)
    plane = np.abs(np.einsum("ij,ij->i", ap, normal)) / np.maximum(np.linalg.norm(normal, axis=1), 1e-20)
    edges = np.minimum.reduce([_point_segment(points, p, q) for p, q in ((a, b), (b, c), (c, a))])
    inside = (denominator > 1e-20) & (v >= 0) & (w >= 0) & (v + w <= 1)
    return np.where(inside, plane, edges)


def _point_segment(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    along = end - start
    t = np.einsum("ij,ij->i", points - start, along) / np.maximum(np.einsum("ij,ij->i", along, along), 1e-20)
    return np.linalg.norm(points - start - np.clip(t, 0, 1)[:, None] * along, axis=1)


def compare_meshes(
    vertices: Vertices,
    faces: Faces,
    true_vertices: OtherVertices,
    true_faces: OtherFaces,
    *,
    samples: int = 20_000,
    seed: int = 0,
) -> MeshScores:
    """Scores of a mesh against the true one under the module's protocol."""
    mine, true = unit_box(vertices), unit_box(true_vertices)
    there = distance_to_mesh(sample_surface(mine, faces, samples, seed)[0], true, true_faces)
    back = distance_to_mesh(sample_surface(true, true_faces, samples, seed + 7)[0], mine, faces)
    solids = [_solid(v, f) for v, f in ((mine, faces), (true, true_faces))]
    either = (solids[0] | solids[1]).sum()
    return MeshScores(
        float((there.mean() + back.mean()) / 2),
        _f_score(there, back, 0.01),
        _f_score(there, back, 0.05),
        float((solids[0] & solids[1]).sum() / max(1, either)),
    )


def _f_score(there: np.ndarray, back: np.ndarray, threshold: float) -> float:
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _solid(vertices: Vertices, faces: Faces) -> np.ndarray:
    # The unit box's diagonal may stick out of the carving cube's sphere; shrink both meshes alike to fit.
    scaled = vertices * (2 * OBJECT_RADIUS / np.sqrt(3))
    return carve_solid(MeshRenderer(ColouredMesh(scaled.astype(np.float32), faces)), 64, views=20)[0]
