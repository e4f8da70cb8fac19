"""Wavefront OBJ files with their material and texture: what almost every modelling program opens."""

from __future__ import annotations

import re

import numpy as np

from recon.export.asset import Asset
from scene.files import NAME_BYTES, shortened


def obj_files(asset: Asset, jpeg: bytes, name: str) -> dict[str, bytes]:
    """The three files of an asset by name, the OBJ first; they refer to each other by name and must stay together.

    OBJ knows no units: a comment names those of the asset. Its v counts up from the image's bottom row.

    Args:
        asset: the mesh.
        jpeg: its texture.
        name: of the OBJ, without ending.
    """
    # Not NAME.jpg: that may well be the photo that the asset was made from.
    stem = shortened(_one_word(name), NAME_BYTES - len("_texture.jpg"))
    lines = [f"# {_one_line(asset.generator)}; {asset.frame}"]
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
    material_name, texture_name = obj_side_files(name)
    return {f"{name}.obj": _text(lines), material_name: _text(material), texture_name: jpeg}


def obj_side_files(name: str) -> tuple[str, str]:
    """Names of the material and the texture beside an OBJ.

    Args:
        name: of the OBJ, without ending.
    """
    stem = _one_word(name)
    return f"{stem}.mtl", f"{stem}_texture.jpg"


def _one_word(name: str) -> str:
    """A name that readers which split lines at blanks, or look for options, take as one name."""
    return re.sub(r"[\s\x00-\x1f\x7f\ud800-\udfff#\"'\\]|^-", "_", name) or "_"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _text(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode("utf-8", "replace")
