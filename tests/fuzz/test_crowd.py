"""A few rounds of several processes on one folder; ``python -m tests.fuzz.crowd`` is the long run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.crowd import bytes_of, differences

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_jobs_that_are_killed_on_one_folder_leave_one_result() -> None:
    """In a process of its own: children are forked from one that has not used what it has imported."""
    command = [sys.executable, "-m", "tests.fuzz.crowd", "--jobs", "2", "--rounds", "2", "--only", "capture"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 faults" in done.stdout
    assert "killed" in done.stdout


def test_what_differs_is_named(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a").write_text("1")
    (tmp_path / ".b.part").write_text("2")
    (tmp_path / "report.html").write_text("times")
    found = bytes_of(tmp_path)
    assert found == {"deep/a": b"1", ".b.part": b"2"}
    assert differences(found, found) == []
    assert differences(found, {"deep/a": b"x", "c": b""}) == ["c is missing", ".b.part was left", "deep/a differs"]
