"""The command line: what it understands, what it says when it does not, and how fast it answers."""

from __future__ import annotations

import importlib.metadata
import json
import logging
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import yaml
from PIL import Image

import viewloom
from pipeline.jobs.item_result import ItemResult
from pipeline.jobs.presets import load_preset, preset_path
from pipeline.jobs.settings import Image2MeshSettings, ReconstructSettings
from pipeline.training.procedural import random_object
from scene.camera import orbit_camera
from scene.errors import InputError, OutputError, SettingsError, ViewloomError
from scene.render import MeshRenderer
from scene.resources import shipped
from scene.view import View
from scene.viewset import ViewSet
from viewloom.cli import main
from viewloom.commands import COMMANDS, command_class
from viewloom.commands.image2mesh import Image2Mesh
from viewloom.commands.output import ShownItems
from viewloom.commands.parsing import parse
from viewloom.commands.reconstruct import Reconstruct
from viewloom.commands.views import Views

TINY = {
    "fit": {"levels": [8, 16], "iterations": [2, 2], "rays": 256, "image_side": 32, "hull_resolution": 16},
    "mesh": {"max_faces": 400, "texture": 64, "smoothing": 2, "turntable": [48, 4]},
    "views": {"sampling": {"steps": 2}},
}
JOB = "pipeline.jobs.image2mesh.image2mesh"


@pytest.fixture(autouse=True)
def _unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: tyro's mark of a missing value stands where the annotations promise a path."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def weights(tiny_checkpoint: Path) -> Path:
    """A checkpoint folder, whose files are looked at before the photos."""
    return tiny_checkpoint


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A preset for quick jobs."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    return tmp_path / "tiny.yaml"


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    """A small capture."""
    renderer = MeshRenderer(random_object(3, "creature"))
    views = []
    for k in range(6):
        camera = orbit_camera(math.pi * k / 3, 0.3, 1.5, size=32)
        views.append(View(f"v{k}", camera, np.round(renderer.render(camera).rgba * 255).astype(np.uint8)))
    ViewSet(tuple(views), True).save(tmp_path / "toy")
    return tmp_path / "toy"


def code_of(*arguments: str | Path) -> int:
    """Exit code of a command line, whether it is returned or raised."""
    try:
        return main([str(a) for a in arguments])
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else -1


# --- help -------------------------------------------------------------------------------------------------------------


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("--help") == code_of("-h") == 0
    out, err = capsys.readouterr()
    assert all(re.search(rf"^  viewloom {name} +[A-Z].*\.$", out, re.MULTILINE) for name in COMMANDS)
    assert err == ""


def test_no_command_shows_the_help_and_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of() == 2
    assert "viewloom COMMAND --help" in capsys.readouterr().out


def test_help_of_a_command_is_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("image2mesh", "doctor"):
        assert code_of(name, "--help") == 0
        expected = capsys.readouterr()
        assert code_of("help", name) == 0
        assert capsys.readouterr() == expected
    assert code_of("help") == 0
    assert capsys.readouterr().out.startswith(f"viewloom {viewloom.__version__}\n\n  viewloom image2mesh")
    assert code_of("help", "image2mehs") == 2
    assert "did you mean image2mesh?" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["viewloom", "--version"])
    assert main() == 0
    assert code_of("-V") == 0
    assert capsys.readouterr().out == f"viewloom {viewloom.__version__}\n" * 2


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_of_a_command_is_the_first_line_of_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    summary = (command_class(name).__doc__ or "").splitlines()[0]
    assert COMMANDS[name].summary == summary
    assert len(f"  viewloom {name:<12} {summary}") <= 100
    assert code_of(name, "--help") == 0
    assert f"\n{summary}\n" in capsys.readouterr().out


