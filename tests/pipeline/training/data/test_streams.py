from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
from operator import methodcaller

import pytest

from pipeline.training.data.streams import SeededStream


# What draws comes from the standard library: fresh interpreters import it, and some packages install a ``tests`` of
# their own that hides this folder from them.
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_data_depend_on_their_number_alone(workers: int) -> None:
    known = list(itertools.islice(SeededStream(methodcaller, ("uniform", 3, 4), seed=5, workers=0).read(), 6))
    stream = SeededStream(methodcaller, ("uniform", 3, 4), seed=5, workers=workers, ahead=1)
    assert list(stream.read(2, 6)) == known[2:]
    assert len(set(known)) == 6
    assert all(3 <= value < 4 for value in known)


def test_seeds_and_salts_keep_streams_apart() -> None:
    streams = [
        SeededStream(methodcaller, ("random",), seed=seed, salt=salt, workers=0)
        for seed, salt in ((0, ()), (1, ()), (0, (18,)))
    ]
    assert len({next(stream.read()) for stream in streams}) == 3


def test_a_signal_to_all_processes_of_a_run_leaves_it_its_data() -> None:
    before = set(multiprocessing.active_children())
    reader = SeededStream(methodcaller, ("random",), workers=1, ahead=1).read()
    first = [next(reader)]
    (worker,) = set(multiprocessing.active_children()) - before
    assert worker.pid is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
        first.extend(itertools.islice(reader, 3))
    reader.close()
    assert first == list(SeededStream(methodcaller, ("random",), workers=0).read(0, 7))
    assert not worker.is_alive()
