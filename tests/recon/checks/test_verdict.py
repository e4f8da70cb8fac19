"""Verdicts: sound assets are good, broken ones are not, worse measures never raise a score, and people agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.verdicts import features_of, fit_weights, leave_one_out, read_judged, scores_of, write_judged
from recon.checks.asset import AssetMeasures, measure_asset
from recon.checks.verdict import FEATURES, GOOD, POOR, judge
from recon.texture.evidence import EvidenceShares
from scene.camera import orbit_camera
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scene.viewset import ViewSet

JUDGED = Path(__file__).with_name("judged.csv")
SOUND = AssetMeasures(
    pieces=1,
    loose=0.0,
    handles=0,
    open_edges=0,
    hollow=0.0,
    thin=0.02,
    depth=0.9,
    contact=0.6,
    overhang=0.0,
    iou=0.985,
    psnr=32.0,
    drawn=0.94,
    convex=0.9,
    seen=0.4,
    invented=0.05,
    cutout=1.0,
)


def asset_of(mesh: trimesh.Trimesh, shoot: Callable[..., ViewSet], photo: ViewSet | None = None) -> AssetMeasures:
    """Measures of a mesh in the colour of its photo."""
    part = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
    views = shoot(part, [orbit_camera(0.4, 0.2, 1.5, size=96)]) if photo is None else photo
    paint = np.broadcast_to(np.array((200, 60, 20), np.uint8), part[0].shape).copy()
    coloured = ColouredMesh(part[0].astype(np.float32), part[1].astype(np.int32), paint)
    return measure_asset(*part, coloured, EvidenceShares(0.5, 0.0, 0.4, 0.1), views)


def test_a_cube_that_is_its_photo_is_good(shoot: Callable[..., ViewSet]) -> None:
    verdict = judge(asset_of(trimesh.creation.box((0.6, 0.6, 0.6)).subdivide(), shoot))
    assert (verdict.word, verdict.findings) == ("good", ())
    assert verdict.line.startswith("good (")


def test_a_hollow_floating_robot_in_two_pieces_is_not_good(shoot: Callable[..., ViewSet]) -> None:
    """A head above a body, both of them shells; its photo shows them joined by a neck."""
    parts = []
    for size, height in (((0.4, 0.5, 0.4), -0.2), ((0.3, 0.3, 0.3), 0.35)):
        outer, inner = trimesh.creation.box(size), trimesh.creation.box(np.array(size) - 0.06)
        inner.invert()
        parts += [outer, inner]
        for shell in (outer, inner):
            shell.apply_translation((0, 0, height))
    robot = trimesh.util.concatenate(parts).subdivide()
    neck = trimesh.creation.box((0.1, 0.1, 0.3))
    neck.apply_translation((0, 0, 0.1))
    whole = robot + neck
    photo = shoot((np.asarray(whole.vertices), np.asarray(whole.faces)), [orbit_camera(0.4, 0.2, 1.5, size=96)])
    verdict = judge(asset_of(robot, shoot, photo))
    assert verdict.word == "poor"
    assert "2 pieces" in verdict.line
    assert "hollow" in verdict.line


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"open_edges": 30}, "open along 30 edges"),
        ({"pieces": 3, "loose": 0.1}, "3 pieces"),
        ({"hollow": 0.5}, "hollow"),
        ({"thin": 0.9}, "thin as a sheet"),
        ({"handles": 20}, "20 holes"),
        ({"iou": 0.7}, "outline"),
        ({"psnr": 14.0}, "14 dB"),
        ({"cutout": 0.3}, "--mask"),
        ({"invented": 0.8}, "80% of its surface is invented"),
        ({"overhang": 0.3}, "--elevation"),
        ({"contact": 0.0}, "--elevation"),
        ({"depth": 0.1}, "flat"),
        ({"depth": 2.4}, "2.4 times as deep"),
        ({"drawn": 0.6}, "disagree"),
    ],
)
def test_what_is_wrong_comes_with_what_to_do(change: dict[str, float], said: str) -> None:
    assert judge(SOUND).findings == ()
    (finding,) = judge(replace(SOUND, **change)).findings
    assert said in finding
    assert any(word in finding for word in ("photo", "--mask", "capture", "--elevation", "cut-out"))


def test_the_worst_comes_first_and_three_are_enough() -> None:
    said = judge(replace(SOUND, hollow=0.15, open_edges=400, iou=0.9, invented=0.5, cutout=0.1)).findings
    assert len(said) == 3
    assert "open" in said[0]


def test_captures_are_told_of_photos_not_of_a_photo() -> None:
    said = judge(replace(SOUND, depth=None, drawn=None, open_edges=9, iou=0.8)).line
    assert "Photos from more angles" in said
    assert "poses" in said


GOODNESS = {"loose": -1, "open_edges": -1, "hollow": -1, "thin": -1, "iou": 1, "psnr": 1}


@settings(max_examples=200, deadline=None)
@given(name=st.sampled_from(sorted(GOODNESS)), one=st.floats(0, 1), other=st.floats(0, 1), data=st.data())
def test_a_worse_measure_never_raises_the_score(name: str, one: float, other: float, data: st.DataObject) -> None:
    ranges = {"open_edges": 100, "psnr": 40}
    unit = st.floats(0, 1)
    rest = {k: data.draw(unit) * ranges.get(k, 1) for k in GOODNESS}
    rest["open_edges"] = round(rest["open_edges"])
    base = replace(SOUND, **rest, drawn=data.draw(unit), convex=data.draw(unit), contact=data.draw(unit))
    low, high = sorted((one * ranges.get(name, 1), other * ranges.get(name, 1)))
    if name == "open_edges":
        low, high = round(low), round(high)
    scores = [judge(replace(base, **{name: value})).score for value in (low, high)]
    assert (scores[1] - scores[0]) * GOODNESS[name] >= 0
    assert all(0 <= score <= 1 for score in scores)


def test_words_follow_scores() -> None:
    assert 0 < POOR < GOOD < 1
    order = ["poor", "fair", "good"]
    verdicts = [judge(replace(SOUND, iou=iou)) for iou in np.linspace(0.3, 1, 40)]
    assert [order.index(v.word) for v in verdicts] == sorted(order.index(v.word) for v in verdicts)


def test_weights_have_the_sign_that_makes_sense_and_find_what_decides() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, len(FEATURES)))
    signs = np.array([good for _, _, good in FEATURES])
    keep = features @ signs + 0.3 * rng.normal(size=60) > 0
    weights = fit_weights(features, keep)
    assert all(weight * sign > 0 for (_, _, weight), sign in zip(weights[1:], signs))
    assert ((scores_of(features, weights) > 0.5) == keep).mean() > 0.9
    assert ((leave_one_out(features, keep) > 0.5) == keep).mean() > 0.85
    against = fit_weights(features, ~keep)
    assert all(weight == pytest.approx(0, abs=1e-6) for _, _, weight in against[1:])


def test_judgements_survive_writing(tmp_path: Path) -> None:
    judged = read_judged(JUDGED)
    write_judged(tmp_path / "again.csv", judged)
    assert read_judged(tmp_path / "again.csv") == judged
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="no table of judgements"):
        read_judged(tmp_path / "other.csv")


def test_the_verdict_agrees_with_a_person_more_often_than_not() -> None:
    """On the core photos, each by weights that are fitted on the others; docs/results.md says where it does not."""
    core = [one for one in read_judged(JUDGED) if one.group == "core" and one.measures is not None]
    keep = np.array([one.keep for one in core])
    assert len(core) == 42
    assert ((leave_one_out(features_of(core), keep) >= 0.5) == keep).mean() > 0.75
    stored = np.array([judge(one.measures).score for one in core if one.measures is not None])
    fitted = scores_of(features_of(core), fit_weights(features_of(core), keep))
    assert ((stored >= 0.5) == (fitted >= 0.5)).mean() > 0.9
