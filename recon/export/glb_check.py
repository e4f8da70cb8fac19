"""What can be said about a GLB without any tool: container, references, bounds, and the numbers themselves.

Findings carry the codes of the Khronos validator, so that the two can be put side by side; this check knows far fewer.
"""

from __future__ import annotations

import contextlib
import io
import struct
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from scene.documents import is_number, is_whole, parse_json, shown
from scene.errors import InputError

Severity = Literal["error", "warning", "info", "hint"]

_JSON_CHUNK, _BIN_CHUNK = 0x4E4F534A, 0x004E4942
_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
_REFERENCES = (
    ("scenes", "nodes", "nodes"),
    ("nodes", "children", "nodes"),
    ("nodes", "mesh", "meshes"),
    ("textures", "source", "images"),
    ("textures", "sampler", "samplers"),
)
_FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG"}
# The Khronos validator's tolerance for unit vectors.
_UNIT_TOLERANCE = 0.00674
_TRIANGLES = 4
_MOST = 1 << 40
"""Bytes or elements that a document may speak of; the container itself ends at 4 GiB."""
MAX_TEXTURE = 8192
"""Pixels of a texture's side: twice what viewers on phones take."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong or worth knowing.

    Args:
        severity: as the Khronos validator grades it.
        code: the Khronos validator's name for it.
        where: JSON pointer, or a byte offset written ``@12``.
        text: one sentence without a final full stop.
    """

    severity: Severity
    code: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity} {self.code} at {self.where}: {self.text}"


class _BrokenError(Exception):
    """The container cannot be read further; what was found so far says why."""


