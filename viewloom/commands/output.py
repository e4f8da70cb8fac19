"""What commands print: the first line before anything heavy is imported, progress, and the results."""

from __future__ import annotations

import contextlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import viewloom
from pipeline.jobs.progress import ConsoleReporter, print_banner

if TYPE_CHECKING:
    from pipeline.jobs.asset import ItemResult


@contextlib.contextmanager
def started(command: str) -> Iterator[ConsoleReporter]:
    """Print the first line; then a block in which progress is shown."""
    print_banner(f"viewloom {viewloom.__version__}: {command}")
    with ConsoleReporter() as reporter:
        yield reporter


def summary(results: Sequence[ItemResult], *, debug: bool) -> int:
    """Print a line for each item; returns the exit code.

    Raises:
        ViewloomError: that of the only item, if it failed.
    """
    failed = [result.error for result in results if result.error is not None]
    if len(results) == 1 and failed:
        raise failed[0]
    for result in results:
        if result.error is None:
            print(f"{result.asset or result.folder / 'views'}  (report: {result.folder / 'report.html'})")
        else:
            print(f"{result.name}: failed: {result.error}", file=sys.stderr)
            if debug:
                traceback.print_exception(result.error)
    if failed:
        print(f"{len(failed)} of {len(results)} failed", file=sys.stderr)
        return max(error.exit_code for error in failed)
    return 0
