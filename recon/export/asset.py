"""A textured mesh as an asset: upright, in metres, facing +Z, standing on the origin. Every format writes this one."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

from recon.mesh.health import MeshHealth, mesh_health
from recon.mesh.topology import remove_unreferenced_vertices
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import Camera, Mat4, apply_transform, gltf_from_world
from scene.errors import InputError
from scene.mesh import Faces, Vertices, area_normals


@dataclass(frozen=True, eq=False)
class AssetCamera:
    """Where a photo of the asset was taken from.

    Args:
        name: of the photo.
        pose: camera-to-asset, a rigid motion, OpenGL and glTF camera axes.
        fov_y: vertical field of view, radians.
        aspect: width over height.
    """

    name: str
    pose: Mat4
    fov_y: float
    aspect: float

    @classmethod
    def of(cls, name: str, camera: Camera) -> AssetCamera:
        """Of a camera whose world is the asset's frame; its principal point is taken to be the middle."""
        return cls(name, camera.c2w, 2 * math.atan(camera.height / (2 * camera.fy)), _aspect(camera))

    def moved(self, matrix: Mat4) -> AssetCamera:
        """The camera after a similarity of the asset."""
        pose = matrix @ self.pose
        pose[:3, :3] /= np.cbrt(np.linalg.det(pose[:3, :3]))
        return replace(self, pose=pose)


def _aspect(camera: Camera) -> float:
    """Width over height of what is seen: pixels need not be square."""
    return camera.width / camera.fx * camera.fy / camera.height


@dataclass(frozen=True, eq=False)
class Asset:
    """A textured mesh in the asset's frame (+Y up, front to +Z, metres), in the precision of files.

    Args:
        vertices: positions; those on chart borders appear once per chart.
        normals: unit vertex normals.
        uv: in [0, 1], v measured down from the image's top row (glTF's way).
        faces: vertex indices, counter-clockwise seen from outside, none without area.
        texture: sRGB.
        unlit: colours are shown as they are, whatever the scene's light.
        world_from_asset: back into the world that the mesh came from, if that is known.
        extras: metadata that files carry along where they can.
        generator: named in files.
        evidence: where each vertex's colour comes from, of 255; see :data:`recon.texture.evidence.KINDS`.
        cameras: of photos, for viewers that can stand where they were taken.
        frame: what its numbers mean, in words.
        jpeg: the texture as it stood in a file that was read: packed again, it would lose each time.
    """

    vertices: Float32[np.ndarray, "v 3"]
    normals: Float32[np.ndarray, "v 3"]
    uv: Float32[np.ndarray, "v 2"]
    faces: Faces
    texture: UInt8[np.ndarray, "h w 3"]
    unlit: bool = False
    world_from_asset: Mat4 | None = None
    extras: dict[str, Any] = field(default_factory=dict)
    generator: str = "viewloom"
    jpeg: bytes | None = None
    evidence: UInt8[np.ndarray, "v 4"] | None = None
    cameras: tuple[AssetCamera, ...] = ()
    frame: str = "metres, +Y up, front to +Z"


def asset_transform(vertices: Vertices, settings: GlbSettings, units: float | None = None) -> Mat4:
    """World (z up) to asset: +Y up, front to +Z, longest side as set, bottom centre at the origin.

    Args:
        vertices: in the world.
        settings: of the placement.
        units: metres of a unit of the world, where its true size is kept.

    Raises:
        InputError: the vertices are not finite, or a single point.
    """
    if not np.isfinite(vertices).all():
        raise InputError("a mesh with vertices that are not finite cannot be exported")
    turn = gltf_from_world(np.radians(settings.front_azimuth_deg))
    turned = apply_transform(turn, vertices)
    low, high = turned.min(axis=0), turned.max(axis=0)
    longest = float((high - low).max())
    if not longest > 0:
        raise InputError("a mesh without extent cannot be exported")
    scale = settings.longest_side / longest if units is None else units
    matrix = np.eye(4) * scale
    matrix[:3, 3] = -scale * np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    matrix[3, 3] = 1
    return matrix @ turn


