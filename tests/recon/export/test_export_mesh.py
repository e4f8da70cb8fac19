"""Export: the ending chooses the format, profiles are kept or said to be broken, and nothing is left half written."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.training.procedural import box
from recon.export import export_mesh as module
from recon.export.asset import Asset, halved, jpeg_of, to_asset_frame
from recon.export.export_mesh import export_glb, export_mesh, format_of
from recon.export.glb import glb_bytes, glb_of
from recon.export.glb_read import read_glb
from recon.export.validate import find_khronos_validator, validate_glb
from recon.profiles import FORMATS, PROFILES, Format, Profile, limit_checks, packings
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.errors import InputError, OutputError, SettingsError, ViewloomError
from scene.mesh import vertex_normals

needs_khronos = pytest.mark.skipif(
    find_khronos_validator() is None, reason="the Khronos validator is not installed: run `make validator`"
)


def cube(side: int = 64) -> TexturedMesh:
    """A box with a texture that does not pack well."""
    vertices, faces = box((1.0, 0.5, 0.7))
    draw = np.random.default_rng(1)
    texture = draw.integers(0, 256, (side, side, 3)).astype(np.uint8)
    vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    return TexturedMesh(vertices, faces, vertex_normals(vertices, faces), draw.random((len(vertices), 2)), texture)


def strip() -> Asset:
    """The box with a texture that is as long as a large one, and quickly packed."""
    texture = np.random.default_rng(2).integers(0, 256, (32, 2048, 3)).astype(np.uint8)
    return replace(to_asset_frame(cube(16)), texture=texture)


def allowing(max_bytes: int, max_faces: int = 100, texture: int = 4096) -> Profile:
    return Profile("lite", max_faces, texture, max_bytes)


def texture_of(path: Path) -> Image.Image:
    """The picture in a GLB."""
    return Image.fromarray(read_glb(path).texture)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [*FORMATS, "GLB", "Usdz"])
def test_the_ending_chooses_the_format_and_the_file_is_checked(tmp_path: Path, ending: str) -> None:
    made = export_mesh(tmp_path / f"a.b.{ending}", cube(), khronos=False)
    assert made.path == made.files[0] == tmp_path / f"a.b.{ending}"
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made.files}
    assert made.size == sum(path.stat().st_size for path in made.files)
    assert ("check" in made.to_dict()) is (format_of(made.path) == "glb")
    if made.report is not None:
        assert made.report.clean
        assert made.report.tool == "structure"
    assert made.limits == made.broken_limits == ()
    assert str(made).startswith(f"a.b.{ending}: 12 triangles, 1 piece, watertight, genus 0, 0.15 x 0.21 x 0.3 m, 0.0")
    assert json.loads(json.dumps(made.to_dict(), allow_nan=False)) == made.to_dict()


@pytest.mark.parametrize("name", ["a.fbx", "a", "a.glb.zip", ".glb"])
def test_unknown_endings_are_refused_with_the_known(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"ending.*Choose one of \.glb, \.obj, \.ply, \.stl, \.usdz"):
        export_mesh(tmp_path / name, cube())
    assert list(tmp_path.iterdir()) == []


def test_every_format_has_its_ending() -> None:
    assert [format_of(Path(f"x/y.{ending}")) for ending in FORMATS] == list(FORMATS)


@needs_khronos
@pytest.mark.parametrize("unlit", [False, True])
def test_khronos_finds_nothing_in_any_profile(tmp_path: Path, unlit: bool) -> None:
    for profile in (None, PROFILES["lite"]):
        made = export_mesh(tmp_path / "a.glb", cube(), GlbSettings(unlit=unlit), profile=profile, khronos=True)
        assert made.report is not None
        assert made.report.messages == ()


# --- profiles ---------------------------------------------------------------------------------------------------------


def test_what_fits_is_packed_as_set(tmp_path: Path) -> None:
    made = export_mesh(tmp_path / "a.glb", cube(), profile=PROFILES["lite"], khronos=False)
    assert (made.jpeg_quality, made.texture) == (90, 64)
    assert made.broken_limits == ()
    assert [check.what for check in made.limits] == ["triangles", "texture pixels", "bytes"]
    assert made.path.read_bytes() == glb_bytes(cube())


@pytest.mark.parametrize("ending", ["glb", "usdz"])
def test_quality_goes_before_pixels_and_both_are_said(tmp_path: Path, ending: Format) -> None:
    mesh, path = strip(), tmp_path / f"a.{ending}"
    whole = export_mesh(path, mesh, khronos=False)
    assert (whole.jpeg_quality, whole.texture) == (90, 2048)
    less = export_mesh(path, mesh, profile=allowing(whole.size - 1), khronos=False)
    assert (less.jpeg_quality, less.texture, less.broken_limits) == (80, 2048, ())
    small = export_mesh(path, mesh, profile=allowing(less.size - 1), khronos=False)
    assert (small.jpeg_quality, small.texture, small.broken_limits) == (80, 1024, ())
    assert small.size < less.size < whole.size
    tight = export_mesh(path, mesh, profile=allowing(1000), khronos=False)
    assert tight.size == small.size == path.stat().st_size  # it is written, and
    assert tight.broken_limits == (f"a.{ending} has {tight.size:,} bytes where 1,000 are allowed",)
    given_size = export_mesh(path, mesh, profile=allowing(1000), may_shrink=False, khronos=False)
    assert (given_size.jpeg_quality, given_size.texture) == (80, 2048)
    assert given_size.to_dict()["limits"]["bytes"] == {"limit": 1000, "value": given_size.size, "held": False}
    if ending == "glb":
        assert texture_of(path).size == (2048, 32)


def test_files_for_other_programs_are_not_squeezed(tmp_path: Path) -> None:
    for ending in ("obj", "ply", "stl"):
        made = export_mesh(tmp_path / f"a.{ending}", strip(), profile=allowing(10, max_faces=11), khronos=False)
        assert made.jpeg_quality in (None, 90)
        assert made.broken_limits == (f"a.{ending} has 12 triangles where 11 are allowed",)


def test_a_low_quality_is_not_raised(tmp_path: Path) -> None:
    made = export_mesh(tmp_path / "a.glb", strip(), GlbSettings(jpeg_quality=30), profile=allowing(10), khronos=False)
    assert (made.jpeg_quality, made.texture) == (30, 1024)


@given(st.integers(1, 100), st.integers(4, 14).map(lambda power: 2**power), st.booleans())
def test_each_try_asks_for_less(quality: int, texture: int, may_shrink: bool) -> None:
    tries = packings(quality, texture, PROFILES["lite"], may_shrink)
    assert tries[0] == (quality, texture)
    assert all(after != before and (after <= before) for before, after in itertools.pairwise(tries))
    assert all(q <= quality and t <= texture for q, t in tries)
    assert all(t >= min(texture, 1024) for _, t in tries)
    assert tries[-1][1] == (min(texture, 1024) if may_shrink else texture)
    assert packings(quality, texture, None, may_shrink) == tries[:1]


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_limit_may_be_reached_and_not_passed(limit: int, value: int) -> None:
    (check,) = limit_checks(replace(PROFILES["high"], max_faces=limit), "stl", value, None, 0)
    assert check.held is (value <= limit)


def test_larger_profiles_allow_more() -> None:
    names = ("draft", "photo", "lite", "standard", "high")
    assert tuple(PROFILES) == names
    for one, other in itertools.pairwise(names):
        a, b = PROFILES[one], PROFILES[other]
        assert a.max_faces < b.max_faces
        assert (a.texture, a.max_bytes) <= (b.texture, b.max_bytes)
    assert all(profile.texture & (profile.texture - 1) == 0 and profile.name in names for profile in PROFILES.values())


def test_a_halved_texture_is_the_mean_of_its_pixels() -> None:
    texture = np.zeros((4, 4, 3), np.uint8)
    texture[0, 0], texture[2:, 2:] = 200, 80
    assert halved(texture, 2)[..., 0].tolist() == [[50, 0], [0, 80]]
    assert np.array_equal(halved(texture, 4), texture)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def fail_after(monkeypatch: pytest.MonkeyPatch, count: int, number: int) -> None:
    """Let the write after ``count`` good ones stop in the middle of its file."""
    real, done = Path.write_bytes, [0]

    def broken(self: Path, data: Any) -> int:
        done[0] += 1
        if done[0] <= count:
            return real(self, data)
        real(self, data[: len(data) // 2])
        raise OSError(number, "No space left on device" if number == errno.ENOSPC else "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_bytes", broken)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(
    ("number", "said"), [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")]
)
def test_a_full_disk_and_a_closed_folder_leave_what_was_there(
    tmp_path: Path, ending: Format, number: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{ending}"
    made = export_mesh(path, cube(), khronos=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for count in range(len(made.files)):
        with monkeypatch.context() as patch:
            fail_after(patch, count, number)
            with pytest.raises(OutputError, match=rf"cannot be written \({said}\)\. Check (free space|permissions)"):
                export_mesh(path, cube(32), khronos=False)
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_nothing_is_left_of_a_first_file_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_after(monkeypatch, 2, errno.ENOSPC)
    with pytest.raises(OutputError, match="No space left"):
        export_mesh(tmp_path / "a.obj", cube())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_and_a_file_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"a\.glb: cannot be written"):
        export_mesh(tmp_path / "file" / "a.glb", cube(), khronos=False)
    (tmp_path / "b.glb").mkdir()
    with pytest.raises(OutputError, match=r"b\.glb: cannot be written"):
        export_mesh(tmp_path / "b.glb", cube(), khronos=False)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "b.glb"}


def test_an_unsound_glb_is_our_fault_and_does_not_replace_a_sound_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.glb"
    export_mesh(path, cube(), khronos=False)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    broken = lambda asset, jpeg, name: {f"{name}.glb": glb_of(asset, jpeg)[:-4]}  # noqa: E731
    monkeypatch.setattr(module, "_WRITERS", {**module._WRITERS, "glb": replace(module._WRITERS["glb"], build=broken)})
    with pytest.raises(ViewloomError, match=r"is not sound: error GLB_LENGTH_MISMATCH") as caught:
        export_mesh(path, cube(32), khronos=False)
    assert caught.value.exit_code == 1
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("part", ["uv", "normals", "vertices"])
def test_numbers_that_are_none_do_not_pass(tmp_path: Path, ending: Format, part: str) -> None:
    mesh = cube()
    with pytest.raises(InputError, match="cannot be exported"):
        export_mesh(
            tmp_path / f"a.{ending}", replace(mesh, **{part: np.full_like(getattr(mesh, part), np.nan)}), khronos=False
        )
    with pytest.raises(InputError, match="cannot be exported"):
        export_mesh(tmp_path / f"a.{ending}", replace(mesh, normals=np.zeros_like(mesh.normals)), khronos=False)
    assert list(tmp_path.iterdir()) == []


# --- from GLB to other formats ----------------------------------------------------------------------------------------


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    path = tmp_path / "in" / "cube.glb"
    settings = GlbSettings(unlit=True, jpeg_quality=70)
    export_mesh(path, cube(), settings, extras={"licence": "mine", "n": [1]}, generator="viewloom 9", khronos=False)
    return path


def test_a_glb_is_read_back_as_it_was_placed(glb: Path) -> None:
    asset, same = (
        to_asset_frame(cube(), GlbSettings(unlit=True), {"licence": "mine", "n": [1]}, "viewloom 9"),
        read_glb(glb),
    )
    for name in ("vertices", "normals", "uv", "faces", "world_from_asset"):
        assert np.array_equal(getattr(same, name), getattr(asset, name)), name
    assert (same.unlit, same.extras, same.generator) == (True, asset.extras, "viewloom 9")
    assert same.jpeg == jpeg_of(asset, 70, 64)
    assert glb_of(same, same.jpeg) == glb.read_bytes()


def test_a_glb_in_its_own_format_stays_the_same_file(glb: Path, tmp_path: Path) -> None:
    export_glb(glb, tmp_path / "copy.glb", khronos=False)
    assert (tmp_path / "copy.glb").read_bytes() == glb.read_bytes()
    export_glb(glb, glb, khronos=False)  # onto itself
    assert (tmp_path / "copy.glb").read_bytes() == glb.read_bytes()


@pytest.mark.parametrize("ending", ["obj", "ply", "stl", "usdz"])
def test_from_a_glb_and_from_the_mesh_come_the_same_bytes(glb: Path, tmp_path: Path, ending: Format) -> None:
    """The texture is the GLB's own file, not packed a second time; PLY alone samples what JPEG made of it."""
    export_glb(glb, tmp_path / f"out/cube.{ending}")
    settings = GlbSettings(unlit=True, jpeg_quality=70)
    extras = {"licence": "mine", "n": [1]}
    made = export_mesh(tmp_path / f"direct/cube.{ending}", cube(), settings, extras=extras, generator="viewloom 9")
    if ending == "ply":
        return
    for path in made.files:
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_profile_reduces_the_texture_and_says_what_it_cannot_reduce(tmp_path: Path) -> None:
    export_mesh(tmp_path / "large.glb", cube(1024), khronos=False)
    made = export_glb(tmp_path / "large.glb", tmp_path / "small.glb", profile=allowing(10**7, 5, 256), khronos=False)
    assert made.broken_limits == ("small.glb has 12 triangles where 5 are allowed",)
    assert made.texture == 256
    assert texture_of(tmp_path / "small.glb").size == (256, 256)
    kept = export_glb(tmp_path / "small.glb", tmp_path / "same.glb", profile=allowing(10**7, 100, 256), khronos=False)
    assert kept.jpeg_quality is None
    assert (tmp_path / "same.glb").read_bytes() == (tmp_path / "small.glb").read_bytes()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """A sound GLB with another document."""
    data = glb_bytes(cube(16))
    length = struct.unpack_from("<I", data, 12)[0]
    content, blob = json.loads(data[20 : 20 + length]), data[20 + length :]
    change(content)
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    return (
        struct.pack("<III", 0x46546C67, 2, 20 + len(text) + len(blob))
        + struct.pack("<II", len(text), 0x4E4F534A)
        + text
        + blob
    )


