"""Skeletons of captures: joints of the demo figure, noisy and partly wrong, come back in the capture's own world."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from pipeline.jobs.skeleton import find_skeleton
from scene.captures import load_capture
from scene.captures.worlds import world_from_original
from scene.errors import InputError, OutputError
from scene.skeleton import INDEX, JOINTS, Skeleton
from tests.pipeline.jobs.conftest import Heard
from tests.pipeline.jobs.test_body_network import PACKAGE, needs_network
from viewloom.cli import main

FIGURE = Path(__file__).parents[3] / "docs" / "demo" / "figure"
BODY_25 = (*range(8), *range(9, 19))


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    """Half of the demo figure's views, in a world that leans, as nerfstudio's import of COLMAP leaves it."""
    shutil.copytree(FIGURE, tmp_path / "figure", ignore=shutil.ignore_patterns("truth", "*.json"))
    content = json.loads((FIGURE / "transforms.json").read_text())
    lean = leaning()
    content["frames"] = content["frames"][::2]
    for frame in content["frames"]:
        frame["transform_matrix"] = (lean @ np.array(frame["transform_matrix"])).tolist()
    (tmp_path / "figure" / "transforms.json").write_text(json.dumps(content))
    return tmp_path / "figure"


def leaning() -> np.ndarray:
    turn = np.eye(4)
    turn[1:3, 1:3] = [[0.8, -0.6], [0.6, 0.8]]
    return turn


def openpose(capture: Path, folder: Path, noise: float = 1.0, wrong: float = 0.2) -> Path:
    """OpenPose's files of the figure's joints: noisy, a share of them anywhere, some unseen, one view mirrored."""
    folder.mkdir()
    views = load_capture(capture)
    body = Skeleton.load(FIGURE / "skeleton.json").transformed(world_from_original(views.metadata) @ leaning())
    draw = np.random.default_rng(0)
    for number, view in enumerate(views):
        pixels = view.camera.project(body.positions)[0] + draw.normal(0, noise, (18, 2)) - 0.5
        chosen = draw.random(18) < wrong
        pixels[chosen] = draw.uniform(0, 128, (int(chosen.sum()), 2))
        if number == 3:
            other = [INDEX[n.replace("left_", "x").replace("right_", "left_").replace("x", "right_")] for n in JOINTS]
            pixels = pixels[other]
        values = np.zeros((25, 3))
        values[list(BODY_25)] = np.column_stack([pixels, np.full(18, 0.8)])
        values[list(BODY_25)] *= (draw.random(18) > 0.1)[:, None]
        passer_by = np.full((25, 3), [3.0, 3.0, 1.0])
        people = [{"pose_keypoints_2d": person.ravel().tolist()} for person in (passer_by, values)]
        (folder / f"{view.name}_keypoints.json").write_text(json.dumps({"people": people}))
    return folder


def errors_of(file: Path, matrix: np.ndarray) -> np.ndarray:
    """How far joints are from the truth, as a share of the figure's height."""
    true = Skeleton.load(FIGURE / "skeleton.json").transformed(matrix).positions
    return np.asarray(np.linalg.norm(Skeleton.load(file).positions - true, axis=1) / np.ptp(true, axis=0).max())


def test_given_joints_become_the_skeleton_in_the_world_of_the_file(figure: Path, tmp_path: Path) -> None:
    heard = Heard()
    made = find_skeleton(figure, joints=openpose(figure, tmp_path / "joints"), reporter=heard)
    assert made.file == figure / "skeleton.json"
    assert made.views == 12
    errors = errors_of(made.file, leaning())
    assert errors.mean() < 0.01
    assert errors.max() < 0.04
    assert "18 of 18 joints from 12 views" in made.summary
    assert heard.failures == []


def test_views_without_a_file_tell_nothing(figure: Path, tmp_path: Path) -> None:
    folder = openpose(figure, tmp_path / "joints", wrong=0)
    for file in sorted(folder.iterdir())[4:]:
        file.unlink()
    (folder / "00_keypoints.json").rename(folder / "00.json")
    made = find_skeleton(figure, tmp_path / "s.json", joints=folder)
    assert made.views == 4
    assert errors_of(tmp_path / "s.json", leaning()).max() < 0.1


def test_what_few_views_agree_on_is_told(figure: Path, tmp_path: Path) -> None:
    folder = openpose(figure, tmp_path / "joints", noise=0.3, wrong=0)
    draw = np.random.default_rng(1)
    for number, file in enumerate(sorted(folder.iterdir())):
        content = json.loads(file.read_text())
        values = np.array(content["people"][1]["pose_keypoints_2d"]).reshape(25, 3)
        if number > 4:
            values[4, :2] = draw.uniform(0, 128, 2)  # the right wrist
        values[3, :2] = draw.uniform(0, 128, 2)  # the right elbow
        values[18, 2] = 0  # the left ear
        values[14, :2] = values[13, :2] if number != 3 else values[11, :2]  # the left ankle, at the knee
        content["people"][1]["pose_keypoints_2d"] = values.ravel().tolist()
        file.write_text(json.dumps(content))
    warnings = find_skeleton(figure, joints=folder).warnings
    assert "Too few views agree on right_elbow, left_ear, which stay unknown." in warnings
    assert any("agree on right_wrist (" in text for text in warnings)
    assert any(text.startswith("The bones that end in left_ankle and right_ankle differ: ") for text in warnings)


def test_what_cannot_be_used_is_refused(figure: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"joints come from OpenPose's files or .* --joints FOLDER"):
        find_skeleton(figure)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"has joints of no view: none of 00_keypoints\.json"):
        find_skeleton(figure, joints=tmp_path / "empty")
    folder = openpose(figure, tmp_path / "joints")
    for file in folder.iterdir():
        file.write_text('{"people": []}')
    with pytest.raises(InputError, match=r"too few of its views agree on neck, right_hip, .*: 0 of 12 show a body"):
        find_skeleton(figure, joints=folder)
    assert not (figure / "skeleton.json").exists()
    (figure / "skeleton.json").write_text("mine")
    with pytest.raises(OutputError, match=r"is there already.*--overwrite"):
        find_skeleton(figure, joints=folder)
    assert (figure / "skeleton.json").read_text() == "mine"


def test_the_command_says_where_it_is(
    figure: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # as in production
    folder = openpose(figure, tmp_path / "joints")
    assert main(["skeleton", str(figure), "--joints", str(folder), "--quiet"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{figure / 'skeleton.json'}  (18 of 18 joints from 12 views, which differ by ")
    assert err == ""
    assert main(["skeleton", str(figure), "--quiet"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@needs_network
@pytest.mark.parametrize("masked", [True, False])
def test_the_network_finds_the_figure(figure: Path, masked: bool) -> None:
    if not masked:  # it is then looked for where the cameras look
        shutil.rmtree(figure / "masks")
        content = json.loads((figure / "transforms.json").read_text())
        for frame in content["frames"]:
            frame.pop("mask_path", None)
        (figure / "transforms.json").write_text(json.dumps(content))
    made = find_skeleton(figure, model=PACKAGE)
    errors = errors_of(made.file, leaning())
    assert errors.mean() < 0.08
    assert errors.max() < 0.16
