"""OpenPose's files: both layouts are one body, what is not seen is unknown, and what is none is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scene.errors import InputError
from scene.openpose import read_openpose
from scene.skeleton import INDEX


def written(path: Path, people: Any, **more: Any) -> Path:
    path.write_text(json.dumps({"version": 1.3, "people": people, **more}))
    return path


def points(count: int) -> np.ndarray:
    return np.stack([np.arange(count), 100.0 + np.arange(count), np.full(count, 0.5)], axis=1)


def person(values: np.ndarray) -> dict[str, Any]:
    return {"pose_keypoints_2d": values.ravel().tolist(), "hand_left_keypoints_2d": []}


def test_joints_of_both_layouts(tmp_path: Path) -> None:
    (eighteen,) = read_openpose(written(tmp_path / "a.json", [person(points(18))]), 200, 200)
    np.testing.assert_allclose(eighteen.pixels, points(18)[:, :2] + 0.5)
    (body25,) = read_openpose(written(tmp_path / "a.json", [person(points(25))]), 200, 200)
    # Of the 25: 8 is between the hips, 9 the right hip, 14 the left ankle, 15 the right eye, 18 the left ear.
    places = {"nose": 0, "left_wrist": 7, "right_hip": 9, "left_ankle": 14, "right_eye": 15, "left_ear": 18}
    assert {name: body25.pixels[INDEX[name], 0] - 0.5 for name in places} == places
    assert (body25.confidences == 0.5).all()


def test_what_is_not_seen_is_unknown(tmp_path: Path) -> None:
    values = points(18)
    values[3] = 0
    (found,) = read_openpose(written(tmp_path / "a.json", [person(values)]), 200, 200)
    assert np.isnan(found.pixels[3]).all()
    assert found.confidences[3] == 0
    assert np.isfinite(found.pixels).all(axis=1).sum() == 17


def test_pixels_of_another_size_are_scaled(tmp_path: Path) -> None:
    file = written(tmp_path / "a.json", [person(points(18))], canvas_width=400, canvas_height=100)
    (found,) = read_openpose(file, 200, 200)
    np.testing.assert_allclose(found.pixels, (points(18)[:, :2] + 0.5) * [0.5, 2])


def test_none_and_several(tmp_path: Path) -> None:
    assert read_openpose(written(tmp_path / "a.json", []), 9, 9) == []
    assert len(read_openpose(written(tmp_path / "a.json", [person(points(18))] * 3), 9, 9)) == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"joints": {}}, "lists no people"),
        ({"people": {}}, "lists no people"),
        ({"people": [[1, 2, 3]]}, "person 0 needs pose_keypoints_2d of 18 or 25 points, three numbers each; got none"),
        ({"people": [{"pose_keypoints_2d": [1.0] * 51}]}, "got 51 numbers"),
        ({"people": [{"pose_keypoints_2d": [1.0] * 53 + [None]}]}, "person 0 has None among"),
        ({"people": [{"pose_keypoints_2d": [1.0] * 53 + ["2"]}]}, "person 0 has '2' among"),
        ({"people": [], "canvas_width": 0}, "has a canvas of"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said) as caught:
        read_openpose(tmp_path / "a.json", 9, 9)
    assert "a.json" in str(caught.value)
