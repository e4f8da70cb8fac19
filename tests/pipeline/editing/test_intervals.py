"""Plans of intervals: the paper's own, and what holds for all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.editing.intervals import Interval, plan_intervals
from pipeline.editing.settings import ConsolidateSettings, Mode
from scene.errors import SettingsError

STEPS = st.integers(1, 60)


def test_twenty_steps_by_four() -> None:
    assert plan_intervals(ConsolidateSettings(steps=20, tau=4)) == [
        Interval(range(8), range(4), True),
        Interval(range(4, 8), range(4, 8), True),
        Interval(range(8, 12), range(8, 12), True),
        Interval(range(12, 16), range(12, 14), True),
    ]


def test_without_going_back_every_other_stretch_is_guided() -> None:
    assert plan_intervals(ConsolidateSettings(steps=20, tau=4, overlap=False)) == [
        Interval(range(8), range(8, 12), False)
        # The look-ahead of a further one would reach the end of guidance.
    ]
    assert plan_intervals(ConsolidateSettings(steps=20, overlap=False, tau=2)) == [
        Interval(range(4), range(4, 6), False),
        Interval(range(6, 8), range(8, 10), False),
        Interval(range(10, 12), range(12, 14), False),
    ]


def test_one_field_guides_all_steps() -> None:
    assert plan_intervals(ConsolidateSettings(steps=20, tau=4, mode="once")) == [Interval(range(8), range(14), True)]


def test_nothing_is_planned_where_nothing_is_guided() -> None:
    assert plan_intervals(ConsolidateSettings(mode="none")) == []
    assert plan_intervals(ConsolidateSettings(stop=0.0)) == []


@given(STEPS, st.integers(1, 60), st.floats(0, 1), st.booleans(), st.sampled_from(["full", "once", "hard"]))
def test_every_step_is_reached_once_for_good(steps: int, tau: int, stop: float, overlap: bool, mode: Mode) -> None:
    plan = plan_intervals(ConsolidateSettings(steps=steps, tau=tau, stop=stop, overlap=overlap, mode=mode))
    kept: list[int] = []
    for interval in plan:
        assert interval.free.start == len(kept)
        assert 1 <= len(interval.free) <= (2 * tau if interval is plan[0] else tau)
        kept += [*(() if interval.back else interval.free), *interval.guided]
    assert kept == list(range(len(kept)))
    guided = [step for interval in plan for step in interval.guided]
    assert len(kept) <= steps
    assert all(step < round(stop * steps) for step in guided)
    if overlap:
        assert guided == list(range(round(stop * steps)))


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("tau", 0), ("stop", 1.1), ("start", 0.0), ("relative_step", float("nan")), ("seed", -1)],
)
def test_numbers_out_of_range_are_refused(field: str, value: float) -> None:
    with pytest.raises(SettingsError, match=field):
        ConsolidateSettings(**{field: value})  # type: ignore[arg-type]


def test_masactrls_start_is_scaled() -> None:
    assert ConsolidateSettings(steps=50).first_shared == 4
    assert ConsolidateSettings(steps=20).first_shared == 2
    assert ConsolidateSettings(shared_from=7).first_shared == 7
