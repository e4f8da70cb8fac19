"""``viewloom export``: from a GLB to the other formats, with the exit codes of the other commands."""

from __future__ import annotations

from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import trimesh

from recon.export.glb import write_glb
from recon.export.glb_read import read_glb
from recon.texture.bake import TexturedMesh
from scene.errors import OutputError
from scene.mesh import vertex_normals
from viewloom.cli import main


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: tyro's mark of a missing value stands where the annotations promise a path."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    """A ball with a texture of 2048 pixels."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    vertices, faces = np.asarray(ball.vertices), np.asarray(ball.faces)
    uv = np.random.default_rng(0).random((len(vertices), 2))
    texture = np.full((2048, 2048, 3), 90, np.uint8)
    write_glb(tmp_path / "ball.glb", TexturedMesh(vertices, faces, vertex_normals(vertices, faces), uv, texture))
    return tmp_path / "ball.glb"


@pytest.mark.parametrize("ending", ["obj", "ply", "stl", "usdz", "glb"])
def test_a_glb_becomes_another_format(
    glb: Path, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / f"ball.{ending}"
    assert main(["export", str(glb), "-o", str(out)]) == 0
    said, told = capsys.readouterr()
    beside = [out.with_name("ball.mtl"), out.with_name("ball_texture.jpg")] if ending == "obj" else []
    assert said.splitlines() == [str(path) for path in (out, *beside)]
    assert told.splitlines()[1] == f"{glb} -> {out}"
    assert f"note: ball.{ending}: 320 triangles, 1 piece, watertight, genus 0, 0.3 x 0.3 x 0.3 m" in told
    if ending != "usdz":
        mesh = trimesh.load(out, force="mesh")
        assert len(mesh.faces) == 320
        wanted = np.array([[-0.15, 0, -0.15], [0.15, 0.3, 0.15]])
        if ending == "stl":  # millimetres, +Z up
            wanted = 1000 * wanted[:, [0, 2, 1]]
        assert mesh.bounds == pytest.approx(wanted, rel=1e-2, abs=1e-5)


def test_units_axes_and_sizes(glb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def size(ending: str, *flags: str) -> np.ndarray:
        assert main(["export", str(glb), "-o", str(tmp_path / f"new.{ending}"), *flags]) == 0
        return np.asarray(trimesh.load(tmp_path / f"new.{ending}", force="mesh").bounds)

    assert size("stl", "--up", "y")[:, 1] == pytest.approx([0, 300], abs=1e-2)
    assert size("stl", "--units", "m")[:, 2] == pytest.approx([0, 0.3], abs=1e-5)
    assert size("obj", "--units", "mm", "--up", "z")[:, 2] == pytest.approx([0, 300], abs=1e-2)
    assert size("glb", "--longest-side", "2")[:, 1] == pytest.approx([0, 2], abs=1e-5)
    assert size("glb", "--scale", "capture")[:, 1] == pytest.approx([0, 1], abs=1e-5)
    assert size("glb", "--length", "0,0,0", "0,0,-2", "0.5")[:, 1] == pytest.approx([0, 0.25], abs=1e-5)
    capsys.readouterr()
    out = ["export", str(glb), "-o", str(tmp_path / "b.glb")]
    for flags, said in (
        (["--units", "mm"], "GLB files are in metres with +Y up by definition"),
        (["--length", "0,0", "1,1,1", "2"], "'0,0' is no point"),
        (["--scale", "capture", "--longest-side", "1"], "one size is enough"),
        (["--longest-side", "-1"], "nothing can be"),
    ):
        assert main([*out, *flags]) == 2
        assert said in capsys.readouterr().err


def test_a_profile_is_kept_and_what_is_over_it_is_told(
    glb: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(glb), "-o", str(tmp_path / "small.glb"), "--profile", "lite"]) == 0
    assert read_glb(tmp_path / "small.glb").texture.shape == (1024, 1024, 3)
    assert "Over the profile" not in capsys.readouterr().err
    data = trimesh.creation.icosphere(subdivisions=5)
    vertices, faces = np.asarray(data.vertices), np.asarray(data.faces)
    uv, texture = np.full((len(vertices), 2), 0.5), np.zeros((16, 16, 3), np.uint8)
    write_glb(tmp_path / "dense.glb", TexturedMesh(vertices, faces, vertex_normals(vertices, faces), uv, texture))
    assert main(["export", str(tmp_path / "dense.glb"), "-o", str(tmp_path / "d.stl"), "--profile", "draft"]) == 0
    told = capsys.readouterr().err
    assert "note: Over the profile draft: d.stl has 20,480 triangles where 6,000 are allowed." in told


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["none.glb", "-o", "a.obj"], "none.glb: the asset cannot be read (No such file or directory)."),
        (
            ["ball.glb", "-o", "a.fbx"],
            "a.fbx: no format has the ending '.fbx'. Choose one of .glb, .obj, .ply, .stl, .usdz.",
        ),
        (["text.glb", "-o", "a.obj"], "text.glb: is not a sound GLB (error GLB_INVALID_MAGIC at @0: "),
    ],
)
def test_mistakes_exit_with_2_and_one_message(
    glb: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(glb.parent)
    Path("text.glb").write_text("this is a text and no asset")
    before = sorted(glb.parent.iterdir())
    assert main(["export", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith(f"viewloom: {message}")
    assert sorted(glb.parent.iterdir()) == before


def test_the_material_of_another_obj_is_not_replaced_unasked(glb: Path, tmp_path: Path) -> None:
    (tmp_path / "my_ball.mtl").write_text("of another")
    with pytest.raises(OutputError, match=r"my_ball\.mtl: belongs to something else than my ball\.obj.*--overwrite"):
        main(["export", str(glb), "-o", str(tmp_path / "my ball.obj"), "--debug"])
    assert [path.name for path in tmp_path.iterdir() if path != glb] == ["my_ball.mtl"]
    assert main(["export", str(glb), "-o", str(tmp_path / "my ball.obj"), "--overwrite"]) == 0
    assert "newmtl" in (tmp_path / "my_ball.mtl").read_text()
    assert main(["export", str(glb), "-o", str(tmp_path / "my ball.obj")]) == 0


def test_an_output_without_a_name_is_not_the_folder_one_is_in(
    glb: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in (["-o", ""], ["--out", " "], ["--out="]):
        assert main(["reconstruct", str(glb), *words]) == 2
        assert "the output has no name" in capsys.readouterr().err
