"""What a texture does to the photo it was made of: at the photo's camera, on each texel, and beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from recon.checks.image_quality import reduced
from recon.mesh.marching_cubes import asset_mesh
from recon.surface import Surface
from recon.texture.bake import TexturedMesh, bake
from recon.texture.projected_view import read_view
from recon.texture.rasterise import rasterise
from recon.texture.visibility import facing_cosine, visible
from scene.camera import orbit_camera
from scene.mesh import Faces, Vertices
from scene.metrics import mask_iou, psnr
from scene.raycast import mesh_caster
from scene.render import UNLIT, MeshRenderer, over_white
from scene.view import View
from scene.viewset import ViewSet

_SQUARELY = 0.7
"""Cosine between normal and line of sight from which the photo sees a texel head-on: 45 degrees."""
_NEUTRAL = 12 / 255
"""Most that a neutral pixel's channels differ by."""
_QUALITY = 90
"""JPEG quality of textures in files."""


@dataclass(frozen=True)
class PhotoItem:
    """A photo's finished surface, with the views that it is textured from.

    Args:
        name: of the item.
        views: the photo first.
        surface: fitted to them.
        vertices, faces: its mesh, as assets have it.
    """

    name: str
    views: ViewSet
    surface: Surface
    vertices: Vertices
    faces: Faces

    @classmethod
    def read(cls, folder: Path, max_faces: int = 12_000, smoothing: int = 6) -> PhotoItem:
        """What the photo job left in an item's folder; budget and smoothing are the photo profile's."""
        surface = Surface.load(folder / "surface" / "surface.npz")
        vertices, faces = asset_mesh(surface, max_faces, smoothing)
        return cls(folder.name, ViewSet.load(folder / "views"), surface, vertices, faces)

    @property
    def photo(self) -> View:
        """The photo."""
        return self.views.views[0]

    def textured(self, side: int = 1024, *, photo_is_reference: bool = True) -> TexturedMesh:
        """The mesh with its texture, as the job bakes it or as it did before the photo was the reference."""
        return bake(
            self.vertices,
            self.faces,
            self.views,
            self.surface,
            side,
            specular=self.surface.specular,
            photo_is_reference=photo_is_reference,
        )


def photo_scores(mesh: TexturedMesh, photo: View) -> dict[str, float]:
    """Scores at the photo's camera and size, without light.

    ``inside`` counts pixels that are solid in the photo and covered by the mesh; ``silhouette`` counts all that are
    solid in the photo, on white, so that what the mesh leaves out costs as much as a wrong colour. ``neutral`` is the
    mean absolute error, of 255, of solid pixels whose channels hardly differ; NaN if there are few.
    """
    truth = photo.rgba().astype(np.float32) / 255
    drawn = MeshRenderer(mesh.coloured(), UNLIT).render(photo.camera).rgba
    solid = truth[..., 3] > 0.98
    both = solid & (drawn[..., 3] > 0.98)
    neutral = both & (np.ptp(truth[..., :3], axis=-1) <= _NEUTRAL)
    few = neutral.sum() < 50
    return {
        "inside": psnr(drawn[..., :3], truth[..., :3], both),
        "silhouette": psnr(over_white(drawn), over_white(truth), solid),
        "iou": mask_iou(drawn[..., 3] >= 0.5, truth[..., 3] >= 0.5),
        "neutral": np.nan if few else float(255 * np.abs(drawn[..., :3] - truth[..., :3])[neutral].mean()),
    }


def texel_scores(mesh: TexturedMesh, item: PhotoItem) -> dict[str, float]:
    """How much the photo's colours change in the texels that it sees head-on, away from the rim of its mask.

    ``changed`` is the 99th percentile, of 255, of the largest channel's change before the texture is compressed;
    ``jpeg`` is the same for what compression does to them; ``kept`` is the fraction changed by no more than that.
    """
    side = len(mesh.texture)
    face_of, weights = rasterise(mesh.uv.astype(np.float32), mesh.faces, side)
    row, column = np.nonzero(face_of >= 0)
    w = weights[row, column]
    bary = np.concatenate([1 - w.sum(axis=1, keepdims=True), w], axis=1)
    corners = mesh.faces[face_of[row, column]]
    place = np.einsum("nkc,nk->nc", mesh.vertices[corners], bary)
    normal = np.einsum("nkc,nk->nc", mesh.normals[corners], bary)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    caster = mesh_caster(item.vertices, item.faces)
    camera, projected = item.photo.camera, read_view(item.photo, item.views.has_masks, caster)
    squarely = visible(camera, place, facing_cosine(camera, place, normal) > _SQUARELY, caster)
    pixels, _ = camera.project(place)
    chosen = squarely & (projected.core_at(pixels) > 0.99)
    if not chosen.any():
        return {"changed": np.nan, "jpeg": np.nan, "kept": np.nan}
    photo = 255 * np.clip(projected.sharp_at(pixels[chosen]), 0, 1)
    mine = mesh.texture[row, column][chosen].astype(np.float32)
    coded = _through_jpeg(mesh.texture)[row, column][chosen].astype(np.float32)
    change, jpeg = (np.abs(x).max(axis=1) for x in (mine - photo, coded - mine))
    limit = float(np.percentile(jpeg, 99))
    return {"changed": float(np.percentile(change, 99)), "jpeg": limit, "kept": float((change <= limit).mean())}


def _through_jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    _, coded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1])


def views_beside(mesh: TexturedMesh, azimuths: Sequence[float], size: int = 256) -> list[UInt8[np.ndarray, "s s 3"]]:
    """Pictures on white, without light, from some degrees beside the photo."""
    renderer = MeshRenderer(mesh.coloured().normalised(), UNLIT)
    cameras = [orbit_camera(np.radians(a), np.radians(12), size=size) for a in azimuths]
    return [np.round(255 * over_white(renderer.render(camera).rgba)).astype(np.uint8) for camera in cameras]


def photo_tile(photo: View, size: int = 256) -> UInt8[np.ndarray, "s s 3"]:
    """The photo on white."""
    small = reduced(photo.rgba(), size, size).astype(np.float32) / 255
    return np.round(255 * over_white(small)).astype(np.uint8)


def summary(scores: Sequence[dict[str, float]], key: str) -> tuple[float, float, float]:
    """Median, least and greatest of a score over items that have it."""
    values: Float[np.ndarray, "n"] = np.array([found[key] for found in scores])
    known: Bool[np.ndarray, "n"] = np.isfinite(values)
    return (float(np.median(values[known])), float(values[known].min()), float(values[known].max()))
