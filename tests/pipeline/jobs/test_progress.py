"""What is told while a job runs: plain lines in files, bars on terminals, names as they are."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from pipeline.jobs.progress import ConsoleReporter, Reporter, SilentReporter, print_banner


def plain() -> tuple[ConsoleReporter, io.StringIO]:
    out = io.StringIO()
    return ConsoleReporter(Console(file=out, width=80)), out


def test_both_reporters_have_every_method() -> None:
    assert isinstance(SilentReporter(), Reporter)
    assert isinstance(plain()[0], Reporter)
    assert not isinstance(object(), Reporter)


def test_silent_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    silent = SilentReporter()
    silent.item("a")
    silent.stage("views", False)
    silent.step(1, 2)
    silent.note("b")
    assert capfd.readouterr() == ("", "")


def test_in_a_file_every_stage_has_plain_lines() -> None:
    reporter, out = plain()
    with reporter:
        reporter.item("cup.png -> out/cup")
        reporter.stage("prepare", True)
        reporter.stage("views", False)
        for k in range(50):
            reporter.step(k + 1, 50)
        reporter.note("look at it")
        reporter.stage("surface", False)
    lines = [re.sub(r"\d+\.\d s$", "TIME", line) for line in out.getvalue().splitlines()]
    assert lines == [
        "cup.png -> out/cup",
        "  prepare    kept",
        "  views ...",
        "  note: look at it",
        "  views         TIME",
        "  surface ...",
        "  surface       TIME",
    ]
    assert "\x1b" not in out.getvalue()


def test_lines_come_when_things_happen() -> None:
    reporter, out = plain()
    with reporter:
        reporter.item("cup")
        assert out.getvalue() == "cup\n"
        reporter.stage("views", False)
        assert out.getvalue().endswith("  views ...\n")


def test_the_stage_of_one_photo_ends_where_the_next_begins() -> None:
    reporter, out = plain()
    with reporter:
        reporter.item("a")
        reporter.stage("asset", False)
        reporter.item("b")
        reporter.step(1, 2)  # of no stage
    assert [line.split()[0] for line in out.getvalue().splitlines()] == ["a", "asset", "asset", "b"]


def test_a_failing_job_closes_its_stage() -> None:
    reporter, out = plain()

    def fail() -> None:
        with reporter:
            reporter.stage("views", False)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert re.search(r"  views +\d+\.\d s\n$", out.getvalue())


@pytest.mark.parametrize("name", ["[red]cup[/red].png", "[/b].png", "a[1].png", "C:\\cups\\[x]", "[link=file:///x]y"])
def test_brackets_in_names_are_no_markup(name: str) -> None:
    reporter, out = plain()
    with reporter:
        reporter.item(name)
        reporter.note(f"failed: {name}")
    assert out.getvalue() == f"{name}\n  note: failed: {name}\n"


def test_long_names_stay_on_one_line() -> None:
    reporter, out = plain()
    with reporter:
        reporter.item("long " * 60 + "name")
        reporter.note("long " * 60 + "text")
    assert len(out.getvalue().splitlines()) == 2


def test_on_a_terminal_a_bar_moves_and_goes() -> None:
    out = io.StringIO()
    reporter = ConsoleReporter(Console(file=out, width=100, force_terminal=True))
    with reporter:
        reporter.item("cup")
        reporter.stage("views", False)
        reporter.step(3, 8)
        reporter._bars.refresh()
        assert "3/8" in out.getvalue()
        assert "views ..." not in out.getvalue()
        reporter.stage("surface", True)
        assert reporter._bars.task_ids == []
    assert re.search(r"views +\d+\.\d s", out.getvalue())
    assert "surface    kept" in out.getvalue()


def test_hello_goes_to_the_error_stream(capfd: pytest.CaptureFixture[str]) -> None:
    print_banner("viewloom: hello")
    assert capfd.readouterr() == ("", "viewloom: hello\n")
