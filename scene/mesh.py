"""Triangle meshes: their arrays, normals and volume, and the coloured form in which objects are ray cast and drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from scene.camera import Mat4, apply_transform, normalising_transform
from scene.errors import InputError

Vertices = Float[np.ndarray, "v 3"]
"""Positions of a mesh's vertices."""
Faces = Int[np.ndarray, "f 3"]
"""Vertex indices of triangles, counter-clockwise seen from outside."""
OtherVertices = Float[np.ndarray, "w 3"]
"""Positions of another number of vertices, of a mesh that a function makes of one."""
OtherFaces = Int[np.ndarray, "g 3"]
"""Another number of triangles."""


@runtime_checkable
class SolidTexture(Protocol):
    """A pattern or recolouring defined at every point of space, in the coordinates the mesh was built in."""

    def __call__(self, points: Float[np.ndarray, "n 3"], base: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB colours in [0, 1] at points whose own colour is ``base``."""


@dataclass(frozen=True, eq=False)
class ColouredMesh:
    """A triangle mesh whose colour comes from a texture image or vertex colours (grey if neither), then solid textures.

    Args:
        vertices: positions, world units.
        faces: vertex indices, counter-clockwise seen from outside.
        vertex_colours: sRGB.
        uv: texture coordinates per vertex in [0, 1], v measured **down** from the top row of the image (glTF's way).
        texture: sRGB image.
        solid: patterns laid over the colour, applied in order.
        texture_space: the vertices at the time of building, where the solid textures live; the vertices if None.
    """

    vertices: Vertices
    faces: Faces
    vertex_colours: UInt8[np.ndarray, "v 3"] | None = None
    uv: Float[np.ndarray, "v 2"] | None = None
    texture: UInt8[np.ndarray, "h w 3"] | None = None
    solid: tuple[SolidTexture, ...] = ()
    texture_space: Vertices | None = None

    def __post_init__(self) -> None:
        if len(self.faces) and (self.faces.min() < 0 or self.faces.max() >= len(self.vertices)):
            raise InputError(f"a face refers to a vertex outside 0..{len(self.vertices) - 1}")
        if not np.isfinite(self.vertices).all():
            raise InputError("a mesh has vertices that are not finite")
        if (self.uv is None) != (self.texture is None):
            raise InputError("a mesh needs both texture coordinates and a texture, or neither")

    def transformed(self, matrix: Mat4) -> ColouredMesh:
        """The mesh under a 4x4 similarity of positive determinant; a solid texture moves with it."""
        space = self.vertices if self.texture_space is None else self.texture_space
        return replace(
            self,
            vertices=apply_transform(matrix, self.vertices).astype(self.vertices.dtype),
            texture_space=space if self.solid else None,
        )

    def normalised(self) -> ColouredMesh:
        """The mesh centred, in the bounding sphere of the project's one normalisation."""
        return self.transformed(normalising_transform(self.vertices))

    def colours_at(self, face: Int[np.ndarray, "n"], bary: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 3"]:
        """sRGB colours in [0, 1] on faces."""
        if self.uv is not None and self.texture is not None:
            colours = sample_image(self.texture, self._blend(self.uv, face, bary))
        elif self.vertex_colours is not None:
            colours = self._blend(self.vertex_colours.astype(np.float32) / 255, face, bary)
        else:
            colours = np.full((len(face), 3), 0.7, np.float32)
        if self.solid:
            points = self._blend(self.vertices if self.texture_space is None else self.texture_space, face, bary)
            for texture in self.solid:
                colours = texture(points, colours)
        return colours

    def face_normals(self) -> Float[np.ndarray, "f 3"]:
        """Unit normals of faces; zero for faces without area."""
        return face_normals(self.vertices, self.faces)

    def _blend(self, values: np.ndarray, face: np.ndarray, bary: np.ndarray) -> np.ndarray:
        corners = values[self.faces[face]]
        u, v = bary[:, :1], bary[:, 1:]
        return corners[:, 0] * (1 - u - v) + corners[:, 1] * u + corners[:, 2] * v


def area_normals(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "f 3"]:
    """Normals of faces, as long as twice their areas: cross products of their sides."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def face_areas(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "f"]:
    """Area of every face."""
    return np.linalg.norm(area_normals(vertices, faces), axis=1) / 2


def face_normals(vertices: Vertices, faces: Faces) -> Float[np.ndarray, "f 3"]:
    """Unit normals of faces; zero for faces without area."""
    normals = area_normals(vertices, faces)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0, length, 1)


def vertex_normals(vertices: Vertices, faces: Faces) -> Vertices:
    """Unit normals, weighted by area; a vertex without area gets +z, since a zero normal is invalid in files."""
    normal = area_normals(vertices, faces)
    out = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(out, faces[:, k], normal)
    length = np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(length > 1e-12, out / np.maximum(length, 1e-12), (0.0, 0.0, 1.0))


def signed_volume(vertices: Vertices, faces: Faces) -> float:
    """Volume of a closed mesh; positive if faces look outward."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def sample_image(image: UInt8[np.ndarray, "h w c"], uv: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n c"]:
    """Bilinear lookup in [0, 1], v down, repeating outside the image as glTF's default sampler does."""
    height, width = image.shape[:2]
    x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    x0, y0 = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = (x - x0)[:, None].astype(np.float32), (y - y0)[:, None].astype(np.float32)
    x1, y1 = (x0 + 1) % width, (y0 + 1) % height
    x0, y0 = x0 % width, y0 % height
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    low = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    return (top * (1 - fy) + low * fy) / np.float32(255)
