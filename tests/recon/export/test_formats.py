"""Every format shows the same thing: the picture the right way round, its colours, counts, size and place."""

from __future__ import annotations

import io
import math
import re
import runpy
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.training.procedural import Part, box
from recon.export.asset import Asset, asset_health, jpeg_of, to_asset_frame
from recon.export.export_mesh import export_mesh
from recon.export.glb import glb_of
from recon.export.glb_check import examine_glb
from recon.export.obj import obj_files
from recon.export.ply import ply_bytes, stl_bytes, vertex_colours
from recon.export.usdz import usda_text, usdz_bytes
from recon.profiles import FORMATS, Format
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import apply_transform, orbit_camera, y_up_from_z_up
from scene.mesh import vertex_normals
from scene.raycast import mesh_caster

CHECKS = runpy.run_path(str(Path(__file__).with_name("format_checks.py")))
check_obj, check_ply, check_stl = (CHECKS[name] for name in ("check_obj", "check_ply", "check_stl"))
obj_comments, ply_comments, usda_matrices = (CHECKS[name] for name in ("obj_comments", "ply_comments", "usda_matrices"))
COLOURS = np.array([(230, 20, 20), (20, 230, 20), (20, 20, 230), (240, 240, 240)])
"""Top left, top right, bottom left, bottom right of the picture."""
PAINTED: tuple[Format, ...] = ("glb", "obj", "ply", "usdz")


def poster(azimuth: float = 0.0, cells: int = 8) -> TexturedMesh:
    """A square grid that a camera at an azimuth sees upright, with a picture of four colours on it."""
    camera = orbit_camera(azimuth, 0.0, size=2)
    across, down = np.meshgrid(np.linspace(0, 1, cells + 1), np.linspace(0, 1, cells + 1))
    uv = np.stack([across.reshape(-1), down.reshape(-1)], axis=1)
    vertices = camera.unproject(uv * 2, np.full(len(uv), 1.5))
    first = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).reshape(-1, 1)
    faces = np.concatenate([first + np.array(steps) for steps in ((0, cells + 1, 1), (1, cells + 1, cells + 2))])
    texture = np.zeros((32, 32, 3), np.uint8)
    texture[:16, :16], texture[:16, 16:], texture[16:, :16], texture[16:, 16:] = COLOURS
    return TexturedMesh(vertices, faces, vertex_normals(vertices, faces), uv, texture)


def solid(part: Part, seed: int = 0) -> TexturedMesh:
    """A part with arbitrary texture coordinates on a noisy texture."""
    draw = np.random.default_rng(seed)
    vertices, faces = np.asarray(part[0], np.float64), np.asarray(part[1], np.int64)
    texture = draw.integers(0, 256, (32, 32, 3)).astype(np.uint8)
    return TexturedMesh(vertices, faces, vertex_normals(vertices, faces), draw.random((len(vertices), 2)), texture)


@dataclass
class Read:
    """What a reader of a format sees."""

    vertices: np.ndarray
    faces: np.ndarray
    colours_at: Callable[[np.ndarray, np.ndarray], np.ndarray]


def numbers(text: str, name: str, width: int) -> np.ndarray:
    """An array of a text layer."""
    found = re.search(rf"{re.escape(name)} = \[([^\]]*)\]", text)
    assert found is not None
    return np.array(re.findall(r"[-+.\deE]+", found[1]), np.float64).reshape(-1, width)


def ply_colours(mesh: Any) -> np.ndarray:
    """Vertex colours as trimesh finds them in the file; it shows the texture coordinates instead if there are both."""
    raw = mesh.metadata["_ply_raw"]["vertex"]["data"]
    return np.stack([raw[name] for name in ("red", "green", "blue")], axis=-1).reshape(-1, 3).astype(float)


