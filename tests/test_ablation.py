"""The ablation's bookkeeping: which rows there are, what is compared with what, when scores are taken again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scene.errors import InputError
from scripts.ablate_zero_to_hero import OWN_COLOURS, Arguments, Results, gains, rows_of, with_joint

ARGUMENTS = Arguments((Path("meshes"),), Path("out.json"))


def test_gains_are_those_of_the_same_object_and_seed() -> None:
    ours = {"cup": {"seed-0": {"iou": 0.5}}, "duck": {"seed-0": {"iou": 0.9}, "seed-1": {"iou": 0.7}}, "new": {}}
    base = {"cup": {"seed-0": {"iou": 0.4}, "seed-1": {"iou": 0.0}}, "duck": {"seed-1": {"iou": 0.4}}}
    assert np.allclose(gains(ours, base, "iou"), [0.1, 0.3])
    assert len(gains(ours, {}, "iou")) == 0


def test_rows_that_need_tuning_are_not_there_before() -> None:
    rows = rows_of(ARGUMENTS, {})
    assert not {"best-guidance", "all-guided", "all-tuned"} & rows.keys()
    tuned = rows_of(ARGUMENTS, {"guidance": 4.0, "zero-to-hero": {"msa_range": [800, 1000]}})
    assert tuned["best-guidance"].settings == replace(rows["uniform-66"].settings, guidance=4.0)
    assert tuned["all-guided"].settings == replace(rows["all"].settings, guidance=4.0)
    assert tuned["all-tuned"].settings.zero_to_hero.msa_range == (800, 1000)


def test_rows_of_the_paper_count_as_many_passes() -> None:
    rows = rows_of(ARGUMENTS, {})
    assert [rows[name].settings.steps for name in ("uniform-25", "uniform-50", "uniform-66")] == [25, 50, 66]
    assert {rows[name].settings.filtering for name in ("hourglass", "resample", "amf", "msa", "all")} == {
        "zero-to-hero"
    }
    assert all(row.settings.coarse_colours != (name in OWN_COLOURS) for name, row in rows.items())
    assert with_joint(rows["all"], "off").settings == replace(rows["all"].settings, joint=False)


def test_every_row_has_a_digest_of_its_own() -> None:
    rows = rows_of(ARGUMENTS, {"guidance": 3.0})
    assert len({row.digest for row in rows.values()}) == len(rows)
    assert rows["all"].digest == rows_of(ARGUMENTS, {})["all"].digest


def test_results_of_other_settings_are_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    Results(path, {"weights": "a", "quick": False}).put("scores", "row", {"iou": 1.0})
    assert Results(path, {"weights": "a", "quick": False})["scores"] == {"row": {"iou": 1.0}}
    with pytest.raises(InputError, match=r"other settings \(weights\)"):
        Results(path, {"weights": "b", "quick": False})
    assert json.loads(path.read_text(encoding="utf-8"))["facts"]["weights"] == "a"
