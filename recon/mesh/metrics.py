"""Scores of meshes against meshes.

Protocol: each mesh is scaled so that its longest side is 1 and centred by its bounding box, about the vertical it has;
no registration. Distances are from points drawn evenly on one surface to the triangles of the other, not squared.
Solids are compared on a grid of 64 voxels along the bounding sphere's diameter, 37 along the longest side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from scene.camera import OBJECT_RADIUS, orbit_camera
from scene.errors import InputError
from scene.mesh import ColouredMesh, Faces, OtherFaces, OtherVertices, Vertices, area_normals, face_normals
from scene.raycast import mesh_caster, unoccluded
from scene.render import MeshRenderer
from scene.voxels import carve_solid, sphere_cameras


@dataclass(frozen=True)
class MeshScores:
    """Chamfer: mean of both directions; F-scores: at 1 % and 5 % of the longest side; IoU: of 64^3 solids.

    ``thinned_chamfer`` is SyncDreamer's, as in :class:`SurfaceScores`.
    """

    chamfer: float
    f_score_1: float
    f_score_5: float
    iou: float
    thinned_chamfer: float


def unit_box(vertices: Vertices) -> Vertices:
    """Centred, longest side 1."""
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return (vertices - (low + high) / 2) / (high - low).max()


def sample_surface(
    vertices: Vertices, faces: Faces, count: int, seed: int = 0
) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "n"]]:
    """Points drawn evenly by area, and the faces they lie on."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area = np.linalg.norm(area_normals(vertices, faces), axis=1)  # twice the area
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
    there, back = _both_ways(mine, faces, true, true_faces, samples, seed)
    solids = [_solid(v, f) for v, f in ((mine, faces), (true, true_faces))]
    either = (solids[0] | solids[1]).sum()
    return MeshScores(
        float((there.mean() + back.mean()) / 2),
        _f_score(there, back, 0.01),
        _f_score(there, back, 0.05),
        float((solids[0] & solids[1]).sum() / max(1, either)),
        _thinned_chamfer(mine, faces, true, true_faces),
    )


def chamfer(vertices: Vertices, faces: Faces, true_vertices: OtherVertices, true_faces: OtherFaces) -> float:
    """The Chamfer distance of :func:`compare_meshes` alone, without the solids and clouds that take most time."""
    there, back = _both_ways(unit_box(vertices), faces, unit_box(true_vertices), true_faces)
    return float((there.mean() + back.mean()) / 2)


