"""GLBs that are none: refused in a sentence, at little cost."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from recon.export.glb import write_glb
from recon.export.glb_read import read_glb
from recon.texture.bake import TexturedMesh
from scene.errors import InputError


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("glb") / "a.glb"
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    texture = np.full((16, 16, 3), 90, np.uint8)
    write_glb(path, TexturedMesh(vertices, faces, vertices * 0 + [0, 0, 1.0], vertices[:, :2], texture))
    return path.read_bytes()


def parts(data: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def joined(content: dict[str, Any] | str, blob: bytes) -> bytes:
    text = (content if isinstance(content, str) else json.dumps(content)).encode()
    text += b" " * (-len(text) % 4)
    blob += bytes(-len(blob) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def in_all(kind: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: [item.update(changes) for item in content[kind]]


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "stride 0": in_all("bufferViews", byteStride=0),
    "stride 4": in_all("bufferViews", byteStride=4),
    "a stride of text": in_all("bufferViews", byteStride="12"),
    "a count of ten to the twelve": in_all("accessors", count=10**12),
    "a count of ten to the twelve and no stride": lambda content: (
        in_all("accessors", count=10**12)(content),
        in_all("bufferViews", byteStride=0)(content),
    ),
    "a count beyond floats": in_all("accessors", count=10**400),
    "half a count": in_all("accessors", count=1.5),
    "true for a count": in_all("accessors", count=True),
    "bounds beyond floats": in_all("accessors", min=[10**400] * 3),
    "bounds of text": in_all("accessors", max="x"),
    "an offset beyond floats": in_all("bufferViews", byteOffset=10**400),
    "an offset before the start": in_all("bufferViews", byteOffset=-4),
    "a length of text": in_all("bufferViews", byteLength="4"),
    "a matrix of text": lambda content: content["asset"].update(extras={"world_from_asset": [["1"] * 4] * 4}),
    "a matrix beyond floats": lambda content: content["asset"].update(extras={"world_from_asset": [[10**400] * 4] * 4}),
    "no accessors": lambda content: content.update(accessors=[]),
    "a mesh of texts": lambda content: content.update(meshes=["x"]),
}


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"a\.glb: ") as caught:
            read_glb(path)
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_numbers_that_mean_nothing(sound: bytes, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content, blob = parts(sound)
    change(content)
    assert len(refused(tmp_path / "a.glb", joined(content, blob))) < 700


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 3, '{"asset": {"version": "2.0"}, "x": NaN}', "[]"])
def test_documents_that_are_none(sound: bytes, tmp_path: Path, text: str) -> None:
    refused(tmp_path / "a.glb", joined(text, parts(sound)[1]))


def with_texture(data: bytes, image: Image.Image, kind: str = "JPEG") -> bytes:
    content, blob = parts(data)
    out = io.BytesIO()
    image.save(out, kind)
    view = content["bufferViews"][content["images"][0]["bufferView"]]
    blob += bytes(-len(blob) % 4)
    view.update(byteOffset=len(blob), byteLength=len(out.getvalue()))
    blob += out.getvalue()
    blob += bytes(-len(blob) % 4)
    content["buffers"][0]["byteLength"] = len(blob)
    return joined(content, blob)


def test_textures_that_would_be_lost_or_never_end(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    path.write_bytes(with_texture(sound, Image.new("RGB", (32, 32), "red")))
    assert read_glb(path).texture.shape == (32, 32, 3)
    assert "CMYK" in refused(path, with_texture(sound, Image.new("CMYK", (32, 32))))
    assert "pixels are too many" in refused(path, with_texture(sound, Image.new("L", (16384, 16))))
    assert "cannot be decoded" in refused(path, with_texture(sound, Image.new("RGB", (16, 16)), "EPS"))


def test_a_mesh_without_an_area(sound: bytes, tmp_path: Path) -> None:
    content, blob = parts(sound)
    accessor = content["accessors"][content["meshes"][0]["primitives"][0]["indices"]]
    view = content["bufferViews"][accessor["bufferView"]]
    start, length = view.get("byteOffset", 0), view["byteLength"]
    accessor.pop("min", None), accessor.pop("max", None)
    said = refused(tmp_path / "a.glb", joined(content, blob[:start] + bytes(length) + blob[start + length :]))
    assert "no triangle with an area" in said


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.glb")
    for path in (tmp_path / "a.glb", tmp_path, tmp_path / "a\0.glb"):
        with pytest.raises(InputError, match="the asset cannot be read"):
            read_glb(path)
