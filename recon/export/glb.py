"""GLB files for AR and VR: upright, in metres, facing +Z, standing on the origin; the same bytes every time."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8

from recon.export.asset import Asset, AssetCamera, jpeg_of, to_asset_frame
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import Mat4
from scene.files import write_bytes

_FLOAT, _UBYTE, _USHORT, _UINT = 5126, 5121, 5123, 5125
_VERTEX_DATA, _INDEX_DATA = 34962, 34963


@dataclass(frozen=True, eq=False)
class GlbClip:
    """Poses of a rig over time; joints are turned and placed in the frame of the one that carries them.

    Args:
        seconds: when each pose is reached.
        rotations: unit quaternions, scalar last, of each joint in each pose.
        translations: of each joint in each pose, metres.
    """

    seconds: Float[np.ndarray, "n"]
    rotations: Float[np.ndarray, "p n 4"]
    translations: Float[np.ndarray, "p n 3"]


@dataclass(frozen=True, eq=False)
class GlbSkin:
    """What makes an asset a rig; at rest its joints are not turned.

    Args:
        joints: numbers of the joints that move a vertex.
        weights: of these, in rows that add up to 1.
        names: of the joints; the first is the root, and parents come before those that they carry.
        parents: number of the joint that carries each, -1 for the root.
        pivots: where joints are at rest, in the asset's frame, metres.
        clip: a motion, if there is one.
    """

    joints: UInt8[np.ndarray, "v 4"]
    weights: Float32[np.ndarray, "v 4"]
    names: tuple[str, ...]
    parents: tuple[int, ...]
    pivots: Float[np.ndarray, "p 3"]
    clip: GlbClip | None = None


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
        kind: Literal["SCALAR", "VEC2", "VEC3", "VEC4", "MAT4"],
        component: int,
        target: int | None,
        bounds: bool = False,
        normalised: bool = False,
    ) -> int:
        entry: dict[str, Any] = {
            "bufferView": self.view(array.tobytes(), target),
            "componentType": component,
            "count": len(array),
            "type": kind,
        }
        if normalised:
            entry["normalized"] = True
        if bounds:
            entry["min"], entry["max"] = array.min(axis=0).tolist(), array.max(axis=0).tolist()
        self.accessors.append(entry)
        return len(self.accessors) - 1


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
        extras: metadata stored in ``asset.extras``; ``world_from_asset`` is added.
        generator: named in the file.
        normalised_from_world: how the world was brought into the mesh's frame, if it was; ``world_from_asset`` then
            leads back into that world.

    Raises:
        InputError: the mesh has no extent, or the extras hold what JSON does not have (NaN, infinity, other types).
    """
    asset = to_asset_frame(mesh, settings, extras, generator, normalised_from_world)
    return glb_of(asset, jpeg_of(asset, settings.jpeg_quality, max(asset.texture.shape)))


