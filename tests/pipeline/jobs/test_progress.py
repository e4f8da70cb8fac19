"""What is told while a job runs: plain lines in files, bars on terminals, names as they are."""

from __future__ import annotations

import io
import logging
import re
import sys
from pathlib import Path

import pytest
from rich.console import Console

from pipeline.jobs.progress import (
    CallbackReporter,
    ConsoleReporter,
    JobProgress,
    LoggingReporter,
    Reporter,
    one_item,
    print_banner,
    reporter_of,
)
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.time_left import Work
from scene.errors import InputError
from tests.pipeline.jobs.conftest import Heard


def plain() -> tuple[ConsoleReporter, io.StringIO]:
    out = io.StringIO()
    return ConsoleReporter(Console(file=out, width=80)), out


def test_every_reporter_has_every_method() -> None:
    assert isinstance(LoggingReporter(), Reporter)
    assert isinstance(CallbackReporter(print), Reporter)
    assert isinstance(plain()[0], Reporter)
    assert not isinstance(object(), Reporter)


def run_through(reporter: Reporter) -> None:
    reporter.item("a", Work(1, 2, {"views": 0.5, "surface": 0.5}))
    reporter.stage("views", False)
    reporter.step(1, 2)
    reporter.note("b")
    reporter.stage("surface", True)
    reporter.finished()
    reporter.item("c", Work(2, 2))
    reporter.stage("views", False)
    reporter.failed("d")


def test_warnings_and_errors_alone_are_printed_where_nobody_set_logging_up(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest has set it up
    run_through(reporter_of(None))
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "b\nc failed: d\n"


def test_the_logger_hears_everything(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "viewloom"):
        run_through(reporter_of(None))
    said = [(r.levelname, re.sub(r"\d+\.\d s", "TIME", r.getMessage())) for r in caplog.records]
    assert said == [
        ("INFO", "a (1 of 2)"),
        ("INFO", "views: begins"),
        ("DEBUG", "views: 1 of 2"),
        ("WARNING", "b"),
        ("INFO", "views: done in TIME"),
        ("INFO", "surface: kept"),
        ("INFO", "c (2 of 2)"),
        ("INFO", "views: begins"),
        ("INFO", "views: failed in TIME"),
        ("ERROR", "c failed: d"),
    ]


def test_a_function_is_called_with_where_the_job_stands() -> None:
    heard: list[JobProgress] = []
    run_through(reporter_of(heard.append))
    assert [(p.item, p.stage, p.done, p.total, p.cached, p.note, p.state) for p in heard] == [
        ("a", "", 0, 0, False, "", "running"),
        ("a", "views", 0, 0, False, "", "running"),
        ("a", "views", 1, 2, False, "", "running"),
        ("a", "views", 1, 2, False, "b", "running"),
        ("a", "surface", 0, 0, True, "", "running"),
        ("a", "surface", 0, 0, True, "", "finished"),
        ("c", "", 0, 0, False, "", "running"),
        ("c", "views", 0, 0, False, "", "running"),
        ("c", "views", 0, 0, False, "d", "failed"),
    ]
    assert heard[2].seconds_left[0] is not None


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


def test_a_failed_item_is_not_told_as_done() -> None:
    reporter, out = plain()
    with reporter:
        reporter.item("a", Work(1, 2))
        reporter.stage("views", False)
        reporter.failed("no object")
        reporter.item("b", Work(2, 2))
    lines = [re.sub(r" *\d+\.\d s$", " TIME", line) for line in out.getvalue().splitlines()]
    assert lines == ["[1 of 2] a", "  views ...", "  views      failed after TIME", "  failed: no object", "[2 of 2] b"]


def test_why_the_only_item_failed_is_left_to_the_command() -> None:
    reporter, out = plain()
    with reporter:
        reporter.item("a", Work(1, 1))
        reporter.stage("views", False)
        reporter.failed("no object")
    assert "failed after" in out.getvalue()
    assert "no object" not in out.getvalue()


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter(quiet=True)
    with reporter:
        run_through(reporter)
    assert capfd.readouterr() == ("", "")


def test_with_many_items_the_time_for_the_others_is_told() -> None:
    reporter, out = plain()
    shares = {"views": 1.0}
    with reporter:
        reporter.item("a", Work(1, 3, shares))
        reporter.stage("views", False)
        reporter.finished()
    assert out.getvalue().endswith("  2 more, about 1 s\n")


def test_a_stopped_job_closes_its_stage() -> None:
    reporter, out = plain()

    def fail() -> None:
        with reporter:
            reporter.stage("views", False)
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert re.search(r"  views +stopped after +\d+\.\d s\n$", out.getvalue())


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


def test_every_job_tells_how_its_item_ends(tmp_path: Path, heard: Heard) -> None:
    with one_item(heard, "a", Work(2, 3)):
        assert heard.ends == []
    with pytest.raises(InputError), one_item(heard, "b"):
        raise InputError("wrong")
    with pytest.raises(InputError):
        reconstruct(tmp_path / "nothing", tmp_path / "out", reporter=heard)
    assert heard.ends == ["finished", "failed", "failed"]
    assert heard.works[0] == Work(2, 3)
    assert heard.failures[0] == "wrong."


def test_a_listener_that_fails_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fails(progress: JobProgress) -> None:
        raise RuntimeError("a bug of the caller")

    with one_item(reporter_of(fails), "a"):
        pass
    assert "a bug of the caller" in caplog.text


def test_results_beside_bars_go_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """Bars are on the terminal, results are piped elsewhere."""
    console = Console(file=io.StringIO(), force_terminal=True)
    with ConsoleReporter(console) as reporter:
        reporter.item("a")
        reporter.stage("views", cached=False)
        sys.stdout.write("a result\n")
        reporter.finished()
    assert capsys.readouterr().out == "a result\n"
    assert "views" in console.file.getvalue()
    assert "a result" not in console.file.getvalue()
