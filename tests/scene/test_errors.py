"""Errors: what, where and what to do, also across process borders."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from scene.errors import (
    CheckpointError,
    InputError,
    MissingBackendError,
    OutputError,
    SettingsError,
    ViewloomError,
    unexpected,
)

KINDS = [ViewloomError, InputError, SettingsError, CheckpointError, MissingBackendError, OutputError]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "the photo is empty."),
        ({"where": "a.png"}, "a.png: the photo is empty."),
        ({"fix": "Take another."}, "the photo is empty. Take another."),
        ({"where": Path("a.png"), "fix": "Take another."}, "a.png: the photo is empty. Take another."),
    ],
)
def test_message(arguments: dict[str, object], text: str) -> None:
    assert str(InputError("the photo is empty", **arguments)) == text  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_pickling(kind: type[ViewloomError]) -> None:
    error = kind("what", where=Path("file"), fix="Do this.")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is kind
    assert (back.what, back.where, back.fix, str(back)) == (error.what, error.where, error.fix, str(error))


def test_exit_codes_tell_the_users_mistakes_from_ours() -> None:
    assert {kind: kind.exit_code for kind in KINDS} == {kind: 1 if kind is ViewloomError else 2 for kind in KINDS}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ZeroDivisionError(), "a.png: unexpected ZeroDivisionError. Run it again with --debug for the traceback."),
        (RuntimeError("\n out of memory \nframe 0"), "a.png: unexpected RuntimeError (out of memory). Run it again"),
        (MemoryError("no room"), "a.png: unexpected MemoryError (no room). Run it again"),
    ],
)
def test_what_nobody_foresaw_is_our_fault_and_says_its_kind(error: Exception, text: str) -> None:
    ours = unexpected(error, where=Path("a.png"))
    assert type(ours) is ViewloomError
    assert str(ours).startswith(text)


def test_what_quotes_a_whole_file_is_cut() -> None:
    error = InputError("x" * 100_000, where="a.txt", fix="Mend it.")
    assert len(str(error)) < 1100
    assert str(error).startswith("a.txt: xxx")
    assert str(error).endswith("Mend it.")
