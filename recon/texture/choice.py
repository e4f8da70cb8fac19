"""Which views of a large capture colour a mesh: those that add most to what others show of it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from recon.texture.visibility import facing_cosine, sharpest_focus, visible
from scene.mesh import Faces, Vertices, face_areas, face_normals
from scene.raycast import RayCaster
from scene.view import View

_SAMPLES = 3000
"""Most faces that are looked at."""
_GRAZING = 0.1
"""Least cosine between a face's normal and the direction to a camera that sees it."""
_USES = (1.0, 0.6, 0.4, 0.25, 0.15, 0.1)
"""What a face's best view is worth, its second best, and so on: a mean over some takes noise out, and most must agree
on what a passer-by covers."""


def choose_for_texture(
    vertices: Vertices, faces: Faces, views: Sequence[View], caster: RayCaster, most: int, cosine_power: float
) -> list[int]:
    """Numbers, ascending, of the views that together show a mesh best: near by, squarely, sharply (greedy choice).

    No picture is read: sharpness is what the capture says.

    Args:
        vertices, faces: the mesh.
        views: all there are.
        caster: of the mesh.
        most: how many are chosen.
        cosine_power: power of the cosine between normal and view in a view's worth.
    """
    if len(views) <= most:
        return list(range(len(views)))
    sample = np.arange(0, len(faces), -(-len(faces) // _SAMPLES))
    corners, normals = faces[sample], face_normals(vertices, faces)[sample]
    points, area = vertices[corners].mean(axis=1), face_areas(vertices, corners)
    focus, finest = sharpest_focus([view.camera for view in views], vertices.mean(axis=0))
    worth = np.zeros((len(views), len(sample)), np.float32)
    for k, view in enumerate(views):
        cosine = facing_cosine(view.camera, points, normals)
        seen = visible(view.camera, points, cosine > _GRAZING, caster)
        scale = min(1.0, focus[k] / finest) ** 2 * min(view.sharpness, 1.0) * view.weight
        worth[k, seen] = scale * cosine[seen] ** cosine_power
    worth *= (area / np.maximum(worth.max(axis=0), 1e-9)).astype(np.float32)
    return sorted(_greedy(worth, most))


def _greedy(worth: Float[np.ndarray, "views p"], most: int) -> list[int]:
    """The views of most worth, where each point's best views count by :data:`_USES`.

    What a view adds can only fall as others are taken, so a gain that was worked out before is a bound.
    """
    uses = np.array(_USES, np.float32)[:, None]
    best = np.zeros((len(_USES), worth.shape[1]), np.float32)
    held = 0.0

    def with_view(k: int) -> tuple[Float[np.ndarray, "u p"], float]:
        ranked = -np.sort(-np.concatenate([best, worth[k][None]]), axis=0)[:-1]
        return ranked, float((uses * ranked).sum(dtype=np.float64))

    queue = [(-with_view(k)[1], k) for k in range(len(worth))]
    heapq.heapify(queue)
    taken: list[int] = []
    while queue and len(taken) < most:
        _, k = heapq.heappop(queue)
        ranked, total = with_view(k)
        if queue and (held - total, k) > queue[0]:
            heapq.heappush(queue, (held - total, k))
            continue
        best, held = ranked, total
        taken.append(k)
    return taken
