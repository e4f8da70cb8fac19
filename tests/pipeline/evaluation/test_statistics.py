"""Intervals and gains."""

from __future__ import annotations

import numpy as np

from pipeline.evaluation.statistics import bootstrap_interval, mean_and_interval, paired_gains


def test_intervals_hold_the_mean_and_shrink_with_more_objects() -> None:
    values = np.random.default_rng(1).normal(3.0, 1.0, 400)
    few, many = bootstrap_interval(values[:20]), bootstrap_interval(values)
    for low, high in (few, many):
        assert low < 3.0 < high
    assert many[1] - many[0] < (few[1] - few[0]) / 2
    # The standard error of 400 such values is 0.05.
    assert abs(many[1] - many[0] - 2 * 1.96 * 0.05) < 0.02
    assert bootstrap_interval(values) == many


def test_a_mean_and_its_interval_as_text() -> None:
    assert mean_and_interval(np.full(5, 0.5), ".3f") == "0.500 (0.500 to 0.500)"
    assert mean_and_interval(np.full(5, 0.5), "+.1f") == "+0.5 (+0.5 to +0.5)"


def test_gains_are_those_of_the_same_object_and_seed() -> None:
    ours = {"cup": {"seed-0": {"iou": 0.5}}, "duck": {"seed-0": {"iou": 0.9}, "seed-1": {"iou": 0.7}}, "new": {}}
    base = {"cup": {"seed-0": {"iou": 0.4}, "seed-1": {"iou": 0.0}}, "duck": {"seed-1": {"iou": 0.4}}}
    assert np.allclose(paired_gains(ours, base, "iou"), [0.1, 0.3])
    assert len(paired_gains(ours, {}, "iou")) == 0
