"""The evaluation of skinning: a figure's file is read, posed, and a body that is its own rig scores near one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.evaluation.skinning import load_figure, score_figure, silhouettes
from scene.camera import y_up_from_z_up
from scene.skeleton import PARENTS
from scene.skinning.bind import bind_to_skeleton
from tests.bodies import body_of, standing

NAMES = {
    "shoulder": "UpperArm",
    "elbow": "LowerArm",
    "wrist": "Hand",
    "hip": "UpperLeg",
    "knee": "LowerLeg",
    "ankle": "Foot",
}


@pytest.fixture
def figure(tmp_path: Path) -> Path:
    """A body of capsules, y up and facing +z, with the joints of a rig; each vertex goes with its heaviest part."""
    turn = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])  # +x, its front, to -y, which becomes +z
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    body, mesh = standing(), body_of(standing(), 0.05)
    bound = bind_to_skeleton(mesh, body)
    names = ["Root", "Head"] + [f"{n}.{s[0].upper()}" for s in ("left", "right") for n in NAMES.values()]
    joints = ["mid_hip", "neck"] + [f"{s}_{p}" for s in ("left", "right") for p in NAMES]
    parents = [-1, 0] + [
        0 if joints.index(name) and PARENTS[name] in ("mid_hip", "neck") else joints.index(PARENTS[name])
        for name in joints[2:]
    ]
    world = np.tile(np.eye(4), (len(names), 1, 1))
    world[:, :3, 3] = y_up_from_z_up(np.stack([body.joint(name) for name in joints]) @ turn.T)
    part_joint = [0, 0, 1] + [joints.index(f"{s}_{p}") for s in ("right", "left") for p in ("shoulder", "elbow")]
    part_joint += [joints.index(f"{s}_{p}") for s in ("right", "left") for p in ("hip", "knee")]
    np.savez(
        tmp_path / "own.npz",
        V=y_up_from_z_up(mesh.vertices @ turn.T).astype(np.float32),
        F=mesh.faces.astype(np.uint32),
        J=np.array(part_joint)[bound.skin.joints].astype(np.uint16),
        W=bound.skin.weights,
        color=np.full((len(mesh.vertices), 3), 128, np.uint8),
        inv_bind=np.linalg.inv(world),
        joint_world=world[None],
        joint_parent=np.array(parents, np.int16),
        joint_name=np.array(names),
    )
    return tmp_path / "own.npz"


def test_a_body_that_is_its_own_rig_is_posed_as_the_rig_does(figure: Path) -> None:
    loaded = load_figure(figure, 4)
    assert loaded.rest.known.all()
    assert loaded.rest.joint("left_shoulder")[1] > 0.05  # it faces +x: the left is +y
    bound, scores, seconds = score_figure(loaded, views=4, size=64)
    assert len(scores) == 4
    assert bound.report.was_closed
    assert seconds > 0
    for score in scores:
        assert score.unedited < score.iou - 0.1
        assert score.iou > 0.85
        assert score.worst_iou <= score.iou
        assert score.error < 0.03
        assert set(score.bones) <= set(PARENTS)


def test_poses_of_a_seed_are_the_same_again(figure: Path) -> None:
    one, other = load_figure(figure, 2), load_figure(figure, 2)
    for (_, a, x), (_, b, y) in zip(one.poses, other.poses, strict=True):
        np.testing.assert_array_equal(a.positions, b.positions)
        np.testing.assert_array_equal(x, y)


def test_silhouettes_are_of_the_whole_figure() -> None:
    mesh = body_of(standing(), 0.05).normalised()
    masks = silhouettes(mesh, 4, 64)
    assert masks.shape == (4, 64, 64)
    assert not masks[:, [0, -1]].any()
    assert 0.02 < masks.mean() < 0.5
