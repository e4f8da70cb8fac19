"""Endless training data, drawn from seeds by worker processes while the model trains."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any, Generic, TypeVar

import numpy as np

from pipeline.training.procedural import Rng

T = TypeVar("T")


class SeededStream(Generic[T]):
    """An endless stream of data; number ``k`` depends on the seed and on ``k`` alone, not on the number of workers.

    Args:
        prepare: makes, once in each process, what draws one of them from a random generator.
        arguments: of that, which can be sent between processes.
        seed: of all.
        salt: numbers that keep streams of other kinds apart.
        workers: processes; 0 draws in this one.
        ahead: kept in flight per worker.
    """

    def __init__(
        self,
        prepare: Callable[..., Callable[[Rng], T]],
        arguments: tuple[Any, ...],
        *,
        seed: int = 0,
        salt: tuple[int, ...] = (),
        workers: int = 1,
        ahead: int = 4,
    ) -> None:
        self._prepare, self._arguments, self._salt = prepare, arguments, salt
        self.seed, self.workers, self.ahead = seed, workers, ahead

    def read(self, start: int = 0, stop: int | None = None) -> Iterator[T]:
        """Numbers ``start``, ``start + 1``, ... in order."""
        if self.workers == 0:
            draw = self._prepare(*self._arguments)
            k = start
            while stop is None or k < stop:
                yield draw(np.random.default_rng(self._seeds(k)))
                k += 1
            return
        # Fresh interpreters: forking a process that runs torch threads can deadlock.
        begin = (self._prepare, self._arguments)
        with ProcessPoolExecutor(self.workers, get_context("spawn"), _begin, begin) as executor:
            waiting: list[Future[T]] = []
            k = start
            try:
                while True:
                    while len(waiting) < self.workers * self.ahead and (stop is None or k < stop):
                        waiting.append(executor.submit(_drawn, self._seeds(k)))
                        k += 1
                    if not waiting:
                        return
                    yield waiting.pop(0).result()
            finally:
                for future in waiting:
                    future.cancel()

    def _seeds(self, k: int) -> list[int]:
        return [self.seed, k, *self._salt]


_draw: Callable[[Rng], Any] | None = None


def _begin(prepare: Callable[..., Callable[[Rng], Any]], arguments: tuple[Any, ...]) -> None:
    """Per-process state: an open archive cannot be sent between processes."""
    global _draw
    # A signal to all of a run's processes ends the training, which writes a checkpoint first and needs its data until
    # then; it ends the workers itself.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _draw = prepare(*arguments)


def _drawn(seeds: Sequence[int]) -> Any:
    assert _draw is not None
    return _draw(np.random.default_rng(seeds))
