"""What can be said about a USDZ without OpenUSD: the archive's rules, the layer's header, the texture."""

from __future__ import annotations

import io
import re
import struct
import zipfile
import zlib

from PIL import Image

from recon.export.glb_check import Finding, Severity
from recon.export.usdz import ALIGNMENT

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
