"""Rigged people: closed parts, exact poses, bones that keep their lengths, pairs that stay in view."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.procedural import rotation
from pipeline.training.procedural.humanoid import humanoid, humanoid_pair
from pipeline.training.procedural.polygonise import is_closed
from pipeline.training.procedural.poses import BodyPose, Limb, random_pose, tangled, turn_between, worlds_of
from pipeline.training.procedural.rigged import PARTS, pose_pair
from scene.camera import OBJECT_RADIUS, orbit_camera
from scene.errors import InputError
from scene.mesh import signed_volume
from scene.render import MeshRenderer
from scene.skeleton import INDEX

seeds = st.integers(0, 2**31 - 1)


def parts_of(faces: np.ndarray, apart: np.ndarray) -> list[np.ndarray]:
    return [faces[apart[faces[:, 0]] == k] for k in np.unique(apart)]


@settings(max_examples=12)
@given(seeds)
def test_every_part_is_closed_and_looks_outward(seed: int) -> None:
    figure = humanoid(seed)
    assert figure.mesh.texture_space is not None
    apart = np.round(figure.mesh.texture_space[:, 0] / 10).astype(int)
    for faces in parts_of(figure.mesh.faces, apart):
        assert is_closed(faces)
        assert signed_volume(figure.mesh.vertices.astype(np.float64), faces) > 0
    assert np.allclose(figure.weights.sum(axis=1), 1)
    assert figure.weights.min() >= 0


@settings(max_examples=10)
@given(seeds)
def test_the_rest_pose_is_the_mesh_itself(seed: int) -> None:
    figure = humanoid(seed)
    assert np.abs(figure.posed(figure.rest).vertices - figure.mesh.vertices).max() < 1e-6
    assert np.allclose(figure.posed(figure.turned({})).vertices, figure.mesh.vertices, atol=1e-6)
    assert np.allclose(figure.skeleton(figure.rest).positions, figure.landmarks)
    shoulders = figure.landmarks[[INDEX["right_shoulder"], INDEX["left_shoulder"]]]
    assert np.allclose(figure.landmarks[INDEX["neck"]], shoulders.mean(axis=0))


@settings(max_examples=15)
@given(seeds, seeds)
def test_poses_are_rigid_for_limbs_and_keep_bones(seed: int, pose_seed: int) -> None:
    figure = humanoid(seed)
    worlds = worlds_of(figure, random_pose(np.random.default_rng(pose_seed)))
    assert np.allclose(worlds[:, :3, :3] @ worlds[:, :3, :3].transpose(0, 2, 1), np.eye(3), atol=1e-9)
    skeleton, rest = figure.skeleton(worlds), figure.skeleton(figure.rest)
    # The trunk bends between hips and neck; all other bones are rigid.
    now, was = skeleton.bone_lengths(), rest.bone_lengths()
    for name in was:
        if name != "neck":
            assert now[name] == pytest.approx(was[name], abs=1e-9)
    posed = figure.posed(worlds).vertices
    for part in ("right_forearm", "left_shin", "neck"):
        mine = np.nonzero((figure.joints[:, 0] == PARTS.index(part)) & (figure.weights[:, 0] == 1))[0]
        first, second = mine[:-1], mine[1:]
        lengths = [np.linalg.norm(v[first] - v[second], axis=1) for v in (posed, figure.mesh.vertices)]
        assert np.allclose(*lengths, atol=2e-6)


def test_limbs_point_where_they_are_told() -> None:
    figure = humanoid(4)
    out, bent = Limb(math.pi / 2, math.pi / 2), Limb(math.pi / 2, 0.0, math.pi / 2)
    at = figure.skeleton(worlds_of(figure, BodyPose(right_arm=out, left_arm=out, right_leg=bent))).joint
    assert at("left_wrist")[1] > at("left_elbow")[1] > at("left_shoulder")[1] > 0
    assert at("left_wrist")[2] == pytest.approx(at("left_shoulder")[2])
    assert at("right_wrist")[1] < at("right_shoulder")[1] < 0
    # A leg lifted forwards hangs down from its knee.
    assert at("right_knee")[2] == pytest.approx(at("right_hip")[2])
    assert at("right_ankle")[0] == pytest.approx(at("right_knee")[0])
    assert at("right_ankle")[2] < at("right_knee")[2]
    lean = figure.skeleton(worlds_of(figure, BodyPose(bend=0.5)))
    assert lean.joint("nose")[0] > figure.skeleton(figure.rest).joint("nose")[0] + 0.1


def test_bending_an_elbow_forwards_brings_the_hand_forwards() -> None:
    figure = humanoid(4)
    at = figure.skeleton(worlds_of(figure, BodyPose(left_arm=Limb(0.0, 0.0, 1.0)))).joint
    assert at("left_wrist")[0] > at("left_elbow")[0] + 0.05


@given(seeds)
def test_the_smallest_turn_brings_one_direction_to_another(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(size=(2, 3))
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    turn = turn_between(a, b)
    assert np.allclose(turn @ a, b)
    assert np.trace(turn) == pytest.approx(1 + 2 * float(a @ b), abs=1e-9)
    assert np.allclose(turn_between(a, -a) @ a, -a)


def test_an_arm_through_the_trunk_is_tangled() -> None:
    figure = humanoid(4)
    inwards = Limb(0.0, 0.0, 2.2, -1.57)
    assert tangled(figure.skeleton(worlds_of(figure, BodyPose(left_arm=inwards))))
    star = Limb(1.4, 1.5)
    assert not tangled(
        figure.skeleton(worlds_of(figure, BodyPose(right_arm=star, left_arm=star, right_leg=Limb(0.2, 1.5))))
    )


@settings(max_examples=8)
@given(st.integers(0, 10_000))
def test_pairs_are_normalised_by_the_original_and_stay_in_view(seed: int) -> None:
    pair = humanoid_pair(seed)
    assert float(np.linalg.norm(pair.before.vertices, axis=1).max()) == pytest.approx(OBJECT_RADIUS, abs=1e-5)
    assert pair.reach <= 1.031 * OBJECT_RADIUS
    moved = np.linalg.norm(pair.skeleton_after.positions - pair.skeleton_before.positions, axis=1)
    assert moved.max() >= 0.16
    # One body: its bones are as long in both, but for the trunk.
    assert set(pair.skeleton_after.compare_bones(pair.skeleton_before, 1e-6)) <= {"neck"}
    again = humanoid_pair(seed)
    assert np.array_equal(pair.after.vertices, again.after.vertices)


def test_colours_stay_on_the_body() -> None:
    figure = humanoid(7)
    face = np.arange(len(figure.mesh.faces))
    bary = np.full((len(face), 2), 1 / 3)
    worlds = worlds_of(figure, random_pose(np.random.default_rng(1)))
    pair = pose_pair(figure, figure.rest, worlds)
    assert np.allclose(pair.before.colours_at(face, bary), pair.after.colours_at(face, bary))
    assert len(np.unique(np.round(pair.after.colours_at(face, bary) * 15), axis=0)) >= 4
    assert MeshRenderer(pair.after).render(orbit_camera(0.5, 0.2, size=64)).mask.sum() > 200


def test_a_turn_carries_what_hangs_on_the_part() -> None:
    figure = humanoid(2)
    worlds = figure.turned({"left_arm": rotation("x", math.pi / 2)})
    at, was = figure.skeleton(worlds).joint, figure.skeleton(figure.rest).joint
    assert np.allclose(at("left_shoulder"), was("left_shoulder"))
    assert np.allclose(at("right_wrist"), was("right_wrist"))
    length = was("left_shoulder")[2] - was("left_wrist")[2]
    assert np.allclose(at("left_wrist"), was("left_shoulder") + np.array([0, length, 0]))


def test_a_rig_without_its_parts_is_refused() -> None:
    figure = humanoid(2)
    with pytest.raises(InputError, match="lacks neck"):
        type(figure)(
            figure.mesh, figure.parents, figure.rest, figure.inverse_bind, figure.joints, figure.weights,
            {name: k for name, k in figure.parts.items() if name != "neck"}, figure.landmarks, figure.carriers,
        )  # fmt: skip
