"""GLB files for AR and VR: upright, in metres, facing +Z, standing on the origin; the same bytes every time."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from recon.mesh import Vertices
from recon.settings import GlbSettings
from recon.texture import TexturedMesh
from scene.camera import Mat4, apply_transform, gltf_from_world
from scene.errors import InputError
from scene.files import write_bytes

_FLOAT, _USHORT, _UINT = 5126, 5123, 5125
_VERTEX_DATA, _INDEX_DATA = 34962, 34963


@dataclass
class _Builder:
    """Accumulates buffer views and accessors."""

    blob: bytearray = field(default_factory=bytearray)
    views: list[dict[str, Any]] = field(default_factory=list)
    accessors: list[dict[str, Any]] = field(default_factory=list)

    def view(self, data: bytes, target: int | None = None) -> int:
        self.blob.extend(b"\0" * (-len(self.blob) % 4))
        entry: dict[str, Any] = {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data)}
        if target is not None:
            entry["target"] = target
        self.blob.extend(data)
        self.views.append(entry)
        return len(self.views) - 1

    def accessor(
        self,
        array: np.ndarray,
        kind: Literal["SCALAR", "VEC2", "VEC3", "VEC4"],
        component: int,
        target: int,
        bounds: bool = False,
    ) -> int:
        entry: dict[str, Any] = {
            "bufferView": self.view(array.tobytes(), target),
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if bounds:
            entry["min"], entry["max"] = array.min(axis=0).tolist(), array.max(axis=0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1


def asset_transform(vertices: Vertices, settings: GlbSettings) -> Mat4:
    """World (z up) to asset: +Y up, front to +Z, longest side as set, bottom centre at the origin."""
    turn = gltf_from_world(np.radians(settings.front_azimuth_deg))
    turned = apply_transform(turn, vertices)
    low, high = turned.min(axis=0), turned.max(axis=0)
    longest = float((high - low).max())
    if not longest > 0:
        raise InputError("a mesh without extent cannot be exported")
    scale = settings.longest_side / longest
    matrix = np.eye(4) * scale
    matrix[:3, 3] = -scale * np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    matrix[3, 3] = 1
    return matrix @ turn


def glb_bytes(
    mesh: TexturedMesh,
    settings: GlbSettings = GlbSettings(),
    extras: dict[str, Any] | None = None,
    generator: str = "viewloom",
    normalised_from_world: Mat4 | None = None,
) -> bytes:
    """A binary glTF 2.0 asset: one node, one mesh, one material with one embedded JPEG.

    Args:
        mesh: in the project's world.
        settings: placement and packing.
        extras: facts stored in ``asset.extras``; ``world_from_asset`` is added.
        generator: named in the file.
        normalised_from_world: how the world was brought into the mesh's frame, if it was; ``world_from_asset`` then
            leads back into that world.
    """
    back = np.eye(4) if normalised_from_world is None else np.linalg.inv(normalised_from_world)
    matrix = asset_transform(mesh.vertices, settings)
    position = apply_transform(matrix, mesh.vertices).astype(np.float32)
    turned = mesh.normals @ gltf_from_world(np.radians(settings.front_azimuth_deg))[:3, :3].T
    normal = (turned / np.linalg.norm(turned, axis=1, keepdims=True)).astype(np.float32)
    faces = mesh.faces[_has_area(position, mesh.faces)]
    wide = len(position) > 65535
    build = _Builder()
    indices = build.accessor(
        faces.astype(np.uint32 if wide else np.uint16).reshape(-1), "SCALAR", _UINT if wide else _USHORT, _INDEX_DATA
    )
    attributes = {
        "POSITION": build.accessor(position, "VEC3", _FLOAT, _VERTEX_DATA, bounds=True),
        "NORMAL": build.accessor(normal, "VEC3", _FLOAT, _VERTEX_DATA),
        "TEXCOORD_0": build.accessor(mesh.uv.astype(np.float32), "VEC2", _FLOAT, _VERTEX_DATA),
    }
    image = build.view(_jpeg(mesh.texture, settings.jpeg_quality))
    material: dict[str, Any] = {
        "name": "surface",
        "doubleSided": False,
        # glTF's defaults make metal, which is black wherever a viewer has no surroundings to mirror.
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0},
    }
    if settings.unlit:
        material["extensions"] = {"KHR_materials_unlit": {}}
    content: dict[str, Any] = {
        "asset": {
            "version": "2.0",
            "generator": generator,
            "extras": {**(extras or {}), "world_from_asset": (back @ np.linalg.inv(matrix)).round(9).tolist()},
        },
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "name": "object"}],
        "meshes": [
            {"name": "object", "primitives": [{"attributes": attributes, "indices": indices, "material": 0, "mode": 4}]}
        ],
        "materials": [material],
        "textures": [{"source": 0, "sampler": 0}],
        "images": [{"bufferView": image, "mimeType": "image/jpeg", "name": "base_colour"}],
        # Linear with mip maps, clamped.
        "samplers": [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}],
        "accessors": build.accessors,
        "bufferViews": build.views,
    }
    if settings.unlit:
        content["extensionsUsed"] = ["KHR_materials_unlit"]
    build.blob.extend(b"\0" * (-len(build.blob) % 4))
    content["buffers"] = [{"byteLength": len(build.blob)}]
    text = json.dumps(content, separators=(",", ":"), sort_keys=True).encode()
    text += b" " * (-len(text) % 4)
    body = (
        struct.pack("<II", len(text), 0x4E4F534A)
        + text
        + struct.pack("<II", len(build.blob), 0x004E4942)
        + bytes(build.blob)
    )
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def write_glb(
    path: Path,
    mesh: TexturedMesh,
    settings: GlbSettings = GlbSettings(),
    extras: dict[str, Any] | None = None,
    generator: str = "viewloom",
    normalised_from_world: Mat4 | None = None,
) -> None:
    """Write a GLB aside and rename it; see :func:`glb_bytes`."""
    write_bytes(path, glb_bytes(mesh, settings, extras, generator, normalised_from_world))


def _has_area(position: Float[np.ndarray, "v 3"], faces: np.ndarray) -> np.ndarray:
    """Faces that single precision still sees as triangles; collapsed ones are reported by validators."""
    a, b, c = (position[faces[:, k]].astype(np.float64) for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-14


def _jpeg(texture: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(texture).save(out, "JPEG", quality=quality, subsampling=0)
    return out.getvalue()
