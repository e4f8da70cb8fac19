"""Plot what benchmark_recon.py has written: F-score against seconds, a point for each object and one for the median.

Example: python scripts/plot_benchmark.py scores.json facto.json --out docs/pictures/f_score_seconds.png
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from scene.errors import MissingBackendError


@dataclass(frozen=True)
class Arguments:
    """F-score against seconds."""

    scores: tyro.conf.Positional[tuple[Path, ...]]
    """Files of scores; objects that occur in several count once, from the first."""
    out: Path
    """The picture."""


def main(arguments: Arguments) -> None:
    """Draw and save."""
    try:
        import matplotlib.figure
    except ImportError as error:
        raise MissingBackendError("plots need matplotlib", fix="Run: pip install viewloom[plots]") from error
    scores: dict[str, dict[str, Any]] = {}
    for path in arguments.scores:
        scores = {**json.loads(path.read_text()), **scores}
    figure = matplotlib.figure.Figure(figsize=(7, 4.2), dpi=110)
    axes = figure.add_subplot()
    for k, row in enumerate(("hull", "draft", "standard", "high", "neus-facto")):
        mine = [v for name, v in scores.items() if name.rpartition("/")[2] == row]
        if mine:
            x, y = np.array([[v["seconds"], v["f_1"]] for v in mine]).T
            axes.plot(x, y, ".", color=f"C{k}", alpha=0.35)
            label = f"{row} ({len(mine)} objects)"
            axes.plot(np.median(x), np.median(y), "o", color=f"C{k}", markersize=11, markeredgecolor="k", label=label)
    axes.set(xscale="log", xlabel="seconds on two cores", ylabel="F-score at 1 % of the longest side", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    figure.tight_layout()
    figure.savefig(arguments.out)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
