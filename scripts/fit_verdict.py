"""Weights of the verdict, fitted on a person's judgements of assets, and how often both agree.

The table has the columns group, photo, keep, why, and the measures of each asset. Weights are fitted on the group
``core``; its agreement is by leaving one asset out. Other groups are only tested on. With --items, measures are first
read anew from the asset.json of finished items.

Example: python scripts/fit_verdict.py tests/recon/checks/judged.csv --items CORE/* OTHER/*
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from pipeline.evaluation.script import run_script
from pipeline.evaluation.tables import markdown_table
from pipeline.evaluation.verdicts import (
    Judged,
    features_of,
    fit_weights,
    leave_one_out,
    read_judged,
    scores_of,
    write_judged,
)
from pipeline.jobs.stages.asset import AssetReport
from recon.checks.verdict import FEATURES, judge


@dataclass(frozen=True)
class Arguments:
    """Fit the verdict."""

    judged: tyro.conf.Positional[Path]
    """Table of judgements."""
    items: tuple[Path, ...] = ()
    """Finished items, whose measures are written into the table: folders GROUP/PHOTO."""
    ridge: float = 4.0
    """Penalty on the squares of the weights."""


def refreshed(judged: list[Judged], items: tuple[Path, ...]) -> list[Judged]:
    """The judgements with the measures of finished items."""
    found = {(item.parent.name, item.name): item / "asset" / "asset.json" for item in items}
    out = []
    for one in judged:
        path = found.get((one.group, one.photo))
        out.append(one if path is None else replace(one, measures=AssetReport.read(path).measures))
    return out


def agreement(name: str, rows: list[Judged], scores: np.ndarray) -> list[str]:
    """A row of the table: how often the score says what the person said, and where it does not."""
    keep = np.array([one.keep for one in rows])
    right = (scores >= 0.5) == keep
    wrong = [f"{one.photo} {score:.2f}" for one, score, good in zip(rows, scores, right) if not good]
    order = keep[:, None] & ~keep[None]
    above = float((scores[:, None] > scores[None])[order].mean()) if order.any() else float("nan")
    return [name, str(len(rows)), str(keep.sum()), f"{100 * right.mean():.0f} %", f"{above:.2f}", ", ".join(wrong)]


def main(arguments: Arguments) -> None:
    """Fit, test, print."""
    judged = refreshed(read_judged(arguments.judged), arguments.items)
    if arguments.items:
        write_judged(arguments.judged, judged)
    known = [one for one in judged if one.measures is not None]
    core = [one for one in known if one.group == "core"]
    keep = np.array([one.keep for one in core])
    weights = fit_weights(features_of(core), keep, arguments.ridge)
    names = ["constant", *(name for name, _, _ in FEATURES)]
    print(
        markdown_table(
            ["feature", "middle", "scale", "weight"], [[n, *map("{:.4g}".format, w)] for n, w in zip(names, weights)]
        )
    )
    rows = [agreement("core, leave one out", core, leave_one_out(features_of(core), keep, arguments.ridge))]
    for group in sorted({one.group for one in known}):
        mine = [one for one in known if one.group == group]
        rows.append(agreement(f"{group}, these weights", mine, scores_of(features_of(mine), weights)))
        stored = np.array([judge(one.measures).score for one in mine if one.measures is not None])
        rows.append(agreement(f"{group}, weights as stored", mine, stored))
    print()
    print(markdown_table(["assets", "number", "kept by the person", "agree", "pairs in order", "disagree"], rows))


if __name__ == "__main__":
    run_script(main, Arguments)
