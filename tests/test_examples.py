"""Every example runs from the top of the checkout, and is short enough to be read at a glance."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_how_to_run_it(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    assert re.match(rf'""".+\n\n(.*\n)*?    python examples/{path.name}', text)


def test_examples_are_numbered_without_gaps() -> None:
    assert [int(path.name.partition("_")[0]) for path in EXAMPLES] == list(range(1, len(EXAMPLES) + 1))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, tmp_path: Path) -> None:
    if "from transformers" in path.read_text(encoding="utf-8"):
        pytest.importorskip("transformers")
    # Inputs are named from the top of the checkout; what is written goes elsewhere.
    for name in ("docs", "weights"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(path), "--quick"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    named = re.findall(
        r"(?:mesh|report|capture|picture): +(\S+)|^(\S+\.(?:glb|obj|ply|stl|usdz)):", done.stdout, re.MULTILINE
    )
    for written in (first or second for first, second in named):
        assert (tmp_path / written).exists(), written
    assert named or "views of" in done.stdout
