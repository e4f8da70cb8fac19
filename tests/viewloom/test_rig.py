"""``viewloom rig``: from a GLB and a skeleton to a rig, and one line for each thing that is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recon.export.glb import glb_of, write_glb
from recon.export.glb_check import examine_glb
from recon.export.glb_read import read_glb
from recon.texture.bake import TexturedMesh
from scene.mesh import vertex_normals
from scene.skeleton import INDEX, Motion, Skeleton
from tests.bodies import body_of, standing
from tests.viewloom.conftest import code_of

pytestmark = pytest.mark.usefixtures("as_in_production")


@pytest.fixture
def glb(tmp_path: Path) -> Path:
    """A body in its capture's world."""
    body = body_of(standing(), 0.05)
    uv = np.random.default_rng(0).random((len(body.vertices), 2))
    texture = np.full((16, 16, 3), 90, np.uint8)
    normals = vertex_normals(body.vertices, body.faces)
    write_glb(tmp_path / "body.glb", TexturedMesh(body.vertices, body.faces, normals, uv, texture))
    return tmp_path / "body.glb"


@pytest.fixture
def skeleton(tmp_path: Path) -> Path:
    standing().save(tmp_path / "s.json")
    return tmp_path / "s.json"


def test_a_glb_becomes_a_rig(glb: Path, skeleton: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bent = standing().posed({"left_elbow": np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])})
    Motion((0.0, 1.0), (standing(), bent)).save(tmp_path / "m.json")
    out = tmp_path / "new" / "r.glb"
    assert code_of("rig", glb, "--skeleton", skeleton, "-o", out, "--poses", tmp_path / "m.json") == 0
    said, told = capsys.readouterr()
    assert said == f"{out}\n"
    assert "11 joints" in told
    made = examine_glb(out.read_bytes())
    assert [finding for finding in made.findings if finding.severity in ("error", "warning")] == []
    assert len(made.content["animations"]) == 1
    attributes = made.content["meshes"][0]["primitives"][0]["attributes"]
    static = read_glb(glb)
    np.testing.assert_allclose(made.arrays[attributes["POSITION"]], static.vertices, atol=1e-5)
    assert glb.read_bytes()[:4] == b"glTF"  # and is still there


