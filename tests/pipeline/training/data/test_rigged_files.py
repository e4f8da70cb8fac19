"""Rigged figures of files: joints by name, doubles and inverse rigs mended, one thing in a hand, poses of the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.training.data.rigged_files import FileFigure, clip_pair, load_rigged
from pipeline.training.procedural.humanoid import humanoid
from pipeline.training.procedural.poses import BodyPose, Limb, random_pair, random_worlds, worlds_of
from pipeline.training.procedural.rigged import PARTS, Figure
from scene.camera import OBJECT_RADIUS
from scene.errors import InputError, ViewloomError

_NAMES = {
    "pelvis": "Hips", "spine": "Torso", "neck": "Neck", "arm": "UpperArm", "forearm": "LowerArm", "hand": "Hand",
    "thigh": "UpperLeg", "shin": "LowerLeg", "foot": "Foot",
}  # fmt: skip
_BACK = np.linalg.inv(np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]))
"""World of the project to that of files."""


def rig_name(part: str) -> str:
    side, _, kind = part.rpartition("_")
    return _NAMES[kind] + {"left": ".L", "right": ".R", "": ""}[side]


def write(path: Path, figure: Figure, clips: int = 6, **changes: object) -> list[np.ndarray]:
    """A procedural figure as a file, with a head above its neck, a doubled spine, feet on the ground and two swords."""
    rng = np.random.default_rng(0)
    poses = [figure.rest, *(random_worlds(figure, rng) for _ in range(clips))]
    names = [rig_name(part) for part in PARTS] + ["Head", "Torso", "Sword_A", "Sword_B"]
    hand, neck, spine = (PARTS.index(part) for part in ("right_hand", "neck", "spine"))
    extra = [neck, spine, hand, hand]
    parents = [*figure.parents, neck, 0, hand, hand]
    for side in ("left", "right"):
        parents[PARTS.index(f"{side}_foot")] = PARTS.index("pelvis")
    worlds = np.stack([_BACK @ np.concatenate([pose, pose[extra]]) for pose in poses])
    back = _BACK[:3, :3]
    inverse = np.linalg.inv(worlds[0])
    joints = figure.joints.copy()
    # Two faces far from the body stand for the swords, and the head's vertices hang on the head.
    vertices = np.concatenate(
        [figure.mesh.vertices, [[5, 0, 0], [5, 1, 0], [5, 0, 1], [7, 0, 0], [7, 1, 0], [7, 0, 1]]]
    )
    count = len(figure.mesh.vertices)
    faces = np.concatenate([figure.mesh.faces, [[count, count + 1, count + 2], [count + 3, count + 4, count + 5]]])
    swords = np.repeat([[len(PARTS) + 2], [len(PARTS) + 3]], 3, axis=0)
    joints = np.concatenate([joints, np.repeat(swords, 4, axis=1)])
    weights = np.concatenate([figure.weights, np.repeat([[1.0, 0, 0, 0]], 6, axis=0)])
    joints[joints == neck] = len(PARTS)
    content: dict[str, object] = {
        "V": (vertices @ back.T).astype(np.float32), "F": faces.astype(np.uint32), "J": joints.astype(np.uint16),
        "W": weights.astype(np.float32), "color": np.full((len(vertices), 3), 90, np.uint8),
        "inv_bind": inverse.astype(np.float32), "joint_world": worlds.astype(np.float32),
        "joint_parent": np.array(parents, np.int16), "joint_name": np.array(names),
    } | changes  # fmt: skip
    np.savez(path, **content)  # type: ignore[arg-type]
    return poses


@pytest.fixture
def loaded(tmp_path: Path) -> tuple[FileFigure, Figure, list[np.ndarray]]:
    figure = humanoid(3)
    poses = write(tmp_path / "body.npz", figure)
    return load_rigged(tmp_path / "body.npz"), figure, poses


def test_poses_of_the_file_are_those_of_the_figure(loaded: tuple[FileFigure, Figure, list[np.ndarray]]) -> None:
    mine, figure, poses = loaded
    assert mine.name == "body"
    for clip, pose in zip(mine.clips, poses, strict=True):
        vertices = mine.figure.posed(clip).vertices
        # One of the two swords is there, three vertices after the body's.
        assert len(vertices) == len(figure.mesh.vertices) + 3
        assert np.abs(vertices[:-3] - figure.posed(pose).vertices).max() < 1e-5
        got, true = mine.figure.skeleton(clip), figure.skeleton(pose)
        for joint in ("neck", "left_wrist", "right_elbow", "left_hip", "right_ankle"):
            assert np.allclose(got.joint(joint), true.joint(joint), atol=1e-5)


def test_the_face_looks_forwards_and_turns_with_the_head(loaded: tuple[FileFigure, Figure, list[np.ndarray]]) -> None:
    mine, _, _ = loaded
    at = mine.figure.skeleton(mine.figure.rest).joint
    assert at("nose")[0] > at("left_ear")[0] + 0.03
    assert at("left_ear")[1] > 0 > at("right_ear")[1]
    turned = mine.figure.skeleton(worlds_of(mine.figure, BodyPose(turn=1.57))).joint
    assert turned("nose")[1] > 0.03


def test_an_inverse_rig_and_doubled_joints_follow(loaded: tuple[FileFigure, Figure, list[np.ndarray]]) -> None:
    mine, figure, _ = loaded
    pose = BodyPose(bend=0.3, left_leg=Limb(1.0, 0.0, 0.8), right_arm=Limb(1.2, 1.5))
    ours, theirs = mine.figure.posed(worlds_of(mine.figure, pose)), figure.posed(worlds_of(figure, pose))
    assert np.abs(ours.vertices[:-3] - theirs.vertices).max() < 1e-5


def test_one_thing_is_in_a_hand_and_the_variant_says_which(tmp_path: Path) -> None:
    write(tmp_path / "body.npz", humanoid(3))
    reach = [float(load_rigged(tmp_path / "body.npz", variant).figure.mesh.vertices.max()) for variant in (0, 1, 2)]
    assert reach == [5.0, 7.0, 5.0]


def test_pairs_come_from_clips_or_limits(loaded: tuple[FileFigure, Figure, list[np.ndarray]], tmp_path: Path) -> None:
    write(tmp_path / "plain.npz", humanoid(3), clips=12, F=humanoid(3).mesh.faces.astype(np.uint32))
    plain = load_rigged(tmp_path / "plain.npz")
    for pair in (clip_pair(plain, np.random.default_rng(0)), random_pair(plain.figure, np.random.default_rng(0))):
        assert float(np.linalg.norm(pair.before.vertices, axis=1).max()) == pytest.approx(OBJECT_RADIUS, abs=1e-5)
        assert pair.reach <= 1.031 * OBJECT_RADIUS
    write(tmp_path / "still.npz", humanoid(3), clips=0)
    with pytest.raises(ViewloomError, match="no two poses"):
        clip_pair(load_rigged(tmp_path / "still.npz"), np.random.default_rng(0))


def test_unknown_rigs_are_refused(tmp_path: Path) -> None:
    names = np.array([f"bone_{k}" for k in range(len(PARTS) + 4)])
    write(tmp_path / "odd.npz", humanoid(3), joint_name=names)
    with pytest.raises(InputError, match="no known rig"):
        load_rigged(tmp_path / "odd.npz")
