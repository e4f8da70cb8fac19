"""Skeletons: files that come back as they were, forward kinematics, bones, and what is refused."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from scene.errors import InputError
from scene.skeleton import (
    DRAWN_LIMBS,
    INDEX,
    JOINTS,
    MID_HIP,
    PARENTS,
    PIVOT_PARENTS,
    PIVOTS,
    Motion,
    Skeleton,
    turned_about,
)
from tests.bodies import standing

coordinates = st.floats(-1e6, 1e6)


@st.composite
def skeletons(draw: st.DrawFn) -> Skeleton:
    """Any joints, some of them not known."""
    positions = draw(arrays(np.float64, (18, 3), elements=coordinates))
    positions[draw(arrays(bool, 18))] = np.nan
    return Skeleton(positions)


@st.composite
def turns(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Rotations at some pivots."""
    names = draw(st.lists(st.sampled_from(sorted(PIVOTS)), unique=True))
    vectors = draw(arrays(np.float64, (len(names), 3), elements=st.floats(-3, 3)))
    return {name: Rotation.from_rotvec(v).as_matrix() for name, v in zip(names, vectors, strict=True)}


def test_the_order_is_that_of_coco() -> None:
    assert len(JOINTS) == 18
    assert [JOINTS[k] for k in (0, 1, 2, 5, 8, 11, 14, 17)] == [
        "nose", "neck", "right_shoulder", "left_shoulder", "right_hip", "left_hip", "right_eye", "left_ear",
    ]  # fmt: skip
    assert len(DRAWN_LIMBS) == 17


def test_parents_come_first_and_lead_to_the_root() -> None:
    seen = {MID_HIP}
    for name, parent in PARENTS.items():
        assert parent in seen
        seen.add(name)
    assert seen == {MID_HIP, *JOINTS}
    assert [name for name in PIVOTS if name not in PIVOT_PARENTS] == ["body"]
    moved = [joint for _, joints in PIVOTS.values() for joint in joints]
    assert sorted([*moved, "right_hip", "left_hip"]) == sorted(JOINTS)


@given(skeletons())
def test_a_file_gives_back_what_was_saved(tmp_path_factory: pytest.TempPathFactory, skeleton: Skeleton) -> None:
    path = tmp_path_factory.mktemp("s") / "s.json"
    skeleton.save(path)
    np.testing.assert_array_equal(Skeleton.load(path).positions, skeleton.positions)


def test_a_motion_gives_back_what_was_saved(tmp_path: Path) -> None:
    Motion((0.0, 0.25), (standing(), standing(0.4))).save(tmp_path / "m.json")
    back = Motion.load(tmp_path / "m.json")
    assert back.seconds == (0.0, 0.25)
    np.testing.assert_array_equal(back.poses[1].positions, standing(0.4).positions)


@given(turns(), arrays(np.float64, 3, elements=st.floats(-5, 5)))
def test_forward_kinematics_keep_lengths(rotations: dict[str, np.ndarray], shift: np.ndarray) -> None:
    rest = standing()
    posed = rest.posed(rotations, shift).bone_lengths()
    assert posed == pytest.approx(rest.bone_lengths(), abs=1e-12)


def test_a_pivot_moves_what_lies_beyond_and_nothing_else() -> None:
    rest = standing()
    quarter = Rotation.from_euler("x", -90, degrees=True).as_matrix()
    posed = rest.posed({"left_shoulder": quarter})
    moved = np.nonzero(np.abs(posed.positions - rest.positions).max(axis=1) > 1e-12)[0]
    assert {JOINTS[k] for k in moved} == {"left_elbow", "left_wrist"}
    np.testing.assert_allclose(posed.joint("left_wrist"), [0, 0.2, 0.8], atol=1e-12)


def test_turns_act_in_the_frame_of_the_pose_they_start_from() -> None:
    rest = standing()
    quarter = Rotation.from_euler("x", 90, degrees=True).as_matrix()
    posed = rest.posed({"left_shoulder": quarter, "left_elbow": quarter})
    # Up at the shoulder, and back inwards at the elbow.
    np.testing.assert_allclose(posed.joint("left_elbow"), [0, 0.2, 1.7], atol=1e-12)
    np.testing.assert_allclose(posed.joint("left_wrist"), [0, -0.1, 1.7], atol=1e-12)


def test_the_body_as_a_whole_turns_as_a_rigid_thing() -> None:
    rest = standing()
    turn = Rotation.from_rotvec([0.3, -0.7, 2]).as_matrix()
    whole = rest.transformed(turned_about(turn, rest.joint(MID_HIP)))
    np.testing.assert_allclose(rest.posed({"body": turn}).positions, whole.positions, atol=1e-12)


