"""Time left: from the shares of stages, from steps, and from the items before."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pipeline.jobs.time_left import TimeLeft, Work, duration

SHARES = {"prepare": 0.1, "views": 0.5, "surface": 0.3, "asset": 0.1}


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def whole_item(left: TimeLeft, clock: Clock, seconds: float, work: Work) -> None:
    left.item(work)
    for name, share in SHARES.items():
        left.stage(name, False)
        clock.now += share * seconds
    left.finished()


def test_nothing_is_told_before_anything_is_known(clock: Clock) -> None:
    left = TimeLeft(clock)
    assert left.estimate() == (None, None)
    left.item(Work(1, 3, SHARES))
    left.stage("prepare", False)
    clock.now += 5
    assert left.estimate() == (None, None)


def test_steps_tell_how_much_is_done(clock: Clock) -> None:
    left = TimeLeft(clock)
    left.item(Work(1, 3, SHARES))
    left.stage("prepare", False)
    clock.now += 10
    left.stage("views", False)
    clock.now += 25
    left.step(1, 2)
    assert left.estimate() == pytest.approx((65, 265))  # 35 of 100 seconds are over; two more photos follow


def test_a_stage_without_steps_is_judged_by_the_time_it_should_take(clock: Clock) -> None:
    left = TimeLeft(clock)
    left.item(Work(1, 1, SHARES))
    left.stage("prepare", False)
    clock.now += 10
    left.stage("views", False)
    told = []
    for _ in range(6):
        told.append(left.estimate()[0])
        clock.now += 10
    assert told[:5] == pytest.approx([90, 80, 70, 60, 50])
    assert told[5] is not None
    assert told[5] > 40  # it takes longer than it should, and the rest will too


def test_kept_stages_cost_nothing(clock: Clock) -> None:
    left = TimeLeft(clock)
    left.item(Work(1, 1, SHARES))
    left.stage("prepare", True)
    left.stage("views", True)
    left.stage("surface", False)
    clock.now += 15
    left.step(1, 2)
    assert left.estimate()[0] == pytest.approx(25)


def test_items_before_tell_what_the_next_will_cost(clock: Clock) -> None:
    left = TimeLeft(clock)
    whole_item(left, clock, 40, Work(1, 5, SHARES))
    assert left.estimate() == pytest.approx((0, 160))
    whole_item(left, clock, 60, Work(2, 5, SHARES))
    assert left.estimate() == pytest.approx((0, 150))
    left.item(Work(3, 5, SHARES))
    assert left.estimate() == pytest.approx((50, 150))


def test_failed_items_do_not_count_as_quick_ones(clock: Clock) -> None:
    left = TimeLeft(clock)
    left.item(Work(1, 2, SHARES))
    left.stage("prepare", False)
    clock.now += 1
    left.finished()
    assert left.estimate() == (0, None)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1 s"),
        (40.4, "40 s"),
        (89.0, "89 s"),
        (95.0, "2 min"),
        (600.0, "10 min"),
        (5400.0, "1 h 30 min"),
        (7860.0, "2 h 11 min"),
    ],
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text
