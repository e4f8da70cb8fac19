"""The ablation on a tiny model: rows are scored once, changed ones again; tuning, reports and timing run through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import trimesh

from pipeline.diffusion.settings import SamplingSettings, ZeroToHeroSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.results import ResultFile
from pipeline.evaluation.zero_to_hero.report import meshes_table, most_changed, rows_table
from pipeline.evaluation.zero_to_hero.rows import AblationSettings
from pipeline.evaluation.zero_to_hero.runs import Ablation, score_rows, tune
from pipeline.evaluation.zero_to_hero.timing import time_variants
from scene.errors import InputError


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ViewDiffusion:
    return ViewDiffusion.from_pretrained(tiny_checkpoint).to(torch.device("cpu"))


@pytest.fixture
def ablation(model: ViewDiffusion, tmp_path: Path) -> Ablation:
    trimesh.creation.box((1, 0.6, 0.8)).export(tmp_path / "box.glb")
    settings = AblationSettings(
        meshes=(tmp_path,), pairs=3, quick=True, sampling=SamplingSettings(strength=1.0, steps=2), base="uniform-25"
    )
    return Ablation(model, settings, ResultFile(tmp_path / "z2h.json", {"quick": True}), [].append)


def test_rows_are_scored_once_and_compared_with_the_base(ablation: Ablation, tmp_path: Path) -> None:
    score_rows(ablation, ["uniform-25", "all"])
    scores = ablation.results["scores"]
    assert set(scores) == {f"{name}/joint-on/3/seed-0/box" for name in ("uniform-25", "all")}
    assert all(len(value["pairs"]) == 3 for value in scores.values())
    assert [value["nfe"] for value in scores.values()] == [3, 4]
    seconds = {key: value["seconds"] for key, value in scores.items()}
    score_rows(ablation, ["uniform-25", "all"])
    assert {key: value["seconds"] for key, value in scores.items()} == seconds
    changed = replace(ablation.settings, sampling=SamplingSettings(strength=1.0, steps=2, guidance=2.0))
    score_rows(replace(ablation, settings=changed), ["uniform-25"])
    assert scores["uniform-25/joint-on/3/seed-0/box"]["seconds"] != seconds["uniform-25/joint-on/3/seed-0/box"]
    assert scores["all/joint-on/3/seed-0/box"]["seconds"] == seconds["all/joint-on/3/seed-0/box"]
    lines = rows_table(ablation.results, "uniform-25").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| uniform-25, joint-on, 3 pairs",
        "| all, joint-on, 3 pairs",
    ]
    assert "+0.00 (+0.00 to +0.00)" in lines[2]
    assert meshes_table(ablation.results) == ""
    most_changed(ablation, tmp_path / "sheet.jpg", 2)
    assert (tmp_path / "sheet.jpg").stat().st_size > 0


def test_unknown_rows_and_missing_scores_are_refused(ablation: Ablation, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no row best-guidance.*after --parts tune"):
        score_rows(ablation, ["best-guidance"])
    with pytest.raises(InputError, match=r"no scores of uniform-25 and all yet"):
        most_changed(ablation, tmp_path / "sheet.jpg", 2)


def test_tuning_finds_values_for_rows(ablation: Ablation, pool_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.zero_to_hero.runs.GUIDANCES", (1.0, 2.0))
    tune(ablation, pool_folder, 1, ["pool"])
    tuned = ablation.results["tuned"]
    assert tuned["guidance"] in (1.0, 2.0)
    assert tuned["zero-to-hero"] in ({}, {"pool": "mean"})
    assert len(ablation.results["tuning"]) == 4
    assert {"best-guidance", "all-guided", "all-tuned"} <= ablation.rows().keys()


def test_passes_of_variants_are_timed(model: ViewDiffusion) -> None:
    timed = time_variants(model, 2, 1, {"all": ZeroToHeroSettings(), "msa": ZeroToHeroSettings(amf=False)})
    assert timed["plain"]["ratio"] == 1
    assert timed["all"]["maps_gb"] > 0
    assert "maps_gb" not in timed["msa"]
    assert all(value["seconds_per_pass"] > 0 for value in timed.values())
