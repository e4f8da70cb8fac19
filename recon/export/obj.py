"""Wavefront OBJ files with their material and texture: what almost every modelling program opens."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image

from recon.export.asset import Asset
from recon.export.glb_check import Finding


def obj_files(asset: Asset, jpeg: bytes, name: str) -> dict[str, bytes]:
    """The three files of an asset by name, the OBJ first; they refer to each other by name and must stay together.

    OBJ knows no units: lengths are metres, as in the GLB. Its v counts up from the image's bottom row.

    Args:
        asset: the mesh.
        jpeg: its texture.
        name: of the OBJ, without ending.
    """
    # Not NAME.jpg: that may well be the photo that the asset was made from.
    stem = _one_word(name)
    lines = [f"# {_one_line(asset.generator)}; metres, +Y up, front to +Z"]
    if asset.world_from_asset is not None:
        lines.append("# world_from_asset " + " ".join(map(repr, asset.world_from_asset.reshape(-1).tolist())))
    lines += [f"mtllib {stem}.mtl", "o object"]
    lines += map("v %.9g %.9g %.9g".__mod__, map(tuple, asset.vertices.tolist()))
    flipped = np.stack([asset.uv[:, 0], 1 - asset.uv[:, 1].astype(np.float64)], axis=1)
    lines += map("vt %.8g %.8g".__mod__, map(tuple, flipped.tolist()))
    lines += map("vn %.6g %.6g %.6g".__mod__, map(tuple, asset.normals.tolist()))
    lines.append("usemtl surface")
    lines += map("f %d/%d/%d %d/%d/%d %d/%d/%d".__mod__, map(tuple, np.repeat(asset.faces + 1, 3, axis=1).tolist()))
    # Illumination 0 is the colour itself, 1 is a matt surface; Pm and Pr are the extension for metal and roughness.
    material = [
        "newmtl surface",
        "Ka 0 0 0",
        "Kd 1 1 1",
        "Ks 0 0 0",
        f"illum {0 if asset.unlit else 1}",
        "Pm 0",
        "Pr 1",
        f"map_Kd {stem}_texture.jpg",
    ]
    return {f"{name}.obj": _text(lines), f"{stem}.mtl": _text(material), f"{stem}_texture.jpg": jpeg}


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


def _one_word(name: str) -> str:
    """A name that readers which split lines at blanks, or look for options, take as one name."""
    return re.sub(r"[\s\x00-\x1f\x7f\ud800-\udfff#\"'\\]|^-", "_", name) or "_"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")
