"""Reads back the GLB files that viewloom writes; files of other kinds are refused with the reason."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from recon.export.asset import Asset, AssetCamera, has_area
from recon.export.glb_check import ExaminedGlb, examine_glb
from scene.camera import Mat4
from scene.documents import matrix4
from scene.errors import InputError
from scene.files import require_regular

_FIX = "Give a file that viewloom wrote: one mesh with one texture, without transforms or animations."
_EVIDENCE = "_EVIDENCE"
_ATTRIBUTES = {"POSITION": 3, "NORMAL": 3, "TEXCOORD_0": 2}
_MATERIAL = {"name", "doubleSided", "pbrMetallicRoughness", "extensions"}
_SURFACE = {"baseColorTexture", "metallicFactor", "roughnessFactor"}


def read_glb(path: Path) -> Asset:
    """The asset of a GLB that viewloom wrote, with its texture's bytes as they are.

    Raises:
        InputError: the file cannot be read, is damaged, or holds something that would be lost.
    """
    try:
        require_regular(path)
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"the asset cannot be read ({said})", where=str(path)) from error
    glb = examine_glb(data)
    wrong = [finding for finding in glb.findings if finding.severity == "error"]
    if wrong:
        raise InputError(f"is not a sound GLB ({wrong[0]})", where=path)
    try:
        asset = _asset(glb)
    except _OtherKindError as error:
        raise InputError(f"{error}, which is not read", where=path, fix=_FIX) from error
    except (ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError) as error:
        raise InputError(f"is not laid out as viewloom does it ({error!r})", where=path, fix=_FIX) from error
    if not has_area(asset.vertices, asset.faces).any():
        raise InputError("has no triangle with an area", where=path)
    return asset


class _OtherKindError(Exception):
    """What the file holds that our files do not."""


def _asset(glb: ExaminedGlb) -> Asset:
    content = glb.content
    if content.get("extensionsRequired"):
        raise _OtherKindError(f"needs {', '.join(map(str, content['extensionsRequired']))}")
    for kind in ("animations", "skins"):
        if content.get(kind):
            raise _OtherKindError(f"holds {kind}")
    node, cameras = _nodes(content)
    if set(node) - {"mesh", "name"}:
        raise _OtherKindError(f"has a node with {', '.join(sorted(set(node) - {'mesh', 'name'}))}")
    primitives = _only(content, "meshes")["primitives"]
    if len(primitives) != 1:
        raise _OtherKindError(f"has a mesh of {len(primitives)} parts")
    parts = primitives[0]
    if parts.get("mode", 4) != 4 or "indices" not in parts or parts.get("targets"):
        raise _OtherKindError("holds something other than indexed triangles")
    if set(parts["attributes"]) - {_EVIDENCE} != set(_ATTRIBUTES):
        raise _OtherKindError(f"has vertices with {', '.join(sorted(parts['attributes']))}")
    arrays = {name: glb.arrays[index] for name, index in parts["attributes"].items()}
    evidence = arrays.pop(_EVIDENCE, None)
    if evidence is not None and (evidence.dtype != np.uint8 or evidence.shape[1] != 4):
        raise _OtherKindError(f"has other numbers in {_EVIDENCE}")
    for name, array in arrays.items():
        if array.dtype != np.dtype("<f4") or array.shape[1] != _ATTRIBUTES[name]:
            raise _OtherKindError(f"has packed numbers in {name}")
    material = _only(content, "materials")
    texture, jpeg = _texture(glb, material)
    extras = dict(content["asset"].get("extras") or {})
    return Asset(
        arrays["POSITION"].astype(np.float32),
        arrays["NORMAL"].astype(np.float32),
        arrays["TEXCOORD_0"].astype(np.float32),
        glb.arrays[parts["indices"]].reshape(-1, 3).astype(np.int64),
        texture,
        "KHR_materials_unlit" in material.get("extensions", {}),
        _matrix(extras.pop("world_from_asset", None)),
        extras,
        str(content["asset"].get("generator", "unknown")),
        jpeg,
        None if evidence is None else evidence.copy(),
        cameras,
    )


def _nodes(content: dict[str, Any]) -> tuple[dict[str, Any], tuple[AssetCamera, ...]]:
    """The mesh's node, and the cameras of the others."""
    nodes, cameras = content["nodes"], content.get("cameras") or []
    if len(nodes) != 1 + len(cameras):
        raise _OtherKindError(f"holds {len(nodes)} nodes instead of one, and one for each camera")
    found = []
    for number, (node, camera) in enumerate(zip(nodes[1:], cameras, strict=True)):
        if set(node) != {"camera", "name", "matrix"} or node["camera"] != number or "perspective" not in camera:
            raise _OtherKindError("has a node that is neither the mesh nor a photo's camera")
        pose = _matrix(np.array(node["matrix"], np.float64).reshape(4, 4).T.tolist())
        lens = camera["perspective"]
        assert pose is not None
        found.append(AssetCamera(str(node["name"]), pose, float(lens["yfov"]), float(lens["aspectRatio"])))
    return dict(nodes[0]), tuple(found)


def _only(content: dict[str, Any], kind: str) -> dict[str, Any]:
    items = content.get(kind, [])
    if len(items) != 1:
        raise _OtherKindError(f"holds {len(items)} {kind} instead of one")
    return dict(items[0])


def _texture(glb: ExaminedGlb, material: dict[str, Any]) -> tuple[np.ndarray, bytes]:
    """The material's picture, decoded and as it is stored."""
    surface = material.get("pbrMetallicRoughness", {})
    more = (set(material) - _MATERIAL) | (set(surface) - _SURFACE)
    more |= set(material.get("extensions", {})) - {"KHR_materials_unlit"}
    if more or material.get("doubleSided"):
        raise _OtherKindError(f"has a material with {', '.join(sorted(more)) or 'two sides'}")
    if set(surface.get("baseColorTexture", {})) != {"index"} or surface.get("metallicFactor") != 0:
        raise _OtherKindError("has a material without a texture of the usual kind")
    image = glb.content["images"][glb.content["textures"][surface["baseColorTexture"]["index"]]["source"]]
    if image.get("mimeType") != "image/jpeg" or "bufferView" not in image:
        raise _OtherKindError(f"has a texture of type {image.get('mimeType')}")
    view = glb.content["bufferViews"][image["bufferView"]]
    start = view.get("byteOffset", 0)
    jpeg = glb.blob[start : start + view["byteLength"]]
    with Image.open(io.BytesIO(jpeg), formats=("JPEG",)) as picture:
        if picture.mode not in ("RGB", "L"):
            raise _OtherKindError(f"has a texture of {picture.mode} colours")
        return np.array(picture.convert("RGB")), jpeg


def _matrix(value: Any) -> Mat4 | None:
    if value is None:
        return None
    rows = matrix4(value)
    if rows is None:
        raise ValueError("world_from_asset is no 4 x 4 matrix")
    return np.array(rows, np.float64)
