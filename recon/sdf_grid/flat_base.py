"""A flat base for what no camera looked at from below."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from recon.mesh.marching_cubes import extract_mesh
from recon.surface import Surface
from scene.mesh import Faces, Vertices, vertex_normals
from scene.raycast import mesh_caster, unoccluded
from scene.viewset import ViewSet

_FACING = 0.15
"""Cosine between normal and viewing direction below which a view touches a surface rather than sees it."""


def with_flat_base(surface: Surface, views: ViewSet, measured: Float[np.ndarray, "n 3"] | None = None) -> Surface:
    """Cut off what hangs below the lowest point that a view sees, if all cameras look from above.

    Masks seen from above leave a cone under the object, as steep as the lowest camera: it is made of shadows, not of
    anything seen. Objects stand on something, so a plane is the better guess.

    Args:
        surface: in the world of the views, z up.
        views: that it was fitted to.
        measured: what depth maps of most of the views show, world frame; by default the surface tells what is seen.
    """
    middle = (surface.low + surface.box.high) / 2
    if any(view.camera.centre[2] <= middle[2] for view in views) or not bool((surface.sdf < 0).any()):
        return surface
    vertices, faces = extract_mesh(surface)
    seen = _seen(surface, vertices, faces, views) if measured is None else measured
    if not len(seen):
        return surface
    level = float(np.quantile(seen[:, 2], 0.002))
    if vertices[:, 2].min() > level - 2 * surface.voxel:
        return surface
    z = surface.low[2] + (np.arange(surface.sdf.shape[2]) + 0.5) * surface.voxel
    cut = np.maximum(surface.sdf, (level - z).astype(np.float32))
    if not bool((cut < 0).any()):
        return surface
    return replace(surface, sdf=cut, report=replace(surface.report, flat_base=True))


def _seen(surface: Surface, vertices: Vertices, faces: Faces, views: ViewSet) -> Float[np.ndarray, "n 3"]:
    """Some of the vertices that a view looks at, rather than along."""
    chosen = np.random.default_rng(0).permutation(len(vertices))[:20_000]
    points, normals = vertices[chosen], vertex_normals(vertices, faces)[chosen]
    caster = mesh_caster(vertices, faces)
    seen = np.zeros(len(points), bool)
    for view in views:
        towards = view.camera.centre - points
        distance = np.linalg.norm(towards, axis=1)
        faced = np.einsum("nc,nc->n", towards, normals) > _FACING * distance
        index = np.nonzero(faced & ~seen)[0]
        if not len(index):
            continue
        # From just above the surface outwards, so that it does not hide itself.
        start = points[index] + normals[index] * 1.5 * surface.voxel
        seen[index[unoccluded(caster, start, view.camera.centre)]] = True
    return points[seen]