def glb_of(asset: Asset, jpeg: bytes, skin: GlbSkin | None = None) -> bytes:
    """The file of an asset; see :func:`glb_bytes`.

    Args:
        asset: the mesh.
        jpeg: its texture.
        skin: what makes it a rig.
    """
    wide = len(asset.vertices) > 65535
    build = _Builder()
    indices = build.accessor(
        asset.faces.astype(np.uint32 if wide else np.uint16).reshape(-1),
        "SCALAR",
        _UINT if wide else _USHORT,
        _INDEX_DATA,
    )
    attributes = {
        "POSITION": build.accessor(asset.vertices, "VEC3", _FLOAT, _VERTEX_DATA, bounds=True),
        "NORMAL": build.accessor(asset.normals, "VEC3", _FLOAT, _VERTEX_DATA),
        "TEXCOORD_0": build.accessor(asset.uv, "VEC2", _FLOAT, _VERTEX_DATA),
    }
    if asset.evidence is not None:
        attributes["_EVIDENCE"] = build.accessor(asset.evidence, "VEC4", _UBYTE, _VERTEX_DATA, normalised=True)
    image = build.view(jpeg)
    extras = dict(asset.extras)
    if asset.world_from_asset is not None:
        extras["world_from_asset"] = asset.world_from_asset.tolist()
    material: dict[str, Any] = {
        "name": "surface",
        "doubleSided": False,
        # glTF's defaults make metal, which is black wherever a viewer has no surroundings to mirror.
        "pbrMetallicRoughness": {"baseColorTexture": {"index": 0}, "metallicFactor": 0.0, "roughnessFactor": 1.0},
    }
    if asset.unlit:
        material["extensions"] = {"KHR_materials_unlit": {}}
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": asset.generator, "extras": extras},
        "scene": 0,
        "scenes": [{"nodes": list(range(1 + len(asset.cameras)))}],
        "nodes": [{"mesh": 0, "name": "object"}, *map(_camera_node, range(len(asset.cameras)), asset.cameras)],
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
    if skin is not None:
        _add_skin(build, content, skin)
    if asset.cameras:
        content["cameras"] = [_camera(camera) for camera in asset.cameras]
    if asset.unlit:
        content["extensionsUsed"] = ["KHR_materials_unlit"]
    build.blob.extend(b"\0" * (-len(build.blob) % 4))
    content["buffers"] = [{"byteLength": len(build.blob)}]
    text = json.dumps(content, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    body = (
        struct.pack("<II", len(text), 0x4E4F534A)
        + text
        + struct.pack("<II", len(build.blob), 0x004E4942)
        + bytes(build.blob)
    )
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def _add_skin(build: _Builder, content: dict[str, Any], skin: GlbSkin) -> None:
    """Nodes of joints, the skin of the first node's mesh, and a clip if there is one."""
    nodes, first = content["nodes"], len(content["nodes"])
    attributes = content["meshes"][0]["primitives"][0]["attributes"]
    attributes["JOINTS_0"] = build.accessor(skin.joints, "VEC4", _UBYTE, _VERTEX_DATA)
    attributes["WEIGHTS_0"] = build.accessor(skin.weights, "VEC4", _FLOAT, _VERTEX_DATA)
    for number, (name, parent) in enumerate(zip(skin.names, skin.parents, strict=True)):
        offset = skin.pivots[number] - (skin.pivots[parent] if parent >= 0 else 0)
        node: dict[str, Any] = {"name": name, "translation": offset.tolist()}
        children = [first + k for k, other in enumerate(skin.parents) if other == number]
        nodes.append(node | ({"children": children} if children else {}))
    content["scenes"][0]["nodes"].append(first)
    inverse = np.tile(np.eye(4, dtype=np.float32), (len(skin.names), 1, 1))
    inverse[:, 3, :3] = -skin.pivots  # column by column
    joints = [first + k for k in range(len(skin.names))]
    matrices = build.accessor(inverse.reshape(-1, 16), "MAT4", _FLOAT, None)
    content["skins"] = [{"name": "skeleton", "inverseBindMatrices": matrices, "joints": joints, "skeleton": first}]
    nodes[0]["skin"] = 0
    if skin.clip is not None:
        content["animations"] = [_animation(build, skin.clip, joints)]


def _animation(build: _Builder, clip: GlbClip, joints: list[int]) -> dict[str, Any]:
    times = build.accessor(clip.seconds[:, None].astype(np.float32), "SCALAR", _FLOAT, None, bounds=True)
    samplers: list[dict[str, Any]] = []
    channels = []
    for number, node in enumerate(joints):
        turns = build.accessor(clip.rotations[number].astype(np.float32), "VEC4", _FLOAT, None)
        shifts = build.accessor(clip.translations[number].astype(np.float32), "VEC3", _FLOAT, None)
        for path, output in (("rotation", turns), ("translation", shifts)):
            channels.append({"sampler": len(samplers), "target": {"node": node, "path": path}})
            samplers.append({"input": times, "output": output, "interpolation": "LINEAR"})
    return {"name": "poses", "channels": channels, "samplers": samplers}


def _camera(camera: AssetCamera) -> dict[str, Any]:
    # Nearer than a hundredth of its distance from the origin nothing of the asset can be.
    near = max(float(np.linalg.norm(camera.pose[:3, 3])) / 100, 1e-6)
    lens = {"yfov": camera.fov_y, "aspectRatio": camera.aspect, "znear": near}
    return {"name": camera.name, "type": "perspective", "perspective": lens}


def _camera_node(number: int, camera: AssetCamera) -> dict[str, Any]:
    # Column by column; rounded, so that a rotation's noise does not make the bytes differ between processors.
    return {"camera": number, "name": camera.name, "matrix": np.round(camera.pose.T, 12).reshape(-1).tolist()}


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
