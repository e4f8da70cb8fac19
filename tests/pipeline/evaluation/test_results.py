"""Result files: continued under the same settings only, and written after every score."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.evaluation.results import ResultFile, ScoreFile
from scene.errors import InputError


def test_results_of_other_settings_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    ResultFile(path, {"weights": "a", "quick": False}).put("scores", "row", {"iou": 1.0})
    assert ResultFile(path, {"weights": "a", "quick": False})["scores"] == {"row": {"iou": 1.0}}
    with pytest.raises(InputError, match=r"other settings \(weights\)"):
        ResultFile(path, {"weights": "b", "quick": False})
    assert json.loads(path.read_text(encoding="utf-8"))["facts"]["weights"] == "a"


def test_scores_are_continued_from_their_file(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "scores.json"
    first = ScoreFile(path)
    first.scores["cup"] = {"iou": 0.5}
    first.save()
    assert ScoreFile(path).scores == {"cup": {"iou": 0.5}}


def test_scores_without_a_file_stay_in_memory() -> None:
    file = ScoreFile(None)
    file.scores["cup"] = {"iou": 0.5}
    file.save()
    assert ScoreFile(None).scores == {}
