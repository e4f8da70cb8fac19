"""The command line: how its words become settings, and what commands do and print."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.presets import load_preset, preset_path
from pipeline.jobs.settings import CaptureFormat, Image2MeshSettings, ReconstructSettings
from scene.captures import FORMATS
from scene.errors import InputError
from scene.resources import shipped
from scene.view import View
from scene.viewset import ViewSet
from tests.viewloom.conftest import code_of, job_of
from viewloom.commands.check import Check
from viewloom.commands.image2mesh import Image2Mesh
from viewloom.commands.output import ShownItems
from viewloom.commands.parsing import parse
from viewloom.commands.reconstruct import Reconstruct
from viewloom.commands.views import Views

pytestmark = pytest.mark.usefixtures("as_in_production")
JOB = "pipeline.jobs.image2mesh.image2mesh"


# --- settings ---------------------------------------------------------------------------------------------------------


def test_flags_fill_the_settings() -> None:
    words = ["--seed", "5", "--elevation", "20", "--fit.levels", "8", "16", "--fit.iterations", "1", "2"]
    command = parse("image2mesh", ["a.png", "b.png", "-o", "out", *words, "--device", "cpu"])
    assert type(command) is Image2Mesh
    assert command.photos == (Path("a.png"), Path("b.png"))
    assert (command.out, command.mask, command.preset) == (Path("out"), None, None)
    assert command.shown == ShownItems()
    assert command.chosen.views.sampling.seed == 5
    assert command.chosen.views.elevation_deg == 20.0
    assert (command.settings.fit.levels, command.settings.fit.iterations) == ((8, 16), (1, 2))
    assert command.settings.device == "cpu"
    assert type(parse("views", ["a.png", "-o", "out"])) is Views


@pytest.mark.parametrize(
    ("words", "filtering", "start"),
    [
        ([], "none", 0.35),
        (["--filtering", "amf"], "amf", 1.0),
        (["--filtering", "zero-to-hero", "--views.sampling.zero-to-hero.passes", "3"], "zero-to-hero", 1.0),
        (["--filtering", "zero-to-hero", "--views.sampling.strength", "0.8"], "zero-to-hero", 0.8),
    ],
)
def test_filtering_and_where_it_starts(words: list[str], filtering: str, start: float) -> None:
    sampling = parse("views", ["a.png", "-o", "out", *words]).chosen.views.sampling
    assert (sampling.filtering, sampling.plan().strength) == (filtering, start)
    assert sampling.zero_to_hero.passes == (3 if "3" in words else 5)


@pytest.mark.parametrize("preset", [["--preset", "draft"], ["--preset=draft"]])
def test_flags_change_what_the_preset_says(preset: list[str]) -> None:
    for words in ([*preset, "--mesh.texture", "32"], ["--mesh.texture", "32", *preset]):
        settings = parse("image2mesh", ["a.png", "-o", "out", *words]).settings
        limits = settings.mesh.limits
        assert (limits.texture, limits.max_faces) == (32, 6000)
        assert settings.fit.levels == (24, 48)


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("image2mesh", "", (12_000, 1024)),
        ("reconstruct", "", (50_000, 2048)),
        ("image2mesh", "--preset standard", (12_000, 1024)),
        ("reconstruct", "--preset standard", (50_000, 2048)),
        ("image2mesh", "--mesh.profile lite", (20_000, 1024)),
        ("image2mesh", "--preset draft --mesh.profile high", (100_000, 2048)),
        ("reconstruct", "--mesh.profile high --mesh.texture 512", (100_000, 512)),
        ("reconstruct", "--preset draft --mesh.max-faces 900", (900, 512)),
    ],
)
def test_profiles_presets_and_flags_go_together(command: str, words: str, expected: tuple[int, int]) -> None:
    limits = parse(command, ["a", "-o", "out", *words.split()]).settings.mesh.limits
    assert (limits.max_faces, limits.texture) == expected


def test_short_flags_of_captures_reach_their_settings() -> None:
    words = ["--masks", "background", "--bounds", "0", "0", "0", "1", "2", "3"]
    command = parse("reconstruct", ["a", "-o", "out", *words])
    assert isinstance(command, Reconstruct)
    assert (command.chosen.capture.masks, command.chosen.capture.bounds) == ("background", (0, 0, 0, 1, 2, 3))
    assert command.settings.capture == ReconstructSettings().capture


@pytest.mark.parametrize("words", [["--up", "-y"], ["--up=-y"], ["--capture.up", "-y"]])
def test_the_axis_that_points_up(words: list[str]) -> None:
    """A word with a hyphen is an axis there, and no flag."""
    command = parse("reconstruct", ["a", *words, "--masks", "ignore"])
    assert isinstance(command, Reconstruct)
    assert (command.chosen.capture.up, command.chosen.capture.masks) == ("-y", "ignore")
    checked = parse("check", ["a", "--up", "+x", "--format", "colmap"])
    assert isinstance(checked, Check)
    assert (checked.up, checked.format) == ("+x", "colmap")


def test_every_format_can_be_asked_for() -> None:
    assert get_args(CaptureFormat) == ("auto", *(form.kind for form in FORMATS))


def test_formats_are_listed_after_their_flag() -> None:
    settings = parse("reconstruct", ["a", "-o", "out", "--glb.formats", "glb", "usdz", "obj"]).settings
    assert settings.glb.formats == ("glb", "usdz", "obj")


@pytest.mark.parametrize("command", ["image2mesh", "reconstruct"])
def test_formats_come_as_one_list_too(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    heard = []

    def remember(source: object, out: Path, settings: Any, **_: object) -> Any:
        heard.append(settings.glb.formats)
        result = ItemResult("a", out, views=out)
        return result if command == "reconstruct" else [result]

    monkeypatch.setattr(f"pipeline.jobs.{command}.{command}", remember)
    assert code_of(command, "a", "-o", tmp_path, "--format", "glb,usdz") == 0
    assert code_of(command, "a", "-o", tmp_path, "--format", " .OBJ , ply") == 0
    assert code_of(command, "a", "-o", tmp_path, "--format", "stl", "--glb.formats", "glb", "obj") == 0
    assert code_of(command, "a", "-o", tmp_path, "--glb.formats", "glb", "obj") == 0
    assert heard == [("glb", "usdz"), ("obj", "ply"), ("stl",), ("glb", "obj")]


@pytest.mark.parametrize(("formats", "unknown"), [("glb,fbx", "fbx"), ("", ""), (",", ","), ("glb usdz", "glb usdz")])
def test_unknown_formats_exit_with_2_before_anything_runs(
    formats: str, unknown: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(JOB, lambda *_, **__: pytest.fail("it ran"))
    assert code_of("image2mesh", "a.png", "--format", formats) == 2
    err = capsys.readouterr().err
    assert f"there is no format {unknown!r}. Choose from glb, " in err


def test_captures_take_their_part_of_a_preset() -> None:
    command = parse("reconstruct", ["folder", "-o", "out", "--preset", "draft"])
    assert type(command) is Reconstruct
    assert command.capture == Path("folder")
    draft = load_preset("draft", ReconstructSettings()).settings
    assert command.settings == draft != ReconstructSettings()


def test_the_last_of_two_presets_counts() -> None:
    words = ["a.png", "-o", "out", "--preset", "draft", "--preset", "standard"]
    command = parse("image2mesh", words)
    assert command.preset == "standard"
    assert command.settings == Image2MeshSettings()


@pytest.mark.parametrize("name", ["draft", "standard", "high"])
def test_presets_by_name_and_by_file(name: str, tmp_path: Path) -> None:
    assert preset_path(name) == shipped("configs") / f"{name}.yaml"
    assert preset_path(str(tmp_path / "my.yml")) == tmp_path / "my.yml"


@pytest.mark.parametrize(
    ("word", "expected"), [("none", "none"), ("None", "none"), ("AUTO", "auto"), ("30", 30.0), ("-10", 170.0)]
)
def test_symmetry_is_a_word_or_degrees(word: str, expected: str | float) -> None:
    command = parse("image2mesh", ["photo.png", "--symmetry", word])
    assert command.chosen.views.symmetry == expected  # type: ignore[attr-defined]


def test_symmetry_that_is_neither_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("image2mesh", "photo.png", "--symmetry", "foo") == 2
    assert "Give auto, none, or degrees" in capsys.readouterr().err


# --- commands that do their work --------------------------------------------------------------------------------------


def test_reconstruct_with_a_preset_and_a_flag(
    capture: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["reconstruct", capture, "-o", out, "--preset", tiny, "--mesh.texture", "32"]
    assert code_of(*words) == 0
    said, told = capsys.readouterr()
    manifest = json.loads((out / "manifest.json").read_text())
    verdict = manifest["asset"]["verdict"]
    about = f"{verdict['word']} {verdict['score']:.2f}; report: {out / 'report.html'}"
    assert said == f"{out / 'toy.glb'}  ({about})\n"
    assert [line.split()[0] for line in told.splitlines() if line.endswith("...")] == ["views", "surface", "asset"]
    assert (manifest["settings"]["mesh"]["texture"], manifest["settings"]["fit"]["image_side"]) == (32, 32)
    assert code_of(*words) == 0
    lines = capsys.readouterr().err.splitlines()
    views, surface, asset = [line for line in lines if line.split()[0] in ("views", "surface", "asset")]
    assert [line.split()[1] for line in (views, surface, asset)] == ["kept"] * 3
    assert any(re.match(r"  note: toy\.glb: \d+ triangles, ", line) for line in lines)


def test_quiet_prints_the_result_and_nothing_else(
    capture: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert code_of("reconstruct", capture, "-o", out, "--preset", tiny, "--quiet") == 0
    said, err = capsys.readouterr()
    assert err == ""
    assert said.startswith(f"{out / 'toy.glb'}  (")
    assert said.count("\n") == 1
    assert code_of("check", capture, "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert code_of("reconstruct", capture / "none", "-o", out, "--quiet") == 2  # errors are always told
    assert capsys.readouterr().err == f"viewloom: {capture / 'none'}: there is no such file or folder.\n"


def test_json_prints_a_line_for_each_item(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = ItemResult("a", tmp_path / "a", asset=tmp_path / "a" / "a.glb", warnings=("Line\nbreak.",))
    bad = ItemResult("b", tmp_path / "b", error=InputError("no object", fix="Give a mask."))
    for results, code in (([good], 0), ([bad], 2), ([good, bad, good], 2)):
        monkeypatch.setattr(JOB, job_of(results))
        assert code_of("image2mesh", "a.png", "--json") == code
        out, err = capsys.readouterr()
        assert [json.loads(line) for line in out.splitlines()] == [result.as_dict() for result in results]
        assert ("no object" in err) == (bad in results)


def test_an_interrupted_run_has_told_what_it_finished(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    good = ItemResult("a", tmp_path / "a", asset=tmp_path / "a" / "a.glb")

    def results() -> Iterator[ItemResult]:
        yield good
        raise KeyboardInterrupt

    for flags, wanted in (((), f"{good.asset}  (report: None)\n"), (("--json",), json.dumps(good.as_dict()) + "\n")):
        monkeypatch.setattr(JOB, job_of(results()))
        assert code_of("image2mesh", "a.png", "b.png", *flags) == 130
        assert capsys.readouterr().out == wanted


def test_verbose_shows_log_records_of_the_project_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def job(*_: object, **__: object) -> list[ItemResult]:
        logging.getLogger("viewloom").debug("[brackets] and 3 levels")
        logging.getLogger("another").error("of others")
        return [ItemResult("a", tmp_path, views=tmp_path)]

    monkeypatch.setattr(JOB, job)
    assert code_of("image2mesh", "a.png", "--verbose") == 0
    assert "[brackets] and 3 levels" in capsys.readouterr().err
    assert code_of("image2mesh", "a.png") == 0
    assert "levels" not in capsys.readouterr().err
    assert logging.getLogger("viewloom").handlers == []


def test_a_stage_that_was_interrupted_is_not_told_as_done(
    capture: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pipeline.jobs.stages.surface.SurfaceStage.run", interrupted)
    assert code_of("reconstruct", capture, "-o", tmp_path / "out", "--preset", tiny) == 130
    told = [re.sub(r"\d+\.\d", "TIME", line) for line in capsys.readouterr().err.splitlines()]
    assert re.fullmatch(r"  surface    stopped after +TIME s", told[-2])
    assert [line for line in told if re.match("  (views|surface) .* s$", line)] == [
        line for line in told if line.startswith("  views  ") or "stopped after" in line
    ]
    assert told[-1] == "viewloom: stopped; the same command continues where this one was"


def test_what_was_parsed_reaches_the_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = []

    def remember(name: str) -> Callable[..., list[ItemResult]]:
        return lambda photos, out, settings, *, mask, reporter, done, busy, overwrite: (
            calls.append((name, photos, out, settings.device, mask)) or [ItemResult("a", tmp_path)]
        )

    monkeypatch.setattr(JOB, remember("image2mesh"))
    monkeypatch.setattr("pipeline.jobs.image2mesh.make_views", remember("views"))
    for name in ("image2mesh", "views"):
        assert code_of(name, "a.png", "-o", "out", "--mask", "m.png", "--device", "cpu") == 0
    expected = ((Path("a.png"),), Path("out"), "cpu", Path("m.png"))
    assert calls == [("image2mesh", *expected), ("views", *expected)]


def test_check_prints_numbers_of_every_view_and_what_is_wrong(
    capture: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of("check", capture) == 0
    out = capsys.readouterr().out
    assert all(re.search(rf"^  v{k} .*%.* 0\.\d\d", out, re.MULTILINE) for k in range(6))
    assert "consistency of the masks: 0." in out
    content = json.loads((capture / "transforms.json").read_text())
    content["frames"] = content["frames"][:1]
    (capture / "transforms.json").write_text(json.dumps(content))
    assert code_of("check", capture) == 2
    assert "--  Fewer than two views are left" in capsys.readouterr().out
    assert code_of("check", capture / "none") == 2
    assert "there is no such file or folder" in capsys.readouterr().err


def test_check_gives_programs_all_it_found(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line of strict JSON on the standard output, for captures that can be used and for others."""

    def said(code: int) -> dict[str, Any]:
        assert code_of("check", capture, "--json") == code
        line, end = capsys.readouterr().out.split("\n", 1)
        assert end == ""

        def refuse(name: str) -> None:
            raise AssertionError(f"{name} is no JSON")

        return json.loads(line, parse_constant=refuse)

    good = said(0)
    assert (good["capture"], good["usable"], good["issues"]) == (str(capture), True, [])
    assert [view["name"] for view in good["views"]] == [f"v{k}" for k in range(6)]
    assert all(0 < view["mask_fraction"] < 1 and 0 < view["silhouette_iou"] <= 1 for view in good["views"])
    assert 0 < good["consistency"] <= 1
    assert 0 < good["coverage"]["gap_deg"] < 360
    content = json.loads((capture / "transforms.json").read_text())
    content["frames"] = content["frames"][:1]
    (capture / "transforms.json").write_text(json.dumps(content))
    bad = said(2)
    assert not bad["usable"]
    assert [(issue["kind"], issue["fatal"]) for issue in bad["issues"] if issue["fatal"]] == [("few", True)]


