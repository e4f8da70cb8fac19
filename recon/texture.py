"""A texture for a mesh: unwrapping, and colours projected from the views with visibility."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xatlas
from jaxtyping import Bool, Float, Int, UInt8
from scipy import ndimage

from recon.field import Surface
from recon.mesh import Faces, Vertices, vertex_normals
from scene.mesh import sample_image
from scene.raycast import RayCaster, mesh_caster
from scene.viewset import View, ViewSet


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


def unwrap(vertices: Vertices, faces: Faces, side: int) -> tuple[Int[np.ndarray, "w"], Faces, Float[np.ndarray, "w 2"]]:
    """Charts packed into a square texture (xatlas).

    Args:
        vertices, faces: the mesh; above 20,000 faces this takes many seconds, so decimate first.
        side: texture side in pixels, for the padding between charts.

    Returns:
        Original vertex of each new vertex, faces over new vertices, and coordinates in [0, 1].
    """
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices.astype(np.float32), faces.astype(np.uint32))
    pack = xatlas.PackOptions()
    pack.padding = max(2, side // 512)
    pack.resolution = side
    pack.bilinear = True
    chart = xatlas.ChartOptions()
    chart.max_iterations = 1
    atlas.generate(chart, pack)
    source, indices, uv = atlas[0]
    # The packed atlas need not be square: stretch neither axis against the other.
    longest = max(atlas.width, atlas.height)
    return source.astype(np.int64), indices.astype(np.int64), uv * np.array([atlas.width, atlas.height]) / longest


def rasterise(
    uv: Float[np.ndarray, "w 2"], faces: Faces, side: int
) -> tuple[Int[np.ndarray, "s s"], Float[np.ndarray, "s s 2"]]:
    """Which face covers each texel centre (-1: none), and its barycentric weights (second and third corner)."""
    face_of = np.full((side, side), -1, np.int64)
    bary = np.zeros((side, side, 2), np.float32)
    corners = uv[faces] * side - 0.5
    low = np.ceil(corners.min(axis=1)).astype(np.int64)
    high = np.floor(corners.max(axis=1)).astype(np.int64)
    extent = (high - low + 1).max(axis=1)
    e1, e2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = e1[:, 0] * e2[:, 1] - e1[:, 1] * e2[:, 0]
    usable = (np.abs(area) > 1e-12) & (extent > 0)
    bound = 1
    while usable.any():
        # Faces of similar size together: one rectangle of texels for all of them.
        group = np.nonzero(usable & (extent <= bound))[0]
        usable[group] = False
        if len(group):
            _fill(face_of, bary, group, corners, low, e1, e2, area, bound)
        bound *= 2
    return face_of, bary


def _fill(
    face_of: np.ndarray,
    bary: np.ndarray,
    group: np.ndarray,
    corners: np.ndarray,
    low: np.ndarray,
    e1: np.ndarray,
    e2: np.ndarray,
    area: np.ndarray,
    bound: int,
) -> None:
    side = len(face_of)
    oy, ox = np.meshgrid(np.arange(bound), np.arange(bound), indexing="ij")
    offsets = np.stack([ox.reshape(-1), oy.reshape(-1)], -1)
    for part in np.array_split(group, max(1, len(group) * bound * bound // 2_000_000)):
        texel = low[part][:, None] + offsets
        d = texel - corners[part, 0][:, None]
        u = (d[..., 0] * e2[part, None, 1] - d[..., 1] * e2[part, None, 0]) / area[part, None]
        v = (e1[part, None, 0] * d[..., 1] - e1[part, None, 1] * d[..., 0]) / area[part, None]
        inside = (u >= -1e-6) & (v >= -1e-6) & (u + v <= 1 + 1e-6) & (texel >= 0).all(-1) & (texel < side).all(-1)
        f, k = np.nonzero(inside)
        x, y = texel[f, k, 0], texel[f, k, 1]
        face_of[y, x] = part[f]
        bary[y, x, 0], bary[y, x, 1] = u[f, k], v[f, k]


def bake(
    vertices: Vertices,
    faces: Faces,
    views: ViewSet,
    surface: Surface,
    side: int = 1024,
    *,
    best: int = 3,
    sharpness: float = 4.0,
) -> TexturedMesh:
    """Unwrap a mesh and colour it from its views; the model's colour fills what no view sees.

    Args:
        vertices, faces: the mesh, in the frame of the views.
        views: pictures, used at full size.
        surface: its colour is the fallback.
        side: texture side in pixels.
        best: views blended at a point, those that see it most directly.
        sharpness: power of the cosine between normal and view in a view's weight.
    """
    normals = vertex_normals(vertices, faces)
    source, new_faces, uv = unwrap(vertices, faces, side)
    face_of, bary = rasterise(uv, new_faces, side)
    rows, columns = np.nonzero(face_of >= 0)
    face, weight = face_of[rows, columns], bary[rows, columns]
    corners = np.stack([1 - weight.sum(-1), weight[:, 0], weight[:, 1]], -1)
    points = np.einsum("nk,nkc->nc", corners, vertices[source][new_faces[face]])
    directions = np.einsum("nk,nkc->nc", corners, normals[source][new_faces[face]])
    directions /= np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-9)
    colours = project_colours(
        points,
        directions,
        views,
        mesh_caster(vertices, faces),
        surface.colours_at(points),
        best=best,
        sharpness=sharpness,
    )
    texture = np.zeros((side, side, 3), np.float32)
    texture[rows, columns] = colours
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


def project_colours(
    points: Float[np.ndarray, "n 3"],
    normals: Float[np.ndarray, "n 3"],
    views: ViewSet,
    caster: RayCaster,
    fallback: Float[np.ndarray, "n 3"],
    *,
    best: int = 3,
    sharpness: float = 4.0,
) -> Float[np.ndarray, "n 3"]:
    """Colours of surface points from the views that see them.

    A view counts by its confidence and by how squarely it looks at the point, if nothing is in between and the pixel
    lies well inside the mask. The fallback has a small weight everywhere, so that it fades in where views look askance.
    """
    top_weight = np.zeros((best, len(points)))
    top_colour = np.zeros((best, len(points), 3), np.float32)
    for view in views:
        colour, weight = _seen_by(view, points, normals, caster, sharpness, views.has_masks)
        for k in range(best):
            swap = weight > top_weight[k]
            top_weight[k][swap], weight[swap] = weight[swap], top_weight[k][swap].copy()
            kept = top_colour[k][swap].copy()
            top_colour[k][swap] = colour[swap]
            colour[swap] = kept
    base = 0.03
    total = top_weight.sum(axis=0)[:, None] + base
    return (np.einsum("kn,knc->nc", top_weight, top_colour) + base * fallback) / total


def _seen_by(
    view: View, points: np.ndarray, normals: np.ndarray, caster: RayCaster, sharpness: float, masked: bool
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n"]]:
    camera = view.camera
    pixels, depth = camera.project(points)
    towards = camera.centre - points
    distance = np.linalg.norm(towards, axis=1)
    cosine = np.einsum("nc,nc->n", towards, normals) / np.maximum(distance, 1e-9)
    scaled = pixels / (camera.width, camera.height)
    candidate = (cosine > 0.1) & (depth > 0) & (scaled >= 0).all(-1) & (scaled < 1).all(-1)
    colour, weight = np.zeros((len(points), 3), np.float32), np.zeros(len(points))
    index = np.nonzero(candidate)[0]
    if not len(index):
        return colour, weight
    hits = caster.cast(np.broadcast_to(camera.centre, (len(index), 3)), -towards[index] / distance[index, None])
    index = index[hits.distance > distance[index] * (1 - 0.005) - 0.005]
    rgba = view.rgba()
    # Premultiplied, so that what lies behind the mask (a background, or black) does not mix into the rim.
    alpha = sample_image(rgba[..., 3:], scaled[index].astype(np.float32))
    shown = np.round(rgba[..., :3] * (rgba[..., 3:] / 255)).astype(np.uint8)
    values = sample_image(shown, scaled[index].astype(np.float32)) / np.maximum(alpha, 1 / 255)
    weight[index] = view.weight * cosine[index] ** sharpness
    if masked:
        weight[index] *= sample_image(_core(rgba)[..., None], scaled[index].astype(np.float32))[:, 0]
    colour[index] = np.minimum(values, 1)
    return colour, weight


def _core(rgba: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w"]:
    """The mask less a rim, where pixels are mixed with the background."""
    solid: Bool[np.ndarray, "h w"] = rgba[..., 3] >= 250
    rim = max(1, round(min(rgba.shape[:2]) / 150))
    core = ndimage.binary_erosion(np.pad(solid, rim), iterations=rim)[rim:-rim, rim:-rim]
    # Things thinner than the rim keep what they have.
    return np.where(core, 255, np.where(rgba[..., 3] >= 128, 40, 0)).astype(np.uint8)
