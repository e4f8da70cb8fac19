"""Meshes of any GLB: textures and colours survive, y up becomes z up, and what is missing is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from pipeline.evaluation.meshes import evenly_spread, glb_files, load_glb
from scene import backends
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError, MissingBackendError


def test_places_are_spread_evenly() -> None:
    assert evenly_spread(5, None) == [0, 1, 2, 3, 4]
    assert evenly_spread(5, 3) == [0, 2, 4]
    assert evenly_spread(3, 9) == [0, 1, 2]


def test_files_are_found_below_all_folders(tmp_path: Path) -> None:
    for name in ("b/x/two.glb", "a/one.glb", "a/no.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [p.name for p in glb_files([tmp_path / "b", tmp_path / "a"])] == ["one.glb", "two.glb"]
    with pytest.raises(InputError, match="no GLB files"):
        glb_files([tmp_path / "none"])


def test_a_textured_mesh_keeps_its_texture_and_stands_up(tmp_path: Path) -> None:
    box = trimesh.creation.box((1, 3, 1))
    image = Image.fromarray(np.array([[[255, 0, 0], [0, 255, 0]]], np.uint8))
    box.visual = trimesh.visual.TextureVisuals(np.full((len(box.vertices), 2), 0.25), image=image)
    box.export(tmp_path / "box.glb")
    mesh = load_glb(tmp_path / "box.glb")
    assert mesh.texture is not None
    assert mesh.texture.shape == (1, 2, 3)
    assert mesh.uv is not None
    # glTF's v runs down, as ours does; trimesh turns it over when it reads and writes.
    assert np.allclose(mesh.uv, (0.25, 0.75))
    assert np.ptp(mesh.vertices, axis=0).argmax() == 2
    assert np.linalg.norm(mesh.vertices, axis=1).max() == pytest.approx(OBJECT_RADIUS, rel=1e-3)


def test_colours_of_several_parts_become_vertex_colours(tmp_path: Path) -> None:
    parts = [trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 1, 1))]
    parts[1].apply_translation((3, 0, 0))
    for part, colour in zip(parts, ([200, 10, 10, 255], [10, 10, 200, 255]), strict=True):
        part.visual.vertex_colors = np.tile(np.array(colour, np.uint8), (len(part.vertices), 1))
    trimesh.Scene(parts).export(tmp_path / "two.glb")
    mesh = load_glb(tmp_path / "two.glb")
    assert mesh.vertex_colours is not None
    left = mesh.vertices[:, 0] < 0
    assert (mesh.vertex_colours[left] == (200, 10, 10)).all()
    assert (mesh.vertex_colours[~left] == (10, 10, 200)).all()


def test_a_file_without_triangles_is_refused(tmp_path: Path) -> None:
    trimesh.Scene([trimesh.PointCloud(np.eye(3))]).export(tmp_path / "points.glb")
    with pytest.raises(InputError, match="holds no triangles"):
        load_glb(tmp_path / "points.glb")


def test_without_trimesh_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backends, "optional_module", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"evaluation needs the package trimesh\. Run: .*viewloom\[eval\]"):
        load_glb(tmp_path / "box.glb")
