"""Labels of symmetry: known planes of made-up meshes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.training.data.symmetry import HEADINGS, SymmetryLabels, near_a_plane, reflection_errors, true_planes
from pipeline.training.procedural import moved, rotation
from pipeline.training.procedural.primitives import box, lathe
from scene.errors import InputError
from scene.mesh import ColouredMesh

STEP = 180 / HEADINGS


def errors_of(*parts: tuple[np.ndarray, np.ndarray], turn_deg: float = 0.0) -> np.ndarray:
    vertices, faces, count = [], [], 0
    for v, f in parts:
        v, _ = moved((v, f), (0.0, 0.0, 0.0), rotation("z", math.radians(turn_deg)))
        vertices.append(v)
        faces.append(f + count)
        count += len(v)
    mesh = ColouredMesh(
        np.concatenate(vertices).astype(np.float32), np.concatenate(faces).astype(np.int32)
    ).normalised()
    return reflection_errors(mesh, np.random.default_rng(0))[0][None]


def planes(errors: np.ndarray) -> list[float]:
    return [float(k * STEP) for k in np.nonzero(true_planes(errors)[0])[0]]


def arm() -> tuple[np.ndarray, np.ndarray]:
    return moved(box((0.1, 0.1, 0.1)), (0.5, 0.3, 0.2))


@pytest.mark.parametrize("turn", [0, 20, 65])
def test_a_long_box_has_two_planes(turn: int) -> None:
    found = planes(errors_of(box((0.5, 0.2, 0.3)), turn_deg=turn))
    for wanted in (turn, turn + 90):
        assert any(abs((angle - wanted + 90) % 180 - 90) <= STEP for angle in found)
    assert all(min(abs((angle - turn - k + 90) % 180 - 90) for k in (0, 90)) <= STEP for angle in found)


def test_an_arm_on_one_side_takes_them_away() -> None:
    assert planes(errors_of(box((0.5, 0.2, 0.3)), arm(), moved(box((0.05, 0.4, 0.05)), (-0.4, 0.3, -0.2)))) == []


def test_round_things_have_all_planes() -> None:
    assert true_planes(
        errors_of(lathe(np.array([(0.0, -0.4), (0.3, -0.4), (0.2, 0.0), (0.3, 0.4), (0.0, 0.4)]), 64))
    ).all()


def test_headings_are_told_from_the_photo() -> None:
    errors = np.ones((2, HEADINGS))
    errors[:, 4] = 0.0  # a plane at 20 degrees
    headings = np.radians(np.array([[20.0, 10.0, 50.0, 200.0]] * 2))
    near = near_a_plane(errors, np.radians(np.array([0.0, 10.0])), headings, 8.0)
    assert near.tolist() == [[True, False, False, True], [False, True, False, False]]


def test_labels_are_stored_beside_their_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no labels"):
        SymmetryLabels.open(tmp_path)
    labels = SymmetryLabels(np.random.default_rng(0).random((3, HEADINGS)), np.zeros((3, HEADINGS)))
    labels.save(tmp_path)
    assert SymmetryLabels.open(tmp_path).errors == pytest.approx(labels.errors, abs=1e-6)
    assert len(SymmetryLabels.open(tmp_path)) == 3
