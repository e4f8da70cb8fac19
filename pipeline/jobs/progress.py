"""What a job tells while it runs: bars with time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


@runtime_checkable
class Reporter(Protocol):
    """Receives a job's progress."""

    def item(self, name: str) -> None:
        """A new photo or capture begins."""

    def stage(self, name: str, cached: bool) -> None:
        """A stage begins, or was kept from an earlier run."""

    def step(self, done: int, total: int) -> None:
        """Steps of the running stage."""

    def note(self, text: str) -> None:
        """Something the user should read."""


class SilentReporter:
    """Tells nothing; the default when jobs are called from Python."""

    def item(self, name: str) -> None:
        """Ignored."""

    def stage(self, name: str, cached: bool) -> None:
        """Ignored."""

    def step(self, done: int, total: int) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


class ConsoleReporter:
    """Bars on a terminal; one line per stage when the output goes to a file. A context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = Console(stderr=True) if console is None else console
        self._bars = Progress(
            TextColumn("  {task.description:<10}"),
            BarColumn(24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name, self._start = "", 0.0

    def __enter__(self) -> ConsoleReporter:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        self._bars.stop()

    def item(self, name: str) -> None:
        """Print the item's name."""
        self._close()
        self.console.print(f"[bold]{escape(name)}[/bold]", highlight=False, soft_wrap=True)

    def stage(self, name: str, cached: bool) -> None:
        """Open a bar, or say that the stage was kept."""
        self._close()
        if cached:
            self.console.print(f"  {name:<10} kept", highlight=False)
            return
        self._name, self._start = name, time.monotonic()
        self._task = self._bars.add_task(name, total=None)
        if not self.console.is_terminal:
            self.console.print(f"  {name} ...", highlight=False)

    def step(self, done: int, total: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Print a note under the running stage."""
        self.console.print(f"  [yellow]note:[/yellow] {escape(text)}", highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self._task is None:
            return
        self._bars.remove_task(self._task)
        self._task = None
        self.console.print(f"  {self._name:<10} {time.monotonic() - self._start:6.1f} s", highlight=False)


def print_banner(text: str) -> None:
    """The first line, before anything heavy is imported."""
    print(text, file=sys.stderr, flush=True)
