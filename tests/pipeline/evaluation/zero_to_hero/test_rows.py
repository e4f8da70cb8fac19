"""The rows of the ablation: which there are, what they share, when scores are taken again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.evaluation.zero_to_hero.rows import OWN_COLOURS, AblationSettings, rows_of, shuffled_meshes, with_joint
from scene.errors import InputError

SETTINGS = AblationSettings(meshes=(Path("meshes"),))


def test_rows_that_need_tuning_are_not_there_before() -> None:
    rows = rows_of(SETTINGS, {})
    assert not {"best-guidance", "all-guided", "all-tuned"} & rows.keys()
    tuned = rows_of(SETTINGS, {"guidance": 4.0, "zero-to-hero": {"msa_range": [800, 1000]}})
    assert tuned["best-guidance"].settings == replace(rows["uniform-66"].settings, guidance=4.0)
    assert tuned["all-guided"].settings == replace(rows["all"].settings, guidance=4.0)
    assert tuned["all-tuned"].settings.zero_to_hero.msa_range == (800, 1000)


def test_rows_of_the_paper_count_as_many_passes() -> None:
    rows = rows_of(SETTINGS, {})
    assert [rows[name].settings.steps for name in ("uniform-25", "uniform-50", "uniform-66")] == [25, 50, 66]
    assert {rows[name].settings.filtering for name in ("hourglass", "resample", "amf", "msa", "all")} == {
        "zero-to-hero"
    }
    assert all(row.settings.coarse_colours != (name in OWN_COLOURS) for name, row in rows.items())
    assert with_joint(rows["all"], "off").settings == replace(rows["all"].settings, joint=False)


def test_every_row_has_a_digest_of_its_own() -> None:
    rows = rows_of(SETTINGS, {"guidance": 3.0})
    assert len({row.digest for row in rows.values()}) == len(rows)
    assert rows["all"].digest == rows_of(SETTINGS, {})["all"].digest


def test_objects_keep_their_place_in_the_sorted_list(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / f"{name}.glb").touch()
    every = shuffled_meshes(AblationSettings(meshes=(tmp_path,), count=2), every=True)
    assert [path.stem for _, path in sorted(every)] == list("abcdef")
    assert [index for index, _ in every] != sorted(index for index, _ in every)
    assert shuffled_meshes(AblationSettings(meshes=(tmp_path,), count=2)) == every[:2]
    with pytest.raises(InputError, match="no GLB files"):
        shuffled_meshes(AblationSettings(meshes=(tmp_path / "none",)))
