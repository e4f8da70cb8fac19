"""Checks of OBJ, PLY, STL and USDZ files as ours are: what a strict reader would stumble over. Used by tests alone."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib

import numpy as np
from jaxtyping import Float
from PIL import Image

from recon.export.glb_check import Finding, Severity
from recon.export.ply import _FACET, _VERTEX
from recon.export.usdz import ALIGNMENT

_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
_KINDS = {"<f4": "float", "|u1": "uchar"}


# --- PLY and STL ------------------------------------------------------------------------------------------------------


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


# --- OBJ --------------------------------------------------------------------------------------------------------------


def obj_comments(data: bytes) -> dict[str, np.ndarray]:
    """Matrices that stand in the comments of an OBJ, by name."""
    found = re.findall(rb"^# (\w+) ((?:\S+ ){15}\S+)\r?$", data, re.MULTILINE)
    return {name.decode(): np.array(numbers.split(), np.float64).reshape(4, 4) for name, numbers in found}


def check_obj(files: dict[str, bytes]) -> list[Finding]:
    """Check an OBJ and what it refers to; an empty list means that nothing is wrong with it.

    Args:
        files: content of the OBJ and the files beside it, by name, the OBJ first.
    """
    name, data = next(iter(files.items()))
    found: list[Finding] = []
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        return [Finding("error", "OBJ_TEXT_INVALID", name, f"is no UTF-8 ({error})")]
    counts = {}
    for key, width in (("v", 3), ("vt", 2), ("vn", 3)):
        numbers = _numbers(lines, key, width)
        counts[key] = 0 if numbers is None else len(numbers)
        if numbers is None or not np.isfinite(numbers).all():
            found.append(Finding("error", "OBJ_NUMBER_INVALID", name, f"a line of {key} is not {width} finite numbers"))
        elif key == "vn" and (np.abs(np.linalg.norm(numbers, axis=1) - 1) > 1e-3).any():
            found.append(Finding("error", "OBJ_NORMAL_NON_UNIT", name, "a normal is not of unit length"))
    corners = _numbers(lines, "f", 9)
    if corners is None or not len(corners):
        found.append(Finding("error", "OBJ_FACE_INVALID", name, "there are no triangles, or faces of another kind"))
    elif any((corners[:, k::3] > counts[key]).any() or corners.min() < 1 for k, key in enumerate(counts)):
        found.append(Finding("error", "OBJ_INDEX_OUT_OF_RANGE", name, "a face refers to a line that is not there"))
    return found + _check_material(files, name, lines)


def _check_material(files: dict[str, bytes], name: str, lines: list[str]) -> list[Finding]:
    library = _word(lines, "mtllib")
    if library not in files:
        return [Finding("error", "OBJ_FILE_MISSING", name, f"the material file {library!r} is not there")]
    material = files[library].decode("utf-8", "replace").splitlines()
    if _word(lines, "usemtl") != _word(material, "newmtl"):
        return [Finding("error", "OBJ_MATERIAL_MISSING", name, f"{library} has no such material")]
    texture = _word(material, "map_Kd")
    if texture not in files:
        return [Finding("error", "OBJ_FILE_MISSING", library, f"the texture {texture!r} is not there")]
    try:
        with Image.open(io.BytesIO(files[texture])) as image:
            image.load()
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they stumble over
        return [Finding("error", "IMAGE_DATA_INVALID", texture, f"cannot be decoded ({error})")]
    return []


def _word(lines: list[str], key: str) -> str:
    """What follows the first line that begins with a key; nothing if there is none."""
    return next((line[len(key) + 1 :].strip() for line in lines if line.startswith(f"{key} ")), "")


def _numbers(lines: list[str], key: str, width: int) -> np.ndarray | None:
    """The numbers of the lines that begin with a key, or None where they are not ``width`` in each."""
    rows = [line[len(key) + 1 :] for line in lines if line.startswith(f"{key} ")]
    try:
        values = np.array(list(map(float, " ".join(rows).replace("/", " ").split())))
    except ValueError:
        return None
    return values.reshape(-1, width) if len(values) == width * len(rows) else None


# --- USDZ -------------------------------------------------------------------------------------------------------------


def usda_matrices(data: bytes) -> dict[str, np.ndarray]:
    """Matrices that stand in the custom data of a USDZ with a text layer, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        text = archive.read(archive.namelist()[0]).decode("utf-8", "replace")
    found = re.findall(r"^ +double\[\] (\w+) = \[((?:[^,\]]+, ){15}[^,\]]+)\]$", text, re.MULTILINE)
    return {name: np.array(numbers.split(", "), np.float64).reshape(4, 4) for name, numbers in found}