def read_back(path: Path) -> Read:
    """Load a file with trimesh, and a USDZ by hand; in both, texture coordinates count up."""
    if path.suffix == ".usdz":
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            text, picture = archive.read(names[0]).decode(), Image.open(io.BytesIO(archive.read(names[1])))
        vertices, uv = numbers(text, "points", 3), numbers(text, "primvars:st", 2)
        faces, image = numbers(text, "faceVertexIndices", 3).astype(np.int64), np.asarray(picture)
    else:
        mesh = trimesh.load(path, force="mesh", process=False)
        assert isinstance(mesh, trimesh.Trimesh)
        vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces)
        if path.suffix == ".ply":
            colours = ply_colours(mesh)
            return Read(vertices, faces, lambda face, weight: np.einsum("nk,nkc->nc", weight, colours[faces[face]]))
        if path.suffix == ".stl":
            vertices = y_up_from_z_up(vertices) / 1000  # a slicer's millimetres, standing on z = 0
            return Read(vertices, faces, lambda face, weight: np.zeros((len(face), 3)))
        uv, material = np.asarray(mesh.visual.uv), mesh.visual.material
        image = np.asarray(material.baseColorTexture if path.suffix == ".glb" else material.image)

    def look_up(face: np.ndarray, weight: np.ndarray) -> np.ndarray:
        at = np.einsum("nk,nkc->nc", weight, uv[faces[face]])
        height, width = image.shape[:2]
        return image[((1 - at[:, 1]) * height).astype(int), (at[:, 0] * width).astype(int), :3].astype(float)

    return Read(vertices, faces, look_up)


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("azimuth_deg", [0.0, 90.0, -35.0])
@pytest.mark.parametrize("ending", PAINTED)
def test_whoever_looks_from_the_front_sees_the_picture_upright(
    tmp_path: Path, ending: Format, azimuth_deg: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rays from +Z towards -Z, with +X to the right and +Y up, hit the colours where the picture has them."""
    monkeypatch.setattr("recon.export.usdz.has_usd", lambda: False)
    path = tmp_path / f"poster.{ending}"
    settings = GlbSettings(front_azimuth_deg=azimuth_deg, longest_side=2.0)
    export_mesh(path, poster(math.radians(azimuth_deg)), settings, khronos=False)
    seen = read_back(path)
    eyes = np.array([[-0.5, 1.5, 3], [0.5, 1.5, 3], [-0.5, 0.5, 3], [0.5, 0.5, 3]])
    hits = mesh_caster(seen.vertices, seen.faces).cast(eyes, np.broadcast_to([0.0, 0, -1], (4, 3)))
    assert (hits.face >= 0).all()
    weight = np.concatenate([1 - hits.bary.sum(axis=1, keepdims=True), hits.bary], axis=1)
    assert seen.colours_at(hits.face, weight) == pytest.approx(COLOURS, abs=12)
    # Front faces are turned to the viewer.
    a, b, c = (seen.vertices[seen.faces[:, k]] for k in range(3))
    assert (np.cross(b - a, c - a)[:, 2] > 0).all()


def test_textures_are_the_srgb_bytes_in_every_file(tmp_path: Path) -> None:
    """Mid grey tells: a gamma more or less would make 188 or 55 of 128."""
    mesh = solid(box((1.0, 1.0, 1.0)))
    grey = replace(mesh, texture=np.full((16, 16, 3), 128, np.uint8))
    asset = to_asset_frame(grey)
    jpeg = jpeg_of(asset, 90, 16)
    assert np.asarray(Image.open(io.BytesIO(jpeg))) == pytest.approx(128, abs=1)
    assert (vertex_colours(asset) == 128).all()
    assert jpeg in glb_of(asset, jpeg)
    assert obj_files(asset, jpeg, "a")["a_texture.jpg"] == jpeg
    assert jpeg in usdz_bytes(asset, jpeg, binary=False)
    assert 'inputs:sourceColorSpace = "sRGB"' in usda_text(asset)
    (tmp_path / "a.ply").write_bytes(ply_bytes(asset))
    assert (ply_colours(trimesh.load(tmp_path / "a.ply", force="mesh", process=False)) == 128).all()


def test_a_glb_has_no_vertex_colours() -> None:
    """They would multiply the texture, and they are linear."""
    asset = to_asset_frame(poster())
    content = examine_glb(glb_of(asset, jpeg_of(asset, 90, 32))).content
    assert set(content["meshes"][0]["primitives"][0]["attributes"]) == {"POSITION", "NORMAL", "TEXCOORD_0"}


def test_vertex_colours_at_the_border_do_not_reach_round() -> None:
    asset = to_asset_frame(poster())
    corners = [0, 8, 72, 80]
    assert vertex_colours(asset)[corners] == pytest.approx(COLOURS, abs=1)


@pytest.mark.parametrize("unlit", [False, True])
def test_unlit_is_said_in_the_words_of_each_format(unlit: bool) -> None:
    asset = to_asset_frame(poster(), GlbSettings(unlit=unlit))
    jpeg = jpeg_of(asset, 90, 32)
    assert (b"KHR_materials_unlit" in glb_of(asset, jpeg)) is unlit
    assert f"illum {0 if unlit else 1}\n".encode() in obj_files(asset, jpeg, "a")["a.mtl"]
    text = usda_text(asset)
    surface = "/object/materials/surface/base_colour.outputs:rgb>"
    assert (f"inputs:emissiveColor.connect = <{surface}" in text) is unlit
    assert (f"inputs:diffuseColor.connect = <{surface}" in text) is not unlit
    assert ("specularColor = (0, 0, 0)" in text) is unlit
    assert ply_bytes(asset) == ply_bytes(replace(asset, unlit=not unlit))


@pytest.mark.parametrize("unlit", [False, True])
def test_what_is_written_is_sound(tmp_path: Path, unlit: bool) -> None:
    """By the checks of the tests: PLY, STL, OBJ and USDZ are not checked again when they are written."""
    settings = GlbSettings(unlit=unlit)
    for ending in ("obj", "ply", "stl", "usdz"):
        made = export_mesh(tmp_path / f"x.{ending}", poster(), settings, extras={"a": 1})
        files = {path.name: path.read_bytes() for path in made.files}
        data = files[made.path.name]
        found = check_obj(files) if ending == "obj" else CHECKS[f"check_{ending}"](data)
        assert [finding for finding in found if finding.severity == "error"] == []


# --- the mesh ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
def test_counts_size_and_place_survive(
    tmp_path: Path, ending: Format, ball: Callable[..., Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recon.export.usdz.has_usd", lambda: False)
    part, path = ball(0.5, (0.1, 0.2, 0.3), subdivisions=3), tmp_path / f"ball.{ending}"
    made = export_mesh(path, solid(part), GlbSettings(longest_side=0.2), khronos=False)
    seen = read_back(path)
    assert len(seen.faces) == len(part[1]) == made.health.faces
    if ending != "stl":
        assert len(seen.vertices) == len(part[0])
    mesh = trimesh.Trimesh(seen.vertices, seen.faces, process=True)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.1**3, rel=0.02)
    low, high = mesh.bounds
    assert low[1] == pytest.approx(0, abs=1e-7)
    assert np.array([low, high]) == pytest.approx(np.array([[-0.1, 0, -0.1], [0.1, 0.2, 0.1]]), abs=1e-3)
    assert made.health.watertight
    assert (made.health.components, made.health.genus) == (1, 0)
    assert made.health.size == pytest.approx(tuple(high - low), abs=1e-6)


@given(st.tuples(*[st.floats(0.05, 2.0)] * 3), st.floats(0.01, 30), st.floats(-360, 360))
def test_every_format_finds_back_to_the_world_of_the_capture(
    size: tuple[float, float, float], longest: float, front: float
) -> None:
    moved_in = np.array([[0.0, -2, 0, 1], [2, 0, 0, -3], [0, 0, 2, 0.5], [0, 0, 0, 1]])
    mesh = solid(box(size))
    settings = GlbSettings(longest_side=longest, front_azimuth_deg=front)
    asset = to_asset_frame(mesh, settings, normalised_from_world=moved_in)
    jpeg = jpeg_of(asset, 90, 32)
    found = {
        "obj": obj_comments(obj_files(asset, jpeg, "a")["a.obj"]),
        "ply": ply_comments(ply_bytes(asset)),
        "usdz": usda_matrices(usdz_bytes(asset, jpeg, binary=False)),
        "glb": {
            "world_from_asset": np.array(
                examine_glb(glb_of(asset, jpeg)).content["asset"]["extras"]["world_from_asset"]
            )
        },
    }
    for ending, matrices in found.items():
        assert set(matrices) == {"world_from_asset"}, ending
        assert np.array_equal(matrices["world_from_asset"], asset.world_from_asset), ending
        world = apply_transform(matrices["world_from_asset"], asset.vertices.astype(np.float64))
        assert apply_transform(moved_in, world) == pytest.approx(mesh.vertices, abs=1e-5), ending


def test_places_of_captures_far_away_keep_their_digits() -> None:
    """Twelve digits of the turn, whatever the shift."""
    away = np.eye(4)
    away[:3, 3] = (4.5e5, 5.2e6, 112.0)
    mesh = solid(box((1.0, 1.0, 1.0)))
    asset = to_asset_frame(mesh, GlbSettings(longest_side=3000.0), normalised_from_world=np.linalg.inv(away))
    assert asset.world_from_asset is not None
    linear = asset.world_from_asset[:3, :3]
    assert linear @ linear.T == pytest.approx(np.eye(3) * np.abs(linear).max() ** 2, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("ending", FORMATS)
def test_the_same_mesh_gives_the_same_bytes(tmp_path: Path, ending: Format) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        export_mesh(tmp_path / name / f"x.{ending}", poster(), extras={"b": 1, "a": [2.5, None]}, khronos=False)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_health_closes_chart_borders_and_keeps_touching_sheets_apart(ball: Callable[..., Part]) -> None:
    vertices, faces = ball(0.5, subdivisions=2)
    split = TexturedMesh(
        vertices[faces].reshape(-1, 3),
        np.arange(3 * len(faces)).reshape(-1, 3),
        vertex_normals(vertices, faces)[faces].reshape(-1, 3),
        np.full((3 * len(faces), 2), 0.5),
        np.zeros((16, 16, 3), np.uint8),
    )
    health = asset_health(to_asset_frame(split))
    assert (health.vertices, health.faces, health.watertight) == (len(vertices), len(faces), True)
    two = np.concatenate([vertices, vertices - (vertices[0] - vertices[vertices[:, 2].argmin()])])
    both = solid((two, np.concatenate([faces, faces + len(vertices)])))
    assert asset_health(to_asset_frame(both)).components == 2
    opened = solid((vertices, faces[1:]))
    found = asset_health(to_asset_frame(opened))
    assert (found.watertight, found.boundary_edges, found.genus) == (False, 3, None)


# --- OBJ, PLY, STL in particular --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["toy", "my toy", "-x", 'a"b', "käse#1", "a\tb"])
def test_an_obj_finds_its_material_and_texture_whatever_its_name(tmp_path: Path, name: str) -> None:
    made = export_mesh(tmp_path / f"{name}.obj", poster())
    assert len(made.files) == 3
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in made.files}
    assert all(not re.search(r"[\s#\"]|^-", path.name) for path in made.files[1:])
    mesh = trimesh.load(tmp_path / f"{name}.obj", force="mesh")
    assert np.asarray(mesh.visual.material.image).shape == (32, 32, 3)


def obj_with(change: Callable[[dict[str, bytes]], object]) -> dict[str, bytes]:
    asset = to_asset_frame(poster())
    files = obj_files(asset, jpeg_of(asset, 90, 32), "a")
    change(files)
    return files


def edited(name: str, old: bytes, new: bytes) -> Callable[[dict[str, bytes]], object]:
    return lambda files: files.update({name: re.sub(old, new, files[name], count=1)})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda files: files.pop("a.mtl"), "OBJ_FILE_MISSING"),
        (lambda files: files.pop("a_texture.jpg"), "OBJ_FILE_MISSING"),
        (lambda files: files.update({"a_texture.jpg": files["a_texture.jpg"][:200]}), "IMAGE_DATA_INVALID"),
        (edited("a.mtl", b"newmtl surface", b"newmtl other"), "OBJ_MATERIAL_MISSING"),
        (edited("a.obj", rb"\nf \d+", b"\nf 82"), "OBJ_INDEX_OUT_OF_RANGE"),
        (edited("a.obj", rb"\nf \d+", b"\nf 0"), "OBJ_INDEX_OUT_OF_RANGE"),
        (edited("a.obj", rb"\nf \S+", b"\nf"), "OBJ_FACE_INVALID"),
        (edited("a.obj", rb"\nv \S+", b"\nv nan"), "OBJ_NUMBER_INVALID"),
        (edited("a.obj", rb"\nv \S+", b"\nv"), "OBJ_NUMBER_INVALID"),
        (edited("a.obj", rb"\nvn \S+ \S+ \S+", b"\nvn 0 0 0"), "OBJ_NORMAL_NON_UNIT"),
        (edited("a.obj", b"metres", b"\xff"), "OBJ_TEXT_INVALID"),
    ],
)
def test_damage_to_an_obj_is_found(change: Callable[[dict[str, bytes]], object], code: str) -> None:
    assert check_obj(obj_with(lambda files: None)) == []
    assert code in [finding.code for finding in check_obj(obj_with(change))]


PLY, STL = ply_bytes(to_asset_frame(poster())), stl_bytes(to_asset_frame(poster()))


def test_ply_holds_normals_and_coordinates_as_other_programs_name_them() -> None:
    head = PLY.partition(b"end_header")[0].decode()
    names = re.findall(r"^property (?:float|uchar) (\w+)$", head, re.MULTILINE)
    assert names == ["x", "y", "z", "nx", "ny", "nz", "red", "green", "blue", "s", "t"]
    first = np.frombuffer(PLY.partition(b"end_header\n")[2], "<f4", 6)
    assert first == pytest.approx([-0.15, 0.3, 0, 0, 0, 1], abs=1e-6)  # top left, towards the viewer
    s, t = np.frombuffer(PLY.partition(b"end_header\n")[2][27:35], "<f4")
    assert (s, t) == (0, 1)  # counted up


def put(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


NAN = np.float32(np.nan).tobytes()
BODY = PLY.index(b"end_header\n") + 11


@pytest.mark.parametrize(
    ("check", "data", "code"),
    [
        (check_ply, PLY[:-1], "PLY_LENGTH_MISMATCH"),
        (check_ply, PLY.replace(b"float nx", b"float mx"), "PLY_HEADER_INVALID"),
        (check_ply, b"", "PLY_HEADER_INVALID"),
        (check_ply, put(PLY, BODY, NAN), "PLY_NUMBER_INVALID"),
        (check_ply, put(PLY, BODY + 20, bytes(4)), "PLY_NORMAL_NON_UNIT"),
        (check_ply, put(PLY, len(PLY) - 4, b"\x51\0\0\0"), "PLY_INDEX_OUT_OF_RANGE"),
        (check_ply, put(PLY, len(PLY) - 4, b"\xff\xff\xff\xff"), "PLY_INDEX_OUT_OF_RANGE"),
        (check_ply, put(PLY, len(PLY) - 13, b"\x04"), "PLY_FACE_INVALID"),
        (check_stl, STL[:-1], "STL_LENGTH_MISMATCH"),
        (check_stl, b"solid" + STL[5:], "STL_HEADER_INVALID"),
        (check_stl, put(STL, 84 + 12, NAN), "STL_NUMBER_INVALID"),
        (check_stl, put(STL, 84 + 8, bytes(4)), "STL_NORMAL_NON_UNIT"),
    ],
)
def test_damage_to_ply_and_stl_is_found(check: Callable[[bytes], list[Any]], data: bytes, code: str) -> None:
    assert check_ply(PLY) == check_stl(STL) == []
    assert code in [finding.code for finding in check(data)]


@given(st.integers(0, len(PLY) - 1), st.integers(0, 255))
def test_no_single_byte_stops_the_checks(at: int, value: int) -> None:
    check_ply(put(PLY, at, bytes([value])))
    check_stl(put(STL, at % len(STL), bytes([value])))


def test_facets_look_outward(tmp_path: Path, ball: Callable[..., Part]) -> None:
    export_mesh(tmp_path / "ball.stl", solid(ball(0.5, subdivisions=2)))
    mesh = trimesh.load(tmp_path / "ball.stl", force="mesh")
    stored = np.frombuffer((tmp_path / "ball.stl").read_bytes()[84:], np.dtype([("n", "<f4", 3), ("rest", "V38")]))["n"]
    assert stored == pytest.approx(mesh.face_normals, abs=1e-4)
    assert (np.einsum("nc,nc->n", mesh.triangles_center - mesh.center_mass, stored) > 0).all()


def test_generators_of_many_lines_do_not_break_the_text(tmp_path: Path) -> None:
    asset: Asset = replace(to_asset_frame(poster()), generator='two\nlines "quoted" \\ käse')
    jpeg = jpeg_of(asset, 90, 32)
    assert check_obj(obj_files(asset, jpeg, "a")) == check_ply(ply_bytes(asset)) == check_stl(stl_bytes(asset)) == []
    assert '"two lines \\"quoted\\" \\\\ k\\\\xe4se"' in usda_text(asset)
