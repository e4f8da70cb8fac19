"""PLY and STL files, both binary: geometry for mesh tools and printers, PLY with a colour at every vertex."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from recon.export.asset import Asset
from scene.mesh import area_normals, sample_image
from scene.ply import encode_ply

_VERTEX = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")),
        *((name, "u1") for name in ("red", "green", "blue")),
        *((name, "<f4") for name in ("s", "t")),
    ]
)
_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])


def ply_bytes(asset: Asset) -> bytes:
    """A PLY with normals, sRGB colours sampled from the texture, and texture coordinates.

    Its ``s`` and ``t`` belong to the texture of the other formats, ``t`` counting up from the image's bottom row. The
    file itself holds no picture, nor does it say whether colours are to be lit.
    """
    vertices = np.empty(len(asset.vertices), _VERTEX)
    vertices["x"], vertices["y"], vertices["z"] = asset.vertices.T
    vertices["nx"], vertices["ny"], vertices["nz"] = asset.normals.T
    vertices["red"], vertices["green"], vertices["blue"] = vertex_colours(asset).T
    vertices["s"], vertices["t"] = asset.uv[:, 0], 1 - asset.uv[:, 1]
    comments = [" ".join(asset.generator.split()) + f"; {asset.frame}"]
    if asset.world_from_asset is not None:
        comments.append("world_from_asset " + " ".join(map(repr, asset.world_from_asset.reshape(-1).tolist())))
    return encode_ply(vertices, asset.faces, comments)


def vertex_colours(asset: Asset) -> UInt8[np.ndarray, "v 3"]:
    """sRGB of the texture at every vertex."""
    # Half a texel inside, where the lookup does not reach round to the other border.
    half = 0.5 / np.array(asset.texture.shape[1::-1])
    return np.round(sample_image(asset.texture, np.clip(asset.uv, half, 1 - half)) * 255).astype(np.uint8)


def stl_bytes(asset: Asset) -> bytes:
    """A binary STL: triangles and nothing else. The format knows no units; its title names those of the asset."""
    corners = asset.vertices[asset.faces]
    normals = area_normals(asset.vertices.astype(np.float64), asset.faces)
    facets = np.zeros(len(corners), _FACET)
    facets["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    facets["corners"] = corners
    # A header that began with "solid" would be taken for a text file.
    title = " ".join(f"STL of {asset.generator}; {asset.frame}".split()).encode("ascii", "replace")
    return title[:80].ljust(80, b" ") + np.uint32(len(facets)).astype("<u4").tobytes() + facets.tobytes()
