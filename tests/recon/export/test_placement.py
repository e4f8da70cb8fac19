"""Sizes, units, axes and cameras of exported files, as programs read them."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from recon.export.asset import Asset, to_asset_frame
from recon.export.export_mesh import export_glb, export_mesh
from recon.export.glb_read import read_glb
from recon.export.placement import in_frame, in_size, length_factor, without_inner_walls
from recon.export.validate import validate_glb
from recon.file_frame import PRINTING, AssetSize, FileFrame
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import apply_transform, normalising_transform, orbit_camera
from scene.errors import InputError
from scene.mesh import vertex_normals

POSE = normalising_transform(np.array([[1.0, -4.0, 2.0], [5.0, 0.0, 8.0]]))


def textured(mesh: trimesh.Trimesh) -> TexturedMesh:
    """A mesh of trimesh's with a plain texture."""
    vertices, faces = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)
    texture = np.full((16, 16, 3), 90, np.uint8)
    return TexturedMesh(vertices, faces, vertex_normals(vertices, faces), np.full((len(vertices), 2), 0.5), texture)


def stick() -> TexturedMesh:
    """A box .2 wide (x), .1 deep (y) and .6 high (z)."""
    return textured(trimesh.creation.box((0.2, 0.1, 0.6)))


def test_an_stl_is_what_slicers_take_for_granted(tmp_path: Path) -> None:
    """Millimetres, standing on z = 0, the front towards -y."""
    settings = GlbSettings(longest_side=0.12)
    export_mesh(tmp_path / "a.stl", stick(), settings)
    mesh = trimesh.load(tmp_path / "a.stl", force="mesh")
    assert mesh.bounds == pytest.approx(np.array([[-10, -20, 0], [10, 20, 120]]), abs=1e-3)
    assert mesh.volume == pytest.approx(20 * 40 * 120, rel=1e-4)
    assert mesh.is_watertight
    assert b"millimetres, +Z up" in (tmp_path / "a.stl").read_bytes()[:80]
    export_mesh(tmp_path / "b.stl", stick(), settings, frame=FileFrame())
    bounds = trimesh.load(tmp_path / "b.stl", force="mesh").bounds
    assert bounds == pytest.approx(np.array([[-0.01, 0, -0.02], [0.01, 0.12, 0.02]]), abs=1e-6)


@pytest.mark.parametrize("ending", ["obj", "ply"])
def test_other_frames_are_written_and_lead_back_to_the_world(ending: str, tmp_path: Path) -> None:
    mesh = stick()
    for frame in (FileFrame(), PRINTING, FileFrame("mm", "y"), FileFrame("m", "z")):
        export_mesh(tmp_path / f"a.{ending}", mesh, normalised_from_world=POSE, frame=frame)
        read = trimesh.load(tmp_path / f"a.{ending}", force="mesh", process=False)
        size = np.ptp(read.bounds, axis=0)
        assert int(size.argmax()) == "xyz".index(frame.up)
        assert size.max() == pytest.approx(300 if frame.unit == "mm" else 0.3, rel=1e-5)
        text = (tmp_path / f"a.{ending}").read_bytes().decode("latin-1")
        assert str(frame) in text
        numbers = text[text.index("world_from_asset ") :].splitlines()[0].split()[1:]
        back = np.array(numbers, float).reshape(4, 4)
        world = apply_transform(np.linalg.inv(POSE), mesh.vertices)
        found = apply_transform(back, np.asarray(read.vertices))
        assert np.sort(found.sum(1)) == pytest.approx(np.sort(world.sum(1)), abs=1e-4)
        assert found.min(0) == pytest.approx(world.min(0), abs=1e-4)
        normals = np.asarray(read.vertex_normals)
        centre = np.asarray(read.vertices) - np.asarray(read.vertices).mean(0)
        assert ((normals * centre).sum(1) > 0).all()  # they still look outwards


@pytest.mark.parametrize("ending", ["glb", "usdz"])
def test_formats_that_say_their_frame_have_no_other(ending: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="by definition"):
        export_mesh(tmp_path / f"a.{ending}", stick(), frame=PRINTING)
    assert list(tmp_path.iterdir()) == []


def test_the_true_size_of_a_capture_is_kept(tmp_path: Path) -> None:
    """The stick was .6 high in the normalised world: its capture's scale is another."""
    tall = 0.6 * np.cbrt(abs(np.linalg.det(np.linalg.inv(POSE)[:3, :3])))
    export_mesh(tmp_path / "a.glb", stick(), GlbSettings(scale="capture"), normalised_from_world=POSE)
    assert np.ptp(read_glb(tmp_path / "a.glb").vertices, axis=0).max() == pytest.approx(tall, rel=1e-6)
    export_mesh(tmp_path / "b.glb", stick(), normalised_from_world=POSE)
    export_glb(tmp_path / "b.glb", tmp_path / "c.glb", size=AssetSize(capture=True))
    one, other = read_glb(tmp_path / "a.glb"), read_glb(tmp_path / "c.glb")
    assert one.vertices == pytest.approx(other.vertices, rel=1e-5, abs=1e-6)
    assert one.world_from_asset == pytest.approx(other.world_from_asset, rel=1e-6, abs=1e-6)
    # Without a capture that was moved, units are those of the world itself.
    export_mesh(tmp_path / "d.glb", stick(), GlbSettings(scale="capture"))
    assert np.ptp(read_glb(tmp_path / "d.glb").vertices, axis=0).max() == pytest.approx(0.6, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-3, 1e3), st.tuples(*[st.floats(-5, 5)] * 3), st.tuples(*[st.floats(-5, 5)] * 3))