_LAYERS = (".usda", ".usdc", ".usd")
_PICTURES = (".jpg", ".jpeg", ".png")
_STATED = (
    'defaultPrim = "',
    "metersPerUnit = 1\n",
    'upAxis = "Y"',
    'subdivisionScheme = "none"',
    "material:binding = ",
)
"""What viewers need and a text layer can be searched for."""


def check_usdz(data: bytes) -> list[Finding]:
    """Check a USDZ; an empty list, or infos only, means that nothing is wrong with it.

    Covers the archive (no compression, aligned data, sound contents, plain names, a layer first), what a text layer
    states about itself, that the textures it names are there, and that pictures can be decoded. The numbers of the mesh
    are not looked into, nor is a binary layer.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            found = [finding for entry in entries for finding in _check_entry(entry, data)]
            if any(finding.severity == "error" for finding in found):
                return found
            contents = {entry.filename: archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, struct.error) as error:
        return [_error("USDZ_ARCHIVE_INVALID", "/", f"is no sound zip archive ({error})")]
    except NotImplementedError as error:
        return [_error("USDZ_COMPRESSED", "/", f"holds what cannot be unpacked ({error})")]
    if not contents:
        return [_error("USDZ_EMPTY", "/", "holds no files")]
    if len(contents) < len(entries):
        found.append(_error("USDZ_NAME_INVALID", "/", "two files have the same name"))
    first = next(iter(contents))
    if not first.endswith(_LAYERS):
        found.append(_error("USDZ_LAYER_NOT_FIRST", first, "the first file is no USD layer"))
    else:
        found += _check_layer(first, contents)
    for name, content in contents.items():
        if name.lower().endswith(_PICTURES):
            found += _check_picture(name, content)
    return found


def data_offset(entry: zipfile.ZipInfo, data: bytes) -> int:
    """Where the data of a file in an archive start; its local header may be longer than the central one says."""
    name, extra = struct.unpack_from("<HH", data, entry.header_offset + 26)
    return entry.header_offset + 30 + name + extra


def _check_entry(entry: zipfile.ZipInfo, data: bytes) -> list[Finding]:
    name, found = entry.filename, []
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
        found.append(_error("USDZ_COMPRESSED", name, "is compressed"))
    if entry.flag_bits & 1:
        found.append(_error("USDZ_ENCRYPTED", name, "is encrypted"))
    offset = data_offset(entry, data)
    if offset % ALIGNMENT:
        found.append(_error("USDZ_UNALIGNED", name, f"its data start at byte {offset}, no multiple of {ALIGNMENT}"))
    if not re.fullmatch(r"[\w .-]+(/[\w .-]+)*", name) or ".." in name.split("/"):
        found.append(_error("USDZ_NAME_INVALID", name, "is no plain path inside the archive"))
    if not name.lower().endswith((*_LAYERS, *_PICTURES)):
        found.append(_error("USDZ_FILE_TYPE_INVALID", name, "is neither a layer nor a picture that viewers know"))
    return found


def _check_layer(name: str, contents: dict[str, bytes]) -> list[Finding]:
    layer = contents[name]
    if layer.startswith(b"PXR-USDC"):
        return []
    if not layer.startswith(b"#usda 1.0\n"):
        return [_error("USDZ_LAYER_INVALID", name, "begins like no USD layer")]
    try:
        text = layer.decode("utf-8")
    except UnicodeDecodeError as error:
        return [_error("USDZ_LAYER_INVALID", name, f"is no UTF-8 ({error})")]
    found = [
        _error("USDZ_STATEMENT_MISSING", name, f"does not say {wanted.strip()}")
        for wanted in _STATED
        if wanted not in text
    ]
    if not (text.count("{") == text.count("}") and text.rstrip().endswith("}")):
        found.append(_error("USDZ_LAYER_INVALID", name, "ends in the middle"))
    named = re.findall(r"@([^@\n]*)@", text)
    missing = [path for path in named if path not in contents]
    if missing or not named:
        found.append(_error("USDZ_FILE_MISSING", name, f"the texture {', '.join(missing) or ''} is not there"))
    return found


def _check_picture(name: str, content: bytes) -> list[Finding]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Exception as error:  # noqa: BLE001 - decoders raise whatever they stumble over
        return [_error("IMAGE_DATA_INVALID", name, f"cannot be decoded ({error})")]
    if any(side & (side - 1) for side in image.size):
        text = f"{image.size[0]} x {image.size[1]} are no powers of two"
        return [_finding("info", "IMAGE_NPOT_DIMENSIONS", name, text)]
    return []


def _error(code: str, where: str, text: str) -> Finding:
    return _finding("error", code, where, text)


def _finding(severity: Severity, code: str, where: str, text: str) -> Finding:
    return Finding(severity, code, where, text)