def test_check_says_what_is_wrong_before_the_numbers(capture: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kinds() -> list[str]:
        return [line.split()[0] for line in capsys.readouterr().out.splitlines()]

    for part in ("images", "masks"):
        path = capture / part / "v2.png"
        Image.fromarray(np.array(Image.open(path))[::-1, ::-1]).save(path)
    assert code_of("check", capture) == 0
    first = kinds()
    table = first.index("view")
    assert table > 0
    assert set(first[:table]) == {"--"}
    assert "--" not in first[table:]
    assert first[table + 1 : table + 7] == [f"v{k}" for k in range(6)]


def test_check_finds_the_masks_that_reconstruct_would(
    capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Opaque pictures before a black background."""
    black = np.array([0, 0, 0, 255], np.uint8)
    pictures = [np.where(view.rgba()[..., 3:] > 0, view.rgba(), black) | black for view in ViewSet.load(capture)]
    opaque = [View(v.name, v.camera, picture) for v, picture in zip(ViewSet.load(capture), pictures, strict=True)]
    ViewSet(tuple(opaque), has_masks=False).save(tmp_path / "opaque")
    assert code_of("check", tmp_path / "opaque") == 0
    assert "consistency of the masks: 0." in capsys.readouterr().out
    assert code_of("check", tmp_path / "opaque", "--masks", "none") == 0
    assert "consistency" not in capsys.readouterr().out


def test_doctor_prints_a_line_for_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("doctor") == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(re.match(r"  (ok |-- ) \S", line) for line in lines)
    assert re.match(r"  ok  python           3\.", lines[0])
    assert any(" torch " in line for line in lines)
