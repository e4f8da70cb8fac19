"""GLB files: upright, in metres, facing +Z, standing on the origin, with the picture the right way round."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.spatial.transform import Rotation

from pipeline.training.procedural import Part, box, moved
from recon.export.asset import asset_transform
from recon.export.glb import glb_bytes, write_glb
from recon.export.glb_check import check_glb
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import apply_transform, orbit_camera
from scene.errors import InputError, SettingsError
from scene.mesh import vertex_normals

CORNERS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230), "white": (240, 240, 240)}


CUBE = box((1.0, 1.0, 1.0))


def textured(part: Part, texture: np.ndarray | None = None, uv: np.ndarray | None = None) -> TexturedMesh:
    """A part with a texture of one colour."""
    vertices, faces = np.array(part[0], np.float64), np.asarray(part[1], np.int64)
    if texture is None:
        texture = np.broadcast_to(np.array((200, 60, 20), np.uint8), (16, 16, 3)).copy()
    uv = np.full((len(vertices), 2), 0.5) if uv is None else uv
    return TexturedMesh(vertices, faces, vertex_normals(vertices, faces), uv, texture)


def poster(azimuth: float = 0.0) -> TexturedMesh:
    """A square that a camera at an azimuth sees upright: red, green above, blue, white below (from the left)."""
    camera = orbit_camera(azimuth, 0.0, size=2)
    vertices = camera.unproject(np.array([[0, 0], [2, 0], [0, 2], [2, 2.0]]), np.full(4, 1.5))
    uv = np.array([[0, 0], [1, 0], [0, 1], [1, 1.0]])
    texture = np.zeros((32, 32, 3), np.uint8)
    texture[:16, :16], texture[:16, 16:], texture[16:, :16], texture[16:, 16:] = CORNERS.values()
    return textured((vertices, np.array([[0, 2, 1], [1, 2, 3]])), texture, uv)


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Document and binary chunk."""
    length = struct.unpack_from("<I", data, 12)[0]
    return json.loads(data[20 : 20 + length]), data[28 + length :]


@pytest.mark.parametrize("kept", [True, False])
def test_evidence_is_an_attribute_of_its_own_unless_it_is_not_wanted(kept: bool) -> None:
    plain = textured(CUBE)
    rows = np.random.default_rng(0).dirichlet(np.ones(4), len(plain.vertices))
    mesh = replace(plain, evidence=rows)
    content, blob = unpacked(glb_bytes(mesh, GlbSettings(evidence="attribute" if kept else "none")))
    attributes = content["meshes"][0]["primitives"][0]["attributes"]
    assert ("_EVIDENCE" in attributes) == kept
    if kept:
        accessor = content["accessors"][attributes["_EVIDENCE"]]
        assert (accessor["type"], accessor["componentType"], accessor["normalized"]) == ("VEC4", 5121, True)
        start = content["bufferViews"][accessor["bufferView"]].get("byteOffset", 0) + accessor.get("byteOffset", 0)
        stored = np.frombuffer(blob, np.uint8, 4 * accessor["count"], start).reshape(-1, 4)
        assert (stored.sum(axis=1, dtype=int) == 255).all()
        assert np.abs(stored / 255 - rows).max() < 1 / 200
    else:
        assert "_EVIDENCE" not in json.dumps(content)
        assert glb_bytes(mesh, GlbSettings(evidence="none")) == glb_bytes(plain)


