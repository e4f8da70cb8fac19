"""Motions of parts between two poses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from scene.camera import apply_transform
from scene.errors import InputError
from scene.skeleton import INDEX, PIVOTS, Skeleton
from scene.skinning.motion import PARENT_OF, PARTS, least_turn, part_motions
from tests.bodies import standing

vectors = arrays(np.float64, 3, elements=st.floats(-2, 2)).filter(lambda v: bool(np.linalg.norm(v) > 1e-3))


@given(vectors, vectors)
def test_the_least_turn_takes_one_direction_to_the_other(start: np.ndarray, end: np.ndarray) -> None:
    turn = least_turn(start, end)
    a, b = start / np.linalg.norm(start), end / np.linalg.norm(end)
    np.testing.assert_allclose(turn @ a, b, atol=1e-7)
    assert np.linalg.norm(Rotation.from_matrix(turn).as_rotvec()) == pytest.approx(
        np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b), abs=1e-6
    )


def test_opposite_directions_turn_by_half_and_none_not_at_all() -> None:
    np.testing.assert_allclose(
        least_turn(np.array([0, 0, 1.0]), np.array([0, 0, -2.0])) @ [0, 0, 1], [0, 0, -1], atol=1e-9
    )
    np.testing.assert_array_equal(least_turn(np.zeros(3), np.array([0, 0, 1.0])), np.eye(3))


@given(arrays(np.float64, 3, elements=st.floats(-3, 3)), arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_a_rigid_motion_of_all_is_that_of_each_part(vector: np.ndarray, shift: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec(vector).as_matrix(), shift
    rest = standing()
    np.testing.assert_allclose(part_motions(rest, rest.transformed(matrix)), np.tile(matrix, (11, 1, 1)), atol=1e-7)


@given(st.dictionaries(st.sampled_from(sorted(PIVOTS)), arrays(np.float64, 3, elements=st.floats(-1, 1))))
def test_motions_take_the_joints_to_the_target(turns: dict[str, np.ndarray]) -> None:
    rest = standing()
    target = rest.posed({name: Rotation.from_rotvec(v).as_matrix() for name, v in turns.items()})
    for motion, part in zip(part_motions(rest, target), PARTS, strict=True):
        np.testing.assert_allclose(motion[:3, :3] @ motion[:3, :3].T, np.eye(3), atol=1e-9)
        if part not in ("body", "spine", "neck"):
            about, moved = PIVOTS[part]
            for joint in (about, *moved):
                np.testing.assert_allclose(apply_transform(motion, rest.joint(joint)), target.joint(joint), atol=1e-7)
    np.testing.assert_allclose(
        apply_transform(part_motions(rest, target)[PARTS.index("neck")], rest.joint("nose")),
        target.joint("nose"),
        atol=1e-7,
    )


def test_what_is_not_known_goes_with_its_parent() -> None:
    rest = standing()
    turn = Rotation.from_euler("x", 40, degrees=True).as_matrix()
    target = rest.posed({"left_shoulder": turn, "left_elbow": turn})
    places = target.positions.copy()
    places[INDEX["left_wrist"]] = np.nan
    places[[INDEX[name] for name in ("nose", "right_eye", "left_eye", "right_ear", "left_ear")]] = np.nan
    motions = part_motions(rest, Skeleton(places))
    elbow = PARTS.index("left_elbow")
    np.testing.assert_allclose(motions[elbow, :3, :3], motions[PARENT_OF[elbow], :3, :3], atol=1e-9)
    np.testing.assert_allclose(motions[PARTS.index("neck")], np.eye(4), atol=1e-9)


def test_a_trunk_without_width_is_refused() -> None:
    places = standing().positions.copy()
    gone = places.copy()
    gone[INDEX["left_hip"]] = np.nan
    with pytest.raises(InputError, match="joint left_hip must be known"):
        part_motions(standing(), Skeleton(gone))
    places[INDEX["left_hip"]] = places[INDEX["right_hip"]]
    with pytest.raises(InputError, match="tells no front"):
        part_motions(standing(), Skeleton(places))


def test_a_face_in_one_point_tells_no_turn_of_the_head() -> None:
    places = standing().positions.copy()
    places[[INDEX[name] for name in ("nose", "right_eye", "left_eye", "right_ear", "left_ear")]] = (0.1, 0, 1.6)
    for rest, target in ((standing(), Skeleton(places)), (Skeleton(places), standing())):
        motions = part_motions(rest, target)
        turn = motions[PARTS.index("neck"), :3, :3]
        assert np.isfinite(motions).all()
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
def test_the_unit_says_nothing_of_the_trunk(scale: float) -> None:
    small = standing().transformed(np.diag([scale, scale, scale, 1]))
    np.testing.assert_allclose(part_motions(small, small), np.tile(np.eye(4), (len(PARTS), 1, 1)), atol=1e-9)
    flat = small.positions.copy()
    flat[INDEX["left_hip"]] = flat[INDEX["right_hip"]]
    with pytest.raises(InputError, match="tells no front"):
        part_motions(small, Skeleton(flat))
