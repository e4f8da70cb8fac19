"""What help shows, and how soon."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

import viewloom
from tests.viewloom.conftest import code_of
from viewloom.cli import main
from viewloom.commands import COMMANDS, command_class

pytestmark = pytest.mark.usefixtures("as_in_production")


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
    "fuse": [
        "PHOTO",
        "-o",
        "--out",
        "--weights",
        "--mesh",
        "--azimuths",
        "--seeds",
        "--elevation",
        "--format",
        "--json",
    ],
    "reconstruct": ["PATH", "-o", "--out", "--preset", "--masks", "--bounds", "--device", "--format", "--json"],
    "skeleton": ["PATH", "--joints", "--model", "-o", "--out", "--overwrite"],
    "edit": [
        *("PATH", "--skeleton", "--boxes", "--depth", "--rest", "-o", "--out", "--preset", "--method"),
        *("--fit-bones", "--view-side", "--device", "--format", "--json"),
    ],
    "pose": ["PHOTO", "-o", "--out", "--max-side", "--effort", "--seed"],
    "check": ["PATH", "--masks"],
    "export": ["PATH", "-o", "--out", ".usdz", "--profile", "standard", "--format"],
    "rig": ["PATH", "--skeleton", "-o", "--out", "--poses", "--fit-bones", "--frame", "--allow-open"],
    "doctor": [],
}
"""What the help of a command shows first."""
REST = {
    "image2mesh": ["--views.sampling.steps", "--views.weights", "--prepare.fill", "--fit.sdf-lr", "--mesh.texture"],
    "views": ["--views.sampling.steps", "--views.weights", "--prepare.fill"],
    "fuse": ["--fusion.sampling.steps", "--fit.image-side", "--prepare.fill"],
    "reconstruct": ["--fit.image-side", "--capture.masks", "--glb.longest-side", "--mesh.profile"],
    "edit": [
        "--fit.image-side",
        "--capture.masks",
        "--deform.softness",
        "--mesh.profile",
        "--editor.weights",
        "--consolidate.seed",
    ],
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
        (["fuse", "a.png", "b.png", "-o", "out", "--weights", "w"], "fuse"),
        (["reconstruct", "a", "-o", "out", "--preset=draft"], "reconstruct"),
        (["skeleton", "a", "--joints", "b"], "skeleton"),
        (["edit", "a", "--boxes", "b.json"], "edit"),
        (["pose", "a", "-o", "out"], "pose"),
        (["check", "a"], "check"),
        (["export", "a.glb", "-o", "a.obj"], "export"),
        (["rig", "a.glb", "--skeleton", "s.json"], "rig"),
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
    for command, flag in (("image2mesh", "--views.sampling.steps"), ("edit", "--consolidate.field.levels")):
        done = without_heavy_packages([command, "--preset", "draft", "--help-all"], tmp_path)
        assert done.returncode == 0, done.stderr
        assert flag in done.stdout


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