def read(data: bytes) -> dict[str, np.ndarray]:
    """Attributes, indices and image as any reader would take them from the file."""
    content, blob = unpacked(data)
    primitive = content["meshes"][0]["primitives"][0]
    out: dict[str, np.ndarray] = {}
    for name, index in {**primitive["attributes"], "indices": primitive["indices"]}.items():
        accessor = content["accessors"][index]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor["type"]]
        kind = {5126: "<f4", 5125: "<u4", 5123: "<u2"}[accessor["componentType"]]
        start = content["bufferViews"][accessor["bufferView"]]["byteOffset"]
        out[name] = np.frombuffer(blob, kind, accessor["count"] * width, start).reshape(-1, width)
    view = content["bufferViews"][content["images"][0]["bufferView"]]
    jpeg = blob[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    out["image"] = np.asarray(Image.open(io.BytesIO(jpeg)))
    return out


@pytest.mark.parametrize("azimuth_deg", [0.0, 90.0, -35.0])
def test_what_the_photo_showed_faces_z_upright_and_not_mirrored(azimuth_deg: float) -> None:
    """A viewer in front, at +Z with +Y up, sees +X to the right."""
    data = glb_bytes(poster(math.radians(azimuth_deg)), GlbSettings(front_azimuth_deg=azimuth_deg, longest_side=2.0))
    parts = read(data)
    assert parts["POSITION"] == pytest.approx(np.array([[-1, 2, 0], [1, 2, 0], [-1, 0, 0], [1, 0, 0]]), abs=1e-5)
    assert parts["NORMAL"] == pytest.approx(np.broadcast_to([0, 0, 1], (4, 3)), abs=1e-5)
    for (u, v), colour in zip(parts["TEXCOORD_0"], CORNERS.values()):
        texel = parts["image"][int(v * 31), int(u * 31)].astype(int)  # glTF: v counts down from the first row
        assert texel == pytest.approx(colour, abs=12)


def test_trimesh_reads_the_same_picture(tmp_path: Path) -> None:
    write_glb(tmp_path / "poster.glb", poster(), GlbSettings(longest_side=2.0))
    mesh = trimesh.load(tmp_path / "poster.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    order = np.lexsort((mesh.vertices[:, 0], -mesh.vertices[:, 1]))
    image = np.asarray(mesh.visual.material.baseColorTexture)
    uv = np.clip(mesh.visual.uv[order], 0.01, 0.99)
    seen = image[((1 - uv[:, 1]) * 32).astype(int), (uv[:, 0] * 32).astype(int)].astype(int)  # trimesh's v goes up
    assert seen == pytest.approx(np.array(list(CORNERS.values())), abs=12)


def test_the_asset_is_a_closed_mesh_in_metres(tmp_path: Path, ball: Callable[..., Part]) -> None:
    part = ball(0.5, (0.1, 0.2, 0.3), subdivisions=3)
    write_glb(tmp_path / "ball.glb", textured(part), GlbSettings(longest_side=0.2))
    mesh = trimesh.load(tmp_path / "ball.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) == len(part[1])
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.1**3, rel=0.02)
    assert mesh.bounds == pytest.approx(np.array([[-0.1, 0, -0.1], [0.1, 0.2, 0.1]]), abs=1e-3)


SIZES = st.floats(0.05, 2.0)


@given(
    st.tuples(SIZES, SIZES, SIZES),
    st.tuples(*[st.floats(-3, 3)] * 3),
    st.tuples(*[st.floats(-10, 10)] * 3),
    st.floats(0.01, 30),
    st.floats(-360, 360),
)
def test_every_asset_stands_on_the_origin_and_finds_back_to_its_world(
    size: tuple[float, float, float],
    turn: tuple[float, float, float],
    offset: tuple[float, float, float],
    longest: float,
    front: float,
) -> None:
    mesh = textured(moved(box(size), offset, Rotation.from_rotvec(turn).as_matrix()))
    data = glb_bytes(mesh, GlbSettings(longest_side=longest, front_azimuth_deg=front))
    parts, content = read(data), unpacked(data)[0]
    position = parts["POSITION"].astype(np.float64)
    low, high = position.min(axis=0), position.max(axis=0)
    assert (high - low).max() == pytest.approx(longest, rel=1e-5)
    assert [low[0] + high[0], low[1], low[2] + high[2]] == pytest.approx([0, 0, 0], abs=1e-5 * longest)
    back = apply_transform(np.array(content["asset"]["extras"]["world_from_asset"]), position)
    assert back == pytest.approx(mesh.vertices, abs=1e-4)
    moved_in = np.array([[0.0, -2, 0, 1], [2, 0, 0, -3], [0, 0, 2, 0.5], [0, 0, 0, 1]])
    extras = unpacked(glb_bytes(mesh, GlbSettings(longest_side=longest), normalised_from_world=moved_in))[0]["asset"]
    whole = read(glb_bytes(mesh, GlbSettings(longest_side=longest)))["POSITION"].astype(np.float64)
    capture = apply_transform(np.array(extras["extras"]["world_from_asset"]), whole)
    assert apply_transform(moved_in, capture) == pytest.approx(mesh.vertices, abs=2e-4)
    assert np.linalg.norm(parts["NORMAL"], axis=1) == pytest.approx(1, abs=1e-5)
    # Outside is where the normals and the winding say, and up stays up.
    assert np.einsum("nc,nc->n", position - position.mean(axis=0), parts["NORMAL"]).min() > 0
    height = mesh.vertices[:, 2] - mesh.vertices[:, 2].min()
    assert position[:, 1] / np.ptp(position[:, 1]) == pytest.approx(height / np.ptp(height), abs=1e-4)
    assert not [finding for finding in check_glb(data) if finding.severity in ("error", "warning")]


def test_the_parts_of_the_file_are_aligned(ball: Callable[..., Part]) -> None:
    """An odd number of 2-byte indices and a picture of odd length leave gaps to fill."""
    data = glb_bytes(
        textured((np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]]), np.array([[0, 1, 2]]))), extras={"a": "x"}
    )
    magic, version, total = struct.unpack_from("<4sII", data)
    assert (magic, version, total) == (b"glTF", 2, len(data))
    text, kind = struct.unpack_from("<I4s", data, 12)
    blob, other = struct.unpack_from("<I4s", data, 20 + text)
    assert (kind, other) == (b"JSON", b"BIN\0")
    assert text % 4 == blob % 4 == 0
    assert 28 + text + blob == total
    content, body = unpacked(data)
    assert content["buffers"][0]["byteLength"] == len(body) == blob
    ends = 0
    for view in content["bufferViews"]:
        assert view["byteOffset"] % 4 == 0
        assert ends <= view["byteOffset"] < ends + 4
        ends = view["byteOffset"] + view["byteLength"]
    assert content["asset"]["extras"]["a"] == "x"


