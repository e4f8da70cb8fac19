"""What a job tells while it runs: bars with time left on a terminal, plain lines elsewhere, log records in Python."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol, runtime_checkable

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from pipeline.jobs.time_left import TimeLeft, Work, duration

_LOG = logging.getLogger("viewloom")


@runtime_checkable
class Reporter(Protocol):
    """Receives a job's progress."""

    def item(self, name: str, work: Work = Work()) -> None:
        """A new photo or capture begins."""

    def stage(self, name: str, cached: bool) -> None:
        """A stage begins, or was kept from an earlier run."""

    def step(self, done: int, total: int) -> None:
        """Steps of the running stage."""

    def note(self, text: str) -> None:
        """Something the user should read."""

    def finished(self) -> None:
        """The item is done."""

    def failed(self, text: str) -> None:
        """The item failed, and with it the running stage."""


@dataclass(frozen=True)
class JobProgress:
    """Where a job stands.

    Args:
        item: name of the photo or capture.
        work: its number among all, and what is usual.
        stage: that runs; empty before the first.
        done, total: steps of the stage; 0 while they are not known.
        cached: whether the stage was kept from an earlier run.
        note: something the user should read, said just now.
        state: of the item.
        seconds_left: for the item and for all, as far as that can be told.
    """

    item: str = ""
    work: Work = Work()
    stage: str = ""
    done: int = 0
    total: int = 0
    cached: bool = False
    note: str = ""
    state: Literal["running", "finished", "failed"] = "running"
    seconds_left: tuple[float | None, float | None] = (None, None)


Heard = Reporter | Callable[[JobProgress], None] | None
"""Who is told of a job's progress; None: the ``viewloom`` logger."""


def reporter_of(heard: Heard) -> Reporter:
    """Whoever was given, as a reporter."""
    if heard is None:
        return LoggingReporter()
    return heard if isinstance(heard, Reporter) else CallbackReporter(heard)


@contextlib.contextmanager
def one_item(reporter: Reporter, name: str, work: Work = Work()) -> Iterator[None]:
    """A block that is the work on one item: tells that it begins, and how it ends."""
    reporter.item(name, work)
    try:
        yield
    except Exception as error:
        reporter.failed(str(error))
        raise
    reporter.finished()


class LoggingReporter:
    """Writes to the ``viewloom`` logger, which shows nothing unless logging is set up; the default in Python."""

    def __init__(self) -> None:
        self._item, self._stage, self._start = "", "", 0.0

    def item(self, name: str, work: Work = Work()) -> None:
        """Say which item begins."""
        self._close("")
        self._item = name
        _LOG.info("%s (%d of %d)", name, work.number, work.count)

    def stage(self, name: str, cached: bool) -> None:
        """Say that a stage begins, or was kept."""
        self._close("done")
        _LOG.info("%s: %s", name, "kept" if cached else "begins")
        self._stage, self._start = "" if cached else name, time.monotonic()

    def step(self, done: int, total: int) -> None:
        """Say how far the stage is; for debugging only."""
        _LOG.debug("%s: %d of %d", self._stage, done, total)

    def note(self, text: str) -> None:
        """Warn."""
        _LOG.warning("%s", text)

    def finished(self) -> None:
        """Say that the item is done."""
        self._close("done")

    def failed(self, text: str) -> None:
        """Say that the item failed."""
        self._close("failed")
        _LOG.error("%s failed: %s", self._item, text)

    def _close(self, how: str) -> None:
        if self._stage and how:
            _LOG.info("%s: %s in %.1f s", self._stage, how, time.monotonic() - self._start)
        self._stage = ""