def test_without_a_name_it_lies_beside_the_glb(glb: Path, skeleton: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("rig", glb, "--skeleton", skeleton, "--quiet") == 0
    assert capsys.readouterr() == (f"{glb.with_name('body-rig.glb')}\n", "")


def test_skeletons_may_be_in_the_frame_of_the_file(glb: Path, tmp_path: Path) -> None:
    asset = read_glb(glb)
    assert asset.world_from_asset is not None
    path = tmp_path / "f.json"
    standing().transformed(np.linalg.inv(asset.world_from_asset)).save(path)
    standing().save(tmp_path / "w.json")
    out = [tmp_path / "a.glb", tmp_path / "b.glb"]
    assert code_of("rig", glb, "--skeleton", path, "--frame", "file", "-o", out[0]) == 0
    assert code_of("rig", glb, "--skeleton", tmp_path / "w.json", "-o", out[1]) == 0
    one, other = (examine_glb(path.read_bytes()).content["nodes"] for path in out)
    assert [n.get("translation") for n in one][1:] == [pytest.approx(n["translation"], abs=1e-6) for n in other[1:]]


def changed(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["joints"].pop("left_knee"), "joint is missing: left_knee"),
        (lambda c: c["joints"].update(left_kne=[0, 0, 0]), "no joint 'left_kne'; did you mean left_knee?"),
        (
            lambda c: c["joints"].update(left_knee=[0, 0, math.nan]),
            "left_knee is [0, 0, nan], not three finite numbers",
        ),
        (lambda c: c["joints"].update(neck=None), "joint neck must be known"),
        (
            lambda c: c.update(joints={n: p and [p[0] + 9, *p[1:]] for n, p in c["joints"].items()}),
            "the skeleton misses the surface",
        ),
        (
            lambda c: c.update(joints={n: p and [v / 1000 for v in p] for n, p in c["joints"].items()}),
            "the skeleton spans 0.1% of the surface only",
        ),
        (
            lambda c: c.update(joints={n: p and [p[0], p[2], -p[1]] for n, p in c["joints"].items()}),
            "the skeleton misses the surface",
        ),
        (
            lambda c: c["joints"].update(left_elbow=c["joints"]["left_shoulder"]),
            "left_shoulder and left_elbow are in one place",
        ),
    ],
)
def test_skeletons_that_are_wrong_are_one_line(
    glb: Path, skeleton: Path, change: Any, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(skeleton, change)
    assert code_of("rig", glb, "--skeleton", skeleton, "--quiet") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err
    assert not glb.with_name("body-rig.glb").exists()


def test_an_open_mesh_is_refused_unless_it_is_allowed(
    glb: Path, skeleton: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asset = read_glb(glb)
    assert asset.jpeg is not None
    glb.write_bytes(glb_of(replace(asset, faces=asset.faces[:-30]), asset.jpeg))
    assert code_of("rig", glb, "--skeleton", skeleton, "--quiet") == 2
    err = capsys.readouterr().err
    assert "the mesh is open" in err
    assert len(err.splitlines()) == 1
    assert code_of("rig", glb, "--skeleton", skeleton, "--quiet", "--allow-open") == 0


def test_bones_of_other_lengths_are_named_and_fitted_when_asked(
    glb: Path, skeleton: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Motion((0.0,), (standing(arm=0.45),)).save(tmp_path / "m.json")
    words = ["rig", glb, "--skeleton", skeleton, "--quiet", "--poses", tmp_path / "m.json"]
    assert code_of(*words) == 2
    err = capsys.readouterr().err
    assert "right_shoulder to right_elbow 1.50 times" in err
    assert len(err.splitlines()) == 1
    assert code_of(*words, "--fit-bones") == 0


def test_of_many_bones_a_few_are_named(
    glb: Path, skeleton: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Motion((0.0,), (standing().transformed(np.diag([1000, 1000, 1000, 1])),)).save(tmp_path / "m.json")
    assert code_of("rig", glb, "--skeleton", skeleton, "--quiet", "--poses", tmp_path / "m.json") == 2
    err = capsys.readouterr().err
    assert err.count("1000.00 times") == 4
    assert "(and 14 more)" in err


def test_poses_that_cannot_be_reached_are_named(
    glb: Path, skeleton: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blind = standing().positions.copy()
    blind[INDEX["neck"]] = np.nan
    Motion((0.0, 1.0), (standing(), Skeleton(blind))).save(tmp_path / "m.json")
    words = ["rig", glb, "--skeleton", skeleton, "--quiet", "--poses", tmp_path / "m.json"]
    assert code_of(*words) == 2
    assert "pose 1: joint neck must be known" in capsys.readouterr().err
    # Directions of bones without length cannot be kept: the flag is not advised, and of no help.
    flat = standing().positions.copy()
    flat[INDEX["left_wrist"]] = flat[INDEX["left_elbow"]]
    Motion((0.0,), (Skeleton(flat),)).save(tmp_path / "m.json")
    for more in ([], ["--fit-bones"]):
        assert code_of(*words, *more) == 2
        err = capsys.readouterr().err
        assert "left_elbow to left_wrist 0.00 times" in err
        assert "--fit-bones" not in err


@pytest.mark.parametrize("flag", ["--skeleton", "--poses"])
def test_nothing_that_is_read_is_replaced(
    glb: Path, skeleton: Path, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    other = glb.with_name("odd.glb")
    if flag == "--poses":
        Motion((0.0,), (standing(),)).save(other)
        words = ["--skeleton", skeleton, "--poses", other]
    else:
        standing().save(other)
        words = ["--skeleton", other]
    before = other.read_bytes()
    assert code_of("rig", glb, *words, "--quiet", "-o", other) == 2
    assert f"{other}: would replace the file that is read" in capsys.readouterr().err
    assert other.read_bytes() == before


@pytest.mark.parametrize("name", [".", "/", "loop.glb"])
def test_what_is_no_file_is_one_line(
    skeleton: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(skeleton.parent)
    (skeleton.parent / "loop.glb").symlink_to("loop.glb")
    assert code_of("rig", name, "--skeleton", skeleton, "--quiet") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"viewloom: {name}: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-o", "a.obj"], "GLB only"),
        (["-o", "body.glb"], "would replace the file that is read"),
        (["--poses", "s.json"], "no key 'joints'"),
    ],
)
def test_wrong_words_are_one_line(
    glb: Path,
    skeleton: Path,
    words: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(glb.parent)
    assert code_of("rig", "body.glb", "--skeleton", "s.json", "--quiet", *words) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_rig_is_no_glb_to_be_bound_again(glb: Path, skeleton: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("rig", glb, "--skeleton", skeleton) == 0
    assert code_of("rig", glb.with_name("body-rig.glb"), "--skeleton", skeleton, "-o", "x.glb") == 2
    assert "holds skins, which is not read" in capsys.readouterr().err