def test_the_same_mesh_gives_the_same_bytes(ball: Callable[..., Part]) -> None:
    assert glb_bytes(textured(ball(0.5))) == glb_bytes(textured(ball(0.5)))


@pytest.mark.parametrize(("count", "component"), [(65535, 5123), (65536, 5125)])
def test_indices_are_as_wide_as_they_must_be(count: int, component: int) -> None:
    """65535 as a 2-byte index is reserved, so 65535 vertices are the most that fit."""
    corner = np.linspace(0, 2 * math.pi, count, endpoint=False)
    vertices = np.stack([np.cos(corner), np.sin(corner), np.zeros(count)], axis=1)
    faces = np.array([[0, count // 3, 2 * count // 3], [count - 1, count // 3, count // 2]])
    data = glb_bytes(textured((vertices, faces)))
    content = unpacked(data)[0]
    accessor = content["accessors"][content["meshes"][0]["primitives"][0]["indices"]]
    assert accessor["componentType"] == component
    assert read(data)["indices"].reshape(-1, 3).tolist() == faces.tolist()


def test_collapsed_faces_are_left_out() -> None:
    vertices, faces = box((0.5, 0.5, 0.5))
    broken = np.concatenate([faces, [[0, 0, 1], [2, 3, 3]]])
    assert len(read(glb_bytes(textured((vertices, broken))))["indices"]) == 3 * len(faces)


def test_textures_keep_their_colours() -> None:
    """sRGB goes in and sRGB comes out, sharp colour edges included."""
    mesh = poster()
    image = read(glb_bytes(mesh))["image"].astype(int)
    assert image.shape == (32, 32, 3)
    assert np.abs(image - mesh.texture).max() <= 12
    assert np.abs(image - mesh.texture).mean() < 3
    assert read(glb_bytes(textured(CUBE)))["image"].astype(int) == pytest.approx(
        np.broadcast_to((200, 60, 20), (16, 16, 3)), abs=2
    )


def test_quality_is_paid_for_in_bytes() -> None:
    texture = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    low, high = (len(glb_bytes(textured(CUBE, texture), GlbSettings(jpeg_quality=quality))) for quality in (30, 95))
    assert high > 2 * low


@pytest.mark.parametrize("unlit", [False, True])
def test_the_material_is_rough_and_no_metal_and_unlit_on_request(unlit: bool) -> None:
    content = unpacked(glb_bytes(textured(CUBE), GlbSettings(unlit=unlit)))[0]
    surface = content["materials"][0]["pbrMetallicRoughness"]
    assert (surface["metallicFactor"], surface["roughnessFactor"]) == (0, 1)
    assert ("KHR_materials_unlit" in content["materials"][0].get("extensions", {})) is unlit
    assert ("KHR_materials_unlit" in content.get("extensionsUsed", [])) is unlit


def test_nodes_have_no_transform() -> None:
    content = unpacked(glb_bytes(textured(CUBE)))[0]
    assert set(content["nodes"][0]) == {"mesh", "name"}
    assert set(content["scenes"][0]["nodes"]) == {0}


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        ({"manifest": {"seed": math.nan}}, r"extras\.manifest\.seed is nan, which JSON does not have"),
        ({"a": [1, {"b": -math.inf}]}, r"extras\.a\[1\]\.b is -inf, which JSON does not have"),
        ({"a": np.float64("inf")}, r"extras\.a is inf"),
        ({"a": Path("x")}, r"extras\.a is of type \w+, which JSON does not have\. Give plain numbers"),
        ({"a": np.float32(1)}, r"extras\.a is of type float32"),
        ({"a": {1: 2}}, r"extras\.a has the key 1, which is no text"),
    ],
)
def test_extras_that_are_no_json_are_refused_by_name(extras: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Python would write NaN into the document, which no other reader takes."""
    with pytest.raises(InputError, match=message):
        write_glb(tmp_path / "a.glb", textured(CUBE), extras=extras)
    assert list(tmp_path.iterdir()) == []


def test_extras_of_every_kind_that_json_has_survive() -> None:
    extras = {"a": [1, 2.5, "ä\n", None, True, {"b": []}], "c": {}, "d": -0.0, "e": ("x",)}
    content = unpacked(glb_bytes(textured(CUBE), extras=extras))[0]
    assert {**content["asset"]["extras"], "e": ("x",)} == {**extras, "world_from_asset": ANY}


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_vertices_that_are_not_finite_are_refused(wrong: float) -> None:
    mesh = textured(CUBE)
    mesh.vertices[3, 1] = wrong
    with pytest.raises(InputError, match="not finite cannot be exported"):
        glb_bytes(mesh)


def test_a_line_is_no_asset() -> None:
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    with pytest.raises(InputError, match="without a triangle that has an area"):
        glb_bytes(textured((vertices, np.array([[0, 1, 2]]))))


def test_a_point_is_no_asset() -> None:
    with pytest.raises(InputError, match="without extent cannot be exported"):
        asset_transform(np.ones((3, 3)), GlbSettings())


@pytest.mark.parametrize("longest", [0.0, -0.3, math.inf, math.nan])
def test_assets_need_a_size(longest: float) -> None:
    with pytest.raises(SettingsError, match=r"cannot be .* m long\. Give a positive longest side"):
        GlbSettings(longest_side=longest)
