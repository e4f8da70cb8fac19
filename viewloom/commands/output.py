"""What commands print: the first line before anything heavy is imported, progress, and the results."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

import viewloom
from pipeline.jobs.progress import ConsoleReporter, print_banner

if TYPE_CHECKING:
    from pipeline.jobs.item_result import ItemResult

Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True)
class Shown:
    """How much a command says."""

    quiet: Switch = False
    """Print results and errors only."""
    verbose: Switch = False
    """Say more of what goes on."""
    debug: Switch = False
    """Show the traceback of errors."""


@dataclass(frozen=True)
class ShownItems(Shown):
    """How much a command says that makes items."""

    json: Switch = False
    """Print each result as one line of JSON."""


@dataclass(frozen=True)
class ShownReport(Shown):
    """How much a command says that reports and makes nothing."""

    json: Switch = False
    """Print what was found as one line of JSON."""


ShownFlags = Annotated[Shown, tyro.conf.arg(name="")]
ShownItemsFlags = Annotated[ShownItems, tyro.conf.arg(name="")]
ShownReportFlags = Annotated[ShownReport, tyro.conf.arg(name="")]


@contextlib.contextmanager
def started(command: str, shown: Shown) -> Iterator[ConsoleReporter]:
    """Print the first line; then a block in which progress is shown."""
    if not shown.quiet:
        print_banner(f"viewloom {viewloom.__version__}: {command}")
    with ConsoleReporter(quiet=shown.quiet) as reporter, _logged(reporter, verbose=shown.verbose):
        yield reporter


@contextlib.contextmanager
def _logged(reporter: ConsoleReporter, *, verbose: bool) -> Iterator[None]:
    """Show the project's log records beside the bars, in a block."""
    if not verbose:
        yield
        return
    from rich.logging import RichHandler

    logger = logging.getLogger("viewloom")
    handler = RichHandler(console=reporter.console, show_path=False, show_level=False, markup=False, highlighter=None)
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class Results:
    """Prints a line for each item as soon as it is there, so that an interrupted run has told what it finished.

    Args:
        shown: how.
    """

    def __init__(self, shown: ShownItems) -> None:
        self._shown = shown
        self._all: list[ItemResult] = []

    def add(self, result: ItemResult) -> None:
        """Print the item's line; of failed ones only with ``--json``: why, is said at the end."""
        self._all.append(result)
        if self._shown.json:
            print(json.dumps(result.as_dict()), flush=True)
        elif result.error is None:
            print(_line(result), flush=True)

    def exit_code(self) -> int:
        """Say what failed; returns the exit code.

        Raises:
            ViewloomError: that of the only item, if it failed.
        """
        failed = [(result, result.error) for result in self._all if result.error is not None]
        if len(self._all) == 1 and failed:
            raise failed[0][1]
        for result, error in failed:
            print(f"{result.name}: failed: {error}", file=sys.stderr)
            if self._shown.debug:
                traceback.print_exception(error)
        if failed:
            print(f"{len(failed)} of {len(self._all)} failed", file=sys.stderr)
            return max(error.exit_code for _, error in failed)
        return 0


def _line(result: ItemResult) -> str:
    """Where the result is, and what it is like."""
    verdict = "" if result.verdict is None else f"{result.verdict.word} {result.verdict.score:.2f}; "
    return f"{result.asset or result.views}  ({verdict}report: {result.report})"
