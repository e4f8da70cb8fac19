"""Blends of motions: each alone is exact, and dual quaternions lie between two of them as they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from scene.camera import apply_transform
from scene.skinning.pose import Method, posed_vertices
from scene.skinning.weights import Weights

threes = arrays(np.float64, 3, elements=st.floats(-3, 3))


def rigid(vector: np.ndarray, shift: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec(vector).as_matrix(), shift
    return matrix


@pytest.mark.parametrize("method", ["linear", "dual_quaternion"])
@given(threes, threes, threes, threes)
def test_one_part_alone_moves_as_its_motion(
    method: Method, vector: np.ndarray, shift: np.ndarray, other: np.ndarray, point: np.ndarray
) -> None:
    motions = np.stack([rigid(other, -shift), rigid(vector, shift)])
    skin = Weights(np.array([[1, 0]]), np.array([[1, 0]], np.float32))
    posed = posed_vertices(point[None], skin, motions, method)
    np.testing.assert_allclose(posed[0], apply_transform(motions[1], point), atol=1e-9)


@given(st.floats(-170, 170), st.floats(0, 1), threes)
def test_dual_quaternions_blend_turns_about_one_axis_by_its_angle(
    angle: float, share: float, centre: np.ndarray
) -> None:
    turn = Rotation.from_euler("z", angle, degrees=True).as_matrix()
    there = np.eye(4)
    there[:3, :3], there[:3, 3] = turn, centre - turn @ centre
    skin = Weights(np.array([[0, 1]]), np.array([[1 - share, share]], np.float32))
    posed = posed_vertices(centre[None] + [1, 0, 0.5], skin, np.stack([np.eye(4), there]))[0] - centre
    # On the circle about the axis; linear blend would cut the corner.
    assert np.hypot(posed[0], posed[1]) == pytest.approx(1, abs=1e-6)
    assert posed[2] == pytest.approx(0.5, abs=1e-6)
    assert -1e-4 <= np.arctan2(posed[1], posed[0]) * np.sign(angle) <= np.radians(abs(angle)) + 1e-4


def test_the_way_round_does_not_depend_on_signs_of_quaternions() -> None:
    motions = np.stack([rigid(np.array([0, 0, np.radians(a)]), np.zeros(3)) for a in (170, -170)])
    skin = Weights(np.array([[0, 1]]), np.array([[0.5, 0.5]], np.float32))
    posed = posed_vertices(np.array([[1.0, 0, 0]]), skin, motions)
    np.testing.assert_allclose(posed, [[-1, 0, 0]], atol=1e-9)


def test_few_weights_are_kept_and_add_up() -> None:
    dense = np.array([[0.1, 0.3, 0.05, 0.25, 0.3], [0, 0, 0, 0, 1]])
    kept = Weights.of(dense)
    assert kept.joints.shape == (2, 4)
    np.testing.assert_allclose(kept.weights.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(kept.dense(5)[1], dense[1])
    assert kept.dense(5)[0, 2] == 0
    assert kept.dense(5)[0, 1] == pytest.approx(0.3 / 0.95)
