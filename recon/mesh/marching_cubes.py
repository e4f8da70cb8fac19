"""From a surface to a clean triangle mesh: marching cubes, cleaning, smoothing."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from skimage import measure

from recon.mesh.decimate import decimate
from recon.mesh.topology import (
    drop_doubles,
    merge_vertices,
    part_touching_sheets,
    remove_small_components,
    remove_unreferenced_vertices,
    spread_touching,
)
from recon.surface import Surface
from scene.errors import InputError
from scene.mesh import Faces, OtherFaces, OtherVertices, Vertices


def extract_mesh(surface: Surface) -> tuple[Vertices, Faces]:
    """Marching cubes at zero, faces outward, world units; closed, since the grid is padded with outside.

    Raises:
        InputError: there is nothing inside.
    """
    sdf = np.pad(surface.sdf, 1, constant_values=float(np.abs(surface.sdf).max()))
    if not (sdf < 0).any():
        raise InputError("the surface is empty", fix="Check the masks, or lower the hull threshold.")
    vertices, faces, _, _ = measure.marching_cubes(sdf, 0.0)
    # Index 1 of the padded grid is the first voxel's centre.
    points = (vertices - 0.5) * surface.voxel + surface.low
    return points.astype(np.float64), faces.astype(np.int64)


def clean_mesh(vertices: Vertices, faces: Faces, fraction: float = 0.02) -> tuple[OtherVertices, OtherFaces]:
    """What a mesh from anywhere needs before it is decimated.

    Equal positions become one vertex, faces without three corners and double faces go, and so do specks. Sheets that
    touch are parted and moved apart a little.

    Args:
        vertices, faces: the mesh.
        fraction: of the largest component's area, below which a component is a speck.
    """
    vertices, faces = merge_vertices(vertices, faces)
    vertices, faces = part_touching_sheets(*remove_unreferenced_vertices(vertices, drop_doubles(faces)))
    vertices, faces = remove_small_components(vertices, faces, fraction)
    return spread_touching(vertices, faces), faces


def asset_mesh(surface: Surface, faces: int, smoothing: int = 6) -> tuple[OtherVertices, OtherFaces]:
    """The mesh of a surface that is unwrapped and exported: clean, decimated, smooth.

    Args:
        surface: what was fitted.
        faces: triangles at most.
        smoothing: rounds of Taubin smoothing.

    Raises:
        InputError: there is nothing inside.
    """
    vertices, triangles = decimate(*clean_mesh(*extract_mesh(surface)), faces)
    return taubin(vertices, triangles, smoothing), triangles


def taubin(vertices: Vertices, faces: Faces, rounds: int = 6, shrink: float = 0.5, inflate: float = -0.53) -> Vertices:
    """Taubin smoothing: takes the stairs off marching cubes without shrinking the object."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.concatenate([edges, edges[:, ::-1]])
    count = len(vertices)
    graph = sparse.csr_array((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), shape=(count, count))
    graph.data[:] = 1.0  # an edge listed by both of its faces counts once
    degree = np.maximum(graph.sum(axis=1), 1)[:, None]
    out = vertices
    for _ in range(rounds):
        for factor in (shrink, inflate):
            out = out + factor * (graph @ out / degree - out)
    return out
