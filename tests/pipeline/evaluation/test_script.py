"""Scripts end as the command line does: expected errors are one line, and an exit code."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from pipeline.evaluation.script import run_script
from scene.errors import InputError, MissingBackendError, ViewloomError


@dataclass(frozen=True)
class Arguments:
    """Of a script."""

    number: int = 3


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("holds nothing", where="here", fix="Fill it."), 2),
        (MissingBackendError("needs x", fix="Run: pip install x"), 2),
        (ViewloomError("broke"), 1),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: ViewloomError, code: int
) -> None:
    def main(arguments: Arguments) -> None:
        raise error

    monkeypatch.setattr("sys.argv", ["script"])
    with pytest.raises(SystemExit) as done:
        run_script(main, Arguments)
    assert done.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(("line", "code"), [((), 0), (("--number", "7"), 4)])
def test_what_main_returns_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], code: int) -> None:
    monkeypatch.setattr("sys.argv", ["script", *line])
    with pytest.raises(SystemExit) as done:
        run_script(lambda arguments: arguments.number - 3 or None, Arguments)
    assert done.value.code == code


def test_other_errors_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["script"])
    with pytest.raises(ZeroDivisionError):
        run_script(lambda arguments: 1 // 0, Arguments)
