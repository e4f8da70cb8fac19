"""What the evaluation scripts do from their arguments to what they print and write."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import trimesh

from scripts import evaluate_meshes


def test_meshes_are_scored_once_and_runs_go_on(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trimesh.creation.box((1, 0.6, 0.8)).export(tmp_path / "box.glb")
    arguments = evaluate_meshes.Arguments(
        meshes=(tmp_path,), weights=tiny_checkpoint, only=("sphere", "extruded outline"), out=tmp_path / "scores.json"
    )
    evaluate_meshes.main(replace(arguments, only=("sphere",)))
    held = json.loads((tmp_path / "scores.json").read_text())
    held["box"]["sphere"]["chamfer"] = 0.5
    (tmp_path / "scores.json").write_text(json.dumps(held))
    evaluate_meshes.main(arguments)
    held = json.loads((tmp_path / "scores.json").read_text())
    assert held["box"]["sphere"]["chamfer"] == 0.5
    assert 0.01 < held["box"]["extruded outline"]["chamfer"] < 0.2
    assert "| sphere | 0.5000 (0.5000 to 0.5000) |" in capsys.readouterr().out
