"""The exceptions of viewloom: each message says what was wrong, where, and what to do about it."""

from __future__ import annotations

from pathlib import Path

_LONGEST = 1000
"""Letters of what was wrong."""


class ViewloomError(Exception):
    """Base of every error that viewloom raises on purpose.

    Args:
        what: what was wrong, one sentence without a final full stop.
        where: the file, key or image it was found in.
        fix: what the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        if len(what) > _LONGEST:  # it quotes a file that nobody would want to read here
            what = f"{what[:_LONGEST]}..."
        self.what, self.where, self.fix = what, None if where is None else str(where), fix
        text = what if where is None else f"{self.where}: {what}"
        super().__init__(text + ("." if fix is None else f". {fix}"))

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the three parts when the error crosses a process border."""
        return _rebuild, (type(self), self.what, self.where, self.fix)


def unexpected(error: Exception, *, where: str | Path | None = None) -> ViewloomError:
    """What stands for an exception that nobody foresaw: its kind, its first line, and how to see where it came from."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    what = f"unexpected {type(error).__name__}" + (f" ({said})" if said else "")
    return ViewloomError(what, where=where, fix="Run it again with --debug for the traceback.")


def _rebuild(kind: type[ViewloomError], what: str, where: str | None, fix: str | None) -> ViewloomError:
    return kind(what, where=where, fix=fix)


class InputError(ViewloomError):
    """Something the user gave (photo, capture, option) cannot be used."""

    exit_code = 2


class SettingsError(InputError):
    """A preset or option has an unknown key or a value of the wrong type."""


class CheckpointError(InputError):
    """A weights folder is missing, incomplete or does not fit the model."""


class MissingBackendError(InputError):
    """An optional package is needed for what was asked and is not installed."""


class OutputError(ViewloomError):
    """A result could not be written (disk full, read-only folder)."""

    exit_code = 2
