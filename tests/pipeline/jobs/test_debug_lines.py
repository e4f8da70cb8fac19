"""What a job logs for debugging: a line for each thing that takes time, with sizes and seconds."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from pipeline.jobs.image2mesh import image2mesh
from pipeline.jobs.settings import Image2MeshSettings


def test_a_jobs_stages_log_their_sizes_and_seconds_once_each(
    photo: Path, settings: Image2MeshSettings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "viewloom"):
        image2mesh([photo], tmp_path / "out", settings)
    lines = [record.getMessage() for record in caplog.records if record.levelname == "DEBUG"]
    lines = [line for line in lines if not re.fullmatch(r"\w+: \d+ of \d+", line)]  # steps
    seconds = r"\d+\.\d s"
    expected = [
        rf"view model: \d\.\d M parameters as float32 on cpu in {seconds}",
        rf"views: 3 of \d+ pixels, 2 steps in {seconds}; coarse volume of \d+ in {seconds}",
        rf"hull: grid of 16, 4 views of at most 32 pixels, mean IoU with the masks \d\.\d+, {seconds}",
        rf"fit: grid \d+ x \d+ x \d+, \d+ cells, 2 steps in {seconds}, loss of colour \d\.\d+, loss of mask \d\.\d+",
        rf"fit: grid \d+ x \d+ x \d+, \d+ cells, 2 steps in {seconds}, loss of colour \d\.\d+, loss of mask \d\.\d+",
        r"texture: 64 pixels, \d+ faces, \d+ texels, 4 views in layers: "
        + ", ".join(f"{part} in {seconds}" for part in ("charts", "views", "colours")),
    ]
    assert len(lines) == len(expected), lines
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line