@dataclass
class _Checker:
    """The asset while it is being checked."""

    content: dict[str, Any] = field(default_factory=dict)
    blob: bytes = b""
    findings: list[Finding] = field(default_factory=list)
    arrays: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, severity: Severity, code: str, where: str, text: str) -> None:
        self.findings.append(Finding(severity, code, where, text))

    def error(self, code: str, where: str, text: str) -> None:
        self.add("error", code, where, text)

    def fatal(self, code: str, where: str, text: str) -> None:
        self.error(code, where, text)
        raise _BrokenError

    def listed(self, kind: str) -> list[dict[str, Any]]:
        """A top-level list of the document; what is no list of objects is reported and left out."""
        items = self.content.get(kind, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            self.error("TYPE_MISMATCH", f"/{kind}", "is not a list of objects")
            return []
        return items

    def refers(self, kind: str, index: object, where: str) -> bool:
        """Whether ``index`` names an item of a top-level list; reported if not."""
        if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(self.listed(kind)):
            return True
        self.error("UNRESOLVED_REFERENCE", where, f"{shown(index)} is no index into {kind}")
        return False


@dataclass(frozen=True, eq=False)
class ExaminedGlb:
    """A GLB taken apart.

    Args:
        findings: what is wrong with it.
        content: the document.
        blob: the binary chunk.
        arrays: numbers of the accessors that could be read, by index.
    """

    findings: list[Finding]
    content: dict[str, Any]
    blob: bytes
    arrays: dict[int, np.ndarray]


def check_glb(data: bytes) -> list[Finding]:
    """Check a GLB's structure and numbers; an empty list, or infos only, means that nothing is wrong with it.

    Covers header, chunks, references, accessor bounds, min and max, finite values, unit normals, index range and
    embedded images. Sparse accessors, compressed geometry, animations and external files are not looked into.
    """
    return examine_glb(data).findings


def examine_glb(data: bytes) -> ExaminedGlb:
    """Take a GLB apart and check it; see :func:`check_glb`."""
    check = _Checker()
    with contextlib.suppress(_BrokenError):
        _read_container(check, data)
        _check_document(check)
    return ExaminedGlb(check.findings, check.content, check.blob, check.arrays)


def _check_document(check: _Checker) -> None:
    # One malformed object must not hide the others: each is checked on its own.
    steps = [
        ("bufferViews", _check_view),
        ("accessors", _check_accessor),
        ("images", _check_image),
        ("meshes", _check_mesh),
        ("materials", _check_material),
    ]
    for kind, step in steps:
        for index, item in enumerate(check.listed(kind)):
            try:
                step(check, index, item, f"/{kind}/{index}")
            except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
                check.error("TYPE_MISMATCH", f"/{kind}/{index}", f"has a missing or malformed property ({error})")
    _check_references(check)


def _read_container(check: _Checker, data: bytes) -> None:
    """Split the file into document and binary chunk."""
    if len(data) < 20:
        check.fatal("GLB_UNEXPECTED_END_OF_HEADER", "@0", f"the file has only {len(data)} bytes")
    magic, version, length = struct.unpack_from("<III", data)
    if magic != 0x46546C67:
        check.fatal("GLB_INVALID_MAGIC", "@0", "the file does not start with 'glTF'")
    if version != 2:
        check.fatal("GLB_INVALID_VERSION", "@4", f"container version {version} instead of 2")
    if length != len(data):
        check.error("GLB_LENGTH_MISMATCH", "@8", f"the header says {length} bytes, the file has {len(data)}")
    chunks: list[tuple[int, bytes]] = []
    at = 12
    while at < len(data):
        if at + 8 > len(data):
            check.fatal("GLB_UNEXPECTED_END_OF_CHUNK_HEADER", f"@{at}", "the file ends within a chunk's header")
        size, kind = struct.unpack_from("<II", data, at)
        if size % 4:
            check.error("GLB_CHUNK_LENGTH_UNALIGNED", f"@{at}", f"the chunk's length {size} is no multiple of 4")
        if at + 8 + size > len(data):
            check.fatal("GLB_UNEXPECTED_END_OF_CHUNK_DATA", f"@{at}", f"the chunk's {size} bytes reach beyond the file")
        chunks.append((kind, data[at + 8 : at + 8 + size]))
        at += 8 + size
    if chunks[0][0] != _JSON_CHUNK:
        check.fatal("GLB_UNEXPECTED_FIRST_CHUNK", "@12", "the first chunk is not JSON")
    if any(kind == _BIN_CHUNK for kind, _ in chunks[2:]) or any(kind == _JSON_CHUNK for kind, _ in chunks[1:]):
        check.error("GLB_DUPLICATE_CHUNK", "@12", "a chunk occurs twice or out of order")
    if len(chunks) > 1 and chunks[1][0] == _BIN_CHUNK:
        check.blob = chunks[1][1]
    try:
        # Python would read NaN and Infinity, which JSON does not have and other readers refuse.
        content = parse_json(chunks[0][1], "the document", finite=True)
    except InputError as error:
        check.fatal("INVALID_JSON", "@20", f"the document {error.what}")
    if not isinstance(content, dict):
        check.fatal("TYPE_MISMATCH", "/", "the document is not an object")
    check.content = content
    asset = content.get("asset")
    if not isinstance(asset, dict) or not str(asset.get("version", "")).startswith("2."):
        check.error("UNKNOWN_ASSET_MAJOR_VERSION", "/asset/version", "is not 2.x")
    _check_buffers(check)


def _check_buffers(check: _Checker) -> None:
    """The first buffer is the binary chunk, up to three bytes of padding apart."""
    for index, item in enumerate(check.listed("buffers")):
        where, length, present = f"/buffers/{index}/byteLength", item.get("byteLength"), len(check.blob)
        if not isinstance(length, int) or length < 1:
            check.error("TYPE_MISMATCH", where, "is no positive integer")
        elif "uri" not in item and index == 0:
            if length > present:
                check.error("BUFFER_BYTE_LENGTH_MISMATCH", where, f"{length} bytes, the binary chunk has {present}")
            elif present - length > 3:
                check.add("warning", "BUFFER_GLB_CHUNK_TOO_BIG", where, f"{present - length} bytes are not used")


def _in_file(check: _Checker, view: dict[str, Any]) -> bool:
    """Whether a buffer view lies in the binary chunk; external buffers are not looked into."""
    buffers = check.listed("buffers")
    return view["buffer"] == 0 and bool(buffers) and "uri" not in buffers[0]


def _check_view(check: _Checker, index: int, item: dict[str, Any], where: str) -> None:
    if not check.refers("buffers", item.get("buffer"), f"{where}/buffer"):
        return
    offset, length, stride = _count(item, "byteOffset", 0), _count(item, "byteLength"), item.get("byteStride")
    total = check.listed("buffers")[item["buffer"]].get("byteLength", 0)
    if offset < 0 or length < 1 or offset + length > total:
        check.error("BUFFER_VIEW_TOO_LONG", where, f"bytes {offset} to {offset + length} of a buffer of {total}")
    if stride is not None and not (is_whole(stride, 4, 252) and stride % 4 == 0):
        check.error("VALUE_NOT_IN_RANGE", f"{where}/byteStride", f"{shown(stride)} is no multiple of 4 from 4 to 252")


def _check_accessor(check: _Checker, index: int, item: dict[str, Any], where: str) -> None:
    """Bounds and alignment first; then the numbers, which :func:`_check_mesh` uses as well."""
    if item.get("componentType") not in _COMPONENTS or item.get("type") not in _WIDTHS:
        check.error("VALUE_NOT_IN_LIST", where, "has an unknown componentType or type")
        return
    dtype, width = np.dtype(_COMPONENTS[item["componentType"]]), _WIDTHS[item["type"]]
    count = _count(item, "count")
    if count < 1:
        check.error("VALUE_NOT_IN_RANGE", f"{where}/count", f"{count} is not positive")
        return
    if "bufferView" not in item or "sparse" in item or not check.refers("bufferViews", item["bufferView"], where):
        return
    view = check.listed("bufferViews")[item["bufferView"]]
    start, stride = _count(item, "byteOffset", 0), _count(view, "byteStride", dtype.itemsize * width)
    offset = _count(view, "byteOffset", 0) + start
    if start % dtype.itemsize or offset % dtype.itemsize:
        check.error("ACCESSOR_TOTAL_OFFSET_ALIGNMENT", where, f"byte {offset} is no multiple of {dtype.itemsize}")
    if stride < dtype.itemsize * width:  # the numbers would be counted more than once, without an end
        check.error("ACCESSOR_VIEW_STRIDE", where, f"a stride of {stride} bytes is less than an element has")
        return
    needed = start + stride * (count - 1) + dtype.itemsize * width
    if needed > _count(view, "byteLength"):
        check.error("ACCESSOR_TOO_LONG", where, f"needs {needed} bytes of a view of {view['byteLength']}")
        return
    if not _in_file(check, view) or offset - start + needed > len(check.blob):
        return
    array = np.ndarray((count, width), dtype, check.blob, offset, (stride, dtype.itemsize))
    check.arrays[index] = array
    if dtype.kind == "f" and not np.isfinite(array).all():
        row = int(np.nonzero(~np.isfinite(array).all(axis=1))[0][0])
        check.error("ACCESSOR_INVALID_FLOAT", where, f"element {row} is not finite")
        return
    for key, actual in (("min", array.min(axis=0)), ("max", array.max(axis=0))):
        if key in item and not _equal(item[key], actual):
            check.error(
                f"ACCESSOR_{key.upper()}_MISMATCH",
                f"{where}/{key}",
                f"{shown(item[key])}, the data say {actual.tolist()}",
            )


def _count(item: dict[str, Any], key: str, default: int | None = None) -> int:
    """A number of bytes or elements."""
    value = item.get(key, default) if default is not None else item[key]
    if not is_whole(value, 0, _MOST):
        raise ValueError(f"{key} is {shown(value)}")
    return int(value)


def _equal(stated: object, actual: np.ndarray) -> bool:
    """Whether bounds that a document states are those of the data, in the precision of the data."""
    if not isinstance(stated, list) or len(stated) != len(actual) or not all(map(is_number, stated)):
        return False
    with np.errstate(all="ignore"):
        return np.array_equal(np.asarray(stated, np.float64).astype(actual.dtype), actual)


def _check_image(check: _Checker, index: int, item: dict[str, Any], where: str) -> None:
    if ("bufferView" in item) == ("uri" in item):
        check.error("ONE_OF_MISMATCH", where, "needs either a bufferView or a uri")
        return
    if "uri" in item or not check.refers("bufferViews", item["bufferView"], where):
        return
    view = check.listed("bufferViews")[item["bufferView"]]
    if not _in_file(check, view) or item.get("mimeType") not in _FORMATS:
        if item.get("mimeType") is None:
            check.error("VALUE_NOT_IN_LIST", f"{where}/mimeType", "an embedded image must name its type")
        return
    start, length = _count(view, "byteOffset", 0), _count(view, "byteLength")
    try:
        with Image.open(io.BytesIO(check.blob[start : start + length]), formats=tuple(_FORMATS.values())) as image:
            if max(image.size) > MAX_TEXTURE:
                check.error("IMAGE_DATA_INVALID", where, f"{image.size[0]} x {image.size[1]} pixels are too many")
                return
            image.load()
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they stumble over
        check.error("IMAGE_DATA_INVALID", where, f"cannot be decoded ({error})")
        return
    if image.format != _FORMATS[item["mimeType"]]:
        check.error("IMAGE_MIME_TYPE_INVALID", where, f"says {item['mimeType']} and is {image.format}")
    if any(side & (side - 1) for side in image.size):
        check.add("info", "IMAGE_NPOT_DIMENSIONS", where, f"{image.size[0]} x {image.size[1]} are no powers of two")


def _check_material(check: _Checker, index: int, item: dict[str, Any], where: str) -> None:
    texture = item.get("pbrMetallicRoughness", {}).get("baseColorTexture")
    if texture is not None:
        check.refers("textures", texture["index"], f"{where}/pbrMetallicRoughness/baseColorTexture")


def _check_mesh(check: _Checker, index: int, item: dict[str, Any], where: str) -> None:
    for number, primitive in enumerate(item["primitives"]):
        _check_primitive(check, primitive, f"{where}/primitives/{number}")


def _check_primitive(check: _Checker, item: dict[str, Any], where: str) -> None:
    """Attributes agree in length, normals are of unit length, indices point at vertices."""
    accessors, counts = check.listed("accessors"), set()
    for name, index in item["attributes"].items():
        at = f"{where}/attributes/{name}"
        if not check.refers("accessors", index, at):
            continue
        counts.add(accessors[index].get("count"))
        if name in ("POSITION", "NORMAL") and accessors[index].get("type") != "VEC3":
            check.error("MESH_PRIMITIVE_ATTRIBUTES_ACCESSOR_INVALID_FORMAT", at, "is not VEC3")
        if name == "POSITION" and not {"min", "max"} <= accessors[index].keys():
            check.error("MESH_PRIMITIVE_POSITION_ACCESSOR_WITHOUT_BOUNDS", at, "has no min and max")
        if name == "NORMAL" and (array := check.arrays.get(index)) is not None and array.dtype.kind == "f":
            length = np.linalg.norm(array.astype(np.float64), axis=1)
            wrong = np.nonzero(~(np.abs(length - 1) <= _UNIT_TOLERANCE))[0]
            if len(wrong):
                check.error(
                    "ACCESSOR_VECTOR3_NON_UNIT",
                    f"/accessors/{index}",
                    f"{len(wrong)} normals are not of unit length; number {wrong[0]}: {length[wrong[0]]:.4g}",
                )
    if len(counts) > 1:
        check.error("MESH_PRIMITIVE_UNEQUAL_ACCESSOR_COUNT", where, f"attributes of {sorted(counts)} vertices")
    if "material" in item:
        check.refers("materials", item["material"], f"{where}/material")
    if "indices" in item and check.refers("accessors", item["indices"], f"{where}/indices") and counts:
        _check_indices(check, item["indices"], min(counts), item.get("mode", _TRIANGLES))


def _check_indices(check: _Checker, accessor: int, vertices: int, mode: int) -> None:
    array, where = check.arrays.get(accessor), f"/accessors/{accessor}"
    if array is None:
        return
    if array.dtype.kind != "u" or array.shape[1] != 1:
        check.error("MESH_PRIMITIVE_INDICES_ACCESSOR_INVALID_FORMAT", where, "indices are not unsigned scalars")
        return
    values = array[:, 0]
    # The largest number of each width restarts a strip in some viewers.
    if (values == np.iinfo(array.dtype).max).any():
        check.error("ACCESSOR_INDEX_PRIMITIVE_RESTART", where, f"uses the reserved index {np.iinfo(array.dtype).max}")
    beyond = np.nonzero(values >= vertices)[0]
    if len(beyond):
        check.error(
            "ACCESSOR_INDEX_OOB",
            where,
            f"{len(beyond)} indices reach beyond {vertices} vertices; number {beyond[0]}: {values[beyond[0]]}",
        )
    if mode != _TRIANGLES:
        return
    if len(values) % 3:
        check.add("warning", "MESH_PRIMITIVE_INCOMPATIBLE_MODE", where, f"{len(values)} indices are no whole triangles")
        return
    a, b, c = values.reshape(-1, 3).T
    collapsed = int(((a == b) | (b == c) | (c == a)).sum())
    if collapsed:
        check.add("info", "ACCESSOR_INDEX_TRIANGLE_DEGENERATE", where, f"{collapsed} triangles use a vertex twice")


def _check_references(check: _Checker) -> None:
    """Whether what the lists say of each other exists."""
    for kind, key, target in _REFERENCES:
        for index, item in enumerate(check.listed(kind)):
            value = item.get(key, [])
            for reference in value if isinstance(value, list) else [value]:
                check.refers(target, reference, f"/{kind}/{index}/{key}")
    if "scene" in check.content:
        check.refers("scenes", check.content["scene"], "/scene")
