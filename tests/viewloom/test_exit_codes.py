"""What the command line says when something is wrong, and the code it ends with."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import viewloom
from pipeline.jobs.item_result import ItemResult
from scene.errors import InputError, OutputError, SettingsError, ViewloomError
from tests.viewloom.conftest import code_of, job_of
from viewloom.cli import main

pytestmark = pytest.mark.usefixtures("as_in_production")
JOB = "pipeline.jobs.image2mesh.image2mesh"


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
    monkeypatch.setattr(JOB, job_of([ItemResult("a", tmp_path, error=error)]))
    assert code_of("image2mesh", "a.png", "-o", "out") == code
    assert capsys.readouterr().err.splitlines()[-1] == "viewloom: it broke."
    done = ItemResult("a", tmp_path, views=tmp_path / "views", report=tmp_path / "report.html")
    monkeypatch.setattr(JOB, job_of([done, ItemResult("b", tmp_path, error=error)]))
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
    def results() -> list[ItemResult]:
        out = []
        for name in ("a", "b"):
            try:
                raise ViewloomError("it broke") from ZeroDivisionError(f"of {name}")
            except ViewloomError as error:
                out.append(ItemResult(name, tmp_path, error=error))
        return out

    monkeypatch.setattr(JOB, job_of(results()))
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
