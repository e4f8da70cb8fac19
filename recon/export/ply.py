"""PLY and STL files, both binary: geometry for mesh tools and printers, PLY with a colour at every vertex."""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float, UInt8

from recon.export.asset import Asset
from recon.export.glb_check import Finding
from scene.mesh import area_normals, sample_image
from scene.ply import encode_ply

_VERTEX = np.dtype(
    [
        *((name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")),
        *((name, "u1") for name in ("red", "green", "blue")),
        *((name, "<f4") for name in ("s", "t")),
    ]
)
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_KINDS = {"<f4": "float", "|u1": "uchar"}


def ply_bytes(asset: Asset) -> bytes:
    """A PLY with normals, sRGB colours sampled from the texture, and texture coordinates; metres.

    Its ``s`` and ``t`` belong to the texture of the other formats, ``t`` counting up from the image's bottom row. The
    file itself holds no picture, nor does it say whether colours are to be lit.
    """
    vertices = np.empty(len(asset.vertices), _VERTEX)
    vertices["x"], vertices["y"], vertices["z"] = asset.vertices.T
    vertices["nx"], vertices["ny"], vertices["nz"] = asset.normals.T
    vertices["red"], vertices["green"], vertices["blue"] = vertex_colours(asset).T
    vertices["s"], vertices["t"] = asset.uv[:, 0], 1 - asset.uv[:, 1]
    comments = [" ".join(asset.generator.split()) + "; metres, +Y up, front to +Z"]
    if asset.world_from_asset is not None:
        comments.append("world_from_asset " + " ".join(map(repr, asset.world_from_asset.reshape(-1).tolist())))
    return encode_ply(vertices, asset.faces, comments)


def vertex_colours(asset: Asset) -> UInt8[np.ndarray, "v 3"]:
    """sRGB of the texture at every vertex."""
    # Half a texel inside, where the lookup does not reach round to the other border.
    half = 0.5 / np.array(asset.texture.shape[1::-1])
    return np.round(sample_image(asset.texture, np.clip(asset.uv, half, 1 - half)) * 255).astype(np.uint8)


def ply_comments(data: bytes) -> dict[str, np.ndarray]:
    """Matrices that stand in the comments of a PLY, by name."""
    found = re.findall(rb"^comment (\w+) ((?:\S+ ){15}\S+)$", data.partition(b"end_header")[0], re.MULTILINE)
    return {name.decode(): np.array(numbers.split(), np.float64).reshape(4, 4) for name, numbers in found}


def check_ply(data: bytes, where: str = "ply") -> list[Finding]:
    """Check a PLY of the kind that :func:`ply_bytes` writes; an empty list means that nothing is wrong with it."""
    head, end, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").splitlines()
    counts = re.findall(r"^element (?:vertex|face) (\d+)$", "\n".join(lines), re.MULTILINE)
    expected = [] if len(counts) != 2 else [*_vertex_header(int(counts[0])), f"element face {counts[1]}"]
    expected += ["property list uchar int vertex_indices"]
    stated = [line for line in lines[2:] if not line.startswith("comment ")]
    if not end or lines[:2] != ["ply", "format binary_little_endian 1.0"] or stated != expected:
        return [Finding("error", "PLY_HEADER_INVALID", where, "the header is not that of such a file")]
    vertex_count, face_count = map(int, counts)
    size = vertex_count * _VERTEX.itemsize + face_count * _FACE.itemsize
    if len(body) != size:
        return [Finding("error", "PLY_LENGTH_MISMATCH", where, f"{size} bytes should follow, there are {len(body)}")]
    vertices = np.frombuffer(body, _VERTEX, vertex_count)
    faces = np.frombuffer(body, _FACE, face_count, vertices.nbytes)
    found: list[Finding] = []
    columns = {name: vertices[name] for name in vertices.dtype.names or () if vertices[name].dtype.kind == "f"}
    if not all(np.isfinite(values).all() for values in columns.values()):
        found.append(Finding("error", "PLY_NUMBER_INVALID", where, "a number is not finite"))
    else:
        normals = np.stack([columns[name] for name in ("nx", "ny", "nz")], axis=1)
        found += _off_unit(normals, "PLY", where)
    if not face_count or (faces["count"] != 3).any():
        found.append(Finding("error", "PLY_FACE_INVALID", where, "there are no triangles, or faces of another kind"))
    elif faces["corners"].min() < 0 or faces["corners"].max() >= vertex_count:
        found.append(Finding("error", "PLY_INDEX_OUT_OF_RANGE", where, "a face refers to a vertex that is not there"))
    return found


def stl_bytes(asset: Asset) -> bytes:
    """A binary STL: triangles and nothing else. The format knows no units; lengths are metres, as in the GLB."""
    corners = asset.vertices[asset.faces]
    normals = area_normals(asset.vertices.astype(np.float64), asset.faces)
    facets = np.zeros(len(corners), _FACET)
    facets["normal"] = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    facets["corners"] = corners
    # A header that began with "solid" would be taken for a text file.
    title = " ".join(f"STL of {asset.generator}; metres, +Y up, front to +Z".split()).encode("ascii", "replace")
    return title[:80].ljust(80, b" ") + np.uint32(len(facets)).astype("<u4").tobytes() + facets.tobytes()


def check_stl(data: bytes, where: str = "stl") -> list[Finding]:
    """Check a binary STL; an empty list means that nothing is wrong with it."""
    if len(data) < 84 or data[:5] == b"solid":
        return [Finding("error", "STL_HEADER_INVALID", where, "is no binary STL")]
    count = int(np.frombuffer(data, "<u4", 1, 80)[0])
    if count == 0 or len(data) != 84 + count * _FACET.itemsize:
        return [Finding("error", "STL_LENGTH_MISMATCH", where, f"{len(data)} bytes do not hold {count} triangles")]
    facets = np.frombuffer(data, _FACET, count, 84)
    if not (np.isfinite(facets["corners"]).all() and np.isfinite(facets["normal"]).all()):
        return [Finding("error", "STL_NUMBER_INVALID", where, "a number is not finite")]
    return _off_unit(facets["normal"], "STL", where)


def _vertex_header(count: int) -> list[str]:
    names = _VERTEX.names or ()
    return [f"element vertex {count}", *(f"property {_KINDS[_VERTEX[name].str]} {name}" for name in names)]


def _off_unit(normals: Float[np.ndarray, "n 3"], format: str, where: str) -> list[Finding]:
    wrong = int((np.abs(np.linalg.norm(normals.astype(np.float64), axis=1) - 1) > 1e-3).sum())
    text = f"{wrong} normals are not of unit length"
    return [Finding("error", f"{format}_NORMAL_NON_UNIT", where, text)] if wrong else []
