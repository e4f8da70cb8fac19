"""Two jobs do not write into one folder at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.item_lock import FolderBusyError, only_job
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
    before = {path: path.stat().st_mtime_ns for path in done.out.rglob("*")}
    with only_job(done.out / "toy"):
        (result,) = image2mesh([done.photo], done.out, settings)
        assert isinstance(result.error, FolderBusyError)
        with pytest.raises(FolderBusyError):
            reconstruct(done.out / "toy" / "views", done.out / "toy")
    assert {path: path.stat().st_mtime_ns for path in done.out.rglob("*")} == before
