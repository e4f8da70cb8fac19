"""Spoiled inputs of all kinds: each must be read, or refused in a sentence, in time and within memory.

Example: python -m tests.fuzz.fuzz --count 1500 --seed 1
"""

from __future__ import annotations

import argparse
import contextlib
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from scene.errors import ViewloomError
from tests.fuzz.mutations import spoiled
from tests.fuzz.subjects import Subject, subjects

MOST_SECONDS = 60.0
MOST_BYTES = 3_000_000_000


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Args:
        kind: ``read``, ``refused``, or what must not be: ``traceback``, ``hang``, ``memory``, ``outside``.
        what: what was done to it.
        said: the sentence, or the traceback.
    """

    kind: str
    what: str
    said: str = ""

    @property
    def good(self) -> bool:
        return self.kind in ("read", "refused")


class _HangError(BaseException):
    """Passes through every ``except Exception``."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """A block that is left with an error when it takes too long; where signals cannot be had it is only timed."""

    def late(*_: object) -> None:
        raise _HangError

    try:
        before = signal.signal(signal.SIGALRM, late)
    except ValueError:  # not the main thread
        yield
        return
    left = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def peak() -> int:
    """Most bytes that this process has held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def tried(subject: Subject, sound: Path, seed: int) -> Outcome:
    """Spoil a copy of a sound input in one way, and read it."""
    rng = random.Random(f"{subject.name} {seed}")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        shutil.copytree(sound, folder)
        (Path(place) / "victim").write_text("precious")
        what = f"{subject.name} {seed}: {spoiled(folder, rng)}"
        held, start = peak(), time.monotonic()
        try:
            with limited(MOST_SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                subject.read(folder)
            found = Outcome("read", what)
        except ViewloomError as error:
            found = Outcome("refused", what, str(error))
        except _HangError:
            found = Outcome("hang", what, traceback.format_exc())
        except Exception:  # noqa: BLE001 - what the run is looking for
            found = Outcome("traceback", what, traceback.format_exc())
        if time.monotonic() - start > MOST_SECONDS:
            found = Outcome("hang", what)
        if peak() > max(held, MOST_BYTES):
            found = Outcome("memory", what, found.said)
        if sorted(path.name for path in Path(place).iterdir()) != ["in", "victim"]:
            found = Outcome("outside", what)
    if found.kind == "refused" and not (0 < len(found.said) < 3000):
        return Outcome("traceback", what, f"a sentence of {len(found.said)} letters")
    return found


def main() -> int:
    """Run, print what must not be, and say how many there were of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0, help="where to begin")
    parser.add_argument("--only", help="kind of input")
    chosen = parser.parse_args()
    kinds = [subject for subject in subjects() if chosen.only in (None, subject.name)]
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        for subject in kinds:
            sound = Path(place) / subject.name
            sound.mkdir()
            subject.write(sound)
        for number in range(chosen.count):
            subject = kinds[number % len(kinds)]
            outcome = tried(subject, Path(place) / subject.name, chosen.seed + number // len(kinds))
            seen[outcome.kind] += 1
            if not outcome.good:
                print(f"{outcome.kind}: {outcome.what}\n{outcome.said}", flush=True)  # noqa: T201
    print(dict(seen))  # noqa: T201
    return int(any(not Outcome(kind, "").good for kind in seen))


if __name__ == "__main__":
    sys.exit(main())