def test_a_known_length_sets_the_scale(
    metres: float, a: tuple[float, float, float], b: tuple[float, float, float]
) -> None:
    if math.dist(a, b) < 1e-2:
        return
    made = in_size(to_asset_frame(stick(), normalised_from_world=POSE), AssetSize(length=(a, b, metres)))
    assert made.world_from_asset is not None
    ends = apply_transform(np.linalg.inv(made.world_from_asset), np.array([a, b]))
    assert np.linalg.norm(ends[0] - ends[1]) == pytest.approx(metres, rel=1e-6)


def test_sizes_that_are_none(tmp_path: Path) -> None:
    asset = to_asset_frame(stick())
    for metres in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(InputError, match="cannot be"):
            length_factor(asset, np.zeros(3), np.ones(3), metres)
        with pytest.raises(InputError, match="nothing can be"):
            in_size(asset, AssetSize(longest_side=metres))
    with pytest.raises(InputError, match="cannot be"):
        length_factor(asset, np.ones(3), np.ones(3), 1.0)
    with pytest.raises(InputError, match="one size is enough"):
        AssetSize(longest_side=1.0, capture=True)
    lost = Asset(asset.vertices, asset.normals, asset.uv, asset.faces, asset.texture)
    with pytest.raises(InputError, match="which world it came from"):
        in_size(lost, AssetSize(capture=True))
    assert in_size(asset, AssetSize()) is asset


def test_walls_of_cavities_are_left_out_for_printing_only(tmp_path: Path) -> None:
    outer, inner = trimesh.creation.icosphere(subdivisions=2, radius=0.5), trimesh.creation.icosphere(2, 0.3)
    beside = trimesh.creation.icosphere(2, 0.2)
    beside.apply_translation((1, 0, 0))
    inner.invert()
    mesh = textured(trimesh.util.concatenate([outer, inner, beside]))
    made = export_mesh(tmp_path / "a.stl", mesh)
    assert made.inner_walls == 1
    assert str(made).endswith(", 1 inner walls left out")
    assert len(trimesh.load(tmp_path / "a.stl", force="mesh").faces) == 640
    assert len(read_glb(export_mesh(tmp_path / "a.glb", mesh).path).faces) == 960
    whole = to_asset_frame(textured(outer))
    assert without_inner_walls(whole) == (whole, 0)
    # All of it inside out: there is nothing else to keep.
    assert without_inner_walls(to_asset_frame(textured(inner)))[1] == 0


def test_cameras_of_photos_are_nodes_that_see_what_the_photos_saw(tmp_path: Path) -> None:
    mesh, camera = stick(), orbit_camera(0.7, 0.4, size=100)
    asset = to_asset_frame(mesh, GlbSettings(with_camera=True), cameras={"photo": camera})
    export_mesh(tmp_path / "a.glb", asset)
    assert validate_glb(tmp_path / "a.glb").clean
    data = (tmp_path / "a.glb").read_bytes()
    content = json.loads(data[20 : 20 + struct.unpack("<I", data[12:16])[0]])
    assert [node["name"] for node in content["nodes"]] == ["object", "photo"]
    assert content["scenes"][0]["nodes"] == [0, 1]
    lens = content["cameras"][0]["perspective"]
    pose = np.array(content["nodes"][1]["matrix"]).reshape(4, 4).T
    local = apply_transform(np.linalg.inv(pose), asset.vertices.astype(np.float64))
    # glTF's projection: x and y over the depth, over the tangent of half the field of view.
    reach = np.tan(lens["yfov"] / 2) * -local[:, 2]
    seen = np.stack([local[:, 0] / (reach * lens["aspectRatio"]), -local[:, 1] / reach], axis=1)
    pixels, _ = camera.project(mesh.vertices)
    assert seen == pytest.approx(pixels / 50 - 1, abs=1e-5)
    assert (-local[:, 2] > lens["znear"]).all()
    again = export_glb(tmp_path / "a.glb", tmp_path / "b.glb", size=AssetSize(longest_side=3.0))
    (kept,) = read_glb(again.path).cameras
    assert kept.pose[:3, :3] == pytest.approx(pose[:3, :3])
    assert kept.pose[:3, 3] == pytest.approx(10 * pose[:3, 3], rel=1e-5)


def test_cameras_stay_out_unless_asked_for() -> None:
    assert to_asset_frame(stick(), cameras={"photo": orbit_camera(0.0, 0.0)}).cameras == ()


def test_the_asset_itself_is_not_changed() -> None:
    asset = to_asset_frame(stick())
    before = asset.vertices.copy()
    moved = in_frame(asset, PRINTING)
    assert np.array_equal(before, asset.vertices)
    assert np.linalg.norm(moved.normals, axis=1) == pytest.approx(1, abs=1e-6)
