"""Meshes as targets: read from files of any program, checked, and held against cameras and surface."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import trimesh

from pipeline.editing.controls import EmptyControlError, MissedControlError, OpenControlError
from pipeline.editing.deform import deform
from pipeline.editing.depth_target import DepthTarget
from pipeline.editing.target import check_meets, check_seen, plain_target, read_target
from recon.export.asset import Asset, to_asset_frame
from recon.export.export_mesh import export_mesh
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import orbit_camera
from scene.errors import InputError, MissingBackendError
from scene.mesh import ColouredMesh, vertex_normals
from tests.bodies import body_of, standing


@pytest.fixture
def small_asset() -> Asset:
    inward = body_of(standing(spread=90.0), 0.08)
    body = ColouredMesh(inward.vertices, inward.faces[:, ::-1].copy())
    uv = np.random.default_rng(0).random((len(body.vertices), 2))
    normals, texture = vertex_normals(body.vertices, body.faces), np.full((16, 16, 3), 90, np.uint8)
    return to_asset_frame(TexturedMesh(body.vertices, body.faces, normals, uv, texture), GlbSettings())


def box(size: float = 1.0, middle: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> trimesh.Trimesh:
    mesh = trimesh.creation.box((size, size, 2 * size))
    mesh.apply_translation(middle)
    return mesh


def target(size: float = 1.0, middle: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> DepthTarget:
    mesh = box(size, middle)
    return DepthTarget(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))


@pytest.mark.parametrize("ending", ["glb", "obj", "ply", "stl"])
def test_meshes_of_other_programs_keep_their_coordinates(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"mesh.{ending}"
    box(0.5, (1.0, 2.0, 3.0)).export(path)
    found = DepthTarget.load(path)
    np.testing.assert_allclose(found.vertices.min(axis=0), (0.75, 1.75, 2.5), atol=1e-6)
    np.testing.assert_allclose(found.vertices.max(axis=0), (1.25, 2.25, 3.5), atol=1e-6)


def test_own_glbs_stand_in_their_captures_world(tmp_path: Path, small_asset: Asset) -> None:
    path = tmp_path / "asset.glb"
    export_mesh(path, small_asset, GlbSettings())
    assert small_asset.world_from_asset is not None
    expected = small_asset.vertices @ small_asset.world_from_asset[:3, :3].T + small_asset.world_from_asset[:3, 3]
    found = DepthTarget.load(path)
    np.testing.assert_allclose(found.vertices.min(axis=0), expected.min(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.vertices.max(axis=0), expected.max(axis=0), atol=1e-5)


def test_bad_meshes_are_refused_by_name(tmp_path: Path) -> None:
    mesh = box()
    opened = trimesh.Trimesh(mesh.vertices, mesh.faces[:-1], process=False)
    opened.export(tmp_path / "open.ply")
    trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False).export(tmp_path / "inward.obj")
    trimesh.Trimesh(mesh.vertices * (1, 1, 0), mesh.faces, process=False).export(tmp_path / "flat.ply")
    (tmp_path / "broken.glb").write_bytes(b"glTF\0\0")
    with pytest.raises(OpenControlError, match=r"open\.ply: the control mesh is open"):
        DepthTarget.load(tmp_path / "open.ply")
    with pytest.raises(OpenControlError, match=r"inward\.obj.*inside out"):
        DepthTarget.load(tmp_path / "inward.obj")
    with pytest.raises(EmptyControlError, match=r"flat\.ply.*encloses nothing"):
        DepthTarget.load(tmp_path / "flat.ply")
    for name in ("broken.glb", "none.obj", "mesh.fbx"):
        with pytest.raises(InputError, match=name):
            DepthTarget.load(tmp_path / name)


def test_a_missing_reader_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    box().export(tmp_path / "mesh.obj")
    monkeypatch.setattr("pipeline.editing.depth_target.optional_module", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"trimesh.*viewloom\[edit\]"):
        DepthTarget.load(tmp_path / "mesh.obj")


def test_an_edit_has_one_target(tmp_path: Path) -> None:
    box().export(tmp_path / "mesh.ply")
    standing().save(tmp_path / "skeleton.json")
    found = read_target(tmp_path, depth=tmp_path / "mesh.ply").target
    assert isinstance(found, DepthTarget)
    assert plain_target(found) == plain_target(DepthTarget.load(tmp_path / "mesh.ply"))
    assert plain_target(found) != plain_target(target(1.1))
    with pytest.raises(InputError, match="got a skeleton and a mesh"):
        read_target(tmp_path, tmp_path / "skeleton.json", depth=tmp_path / "mesh.ply")
    with pytest.raises(InputError, match="got none"):
        read_target(tmp_path)
    with pytest.raises(InputError, match="a mesh need no rest"):
        read_target(tmp_path, depth=tmp_path / "mesh.ply", rest=tmp_path / "skeleton.json")


def test_meshes_move_with_the_world() -> None:
    turn = np.array([[0, -2.0, 0, 1], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 1]])
    moved = target().transformed(turn)
    np.testing.assert_allclose(moved.vertices.max(axis=0), (2, 1, 2), atol=1e-12)


def test_meshes_that_nobody_sees_or_that_miss_the_object_are_refused() -> None:
    cameras = [orbit_camera(2 * math.pi * k / 5, 0.2, 3.0, size=64) for k in range(5)]
    assert check_seen(target(), cameras) == ()
    with pytest.raises(MissedControlError, match="outside all views"):
        check_seen(target(0.1, (0, 0, 40.0)), cameras)
    surface = target(0.8).vertices.astype(np.float32)
    check_meets(target(0.3, (0.4, 0.0, 0.0)), surface)
    with pytest.raises(MissedControlError, match="misses the object"):
        check_meets(target(0.3, (2.0, 0.0, 0.0)), surface)


def test_deforming_cannot_follow_a_mesh(small_asset: Asset) -> None:
    around = DepthTarget(box(3.0).vertices.astype(np.float64), np.asarray(box().faces, np.int64))
    with pytest.raises(InputError, match="--method consolidate"):
        deform(small_asset, around)
