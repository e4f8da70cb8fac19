"""Means over objects and how sure they are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float

SeedScores = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Scores of one method, by object and seed."""


def bootstrap_interval(values: Float[np.ndarray, "n"], rounds: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over objects."""
    draws = np.random.default_rng(0).choice(values, (rounds, len(values))).mean(axis=1)
    return float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))


def mean_and_interval(values: Float[np.ndarray, "n"], form: str) -> str:
    """A mean and its 95 % interval as text: ``0.541 (0.410 to 0.672)``.

    Args:
        values: one per object.
        form: format of every number, as ``.3f``.
    """
    return "{} ({} to {})".format(*(format(x, form) for x in (values.mean(), *bootstrap_interval(values))))


def paired_gains(ours: SeedScores, base: SeedScores, key: str) -> Float[np.ndarray, "n"]:
    """Of every object that both methods have, the mean gain over the seeds that both have."""
    found = []
    for name in ours:
        seeds = ours[name].keys() & base.get(name, {}).keys()
        if seeds:
            found.append(np.mean([ours[name][s][key] - base[name][s][key] for s in seeds]))
    return np.array(found)
