"""USDZ files: aligned and uncompressed whatever they hold, and sound in the eyes of OpenUSD where it is installed."""

from __future__ import annotations

import io
import json
import re
import runpy
import struct
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from recon.export.asset import Asset, jpeg_of, to_asset_frame
from recon.export.usdz import aligned_zip, has_usd, usda_text, usdz_bytes
from recon.texture.bake import TexturedMesh
from scene.mesh import vertex_normals

CHECKS = runpy.run_path(str(Path(__file__).with_name("format_checks.py")))
check_usdz, data_offset = CHECKS["check_usdz"], CHECKS["data_offset"]
needs_usd = pytest.mark.skipif(not has_usd(), reason="usd-core is not installed: pip install viewloom[usd]")


def blob(subdivisions: int = 1, side: int = 16, quality: int = 90) -> tuple[Asset, bytes]:
    """A ball with a noisy texture, placed, and the texture's file."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions, radius=0.5)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces)
    draw = np.random.default_rng(side)
    texture = draw.integers(0, 256, (side, side, 3)).astype(np.uint8)
    mesh = TexturedMesh(vertices, faces, vertex_normals(vertices, faces), draw.random((len(vertices), 2)), texture)
    asset = to_asset_frame(mesh, extras={"licence": 'a "quoted" \\ word', "seed": 3}, generator="viewloom 1")
    return asset, jpeg_of(asset, quality, side)


GOOD = usdz_bytes(*blob(), binary=False)


@given(st.integers(0, 2), st.integers(4, 9).map(lambda power: 2**power), st.integers(10, 95))
def test_data_are_aligned_whatever_their_sizes(subdivisions: int, side: int, quality: int) -> None:
    data = usdz_bytes(*blob(subdivisions, side, quality), binary=False)
    assert check_usdz(data) == []
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            start = data_offset(entry, data)
            assert start % 64 == 0
            assert entry.compress_type == zipfile.ZIP_STORED
            assert data[start : start + entry.file_size] == archive.read(entry)


@given(st.dictionaries(st.text("abcä_", min_size=1, max_size=90), st.binary(max_size=200), min_size=1, max_size=5))
def test_any_archive_is_aligned(files: dict[str, bytes]) -> None:
    data = aligned_zip(files)
    assert data == aligned_zip(files)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
        assert archive.namelist() == list(files)
        assert all(data_offset(entry, data) % 64 == 0 for entry in archive.infolist())


def test_the_layer_comes_first_and_says_what_viewers_need() -> None:
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        assert archive.namelist() == ["model.usda", "textures/base_colour.jpg"]
        text = archive.read("model.usda").decode()
    for words in ('upAxis = "Y"', "metersPerUnit = 1\n", 'orientation = "rightHanded"', "doubleSided = 0"):
        assert words in text
    found = re.search(r'string extras = "((?:[^"\\]|\\.)*)"', text)
    assert found is not None
    assert json.loads(re.sub(r"\\(.)", r"\1", found[1])) == blob()[0].extras


# --- damage -----------------------------------------------------------------------------------------------------------


def archive_of(change: Callable[[dict[str, bytes]], object]) -> bytes:
    """The sound archive with other contents."""
    with zipfile.ZipFile(io.BytesIO(GOOD)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    return aligned_zip(files)


def layer(old: str, new: str) -> bytes:
    def change(files: dict[str, bytes]) -> None:
        assert old.encode() in files["model.usda"]
        files["model.usda"] = files["model.usda"].replace(old.encode(), new.encode(), 1)

    return archive_of(change)


def zipped(compression: int) -> bytes:
    """The sound contents as any zip program would pack them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as archive, zipfile.ZipFile(io.BytesIO(GOOD)) as good:
        for name in good.namelist():
            archive.writestr(name, good.read(name))
    return out.getvalue()


def swapped(files: dict[str, bytes]) -> None:
    files["model.usda"] = files.pop("model.usda")


TEXTURE = "textures/base_colour.jpg"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (zipped(zipfile.ZIP_DEFLATED), "USDZ_COMPRESSED"),
        (zipped(zipfile.ZIP_STORED), "USDZ_UNALIGNED"),
        (archive_of(swapped), "USDZ_LAYER_NOT_FIRST"),
        (archive_of(lambda files: files.pop(TEXTURE)), "USDZ_FILE_MISSING"),
        (archive_of(lambda files: files.update({TEXTURE: files[TEXTURE][:300]})), "IMAGE_DATA_INVALID"),
        (archive_of(lambda files: files.update({"../out.jpg": files[TEXTURE]})), "USDZ_NAME_INVALID"),
        (archive_of(lambda files: files.update({"notes.txt": b"x"})), "USDZ_FILE_TYPE_INVALID"),
        (archive_of(lambda files: files.update({"model.usda": b"nothing"})), "USDZ_LAYER_INVALID"),
        (archive_of(lambda files: files.update({"model.usda": files["model.usda"][:-200]})), "USDZ_LAYER_INVALID"),
        (layer("metersPerUnit = 1", "metersPerUnit = 0.01"), "USDZ_STATEMENT_MISSING"),
        (layer('upAxis = "Y"', 'upAxis = "Z"'), "USDZ_STATEMENT_MISSING"),
        (layer("rel material:binding", "rel binding"), "USDZ_STATEMENT_MISSING"),
        (aligned_zip({}), "USDZ_EMPTY"),
        (GOOD[:-30], "USDZ_ARCHIVE_INVALID"),
        (b"", "USDZ_ARCHIVE_INVALID"),
    ],
)
def test_damage_is_found(data: bytes, code: str) -> None:
    assert check_usdz(GOOD) == []
    assert code in [finding.code for finding in check_usdz(data) if finding.severity == "error"]