def _both_ways(
    mine: Vertices, faces: Faces, true: OtherVertices, true_faces: OtherFaces, samples: int = 20_000, seed: int = 0
) -> tuple[Float[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """Distances of points of each mesh to the other one."""
    there = distance_to_mesh(sample_surface(mine, faces, samples, seed)[0], true, true_faces)
    return there, distance_to_mesh(sample_surface(true, true_faces, samples, seed + 7)[0], mine, faces)


@dataclass(frozen=True)
class SurfaceScores:
    """Scores of a surface in the true one's own frame; lengths are fractions of the true mesh's longest side.

    Args:
        accuracy: mean distance from the surface to the true one.
        completeness: mean distance from what of the true surface can be seen from outside to the surface.
        chamfer: mean of the two.
        f_half, f_1: F-scores at 0.5 % and 1 %.
        normal_consistency: mean absolute cosine between normals of nearest points, both directions.
        iou: of 64^3 solids.
        thinned_chamfer: SyncDreamer's: points that 16 cameras see, thinned to one per 0.01, point to point. Its floor
            for identical surfaces is 0.002 to 0.009.
    """

    accuracy: float
    completeness: float
    chamfer: float
    f_half: float
    f_1: float
    normal_consistency: float
    iou: float
    thinned_chamfer: float


def compare_surfaces(
    vertices: Vertices,
    faces: Faces,
    true_vertices: OtherVertices,
    true_faces: OtherFaces,
    *,
    samples: int = 20_000,
    seed: int = 0,
) -> SurfaceScores:
    """Scores of a reconstruction without any registration: both meshes are in one frame.

    Of the true surface only what 48 cameras around it see counts: scans and models have insides that no photo shows.
    """
    low, high = true_vertices.min(axis=0), true_vertices.max(axis=0)
    longest, middle = float((high - low).max()), (low + high) / 2
    mine, true = (vertices - middle) / longest, (true_vertices - middle) / longest
    there_points, there_face = sample_surface(mine, faces, samples, seed)
    back_points, back_face = sample_surface(true, true_faces, 2 * samples, seed + 7)
    seen = seen_from_outside(back_points, true, true_faces)
    back_points, back_face = back_points[seen][:samples], back_face[seen][:samples]
    there, back = distance_to_mesh(there_points, true, true_faces), distance_to_mesh(back_points, mine, faces)
    normals = [face_normals(v, f) for v, f in ((mine, faces), (true, true_faces))]
    true_index = cKDTree(back_points).query(there_points)[1]
    my_index = cKDTree(there_points).query(back_points)[1]
    cosine = [
        np.abs(np.einsum("nc,nc->n", normals[0][there_face], normals[1][back_face[true_index]])).mean(),
        np.abs(np.einsum("nc,nc->n", normals[1][back_face], normals[0][there_face[my_index]])).mean(),
    ]
    solids = [_solid(v, f) for v, f in ((mine, faces), (true, true_faces))]
    return SurfaceScores(
        float(there.mean()),
        float(back.mean()),
        float((there.mean() + back.mean()) / 2),
        _f_score(there, back, 0.005),
        _f_score(there, back, 0.01),
        float(np.mean(cosine)),
        float((solids[0] & solids[1]).sum() / max(1, (solids[0] | solids[1]).sum())),
        _thinned_chamfer(mine, faces, true, true_faces),
    )


def seen_from_outside(
    points: Float[np.ndarray, "n 3"], vertices: Vertices, faces: Faces, cameras: int = 48
) -> Bool[np.ndarray, "n"]:
    """Which points on a mesh of longest side 1 about the origin any of some cameras around it sees."""
    caster = mesh_caster(vertices, faces)
    seen = np.zeros(len(points), bool)
    for camera in sphere_cameras(cameras, 8, 2.5):
        index = np.nonzero(~seen)[0]
        seen[index] = unoccluded(caster, camera.centre, points[index], absolute=2e-3)
    return seen


def _thinned_chamfer(vertices: Vertices, faces: Faces, true_vertices: OtherVertices, true_faces: OtherFaces) -> float:
    first, second = _thinned(vertices, faces), _thinned(true_vertices, true_faces)
    there, back = cKDTree(second).query(first)[0], cKDTree(first).query(second)[0]
    return float((there.mean() + back.mean()) / 2)


def _thinned(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "n 3"]:
    """Points that 16 cameras at elevation 30 degrees see, one (the mean) per cube of side 0.01."""
    caster = mesh_caster(vertices, faces)
    found = []
    for k in range(16):
        origin, direction = orbit_camera(k * np.pi / 8, np.radians(30), 1.5, size=256).rays()
        origin, direction = origin.reshape(-1, 3), direction.reshape(-1, 3)
        hits = caster.cast(origin, direction)
        hit = hits.face >= 0
        found.append(origin[hit] + direction[hit] * hits.distance[hit, None])
    points = np.concatenate(found)
    _, cube, count = np.unique(np.floor(points / 0.01).astype(int), axis=0, return_inverse=True, return_counts=True)
    total = np.zeros((len(count), 3))
    np.add.at(total, cube.reshape(-1), points)
    return total / count[:, None]


def _f_score(there: np.ndarray, back: np.ndarray, threshold: float) -> float:
    precision, recall = float((there < threshold).mean()), float((back < threshold).mean())
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def _solid(vertices: Vertices, faces: Faces) -> np.ndarray:
    # The unit box's diagonal may stick out of the carving cube's sphere; shrink both meshes alike to fit.
    scaled = vertices * (2 * OBJECT_RADIUS / np.sqrt(3))
    renderer = MeshRenderer(ColouredMesh(scaled.astype(np.float32), faces))
    # Walls thinner than a voxel stay as carved: thickening them, for whoever made them too thin, would flatter.
    return carve_solid(renderer, 64, views=20, sheets=False)[0]