def primitive(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["meshes"][0]["primitives"][0]
    return found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["nodes"].append({"name": "x"}), "holds 2 nodes instead of one"),
        (lambda c: c["nodes"][0].update(scale=[2, 2, 2]), "has a node with scale"),
        (lambda c: c["meshes"].append(c["meshes"][0]), "holds 2 meshes instead of one"),
        (lambda c: c["meshes"][0]["primitives"].append(primitive(c)), "has a mesh of 2 parts"),
        (lambda c: primitive(c).update(mode=1), "other than indexed triangles"),
        (lambda c: primitive(c).pop("indices"), "other than indexed triangles"),
        (lambda c: primitive(c)["attributes"].pop("NORMAL"), "has vertices with POSITION, TEXCOORD_0"),
        (
            lambda c: primitive(c)["attributes"].update(COLOR_0=primitive(c)["attributes"]["POSITION"]),
            "has vertices with COLOR_0",
        ),
        (lambda c: c.update(extensionsRequired=["KHR_draco_mesh_compression"]), "needs KHR_draco_mesh_compression"),
        (lambda c: c.update(animations=[{}]), "holds animations"),
        (lambda c: c["materials"][0].update(normalTexture={"index": 0}), "has a material with normalTexture"),
        (lambda c: c["materials"][0].update(doubleSided=True), "has a material with two sides"),
        (lambda c: c["materials"][0]["pbrMetallicRoughness"].pop("metallicFactor"), "without a texture of the usual"),
        (lambda c: c["materials"][0]["pbrMetallicRoughness"].pop("baseColorTexture"), "without a texture of the usual"),
        (lambda c: c["asset"]["extras"].update(world_from_asset=[1]), "is not laid out as viewloom does it"),
        (lambda c: primitive(c)["attributes"].update(POSITION=99), "is not a sound GLB"),
    ],
)
def test_files_of_other_kinds_are_refused_with_the_reason(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = tmp_path / "other.glb"
    path.write_bytes(changed(change))
    with pytest.raises(InputError, match=message) as caught:
        export_glb(path, tmp_path / "a.obj")
    assert caught.value.where == str(path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_glb_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.glb"
    for data, message in ((b"glTF", "is not a sound GLB"), (b"x" * 100, "is not a sound GLB")):
        path.write_bytes(data)
        with pytest.raises(InputError, match=message):
            read_glb(path)
    with pytest.raises(InputError, match=r"nowhere\.glb: the asset cannot be read"):
        read_glb(tmp_path / "nowhere.glb")
    with pytest.raises(InputError, match="no format has the ending"):  # said before anything is read
        export_glb(tmp_path / "nowhere.glb", tmp_path / "a.fbx")


GOOD = glb_bytes(cube(16))


@given(at=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255))
def test_no_single_byte_makes_anything_but_an_asset_or_an_input_error(
    tmp_path_factory: pytest.TempPathFactory, at: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "byte.glb"
    path.write_bytes(GOOD[:at] + bytes([value]) + GOOD[at + 1 :])
    with contextlib.suppress(InputError):
        assert isinstance(read_glb(path), Asset)


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_jpeg_has_its_qualities(quality: int) -> None:
    with pytest.raises(SettingsError, match=f"JPEG has no quality {quality}"):
        GlbSettings(jpeg_quality=quality)


def test_exported_glbs_pass_the_whole_check(glb: Path) -> None:
    assert validate_glb(glb).clean
    assert Image.open(io.BytesIO(read_glb(glb).jpeg or b"")).format == "JPEG"
