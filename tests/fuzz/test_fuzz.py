"""A short run over spoiled inputs of every kind; ``python -m tests.fuzz.fuzz`` is the long one."""

from __future__ import annotations

import os
from pathlib import Path

import jaxtyping
import pytest

from tests.fuzz.fuzz import Outcome, tried
from tests.fuzz.subjects import Subject, subjects

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
COUNTS = {"own": 30, "stages": 40, "checkpoint": 20, "mesh": 40, "control_mesh": 60, "preset": 40, "openmvg": 40}
USUAL = 13
NEVER_REFUSED = ("stages", "projections", "realitycapture_xmp")
"""Stages are made again, and of cameras in files of their own a spoiled one is left out and told."""


@pytest.mark.parametrize("subject", subjects(), ids=lambda subject: subject.name)
def test_spoiled_inputs_are_read_or_refused_in_a_sentence(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in production
    subject.write(tmp_path)
    subject.read(tmp_path)
    outcomes = [tried(subject, tmp_path, seed) for seed in range(COUNTS.get(subject.name, USUAL))]
    assert [outcome for outcome in outcomes if not outcome.good] == []
    if subject.name not in NEVER_REFUSED:
        assert any(outcome.kind == "refused" for outcome in outcomes)


def test_a_reader_that_stumbles_is_found(tmp_path: Path) -> None:
    def stumble(folder: Path) -> None:
        raise KeyError(folder.name)

    (tmp_path / "a.txt").write_text("a b\n")
    outcome = tried(Subject("toy", lambda folder: None, stumble), tmp_path, 0)
    assert (outcome.kind, outcome.good) == ("traceback", False)
    assert not Outcome("hang", "").good
