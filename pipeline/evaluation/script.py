"""How evaluation scripts start and end: typed arguments in, errors as one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

from scene.errors import ViewloomError

Arguments = TypeVar("Arguments")


def run_script(main: Callable[[Arguments], int | None], arguments: type[Arguments]) -> NoReturn:
    """Parse the command line, run, and leave with an exit code; expected errors are told without a traceback.

    Args:
        main: what the script does; what it returns is the exit code.
        arguments: dataclass of its command line.
    """
    parsed = tyro.cli(arguments)
    try:
        code = main(parsed)
    except ViewloomError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    sys.exit(code or 0)
