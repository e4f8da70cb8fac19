"""Files of boxes: written and read back, and every fault named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.spatial.transform import Rotation

from pipeline.editing.boxes import BoxTarget
from pipeline.editing.controls import EmptyControlError
from pipeline.training.procedural.edits import box_edit
from scene.errors import InputError

GOOD = np.diag([0.3, 0.2, 0.1, 1.0])


def written(path: Path, boxes: Any, **others: Any) -> Path:
    path.write_text(json.dumps({"layout": "boxes", "boxes": boxes} | others))
    return path


def test_a_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    edit = box_edit("sofa", 3)
    target = BoxTarget(edit.boxes_before, edit.boxes_after)
    target.save(tmp_path / "boxes.json")
    again = BoxTarget.load(tmp_path / "boxes.json")
    assert np.array_equal(again.before, target.before)
    assert np.array_equal(again.after, target.after)
    assert np.allclose(target.transformed(np.diag([2.0, 2, 2, 1])).after[:, :3], 2 * target.after[:, :3])


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([], "holds no boxes"),
        ("none", "holds no boxes"),
        ([{"before": GOOD.tolist()}], "box 0 needs before and after"),
        ([{"before": GOOD.tolist(), "after": GOOD[:3].tolist()}], "after of box 0 is no 4x4"),
        ([{"before": GOOD.tolist(), "after": np.ones((4, 4)).tolist()}], "last row of after of box 0"),
        ([{"before": GOOD.tolist(), "after": [[True, 0, 0, 0], *GOOD[1:].tolist()]}], "no 4x4 matrix of numbers"),
        ([{"before": (-GOOD + np.diag([0, 0, 0, 2])).tolist(), "after": GOOD.tolist()}], "mirrored"),
    ],
)
def test_faults_are_named(tmp_path: Path, boxes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        BoxTarget.load(written(tmp_path / "b.json", boxes))
    assert raised.value.where == str(tmp_path / "b.json")


def test_flat_boxes_and_other_files_are_refused(tmp_path: Path) -> None:
    flat = {"before": GOOD.tolist(), "after": np.diag([1.0, 1, 0, 1]).tolist()}
    with pytest.raises(EmptyControlError, match="box 0 encloses nothing"):
        BoxTarget.load(written(tmp_path / "b.json", [flat]))
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_rotvec([0.3, 0.5, 0.7]).as_matrix()
    slanted = turn @ np.array([[1, 0, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]])
    assert np.linalg.det(slanted[:3, :3]) != 0  # by rounding alone
    with pytest.raises(EmptyControlError, match="box 0 encloses nothing"):
        BoxTarget(GOOD[None], slanted[None])
    thin = np.diag([1, 1, 1e-6, 1])
    assert BoxTarget(GOOD[None], thin[None]).after.shape == (1, 4, 4)
    with pytest.raises(InputError, match="no file of boxes"):
        BoxTarget.load(written(tmp_path / "b.json", [flat], layout="coco18"))
    with pytest.raises(InputError, match="1 boxes before and 2 after"):
        BoxTarget(GOOD[None], np.stack([GOOD, GOOD]))


@given(npst.arrays(np.float64, (4, 4), elements=st.floats(-1e12, 1e12)))
def test_any_numbers_give_boxes_or_an_input_error(matrix: np.ndarray) -> None:
    try:
        BoxTarget(matrix[None], GOOD[None])
    except InputError:
        return
    assert np.linalg.det(matrix[:3, :3]) > 0
