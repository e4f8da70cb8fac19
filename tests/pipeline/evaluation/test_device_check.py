"""The check of an accelerator, on the CPU in its place."""

from __future__ import annotations

import pytest

from pipeline.evaluation.device_check import CPU, Check, check_sampling, orbit_views, rendered_store


def test_a_check_says_whether_it_is_within_its_limit() -> None:
    assert str(Check("difference", 0.001, 0.005)) == "ok   difference: 0.001 (limit 0.005)"
    assert str(Check("difference", 0.01, 0.005)) == "FAIL difference: 0.01 (limit 0.005)"
    assert not Check("difference", float("nan"), 0.005).good


def test_views_are_from_all_around() -> None:
    views = orbit_views(4)
    assert len({tuple(view.camera.centre.round(3)) for view in views}) == 4


@pytest.mark.slow
def test_the_cpu_agrees_with_itself() -> None:
    check = check_sampling(CPU, rendered_store(1, workers=0))
    assert check.good
    assert check.value < 1e-6
