"""Plots of result files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from scene.backends import required_module

PRESETS = ("hull", "draft", "standard", "high", "neus-facto")


def plot_f_against_seconds(scores: dict[str, dict[str, Any]], path: Path) -> None:
    """F-score against seconds, a point for each object and one for the median of each preset.

    Args:
        scores: by ``object/preset``.
        path: the picture to write.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    required_module("matplotlib", "a plot")
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(7, 4.2), dpi=110)
    axes = figure.add_subplot()
    for k, preset in enumerate(PRESETS):
        mine = [v for name, v in scores.items() if name.rpartition("/")[2] == preset]
        if mine:
            x, y = np.array([[v["seconds"], v["f_1"]] for v in mine]).T
            axes.plot(x, y, ".", color=f"C{k}", alpha=0.35)
            label = f"{preset} ({len(mine)} objects)"
            axes.plot(np.median(x), np.median(y), "o", color=f"C{k}", markersize=11, markeredgecolor="k", label=label)
    axes.set(xscale="log", xlabel="seconds on two cores", ylabel="F-score at 1 % of the longest side", ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
