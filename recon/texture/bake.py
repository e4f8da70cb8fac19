"""A texture for a mesh: colours projected from the views with visibility, one view's detail on each part."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage, sparse

from recon.mesh.topology import edges_of
from recon.specular import SpecularSH
from recon.texture.blend import choose_views, detail_weights, smooth_offsets, view_gains, view_trust
from recon.texture.projected_view import ProjectedView, read_view
from recon.texture.rasterise import rasterise
from recon.texture.unwrap import unwrap
from recon.texture.visibility import HIDDEN, WHOLE, compute_visibility, subdivided, visible
from scene.mesh import ColouredMesh, Faces, Vertices, vertex_normals
from scene.raycast import RayCaster, mesh_caster
from scene.view import View
from scene.viewset import ViewSet

_TEXELS = 300
"""Most texels a face has on average where views are chosen: larger faces are divided for that."""
_MODEL_WEIGHT = 0.004
"""Weight of the model's colour beside the views', so that it fades in where these see the surface at grazing angles."""

_HELD_PIXELS = 300_000_000
"""Most pixels of all views that are kept in memory."""


@runtime_checkable
class ColourModel(Protocol):
    """Anything that has a colour everywhere."""

    def colours_at(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
        """sRGB in [0, 1] at world points."""


@dataclass(frozen=True, eq=False)
class TexturedMesh:
    """A mesh with one texture, world units.

    Args:
        vertices: positions; those on chart borders appear once per chart.
        faces: vertex indices.
        normals: unit vertex normals, continuous over chart borders.
        uv: in [0, 1], v measured down from the image's top row (glTF's way).
        texture: sRGB.
    """

    vertices: Vertices
    faces: Faces
    normals: Vertices
    uv: Float[np.ndarray, "v 2"]
    texture: UInt8[np.ndarray, "s s 3"]

    def coloured(self) -> ColouredMesh:
        """As the renderer takes it; to be drawn without light."""
        return ColouredMesh(
            self.vertices.astype(np.float32), self.faces, uv=self.uv.astype(np.float32), texture=self.texture
        )


def bake(
    vertices: Vertices,
    faces: Faces,
    views: ViewSet,
    surface: ColourModel,
    side: int = 1024,
    *,
    cosine_power: float = 4.0,
    match_brightness: bool = True,
    specular: SpecularSH | None = None,
) -> TexturedMesh:
    """Unwrap a mesh and colour it from its views; the model's colour fills what no view sees.

    Every part takes its detail from the view that sees it best, and borders between such parts are blended over the
    width of a face. Coarse colours are the mean of all views that see a point; a view that shows something else there
    than most do (an occluder, a misalignment) is left out.

    Args:
        vertices, faces: the mesh, in the frame of the views.
        views: pictures, used at full size.
        surface: its colour is the fallback.
        side: texture side in pixels.
        cosine_power: power of the cosine between normal and view in a view's weight.
        match_brightness: make up for different exposure and white balance of the views.
        specular: what the views show reflected; it is taken off.
    """
    normals = vertex_normals(vertices, faces)
    source, new_faces, uv = unwrap(vertices, faces, side)
    # Views are chosen by face, so large faces are divided first; both meshes alike, so that faces correspond.
    points, fine, flat, flat_faces = vertices, faces, uv, new_faces
    while side * side / len(fine) > _TEXELS and len(fine) < 100_000:
        points, fine = subdivided(points, fine)
        flat, flat_faces = subdivided(flat, flat_faces)
    face_of, bary = rasterise(flat, flat_faces, side)
    row, column = np.nonzero(face_of >= 0)
    order = np.argsort(face_of[row, column], kind="stable")
    row, column = row[order], column[order]
    texels = _Texels.of(face_of[row, column], bary[row, column], points, fine)
    colours = _texel_colours(
        texels, points, fine, views, surface, mesh_caster(vertices, faces), cosine_power, match_brightness, specular
    )
    texture = np.zeros((side, side, 3), np.float32)
    texture[row, column] = colours
    # Every empty texel takes the nearest chart's colour, so that no filter or mip level mixes in a background.
    nearest = ndimage.distance_transform_edt(face_of < 0, return_distances=False, return_indices=True)
    texture = texture[nearest[0], nearest[1]]
    return TexturedMesh(
        vertices[source],
        new_faces,
        normals[source],
        uv.astype(np.float64),
        np.round(np.clip(texture, 0, 1) * 255).astype(np.uint8),
    )


@dataclass(frozen=True, eq=False)
class _Texels:
    """Texels that a mesh covers, in the order of its faces: on which face they are, where on it, and in the world."""

    face: Int[np.ndarray, "n"]
    corners: Int[np.ndarray, "n 3"]
    barycentric: Float[np.ndarray, "n 3"]
    place: Float[np.ndarray, "n 3"]

    @classmethod
    def of(
        cls, face: Int[np.ndarray, "n"], weight: Float[np.ndarray, "n 2"], vertices: Vertices, faces: Faces
    ) -> _Texels:
        barycentric = np.stack([1 - weight.sum(-1), weight[:, 0], weight[:, 1]], -1).astype(np.float32)
        corners = faces[face].astype(np.int32)
        place = _interpolated(vertices.astype(np.float32), corners, barycentric)
        return cls(face.astype(np.int32), corners, barycentric, place)

    def on(self, faces: Bool[np.ndarray, "f"]) -> Int[np.ndarray, "m"]:
        """Which texels lie on the marked faces."""
        return np.nonzero(np.repeat(faces, np.bincount(self.face, minlength=len(faces))))[0]

    def __getitem__(self, index: Int[np.ndarray, "m"]) -> _Texels:
        return _Texels(self.face[index], self.corners[index], self.barycentric[index], self.place[index])


def _interpolated(
    values: np.ndarray, corners: Int[np.ndarray, "n 3"], barycentric: Float[np.ndarray, "n 3"]
) -> np.ndarray:
    """Values of vertices, interpolated within faces."""
    weights = barycentric.T if values.ndim == 1 else barycentric.T[..., None]
    out = values[corners[:, 0]] * weights[0]
    for k in (1, 2):
        out += values[corners[:, k]] * weights[k]
    return out


def _texel_colours(
    texels: _Texels,
    vertices: Vertices,
    faces: Faces,
    views: ViewSet,
    surface: ColourModel,
    caster: RayCaster,
    cosine_power: float,
    match_brightness: bool,
    specular: SpecularSH | None,
) -> Float[np.ndarray, "n 3"]:
    def read(view: View) -> ProjectedView:
        return read_view(view, views.has_masks, caster)

    def read_small(view: View) -> ProjectedView:
        return replace(read(view), sharp=np.zeros((1, 1, 3), np.uint8))

    # Large captures are read twice rather than held.
    held = sum(view.camera.width * view.camera.height for view in views) <= _HELD_PIXELS
    with ThreadPoolExecutor(2) as pool:  # decoding and filtering leave the interpreter's lock alone
        projected = list(pool.map(read if held else read_small, views))
    normals = vertex_normals(vertices, faces)
    confidence = [view.weight for view in views]
    visibility = compute_visibility(vertices, faces, normals, projected, confidence, caster, cosine_power)
    gains = view_gains(visibility) if match_brightness else np.ones((len(projected), 3))
    reflected = np.zeros((len(projected), 1, 3), np.float32)
    if specular is not None:
        reflected = np.stack([specular.seen_from(p.camera, vertices, normals) for p in projected]).astype(np.float32)
    visibility = replace(visibility, colour=(visibility.colour / gains[:, None] - reflected).astype(np.float32))
    edges = edges_of(faces)
    adjacency = _adjacency(edges.ends, len(vertices))
    trust = view_trust(visibility, adjacency)
    chosen = choose_views(visibility, trust, faces, edges.pairs())
    offsets = smooth_offsets(visibility, trust, adjacency)
    mix = detail_weights(visibility, trust, faces, chosen, offsets, adjacency)
    offsets -= reflected
    total, colour = np.zeros(len(texels.face), np.float32), np.zeros((len(texels.face), 3), np.float32)
    for k, view in enumerate(views):
        source = projected[k] if held else read(view)
        _add_view(texels, faces, source, mix[k], visibility.extent[k], gains[k], offsets[k], caster, total, colour)
    found = total > 0
    colour[found] /= total[found, None]
    trusted = _interpolated((visibility.weight * trust).sum(axis=0), texels.corners, texels.barycentric)
    believed = np.where(found, trusted, 0)[:, None]
    model = surface.colours_at(texels.place.astype(np.float64))
    return (believed * colour + _MODEL_WEIGHT * model) / (believed + _MODEL_WEIGHT)


def _add_view(
    texels: _Texels,
    faces: Faces,
    view: ProjectedView,
    weight: Float[np.ndarray, "v"],
    extent: UInt8[np.ndarray, "f"],
    gain: Float[np.ndarray, "3"],
    offset: Float[np.ndarray, "v 3"],
    caster: RayCaster,
    total: Float[np.ndarray, "n"],
    colour: Float[np.ndarray, "n 3"],
) -> None:
    """Add one view's colours to the texels it sees, by the weights of their corners."""
    index = texels.on((extent != HIDDEN) & (weight > 0)[faces].any(axis=1))
    part = texels[index]
    doubtful = (extent != WHOLE)[part.face]
    if doubtful.any():
        free = np.nonzero(~doubtful | visible(view.camera, part.place, doubtful, caster))[0]
        index, part = index[free], part[free]
    mix = _interpolated(weight, part.corners, part.barycentric)
    pixels, _ = view.camera.project(part.place)
    found = view.sharp_at(pixels) / gain.astype(np.float32) + _interpolated(offset, part.corners, part.barycentric)
    total[index] += mix
    colour[index] += mix[:, None] * found


def _adjacency(ends: Int[np.ndarray, "e 2"], count: int) -> sparse.csr_array:
    """Which vertices share an edge, each with itself, as ones."""
    one, other = np.concatenate([ends, ends[:, ::-1], np.repeat(np.arange(count), 2).reshape(-1, 2)]).T
    return sparse.csr_array((np.ones(len(one), np.float32), (one, other)), shape=(count, count))