def to_asset_frame(
    mesh: TexturedMesh,
    settings: GlbSettings = GlbSettings(),
    extras: dict[str, Any] | None = None,
    generator: str = "viewloom",
    normalised_from_world: Mat4 | None = None,
    cameras: Mapping[str, Camera] | None = None,
) -> Asset:
    """The mesh in the asset's frame.

    Args:
        mesh: in the project's world.
        settings: where it is placed.
        extras: metadata that files carry along; plain values that JSON can hold.
        generator: named in files.
        normalised_from_world: how the world was brought into the mesh's frame, if it was; ``world_from_asset`` then
            leads back into that world.
        cameras: of photos, by name; they become part of the asset if the settings ask for that.

    Raises:
        InputError: the mesh has no extent, no triangle with an area, or numbers that are not finite; or the extras
            cannot be written as JSON.
    """
    extras = dict(extras or {})
    _require_json(extras, "extras")
    back = np.eye(4) if normalised_from_world is None else np.linalg.inv(normalised_from_world)
    units = float(np.cbrt(abs(np.linalg.det(back[:3, :3])))) if settings.scale == "capture" else None
    matrix = asset_transform(mesh.vertices, settings, units)
    seen_from = (cameras or {}) if settings.with_camera else {}
    vertices = apply_transform(matrix, mesh.vertices).astype(np.float32)
    turned = mesh.normals @ gltf_from_world(np.radians(settings.front_azimuth_deg))[:3, :3].T
    faces = mesh.faces[has_area(vertices, mesh.faces)]
    if not len(faces):
        raise InputError("a mesh without a triangle that has an area cannot be exported")
    length = np.linalg.norm(turned, axis=1, keepdims=True)
    if not (np.isfinite(mesh.uv).all() and np.isfinite(length).all() and (length > 0).all()):
        raise InputError("a mesh with normals or texture coordinates that are no numbers cannot be exported")
    return Asset(
        vertices,
        (turned / length).astype(np.float32),
        mesh.uv.astype(np.float32),
        faces.astype(np.int64),
        mesh.texture,
        settings.unlit,
        _without_noise(back @ np.linalg.inv(matrix)),
        extras,
        generator,
        evidence=None if settings.evidence == "none" or mesh.evidence is None else _in_bytes(mesh.evidence),
        cameras=tuple(AssetCamera.of(name, camera).moved(matrix) for name, camera in seen_from.items()),
    )


def jpeg_of(asset: Asset, quality: int, side: int, keep: bool = True) -> bytes:
    """The asset's texture as a JPEG without chroma subsampling.

    Args:
        asset: whose texture.
        quality: of the JPEG.
        side: longer side in pixels; a larger texture is halved until it fits.
        keep: bytes that the texture was read with are taken as they are, if they fit.
    """
    if keep and asset.jpeg is not None and max(asset.texture.shape[:2]) <= side:
        return asset.jpeg
    out = io.BytesIO()
    Image.fromarray(halved(asset.texture, side)).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()


def halved(texture: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "_h _w 3"]:
    """The texture halved until its longer side has at most ``side`` pixels; a pixel is the mean of four."""
    image = Image.fromarray(texture)
    while max(image.size) > side:
        image = image.reduce(2)
    return np.array(image)


def asset_health(asset: Asset) -> MeshHealth:
    """Count what can be wrong with an asset, its chart borders closed again; lengths in metres."""
    return mesh_health(*remove_unreferenced_vertices(*welded(asset)))


def welded(asset: Asset) -> tuple[Vertices, Faces]:
    """Vertices and as many faces as before, chart borders closed."""
    same = weld_numbers(asset)
    _, first = np.unique(same, return_index=True)
    return asset.vertices[first].astype(np.float64), same[asset.faces]


def weld_numbers(asset: Asset) -> Int[np.ndarray, "v"]:
    """A number for each vertex, the same for those that a chart border doubled."""
    # These share position and normal; sheets that only touch have normals of their own.
    rows = np.concatenate([asset.vertices, asset.normals], axis=1)
    return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def health_line(health: MeshHealth) -> str:
    """What one reads of a mesh's health first, in one line."""
    pieces = "1 piece" if health.components == 1 else f"{health.components} pieces"
    edges = f"{health.boundary_edges} open and {health.non_manifold_edges} crowded edges"
    closed = f"watertight, genus {health.genus}" if health.watertight else edges
    size = " x ".join(f"{side:.3g}" for side in health.size)
    return f"{health.faces:,} triangles, {pieces}, {closed}, {size} m"


def _in_bytes(evidence: Float[np.ndarray, "v 4"]) -> UInt8[np.ndarray, "v 4"]:
    """Fractions that add up to 1 as bytes that add up to 255."""
    first = np.floor(np.cumsum(evidence[:, :3], axis=1).clip(0, 1) * 255 + 0.5)
    return np.diff(first, axis=1, prepend=0, append=255).astype(np.uint8)


def has_area(position: Float[np.ndarray, "v 3"], faces: Faces) -> np.ndarray:
    """Faces that single precision still sees as triangles; collapsed ones are reported by validators."""
    return np.linalg.norm(area_normals(position.astype(np.float64), faces), axis=1) > 1e-14


def _without_noise(matrix: Mat4) -> Mat4:
    """Twelve digits of the turn and of the shift, each measured against its own largest number."""
    out = matrix.copy()
    for part in (out[:3, :3], out[:3, 3]):
        largest = float(np.abs(part).max())
        if largest > 0:
            part[...] = np.round(part, 11 - math.floor(math.log10(largest)))
    out[3] = (0, 0, 0, 1)
    return out + 0.0  # no negative zeros


def _require_json(value: Any, where: str) -> None:
    """Raise if a value cannot stand in JSON, which knows neither NaN nor infinity nor other types than its own."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise InputError(f"{where} has the key {key!r}, which is no text", fix="JSON takes text keys only.")
            _require_json(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            _require_json(item, f"{where}[{number}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{where} is {value}, which JSON does not have", fix="Leave it out, or write it as text.")
    else:
        try:
            json.dumps(value)
        except TypeError as error:
            raise InputError(
                f"{where} is of type {type(value).__name__}, which JSON does not have",
                fix="Give plain numbers, texts, lists and dictionaries.",
            ) from error
