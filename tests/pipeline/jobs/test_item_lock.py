"""Two jobs do not write into one folder at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.item_lock import FolderBusyError, only_job, owner
from pipeline.jobs.reconstruct import reconstruct
from pipeline.jobs.settings import Image2MeshSettings
from tests.pipeline.jobs.conftest import Done

HOLD = """
import sys, time
from pathlib import Path
from pipeline.jobs.item_lock import only_job
with only_job(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_one_jobs_until_its_block_ends(tmp_path: Path) -> None:
    with only_job(tmp_path / "a"):
        with only_job(tmp_path / "b"):
            pass
        with pytest.raises(FolderBusyError, match="another job is writing here"), only_job(tmp_path / "." / "a"):
            pass
    with only_job(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_process_holds_it_until_it_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "a")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(FolderBusyError), only_job(tmp_path / "a"):
            pass
        other.kill()
        other.wait()
    with only_job(tmp_path / "a"):
        pass


def test_a_job_that_finds_the_folder_busy_leaves_it_as_it_is(done: Done, settings: Image2MeshSettings) -> None:
    before = files_in(done.out)
    with only_job(done.out / "toy"):
        (result,) = image2mesh([done.photo], done.out, settings)
        assert isinstance(result.error, FolderBusyError)
        with pytest.raises(FolderBusyError):
            reconstruct(done.out / "toy" / "views", done.out / "toy")
    assert files_in(done.out) == before


def files_in(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


CLAIM = ".viewloom-job.json"


def claimed(folder: Path, **changes: object) -> Path:
    """A folder with the claim of a job elsewhere."""
    folder.mkdir()
    content = {"owner": "elsewhere-7", "host": "elsewhere", "process": 7, "since": 1.7e9, **changes}
    (folder / CLAIM).write_text(json.dumps(content))
    return folder


def test_a_job_of_another_machine_is_named(tmp_path: Path) -> None:
    folder = claimed(tmp_path / "a")
    with (
        pytest.raises(FolderBusyError, match=r"\(process 7 on elsewhere, since 2023-11-1.*--busy wait"),
        only_job(folder),
    ):
        pass
    assert json.loads((folder / CLAIM).read_text())["owner"] == "elsewhere-7"


def gone() -> str:
    """The owner that a process that has ended was."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    return f"{owner().rpartition('-')[0]}-{ended.pid}"


def test_what_jobs_left_that_are_gone_is_taken_over(tmp_path: Path) -> None:
    silent = claimed(tmp_path / "silent")
    os.utime(silent / CLAIM, (time.time() - 200,) * 2)
    ended = claimed(tmp_path / "ended", owner=gone())
    broken = claimed(tmp_path / "broken")
    (broken / CLAIM).write_text("[")
    os.utime(broken / CLAIM, (1, 1))
    for folder in (silent, ended, broken):
        with only_job(folder):
            said = json.loads((folder / CLAIM).read_text())
            assert (said["owner"], said["process"]) == (owner(), os.getpid())
        assert list(folder.iterdir()) == []


def test_the_claim_is_touched_while_the_job_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.jobs.item_lock._SIGN_OF_LIFE", 0.01)
    with only_job(tmp_path / "a"):
        os.utime(tmp_path / "a" / CLAIM, (1, 1))
        end = time.monotonic() + 10
        while (tmp_path / "a" / CLAIM).stat().st_mtime < 100 and time.monotonic() < end:
            time.sleep(0.01)
        assert (tmp_path / "a" / CLAIM).stat().st_mtime > 100


def test_a_job_that_waits_begins_when_the_other_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.jobs.item_lock._PAUSE", 0.01)
    told: list[str] = []
    order: list[str] = []

    def second() -> None:
        with only_job(tmp_path / "a", "wait", told.append):
            order.append("second")

    with only_job(tmp_path / "a"):
        thread = threading.Thread(target=second)
        thread.start()
        end = time.monotonic() + 10
        while not told and time.monotonic() < end:
            time.sleep(0.01)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert len(told) == 1
    assert "another job is writing here (process" in told[0]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_claimed_is_left_to_the_first_stage_to_complain_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "in"):
        with only_job(folder):
            pass
    assert (tmp_path / "file").read_text() == "x"
