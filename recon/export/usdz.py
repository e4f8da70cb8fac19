"""USDZ files, which Apple's viewers open: a USD scene and its texture in an uncompressed, aligned zip archive.

Sources: the USDZ file format specification (alignment, no compression, layer first) and the UsdPreviewSurface
specification of OpenUSD.
"""

from __future__ import annotations

import io
import json
import struct
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from recon.export.asset import Asset
from scene.backends import optional_module
from scene.errors import ViewloomError

ALIGNMENT = 64
"""Every file's data starts at a multiple of this many bytes, so that it can be mapped into memory as it lies."""

_TEXTURE = "textures/base_colour.jpg"
_PADDING = struct.Struct("<HH")
# The number that OpenUSD's own writer gives its padding; readers skip what they do not know.
_PADDING_ID = 0x1986


def usdz_bytes(asset: Asset, jpeg: bytes, binary: bool | None = None) -> bytes:
    """A USDZ of an asset: one mesh, one material, metres, +Y up.

    Args:
        asset: the mesh.
        jpeg: its texture.
        binary: store the layer as usdc, which is smaller; None does so where usd-core is installed.
    """
    text = usda_text(asset)
    binary = has_usd() if binary is None else binary
    layer = ("model.usdc", _usdc(text)) if binary else ("model.usda", text.encode())
    return aligned_zip({layer[0]: layer[1], _TEXTURE: jpeg})


def has_usd() -> bool:
    """Whether usd-core is installed and can be loaded."""
    return optional_module("pxr.Sdf") is not None


def aligned_zip(files: dict[str, bytes]) -> bytes:
    """An uncompressed zip archive whose files' data are aligned; the same bytes every time.

    Args:
        files: contents by name, in their order.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16  # the same on every system
            start = out.tell() + 30 + len(name.encode()) + _PADDING.size
            gap = -start % ALIGNMENT
            entry.extra = _PADDING.pack(_PADDING_ID, gap) + bytes(gap)
            archive.writestr(entry, data)
    return out.getvalue()


def usda_text(asset: Asset) -> str:
    """The scene as text.

    Texture coordinates count up from the image's bottom row, as USD has it. Unlit assets glow in their colour and
    reflect nothing, since UsdPreviewSurface has no other way to say it.
    """
    low, high = asset.vertices.min(axis=0), asset.vertices.max(axis=0)
    flipped = np.stack([asset.uv[:, 0], 1 - asset.uv[:, 1].astype(np.float64)], axis=1)
    metadata = [f"string creator = {_quoted(asset.generator)}"]
    if asset.world_from_asset is not None:
        # Row by row, for columns of points; a matrix4d would be read the other way round.
        numbers = ", ".join(map(repr, asset.world_from_asset.reshape(-1).tolist()))
        metadata.append(f"double[] world_from_asset = [{numbers}]")
    if asset.extras:
        metadata.append(f"string extras = {_quoted(json.dumps(asset.extras, sort_keys=True, allow_nan=False))}")
    custom = "\n".join(f"        {entry}" for entry in metadata)
    shader = "</object/materials/surface"
    if asset.unlit:
        surface = f"""\
                color3f inputs:diffuseColor = (0, 0, 0)
                color3f inputs:emissiveColor.connect = {shader}/base_colour.outputs:rgb>
                color3f inputs:specularColor = (0, 0, 0)
                int inputs:useSpecularWorkflow = 1"""
    else:
        surface = f"""\
                color3f inputs:diffuseColor.connect = {shader}/base_colour.outputs:rgb>
                float inputs:metallic = 0"""
    return f"""\
#usda 1.0
(
    customLayerData = {{
{custom}
    }}
    defaultPrim = "object"
    metersPerUnit = 1
    upAxis = "Y"
)

def Xform "object" (
    kind = "component"
)
{{
    def Mesh "mesh" (
        prepend apiSchemas = ["MaterialBindingAPI"]
    )
    {{
        uniform bool doubleSided = 0
        float3[] extent = [{_tuples("(%.9g,%.9g,%.9g)", np.stack([low, high]))}]
        int[] faceVertexCounts = [{",".join("3" * len(asset.faces))}]
        int[] faceVertexIndices = [{",".join(map(str, asset.faces.reshape(-1).tolist()))}]
        rel material:binding = {shader}>
        normal3f[] normals = [{_tuples("(%.4g,%.4g,%.4g)", asset.normals)}] (
            interpolation = "vertex"
        )
        uniform token orientation = "rightHanded"
        point3f[] points = [{_tuples("(%.9g,%.9g,%.9g)", asset.vertices)}]
        texCoord2f[] primvars:st = [{_tuples("(%.6g,%.6g)", flipped)}] (
            interpolation = "vertex"
        )
        uniform token subdivisionScheme = "none"
    }}

    def Scope "materials"
    {{
        def Material "surface"
        {{
            token outputs:surface.connect = {shader}/preview.outputs:surface>

            def Shader "preview"
            {{
                uniform token info:id = "UsdPreviewSurface"
{surface}
                float inputs:roughness = 1
                token outputs:surface
            }}

            def Shader "base_colour"
            {{
                uniform token info:id = "UsdUVTexture"
                asset inputs:file = @{_TEXTURE}@
                token inputs:sourceColorSpace = "sRGB"
                float2 inputs:st.connect = {shader}/st.outputs:result>
                token inputs:wrapS = "clamp"
                token inputs:wrapT = "clamp"
                float3 outputs:rgb
            }}

            def Shader "st"
            {{
                uniform token info:id = "UsdPrimvarReader_float2"
                string inputs:varname = "st"
                float2 outputs:result
            }}
        }}
    }}
}}
"""


def _usdc(text: str) -> bytes:
    """The scene in USD's binary form; parses it on the way."""
    sdf = optional_module("pxr.Sdf")
    if sdf is None:
        raise ViewloomError("a binary layer needs usd-core", fix="pip install viewloom[usd]")
    layer = sdf.Layer.CreateAnonymous(".usda")
    if not layer.ImportFromString(text):
        raise ViewloomError("OpenUSD cannot read the scene that was written")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.usdc"
        if not layer.Export(str(path)):
            raise ViewloomError("OpenUSD could not write the scene", where=path)
        return path.read_bytes()


def _tuples(pattern: str, rows: np.ndarray) -> str:
    return ",".join(map(pattern.__mod__, _plain(rows.tolist())))


def _plain(rows: Iterable[list[float]]) -> Iterable[tuple[float, ...]]:
    # No negative zeros: they cost a byte each and mean nothing.
    return (tuple(number + 0.0 for number in row) for row in rows)


def _quoted(text: str) -> str:
    """A string of USD's text form, in printable ASCII."""
    escaped = text.encode("ascii", "backslashreplace").decode().replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if " " <= c <= "~" else " " for c in escaped) + '"'
