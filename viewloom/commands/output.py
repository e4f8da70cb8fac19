"""What commands print: the first line before anything heavy is imported, progress, and the results."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Iterator, Sequence
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


ShownFlags = Annotated[Shown, tyro.conf.arg(name="")]
ShownItemsFlags = Annotated[ShownItems, tyro.conf.arg(name="")]


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


def summary(results: Sequence[ItemResult], shown: ShownItems) -> int:
    """Print a line for each item; returns the exit code.

    Raises:
        ViewloomError: that of the only item, if it failed.
    """
    failed = [result.error for result in results if result.error is not None]
    if shown.json:
        for result in results:
            print(json.dumps(result.as_dict()))
    if len(results) == 1 and failed:
        raise failed[0]
    for result in results:
        if result.error is None:
            if not shown.json:
                print(_line(result))
        else:
            print(f"{result.name}: failed: {result.error}", file=sys.stderr)
            if shown.debug:
                traceback.print_exception(result.error)
    if failed:
        print(f"{len(failed)} of {len(results)} failed", file=sys.stderr)
        return max(error.exit_code for error in failed)
    return 0


def _line(result: ItemResult) -> str:
    """Where the result is, and what it is like."""
    verdict = "" if result.verdict is None else f"{result.verdict.word} {result.verdict.score:.2f}; "
    return f"{result.asset or result.views}  ({verdict}report: {result.report})"
