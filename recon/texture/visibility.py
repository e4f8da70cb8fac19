"""Visibility: what each view sees of a mesh, by one ray for each vertex and face, and how well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from recon.mesh.topology import edges_of
from recon.texture.projected_view import ProjectedView
from scene.camera import Camera
from scene.mesh import Faces, Vertices, face_normals
from scene.raycast import RayCaster, unoccluded

HIDDEN, PARTLY, WHOLE = 0, 1, 2
"""How much of a face a view sees."""
_GRAZING = 0.1
"""Least cosine between a normal and the direction to a camera that sees the point."""
_FINEST = 4.0
"""Times the usual view's pixels a unit of length, beyond which a view with more makes the others count no less."""

_TOLERANCE = 0.002
"""Distance before a point, as a fraction of that to the camera, within which the mesh does not hide it."""


@dataclass(frozen=True, eq=False)
class Visibility:
    """What the views see of a mesh.

    Args:
        weight: how well each view sees each vertex: 0 not at all, 1 squarely, near by, away from all rims.
        colour: the reduced picture's colour at the vertex; 0 where it is not seen.
        extent: of each face: hidden, partly or whole.
    """

    weight: Float[np.ndarray, "views v"]
    colour: Float[np.ndarray, "views v 3"]
    extent: UInt8[np.ndarray, "views f"]


def compute_visibility(
    vertices: Vertices,
    faces: Faces,
    normals: Vertices,
    views: Sequence[ProjectedView],
    confidence: Sequence[float],
    caster: RayCaster,
    cosine_power: float,
) -> Visibility:
    """What each of some views sees of a mesh.

    Args:
        vertices, faces, normals: the mesh; small faces, so that few are seen in part.
        views: with their pictures made ready.
        confidence: in [0, 1], of each view.
        caster: of the mesh.
        cosine_power: power of the cosine between normal and view.
    """
    middles = vertices[faces].mean(axis=1)
    flat = face_normals(vertices, faces)
    weight = np.zeros((len(views), len(vertices)), np.float32)
    colour = np.zeros((len(views), len(vertices), 3), np.float32)
    extent = np.zeros((len(views), len(faces)), np.uint8)
    focus, finest = sharpest_focus([view.camera for view in views], vertices.mean(axis=0))
    for k, view in enumerate(views):
        cosine = facing_cosine(view.camera, vertices, normals)
        seen = visible(view.camera, vertices, cosine > _GRAZING, caster)
        facing = facing_cosine(view.camera, middles, flat)
        in_middle = visible(view.camera, middles, facing > 0.5 * _GRAZING, caster)
        count = seen[faces].sum(axis=1) + in_middle
        extent[k] = np.where(count == 4, WHOLE, np.where(count == 0, HIDDEN, PARTLY))
        index = np.nonzero(seen)[0]
        pixels, _ = view.camera.project(vertices[index])
        scale = min(1.0, focus[k] / finest) ** 2
        weight[k, index] = confidence[k] * scale * cosine[index] ** cosine_power * view.core_at(pixels)
        colour[k, index] = view.soft_at(pixels)
    return Visibility(weight, colour, extent)


def sharpest_focus(cameras: Sequence[Camera], middle: Float[np.ndarray, "3"]) -> tuple[list[float], float]:
    """Pixels a unit of length that cameras have at a point, and how many make a view count in full.

    A view from far away shows less. A large photo beside small generated views must not leave these with the weight of
    what nobody sees.
    """
    focus = [camera.fx / max(float(np.linalg.norm(camera.centre - middle)), 1e-9) for camera in cameras]
    return focus, min(float(np.max(focus)), _FINEST * float(np.median(focus)))


def visible(
    camera: Camera, points: Float[np.ndarray, "n 3"], candidates: Bool[np.ndarray, "n"], caster: RayCaster
) -> Bool[np.ndarray, "n"]:
    """Which of the candidates lie in the picture with nothing in front of them."""
    index = np.nonzero(candidates)[0]
    pixels, depth = camera.project(points[index])
    index = index[camera.shows(pixels, depth)]
    out = np.zeros(len(points), bool)
    if not len(index):
        return out
    out[index] = unoccluded(caster, camera.centre, points[index], relative=_TOLERANCE)
    return out


def facing_cosine(
    camera: Camera, points: Float[np.ndarray, "n 3"], normals: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n"]:
    """Cosine between the normal and the direction to the camera."""
    towards = camera.centre - points
    distance = np.linalg.norm(towards, axis=1)
    return np.einsum("nc,nc->n", towards, normals) / np.maximum(distance, 1e-9)


def subdivided(
    points: Float[np.ndarray, "v d"], faces: Faces
) -> tuple[Float[np.ndarray, "w d"], Int[np.ndarray, "g 3"]]:
    """Each face in four, with new points in the middle of the edges; face ``k`` becomes ``4 k`` to ``4 k + 3``."""
    edges = edges_of(faces)
    middle = len(points) + edges.of_face
    a, b, c = faces.T
    ab, bc, ca = middle.T
    parts = np.stack([[a, ab, ca], [ab, b, bc], [ca, bc, c], [ab, bc, ca]])  # [4, 3, f]
    return np.concatenate([points, points[edges.ends].mean(axis=1)]), parts.transpose(2, 0, 1).reshape(-1, 3)