FIRST = {
    "image2mesh": [
        *("PHOTO", "-o", "--out", "--mask", "--preset", "--elevation", "--seed", "--filtering", "--device"),
        *("--format", "--json", "viewloom-out"),
    ],
    "views": ["PHOTO", "-o", "--out", "--mask", "--elevation", "--device", "--memory"],
    "reconstruct": ["PATH", "-o", "--out", "--preset", "--masks", "--bounds", "--device", "--format", "--json"],
    "pose": ["PHOTO", "-o", "--out", "--max-side", "--effort", "--seed"],
    "check": ["PATH", "--masks"],
    "export": ["PATH", "-o", "--out", ".usdz", "--profile", "standard", "--format"],
    "doctor": [],
}
"""What the help of a command shows first."""
REST = {
    "image2mesh": ["--views.sampling.steps", "--views.weights", "--prepare.fill", "--fit.sdf-lr", "--mesh.texture"],
    "views": ["--views.sampling.steps", "--views.weights", "--prepare.fill"],
    "reconstruct": ["--fit.image-side", "--capture.masks", "--glb.longest-side", "--mesh.profile"],
}
"""What only the whole help shows."""


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_matters_first_and_help_all_the_rest(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    rest = REST.get(name, [])
    assert code_of(name, "--help") == 0
    short = capsys.readouterr().out
    assert code_of(name, "-h") == 0
    assert capsys.readouterr().out == short
    assert [word for word in [*FIRST[name], "--debug", "--quiet", "--verbose"] if word not in short] == []
    assert not re.search(r"--\w+\.", re.sub(r"\(--[\w.-]+\)", "", short))  # but for where a short flag is said to lead
    assert ("--help-all" in short) == bool(rest)
    assert code_of(name, "--help-all") == 0
    whole = capsys.readouterr().out
    assert [word for word in [*FIRST[name], *rest] if word not in whole] == []
    for text in (short, whole):
        assert max(len(line) for line in text.splitlines()) <= 100
    if rest:
        assert len(short.splitlines()) < 45  # a screen


def test_help_shows_the_values_of_a_preset(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for preset, value in (("draft", 192), ("standard", 256)):
        assert code_of("reconstruct", "--preset", preset, "--help") == 0
        assert code_of("reconstruct", "--preset", preset, "--help-all") == 0
        words = " ".join(capsys.readouterr().out.split())
        assert re.search(rf"--fit\.image-side INT Longest side [^-]*\(default: {value}\)", words)


def test_the_installed_command_is_this_one() -> None:
    (entry,) = importlib.metadata.entry_points(group="console_scripts", name="viewloom")
    assert entry.load() is main


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
    assert (sampling.filtering, sampling.start) == (filtering, start)
    assert sampling.zero_to_hero.passes == (3 if "3" in words else 5)


@pytest.mark.parametrize("preset", [["--preset", "draft"], ["--preset=draft"]])
def test_flags_change_what_the_preset_says(preset: list[str]) -> None:
    for words in ([*preset, "--mesh.texture", "32"], ["--mesh.texture", "32", *preset]):
        settings = parse("image2mesh", ["a.png", "-o", "out", *words]).settings
        limits = settings.mesh.limits
        assert (limits.texture, limits.max_faces, settings.views.sampling.steps) == (32, 6000, 8)
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


# --- exit codes -------------------------------------------------------------------------------------------------------


def test_unknown_commands_are_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("image2mehs", "a.png") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "unknown command 'image2mehs'; did you mean image2mesh?" in err
    assert code_of("zzz") == 2
    assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "image2mesh",
        "image2mesh -o out",
        "image2mesh a.png -o out --fit.image-side many",
        "image2mesh a.png -o out --no-such-flag 1",
        "image2mesh a.png -o out --preset",
        "image2mesh a.png -o out --fit.levels 8",
        "image2mesh a.png -o out --pres draft",
        "reconstruct a b -o out",
        "reconstruct a -o out --views.sampling.steps 3",
        "doctor please",
        "export a.glb",
        "export a.glb -o b.obj --profile tiny",
    ],
)
def test_wrong_command_lines_exit_with_2(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of(*words.split()) == 2
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    assert (out + err).strip()


@pytest.mark.parametrize("command", ["image2mesh", "views", "reconstruct"])
def test_unknown_presets_exit_with_2_and_name_the_known(
    command: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert code_of(command, "a", "-o", tmp_path / "out", "--preset", "quick") == 2
    err = capsys.readouterr().err
    assert err == "viewloom: there is no preset 'quick'. Known presets: draft, high, standard; or give a .yaml file.\n"
    assert code_of(command, "a", "-o", tmp_path / "out", "--preset", tmp_path / "none.yaml") == 2
    assert "none.yaml: there is no such preset" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("fit: {image_sied: 3}")
    assert code_of(command, "a", "-o", tmp_path / "out", "--preset", tmp_path / "bad.yaml") == 2
    assert "unknown key fit.image_sied. Did you mean image_side?" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_missing_photo_exits_with_2_and_one_message(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone.png"
    assert code_of("image2mesh", gone, "-o", tmp_path / "out", "--views.weights", weights) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[0] == f"viewloom {viewloom.__version__}: image2mesh"
    assert err.splitlines()[-1] == f"viewloom: {gone}: there is no such photo."
    assert err.count("no such photo") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere file names are text")
def test_a_photo_whose_name_is_no_text_fails_like_any_other(tmp_path: Path, weights: Path) -> None:
    command = [sys.executable, "-m", "viewloom", "image2mesh", b"cup\xff.png", "--views.weights", str(weights)]
    done = subprocess.run([*command, "-o", str(tmp_path / "out")], capture_output=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 2
    assert b"cup" in done.stderr
    assert b"Traceback" not in done.stderr


def test_missing_weights_exit_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert code_of("views", "a.png", "-o", tmp_path / "out", "--views.weights", tmp_path / "none") == 2
    assert "none: there is no such checkpoint folder" in capsys.readouterr().err
    monkeypatch.setattr("scene.resources._ROOT", tmp_path)
    assert code_of("views", "a.png", "-o", tmp_path / "out") == 2
    assert "the embedded weights are missing" in capsys.readouterr().err


def test_a_missing_capture_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("reconstruct", tmp_path / "none", "-o", tmp_path / "out") == 2
    assert "there is no such file or folder" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_exits_with_2(
    capture: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("a file")
    assert code_of("reconstruct", capture, "-o", tmp_path / "out", "--preset", tiny) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ViewloomError("it broke"), 1),
        (InputError("it broke"), 2),
        (SettingsError("it broke"), 2),
        (OutputError("it broke"), 2),
    ],
    ids=["ours", "input", "settings", "output"],
)
def test_our_faults_exit_with_1_and_others_with_2(
    error: ViewloomError, code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(JOB, lambda *_, **__: [ItemResult("a", tmp_path, error=error)])
    assert code_of("image2mesh", "a.png", "-o", "out") == code
    assert capsys.readouterr().err.splitlines()[-1] == "viewloom: it broke."
    done = ItemResult("a", tmp_path, views=tmp_path / "views", report=tmp_path / "report.html")
    monkeypatch.setattr(JOB, lambda *_, **__: [done, ItemResult("b", tmp_path, error=error)])
    assert code_of("image2mesh", "a.png", "b.png", "-o", "out") == code
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'views'}  (report: {tmp_path / 'report.html'})\n"
    assert err.splitlines()[-2:] == ["b: failed: it broke.", "1 of 2 failed"]


def test_debug_shows_where_it_happened(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a capture"):
        main(["reconstruct", str(tmp_path), "-o", str(tmp_path / "out"), "--debug"])


def test_debug_shows_where_every_photo_of_several_failed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def results(*_: object, **__: object) -> list[ItemResult]:
        out = []
        for name in ("a", "b"):
            try:
                raise ViewloomError("it broke") from ZeroDivisionError(f"of {name}")
            except ViewloomError as error:
                out.append(ItemResult(name, tmp_path, error=error))
        return out

    monkeypatch.setattr(JOB, results)
    assert code_of("image2mesh", "a.png", "b.png", "-o", "out") == 1
    assert "Traceback" not in capsys.readouterr().err
    assert code_of("image2mesh", "a.png", "b.png", "-o", "out", "--debug") == 1
    err = capsys.readouterr().err
    assert all(f"ZeroDivisionError: of {name}" in err for name in ("a", "b"))
    assert err.splitlines()[-1] == "2 of 2 failed"


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "viewloom: stopped; the same command continues where this one was"),
        (
            ZeroDivisionError("by nothing"),
            1,
            "viewloom: unexpected ZeroDivisionError (by nothing). Run it again with --debug for the traceback.",
        ),
    ],
    ids=["interrupt", "bug"],
)
def test_interrupts_and_bugs_are_told_in_a_line(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(JOB, fail)
    assert code_of("image2mesh", "a.png", "-o", "out") == code
    assert capsys.readouterr().err.splitlines()[-1] == message
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            code_of("image2mesh", "a.png", "-o", "out", "--debug")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--mesh.texture", "8"], "a texture of 8 pixels holds nothing"),
        (["--views.sampling.steps", "0"], "views cannot be sampled in 0 steps"),
        (["--views.rings.views", "4", "4"], "there are 2 rings with 3 elevations and 3 offsets"),
        (["--elevation", "nan"], "a camera cannot stand nan degrees above the horizon"),
        (["--views.photo-weight", "inf"], "photo_weight inf is no weight"),
    ],
    ids=["texture", "steps", "rings", "elevation", "weight"],
)
def test_values_out_of_range_exit_with_2_before_anything_runs(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert code_of("image2mesh", "a.png", "-o", tmp_path / "out", *flags) == 2
    assert message in capsys.readouterr().err


def test_a_device_that_is_not_there_is_told_before_any_work(
    capture: Path, tmp_path: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    jobs = (["image2mesh", "a.png"], ["views", "a.png"], ["reconstruct", capture])
    for words in jobs:
        more = [] if words[0] == "reconstruct" else ["--views.weights", weights]
        assert code_of(*words, "-o", out, "--device", "nonsense", *more) == 2
        said, err = capsys.readouterr()
        assert said == ""
        assert err.count("\n") == 2
        assert err.splitlines()[1].startswith("viewloom: device 'nonsense' cannot be used here")
    assert not out.exists()


def test_without_an_output_folder_results_go_to_one_of_their_own(
    capture: Path, tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []

    def remember(photos: object, out: Path, *_: object, **__: object) -> list[ItemResult]:
        heard.append(out)
        return [ItemResult("a", out, views=out)]

    monkeypatch.setattr(JOB, remember)
    monkeypatch.setattr("pipeline.jobs.image2mesh.make_views", remember)
    assert code_of("image2mesh", "a.png") == code_of("views", "a.png") == 0
    assert heard == [Path("viewloom-out")] * 2
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert code_of("reconstruct", "toy", "--preset", tiny) == 0
    out = Path("viewloom-out") / "toy"
    assert capsys.readouterr().out.startswith(f"{out / 'toy.glb'}  (")
    assert (tmp_path / out / "toy.glb").is_file()


@pytest.mark.parametrize("command", ["views", "reconstruct"])
def test_an_output_folder_that_cannot_be_made_exits_with_2(
    command: str,
    capture: Path,
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file lies where the default folder should."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "viewloom-out").write_text("a file")
    photo = next((capture / "images").iterdir())
    words = ["views", photo, "--views.weights", weights] if command == "views" else ["reconstruct", capture]
    assert code_of(*words) == 2
    said, err = capsys.readouterr()
    assert said == ""
    assert re.search(r"viewloom: .*viewloom-out.*: cannot be written \(.*\)\. .* choose another output folder\.", err)
    assert "Traceback" not in err
    assert (tmp_path / "viewloom-out").read_text() == "a file"


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
        monkeypatch.setattr(JOB, lambda *_, results=results, **__: results)
        assert code_of("image2mesh", "a.png", "--json") == code
        out, err = capsys.readouterr()
        assert [json.loads(line) for line in out.splitlines()] == [result.as_dict() for result in results]
        assert ("no object" in err) == (bad in results)


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
        return lambda photos, out, settings, *, mask, reporter: (
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


# --- speed ------------------------------------------------------------------------------------------------------------


def without_heavy_packages(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command line where what takes long to import is not installed."""
    code = f"""
import importlib.abc, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("torch", "diffusers", "transformers", "trimesh", "skimage", "scipy", "xatlas"):
            raise ModuleNotFoundError(f"{{name}} is hidden")
sys.meta_path.insert(0, Hidden())
from viewloom.cli import main
main({words})
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["image2mesh", "a.png", "-o", "out", "--preset", "draft"], "image2mesh"),
        (["views", "a.png", "-o", "out"], "views"),
        (["pose", "a", "-o", "out"], "pose"),
        (["check", "a"], "check"),
        (["reconstruct", "a", "-o", "out", "--preset=draft"], "reconstruct"),
        (["export", "a.glb", "-o", "a.obj"], "export"),
        (["doctor"], "doctor"),
    ],
    ids=COMMANDS,
)
def test_the_first_line_comes_before_anything_heavy_is_imported(words: list[str], line: str, tmp_path: Path) -> None:
    first, *rest = without_heavy_packages(words, tmp_path).stderr.splitlines()
    assert first == f"viewloom {viewloom.__version__}: {line}"
    if line != "pose":  # which refuses before it needs them
        assert re.match(r"viewloom: unexpected ModuleNotFoundError \(.* is hidden\)", rest[-1])


def test_help_comes_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    done = without_heavy_packages(["image2mesh", "--preset", "draft", "--help-all"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--views.sampling.steps" in done.stdout


def test_the_first_line_of_a_real_command_comes_first(tmp_path: Path, weights: Path) -> None:
    words = ["image2mesh", "gone.png", "-o", "out", "--views.weights", str(weights)]
    command = [sys.executable, "-X", "importtime", "-m", "viewloom", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = done.stderr.splitlines()
    banner = lines.index(f"viewloom {viewloom.__version__}: image2mesh")
    said = [line for line in lines if not line.startswith("import time:")]
    torch = [k for k, line in enumerate(lines) if re.search(r"\|\s+(torch|diffusers)\b", line)]
    assert torch
    assert banner < torch[0]
    assert done.returncode == 2
    assert said[0] == lines[banner]
    assert said[-1] == "viewloom: gone.png: there is no such photo."
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("word", "expected"), [("none", "none"), ("None", "none"), ("AUTO", "auto"), ("30", 30.0), ("-10", 170.0)]
)
def test_symmetry_is_a_word_or_degrees(word: str, expected: str | float) -> None:
    command = parse("image2mesh", ["photo.png", "--symmetry", word])
    assert command.chosen.views.symmetry == expected  # type: ignore[attr-defined]


def test_symmetry_that_is_neither_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert code_of("image2mesh", "photo.png", "--symmetry", "foo") == 2
    assert "Give auto, none, or degrees" in capsys.readouterr().err