class CallbackReporter:
    """Calls a function whenever something happens.

    Args:
        callback: called with where the job stands.
    """

    def __init__(self, callback: Callable[[JobProgress], None]) -> None:
        self._callback = callback
        self._now = JobProgress()
        self._left = TimeLeft()

    def item(self, name: str, work: Work = Work()) -> None:
        """A new item."""
        self._left.item(work)
        self._tell(JobProgress(name, work))

    def stage(self, name: str, cached: bool) -> None:
        """A stage begins, or was kept."""
        self._left.stage(name, cached)
        self._tell(replace(self._now, stage=name, cached=cached, done=0, total=0))

    def step(self, done: int, total: int) -> None:
        """Steps of the running stage."""
        self._left.step(done, total)
        self._tell(replace(self._now, done=done, total=total))

    def note(self, text: str) -> None:
        """Something to read."""
        self._tell(replace(self._now, note=text))
        self._now = replace(self._now, note="")

    def finished(self) -> None:
        """The item is done."""
        self._left.finished()
        self._tell(replace(self._now, state="finished"))

    def failed(self, text: str) -> None:
        """The item failed."""
        self._left.finished()
        self._tell(replace(self._now, state="failed", note=text))

    def _tell(self, progress: JobProgress) -> None:
        self._now = replace(progress, seconds_left=self._left.estimate())
        try:
            self._callback(self._now)
        except Exception:  # noqa: BLE001 - logged with its traceback
            # Whoever listens is not part of the work, and must not cost any of it.
            _LOG.exception("the function that is told of the progress failed")


class ConsoleReporter:
    """Bars on a terminal; one line per stage when the output goes to a file. A context manager.

    Args:
        console: written to; standard error by default.
        quiet: write nothing at all.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet) if console is None else console
        self._left = TimeLeft()
        self._bars = Progress(
            TextColumn("  {task.description:<10}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            _LeftColumn(self._left),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
            # Results go to standard output: through the bars if that is the terminal too, else where they are read.
            redirect_stdout=sys.stdout.isatty(),
        )
        self._work = Work()
        self._task: TaskID | None = None
        self._name, self._start = "", 0.0

    def __enter__(self) -> ConsoleReporter:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close("" if kind is None else "stopped after ")
        self._bars.stop()

    def item(self, name: str, work: Work = Work()) -> None:
        """Print the item's name."""
        self._close()
        self._left.item(work)
        self._work = work
        number = f"[{work.number} of {work.count}] " if work.count > 1 else ""
        self._say(f"[bold]{escape(number + name)}[/bold]")

    def stage(self, name: str, cached: bool) -> None:
        """Open a bar, or say that the stage was kept."""
        self._close()
        self._left.stage(name, cached)
        if cached:
            self._say(f"  {name:<10} kept")
            return
        self._name, self._start = name, time.monotonic()
        self._task = self._bars.add_task(name, total=None)
        if not self.console.is_terminal:
            self._say(f"  {name} ...")

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        self._left.step(done, total)
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a note under the running stage."""
        self._say(f"  [yellow]note:[/yellow] {escape(text)}")

    def finished(self) -> None:
        """Close the last stage; with many items, say how long the others will take."""
        self._close()
        self._left.finished()
        more, seconds = self._work.count - self._work.number, self._left.estimate()[1]
        if more > 0 and seconds is not None:
            self._say(f"  {more} more, about {duration(seconds)}")

    def failed(self, text: str) -> None:
        """Say that the stage was not done; and why, if there are others: a command tells the error of its only item."""
        self._close("failed after ")
        self._left.finished()
        if self._work.count > 1:
            self._say(f"  [red]failed:[/red] {escape(text)}")

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)

    def _close(self, how: str = "") -> None:
        if self._task is None:
            return
        self._bars.remove_task(self._task)
        self._task = None
        self._say(f"  {self._name:<10} {how}{time.monotonic() - self._start:6.1f} s")


class _LeftColumn(ProgressColumn):
    """Time left for the item, and for all."""

    def __init__(self, left: TimeLeft) -> None:
        super().__init__()
        self._left = left

    def render(self, task: Task) -> Text:
        """As text; empty while nothing can be told."""
        item, everything = self._left.estimate()
        if item is None:
            return Text("")
        text = f"about {duration(item)} left"
        if everything is not None and self._left.work.count > self._left.work.number:
            text += f", {duration(everything)} for all {self._left.work.count}"
        return Text(text, style="progress.remaining")


def print_banner(text: str) -> None:
    """The first line, before anything heavy is imported."""
    print(text, file=sys.stderr, flush=True)
