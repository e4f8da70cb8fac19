"""From a surface to a clean triangle mesh: marching cubes, cleaning, smoothing, health."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from skimage import measure

from recon.mesh.decimate import decimate as decimate
from recon.mesh.topology import Faces as Faces
from recon.mesh.topology import OtherFaces as OtherFaces
from recon.mesh.topology import OtherVertices as OtherVertices
from recon.mesh.topology import Vertices as Vertices
from recon.mesh.topology import area_normals, drop_doubles, edges_of, merge_vertices, spread_touching
from recon.mesh.topology import face_components as face_components
from recon.mesh.topology import part_touching_sheets as part_touching_sheets
from recon.mesh.topology import remove_small_components as remove_small_components
from recon.mesh.topology import remove_unreferenced_vertices as remove_unreferenced_vertices
from recon.surface import Surface
from scene.errors import InputError


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


def extract_mesh(surface: Surface) -> tuple[Vertices, Faces]:
    """Marching cubes at zero, faces outward, world units; closed, since the grid is padded with outside.

    Raises:
        InputError: there is nothing inside.
    """
    sdf = np.pad(surface.sdf, 1, constant_values=float(np.abs(surface.sdf).max()))
    if not (sdf < 0).any():
        raise InputError("the surface is empty", fix="Check the masks, or lower the vote they must reach.")
    vertices, faces, _, _ = measure.marching_cubes(sdf, 0.0)
    # Index 1 of the padded grid is the first voxel's centre.
    points = (vertices - 0.5) * surface.voxel + surface.low
    return points.astype(np.float64), faces.astype(np.int64)


def clean_mesh(vertices: Vertices, faces: Faces, share: float = 0.02) -> tuple[OtherVertices, OtherFaces]:
    """What a mesh from anywhere needs before it is decimated.

    Equal positions become one vertex, faces without three corners and double faces go, and so do specks. Sheets that
    touch are parted and moved apart a little.

    Args:
        vertices, faces: the mesh.
        share: of the largest component's area, below which a component is a speck.
    """
    vertices, faces = merge_vertices(vertices, faces)
    vertices, faces = part_touching_sheets(*remove_unreferenced_vertices(vertices, drop_doubles(faces)))
    vertices, faces = remove_small_components(vertices, faces, share)
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


def vertex_normals(vertices: Vertices, faces: Faces) -> Vertices:
    """Unit normals, weighted by area; a vertex without area gets +z, since a zero normal is invalid in files."""
    normal = area_normals(vertices, faces)
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], normal)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(length > 1e-12, out / np.maximum(length, 1e-12), (0.0, 0.0, 1.0))


def signed_volume(vertices: Vertices, faces: Faces) -> float:
    """Volume; positive if faces look outward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


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
