"""How long a job will still take: from what its stages usually cost, corrected by what this one has cost so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_LEAST = 0.02
"""Fraction of an item that must be done before it tells anything."""


@dataclass(frozen=True)
class Work:
    """Where an item stands among all, and how its time is usually spent.

    Args:
        number: of the item, from 1.
        count: of items.
        shares: usual fraction of an item's time for each of its stages, in order.
    """

    number: int = 1
    count: int = 1
    shares: Mapping[str, float] = field(default_factory=dict)


class TimeLeft:
    """Tells how long the running item, and all items, will still take.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.work = Work()
        self._whole: list[float] = []
        self._fraction: float | None = None
        self._begin()

    def _begin(self) -> None:
        self._start = self._stage_start = self._clock()
        self._stage, self._fraction = "", None
        self._done, self._skipped = 0.0, 0.0

    def item(self, work: Work) -> None:
        """An item begins."""
        self.work = work
        self._begin()

    def stage(self, name: str, cached: bool) -> None:
        """A stage begins, or was kept and costs nothing."""
        self._end_stage()
        if cached:
            self._skipped += self.work.shares.get(name, 0.0)
        else:
            self._stage, self._stage_start = name, self._clock()

    def step(self, done: int, total: int) -> None:
        """Steps of the running stage."""
        self._fraction = min(done / total, 1.0) if total > 0 else None

    def finished(self) -> None:
        """The item is done, or failed: only whole ones tell what the others will cost."""
        self._end_stage()
        if self._skipped == 0 and self._done > 1 - 1e-6:
            self._whole.append(self._clock() - self._start)
        self._stage, self._done = "", 1.0

    def estimate(self) -> tuple[float | None, float | None]:
        """Seconds left for the item, and for all; None where nothing is known."""
        usual = sum(self._whole) / len(self._whole) if self._whole else None
        now = self._clock()
        elapsed = now - self._start
        todo = max(1 - self._skipped, 1e-9)
        done = min(1.0, (self._done + self._running(now, usual)) / todo)
        left: float | None = None
        if done >= 1:
            left = 0.0
        elif done >= _LEAST:
            left = elapsed * (1 - done) / done
            if usual is None:
                usual = elapsed / done / todo
        elif usual is not None:
            left = usual * todo
        more = self.work.count - self.work.number
        if left is None or (more > 0 and usual is None):
            return left, None
        return left, left + more * (usual or 0.0)

    def _running(self, now: float, usual: float | None) -> float:
        """How much of the item the running stage has done: by its steps, else by the time that it should take."""
        share = self.work.shares.get(self._stage, 0.0)
        if self._fraction is not None:
            return share * self._fraction
        whole = (self._stage_start - self._start) / self._done if self._done > 0 else usual
        if not whole or not share:
            return 0.0
        return share * min(0.95, (now - self._stage_start) / (share * whole))

    def _end_stage(self) -> None:
        if self._stage:
            self._done += self.work.shares.get(self._stage, 0.0)
        self._stage, self._fraction = "", None


def duration(seconds: float) -> str:
    """A time in words: ``40 s``, ``5 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
