"""``viewloom edit``: its words, its line, and its exit codes; what an edit does is tested with its job."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pipeline.jobs.item_result import ItemResult
from scene.errors import InputError
from tests.bodies import standing
from tests.viewloom.conftest import code_of

pytestmark = pytest.mark.usefixtures("as_in_production")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """What the job is asked for; it makes nothing."""
    calls = list[dict[str, Any]]()

    def edit(capture: Path, out: Path, settings: Any, **given: Any) -> ItemResult:
        calls.append({"capture": capture, "out": out, "settings": settings, **given})
        return ItemResult(
            "toy", out, asset=out / "toy-edited.glb", report=out / "report.html", original=out / "toy.glb"
        )

    monkeypatch.setattr("pipeline.jobs.edit.edit", edit)
    return calls


def test_words_become_settings(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    words = "edit caps/toy --skeleton t.json --rest r.json --method deform --fit-bones --view-side 300 --preset draft"
    assert code_of(*words.split(), "--deform.softness", "0.2", "--format", "usdz") == 0
    [call] = asked
    assert (call["skeleton"], call["rest"], call["boxes"]) == (Path("t.json"), Path("r.json"), None)
    assert call["out"] == Path("viewloom-out/toy")
    settings = call["settings"]
    assert (settings.method, settings.fit_bones, settings.view_side) == ("deform", True, 300)
    assert settings.deform.softness == 0.2
    assert settings.glb.formats == ("usdz",)
    assert settings.mesh.profile == "draft"
    assert capsys.readouterr().out.startswith("viewloom-out/toy/toy-edited.glb  (report: ")


def test_json_names_the_original(asked: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("edit", "toy", "--boxes", "b.json", "-o", "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["original"] == "out/toy.glb"
    assert asked[0]["boxes"] == Path("b.json")


@pytest.mark.parametrize("words", ["--method melt", "--view-side 3", "--deform.softness 0"])
def test_settings_that_there_are_not(words: str, asked: list[dict[str, Any]]) -> None:
    assert code_of("edit", "toy", "--boxes", "b.json", *words.split()) == 2
    assert asked == []


def test_bad_targets_exit_with_2_and_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    standing().save(tmp_path / "skeleton.json")
    content = json.loads((tmp_path / "skeleton.json").read_text())
    content["joints"]["nose"] = [math.nan, 0, 0]
    (tmp_path / "t.json").write_text(json.dumps(content))
    for words in (["--skeleton", tmp_path / "t.json"], [], ["--boxes", tmp_path / "none.json"]):
        assert code_of("edit", tmp_path, *words, "-o", tmp_path / "out", "--quiet") == 2
        said = capsys.readouterr().err
        assert said.startswith("viewloom: ")
        assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_missing_capture_is_told_before_its_skeleton(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    standing().save(tmp_path / "t.json")
    assert code_of("edit", tmp_path / "none", "--skeleton", tmp_path / "t.json", "-o", tmp_path / "out", "--quiet") == 2
    assert "there is no such file or folder" in capsys.readouterr().err


def test_a_job_that_fails_exits_with_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(*_: Any, **__: Any) -> ItemResult:
        raise InputError("the skeleton lies outside the object")

    monkeypatch.setattr("pipeline.jobs.edit.edit", edit)
    assert code_of("edit", "toy", "--skeleton", "t.json", "--quiet") == 2
    assert capsys.readouterr().err == "viewloom: the skeleton lies outside the object.\n"


def test_drawing_views_anew_has_words_of_its_own(asked: list[dict[str, Any]]) -> None:
    words = "edit toy --depth m.glb --method consolidate --editor.weights w --editor.most-views 9"
    assert code_of(*words.split(), "--consolidate.seed", "7", "--consolidate.field.levels", "3") == 0
    [call] = asked
    assert (call["depth"], call["skeleton"], call["boxes"]) == (Path("m.glb"), None, None)
    settings = call["settings"]
    assert (settings.method, settings.editor.weights, settings.editor.most_views) == ("consolidate", Path("w"), 9)
    assert (settings.consolidate.seed, settings.consolidate.field.levels) == (7, 3)