@given(st.floats(0.1, 10), arrays(np.float64, 3, elements=st.floats(-3, 3)))
def test_similarities_scale_bones(scale: float, vector: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = scale * Rotation.from_rotvec(vector).as_matrix()
    moved = standing().transformed(matrix)
    assert moved.bone_lengths() == pytest.approx({k: v * scale for k, v in standing().bone_lengths().items()})


@pytest.mark.parametrize("matrix", [np.diag([1, 1, -1, 1.0]), np.diag([1, 1, 2, 1.0]), np.full((4, 4), np.nan)])
def test_what_is_no_similarity_is_refused(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="rotation, positive scale and shift"):
        standing().transformed(matrix)


def test_bones_that_differ_are_told() -> None:
    assert standing().compare_bones(standing()) == {}
    assert standing(0.3).compare_bones(standing(0.32)) == {}
    longer = standing(0.4).compare_bones(standing(0.3))
    assert longer == pytest.approx({f"{s}_{j}": 4 / 3 for s in ("left", "right") for j in ("elbow", "wrist")})


@given(turns(), st.floats(0.2, 0.6))
def test_fitted_bones_have_the_other_lengths_and_their_own_directions(
    rotations: dict[str, np.ndarray], arm: float
) -> None:
    target, body = standing(arm).posed(rotations), standing()
    fitted = target.with_bones_of(body)
    assert fitted.bone_lengths() == pytest.approx(body.bone_lengths(), abs=1e-9)
    for name, parent in PARENTS.items():
        mine, theirs = fitted.joint(name) - fitted.joint(parent), target.joint(name) - target.joint(parent)
        assert mine @ theirs == pytest.approx(np.linalg.norm(mine) * np.linalg.norm(theirs), abs=1e-9)
    np.testing.assert_allclose(fitted.joint(MID_HIP), target.joint(MID_HIP), atol=1e-12)


def test_gaps_do_not_spread() -> None:
    joints = standing().positions.copy()
    joints[INDEX["left_elbow"]] = np.nan
    partial = Skeleton(joints)
    assert "left_wrist" not in partial.bone_lengths()
    fitted = partial.with_bones_of(standing(0.4))
    np.testing.assert_array_equal(fitted.joint("left_wrist"), partial.joint("left_wrist"))
    assert math.isclose(fitted.bone_lengths()["right_wrist"], 0.4)
    with pytest.raises(InputError, match="left_elbow is not known"):
        partial.posed({"left_elbow": np.eye(3)})
    with pytest.raises(InputError, match="joint left_elbow must be known"):
        partial.require("neck", "left_elbow")


def written(tmp_path: Path, change: Any) -> Path:
    content: dict[str, Any] = {"layout": "coco18", "joints": standing().as_plain()}
    change(content)
    path = tmp_path / "s.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["joints"].pop("nose"), "joint is missing: nose"),
        (lambda c: (c["joints"].pop("nose"), c["joints"].pop("neck")), "joints are missing: nose, neck"),
        (lambda c: c["joints"].update(left_elbo=None), "no joint 'left_elbo'; did you mean left_elbow"),
        (lambda c: c["joints"].update(nose=[0, 1]), "nose is .0, 1., not three finite numbers"),
        (lambda c: c["joints"].update(nose=[0, 1, math.nan]), "nose is .* not three finite numbers"),
        (lambda c: c["joints"].update(nose=[0, 1, math.inf]), "nose is .* not three finite numbers"),
        (lambda c: c["joints"].update(nose=[0, 1, True]), "nose is .* not three finite numbers"),
        (lambda c: c["joints"].update(nose="here"), "nose is 'here'"),
        (lambda c: c.update(joints=[]), "joints are a list"),
        (lambda c: c.update(layout="smpl"), "layout 'smpl'"),
        (lambda c: c.pop("layout"), "misses the key 'layout'"),
        (lambda c: c.update(joint={}), "no key 'joint'; did you mean joints"),
    ],
)
def test_files_that_are_wrong_are_refused_by_name(tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Skeleton.load(written(tmp_path, change))


plain = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(JOINTS[:3]) | st.text(), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["layout", "joints", "seconds", "poses"]) | st.text(max_size=4), plain), plain)
def test_no_file_breaks_the_reader(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, Any], joint: Any
) -> None:
    path = tmp_path_factory.mktemp("s") / "s.json"
    whole = {"layout": "coco18", "joints": {**standing().as_plain(), "nose": joint}}
    for held in (content, content | {"layout": "coco18"}, whole):
        path.write_text(json.dumps(held))
        for read in (Skeleton.load, Motion.load):
            with contextlib.suppress(InputError):  # any other error would be ours
                read(path)


def test_a_joint_given_twice_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, lambda c: None)
    path.write_text(path.read_text().replace('"joints": {', '"joints": {"nose": null, '))
    with pytest.raises(InputError, match="'nose' is given twice"):
        Skeleton.load(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(poses=[], seconds=[]), "no poses"),
        (lambda c: c.update(seconds=[0]), "as many seconds as poses"),
        (lambda c: c.update(seconds=[1, 1]), "must rise, but 1 comes after 1"),
        (lambda c: c.update(seconds=[100000, 100000.0001]), "must rise, but 100000.0001 comes after 100000"),
        (lambda c: c.update(seconds=[-1, 1]), "from 0 on"),
        (lambda c: c["poses"][1].pop("nose"), "pose 1: joint is missing: nose"),
    ],
)
def test_motions_that_are_wrong_are_refused(tmp_path: Path, change: Any, said: str) -> None:
    content: dict[str, Any] = {"layout": "coco18", "seconds": [0, 1], "poses": [standing().as_plain()] * 2}
    content = json.loads(json.dumps(content))
    change(content)
    (tmp_path / "m.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        Motion.load(tmp_path / "m.json")


@pytest.mark.parametrize("value", [math.inf, 1e12])
def test_positions_beyond_measure_are_refused(value: float) -> None:
    positions = standing().positions.copy()
    positions[3, 1] = value
    with pytest.raises(InputError, match="joint right_elbow must be of finite numbers"):
        Skeleton(positions)


def test_a_joint_known_in_part_is_refused() -> None:
    positions = standing().positions.copy()
    positions[3, 1] = math.nan
    with pytest.raises(InputError, match="joint right_elbow"):
        Skeleton(positions)


@pytest.mark.parametrize(
    ("rotations", "said"),
    [
        ({"left_elbo": np.eye(3)}, "did you mean left_elbow"),
        ({"left_elbow": np.diag([1, 1, -1.0])}, "no rotation matrix"),
        ({"left_elbow": 2 * np.eye(3)}, "no rotation matrix"),
    ],
)
def test_turns_that_are_none_are_refused(rotations: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(InputError, match=said):
        standing().posed(rotations)