def test_odd_pictures_are_worth_knowing_but_no_fault() -> None:
    asset, _ = blob()
    odd = replace(asset, texture=np.zeros((15, 15, 3), np.uint8))
    (finding,) = check_usdz(usdz_bytes(odd, jpeg_of(odd, 90, 15), binary=False))
    assert (finding.severity, finding.code) == ("info", "IMAGE_NPOT_DIMENSIONS")


@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_no_single_byte_stops_the_check(at: int, value: int) -> None:
    for finding in check_usdz(GOOD[:at] + bytes([value]) + GOOD[at + 1 :]):
        assert str(finding).startswith(finding.severity)


@given(st.integers(0, len(GOOD) - 1))
def test_every_truncation_is_found(length: int) -> None:
    assert any(finding.severity == "error" for finding in check_usdz(GOOD[:length]))


def test_a_local_header_that_says_otherwise_is_unaligned() -> None:
    """Viewers map the data where the local header ends, whatever the directory at the end of the file says."""
    extra = struct.unpack_from("<H", GOOD, 28)[0]
    codes = [finding.code for finding in check_usdz(GOOD[:28] + struct.pack("<H", extra - 4) + GOOD[30:])]
    assert "USDZ_UNALIGNED" in codes


# --- OpenUSD ----------------------------------------------------------------------------------------------------------


@needs_usd
@pytest.mark.parametrize("unlit", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_openusd_reads_the_same_object(tmp_path: Path, binary: bool, unlit: bool) -> None:
    from pxr import Usd, UsdGeom, UsdShade

    asset, jpeg = blob(2)
    asset = replace(asset, unlit=unlit)
    path = tmp_path / "ball.usdz"
    path.write_bytes(usdz_bytes(asset, jpeg, binary))
    assert check_usdz(path.read_bytes()) == []
    assert path.read_bytes() == usdz_bytes(asset, jpeg, binary)  # the same every time
    stage = Usd.Stage.Open(str(path))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1
    assert UsdGeom.GetStageUpAxis(stage) == UsdGeom.Tokens.y
    assert stage.GetDefaultPrim().GetPath() == "/object"
    mesh = UsdGeom.Mesh(stage.GetPrimAtPath("/object/mesh"))
    assert UsdGeom.Mesh.ValidateTopology(
        mesh.GetFaceVertexIndicesAttr().Get(), mesh.GetFaceVertexCountsAttr().Get(), len(asset.vertices)
    )[0]
    assert np.array_equal(np.array(mesh.GetPointsAttr().Get(), np.float32), asset.vertices)
    assert np.array_equal(np.array(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), asset.faces)
    assert np.array(mesh.GetNormalsAttr().Get()) == pytest.approx(asset.normals, abs=1e-3)
    assert mesh.GetSubdivisionSchemeAttr().Get() == UsdGeom.Tokens.none
    assert mesh.GetOrientationAttr().Get() == UsdGeom.Tokens.rightHanded
    extent = np.array(mesh.GetExtentAttr().Get())
    assert np.array_equal(extent, [asset.vertices.min(axis=0), asset.vertices.max(axis=0)])
    st_of = np.array(UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st").Get())
    assert st_of == pytest.approx(np.stack([asset.uv[:, 0], 1 - asset.uv[:, 1]], axis=1), abs=1e-5)
    material, _ = UsdShade.MaterialBindingAPI(mesh).ComputeBoundMaterial()
    shader, _, _ = material.ComputeSurfaceSource()
    assert shader.GetIdAttr().Get() == "UsdPreviewSurface"
    colour = shader.GetInput("emissiveColor" if unlit else "diffuseColor")
    texture = UsdShade.Shader(colour.GetConnectedSources()[0][0].source.GetPrim())
    assert texture.GetIdAttr().Get() == "UsdUVTexture"
    assert texture.GetInput("sourceColorSpace").Get() == "sRGB"
    assert texture.GetInput("file").Get().resolvedPath.endswith("ball.usdz[textures/base_colour.jpg]")
    facts = stage.GetRootLayer().customLayerData
    assert np.array_equal(np.array(facts["world_from_asset"]).reshape(4, 4), asset.world_from_asset)
    assert facts["creator"] == "viewloom 1"
    assert '"seed": 3' in facts["extras"]


@needs_usd
@pytest.mark.parametrize("unlit", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_openusd_s_own_validators_find_nothing(tmp_path: Path, binary: bool, unlit: bool) -> None:
    from pxr import Usd

    validation = pytest.importorskip("pxr.UsdValidation")
    asset, jpeg = blob()
    path = tmp_path / "ball.usdz"
    path.write_bytes(usdz_bytes(replace(asset, unlit=unlit), jpeg, binary))
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 10
    found = validation.ValidationContext(validators).Validate(Usd.Stage.Open(str(path)))
    assert [error.GetMessage() for error in found] == []


@needs_usd
def test_a_binary_layer_is_smaller() -> None:
    asset, jpeg = blob(3)
    assert len(usdz_bytes(asset, jpeg, True)) < 0.7 * len(usdz_bytes(asset, jpeg, False))
    assert usdz_bytes(asset, jpeg) == usdz_bytes(asset, jpeg, True)


def test_without_openusd_the_layer_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recon.export.usdz.optional_module", lambda name: None)
    assert not has_usd()
    asset, jpeg = blob()
    assert usda_text(asset).encode() in usdz_bytes(asset, jpeg)
