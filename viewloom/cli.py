"""The command line: ``viewloom COMMAND``; the commands are in :mod:`viewloom.commands`."""

from __future__ import annotations

import difflib
import io
import os
import sys
from collections.abc import Sequence

import viewloom
from scene.errors import ViewloomError, unexpected
from viewloom.commands import COMMANDS


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0 done, 1 our fault, 2 the input's."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold anything, and not every console can show everything.
            stream.reconfigure(errors="backslashreplace")
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not argv or argv[0] in ("-h", "--help", "--help-all"):
        print(_usage())
        return 0 if argv else 2
    if argv[0] == "help":
        return main([*argv[1:2], "--help"])
    if argv[0] in ("-V", "--version"):
        print(f"viewloom {viewloom.__version__}")
        return 0
    if argv[0] not in COMMANDS:
        near = difflib.get_close_matches(argv[0], COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"viewloom: unknown command {argv[0]!r}{hint}\n\n{_usage()}", file=sys.stderr)
        return 2
    try:
        from viewloom.commands.parsing import parse

        return parse(argv[0], argv[1:]).run()
    except BrokenPipeError:  # whoever read the output has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if "--debug" in argv:
            raise
        ours = error if isinstance(error, ViewloomError) else unexpected(error)
        print(f"viewloom: {ours}", file=sys.stderr)
        return ours.exit_code
    except KeyboardInterrupt:
        print("viewloom: stopped; the same command continues where this one was", file=sys.stderr)
        return 130


def _usage() -> str:
    lines = [f"  viewloom {name:<12} {info.summary}" for name, info in COMMANDS.items()]
    closing = [
        "  viewloom help COMMAND        what matters of a command",
        "  viewloom COMMAND --help-all  every setting",
    ]
    return "\n".join([f"viewloom {viewloom.__version__}", "", *lines, "", *closing])


if __name__ == "__main__":
    sys.exit(main())
