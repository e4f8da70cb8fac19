"""Plot what benchmark_recon.py has written: F-score against seconds, a point for each object and one for the median.

Example: python scripts/plot_benchmark.py scores.json facto.json --out docs/pictures/f_score_seconds.png
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from pipeline.evaluation.plots import plot_f_against_seconds
from pipeline.evaluation.script import run_script


@dataclass(frozen=True)
class Arguments:
    """F-score against seconds."""

    scores: tyro.conf.Positional[tuple[Path, ...]]
    """Files of scores; objects that occur in several count once, from the first."""
    out: Path
    """The picture."""


def main(arguments: Arguments) -> None:
    """Draw and save."""
    scores: dict[str, dict[str, Any]] = {}
    for path in arguments.scores:
        scores = {**json.loads(path.read_text()), **scores}
    plot_f_against_seconds(scores, arguments.out)


if __name__ == "__main__":
    run_script(main, Arguments)
