"""Targets of edits: read strictly, and held against cameras and surface."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pipeline.editing.boxes import BoxTarget
from pipeline.editing.controls import MissedControlError
from pipeline.editing.target import SkeletonTarget, check_meets, check_seen, plain_target, read_target
from scene.camera import Camera, orbit_camera
from scene.errors import InputError
from scene.skeleton import Skeleton
from tests.bodies import body_of, standing

TURN = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])


def ring(count: int = 6, radius: float = 4.0) -> list[Camera]:
    return [orbit_camera(2 * math.pi * k / count, 0.2, radius, size=64) for k in range(count)]


def moved(skeleton: Skeleton, *shift: float) -> Skeleton:
    return Skeleton(skeleton.positions + np.array(shift))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    standing().save(tmp_path / "skeleton.json")
    return tmp_path


def test_the_rest_is_the_captures_own_unless_one_is_given(folder: Path, tmp_path: Path) -> None:
    standing().posed({"left_elbow": TURN}).save(folder / "target.json")
    moved(standing(), 0, 0, 1).save(folder / "other.json")
    own = read_target(folder, folder / "target.json").target
    given = read_target(folder, folder / "target.json", rest=folder / "other.json").target
    assert isinstance(own, SkeletonTarget)
    assert isinstance(given, SkeletonTarget)
    np.testing.assert_allclose(given.rest.positions - own.rest.positions, np.tile([0, 0, 1.0], (18, 1)), atol=1e-12)
    assert plain_target(own) != plain_target(given)


def test_what_only_one_skeleton_knows_is_told(folder: Path) -> None:
    places = standing().posed({"left_elbow": TURN}).positions.copy()
    places[4] = np.nan
    Skeleton(places).save(folder / "target.json")
    rest = standing().positions.copy()
    rest[16] = np.nan
    Skeleton(rest).save(folder / "skeleton.json")
    said = read_target(folder, folder / "target.json").warnings
    assert [text.split(":")[0] for text in said] == [
        "The target does not know right_wrist",
        "The capture's skeleton does not know right_ear",
    ]


def test_fitted_bones_have_the_lengths_of_the_capture(folder: Path) -> None:
    big = standing().posed({"left_elbow": TURN}).positions * 1.5
    Skeleton(big).save(folder / "target.json")
    with pytest.raises(InputError, match=r"mid_hip to neck 1\.50 times"):
        read_target(folder, folder / "target.json")
    found = read_target(folder, folder / "target.json", fit_bones=True).target
    assert isinstance(found, SkeletonTarget)
    lengths, rest = found.target.bone_lengths(), found.rest.bone_lengths()
    assert lengths == pytest.approx(rest)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_equal_boxes_are_told_in_any_unit(tmp_path: Path, scale: float) -> None:
    box = np.diag([scale, scale, scale, 1.0])[None]
    other = box.copy()
    other[0, 0, 3] = 0.1 * scale
    for after, count in ((box, 1), (other, 0)):
        BoxTarget(box, after).save(tmp_path / "boxes.json")
        assert len(read_target(tmp_path, boxes=tmp_path / "boxes.json").warnings) == count


def test_joints_that_no_camera_sees(tmp_path: Path) -> None:
    centred = moved(standing(), 0, 0, -0.9)
    assert check_seen(SkeletonTarget(centred, centred), ring()) == ()
    with pytest.raises(MissedControlError, match="18 of 18 joints of the target lie outside all views, such as nose"):
        check_seen(SkeletonTarget(centred, moved(centred, 0, 0, 6)), ring())
    behind = ring(1)
    with pytest.raises(MissedControlError, match="lie behind all cameras"):
        check_seen(SkeletonTarget(centred, moved(centred, 9, 0, 2)), behind)
    up = centred.positions.copy()
    up[7] = (0, 0, 50)
    assert check_seen(SkeletonTarget(centred, Skeleton(up)), ring()) == ("No view shows left_wrist of the target.",)


def test_boxes_that_no_camera_sees() -> None:
    box = np.diag([0.3, 0.3, 0.3, 1.0])[None]
    gone = box.copy()
    gone[0, 2, 3] = 30
    assert check_seen(BoxTarget(box, box), ring()) == ()
    with pytest.raises(MissedControlError, match="after the edit, box 0 lies outside all views"):
        check_seen(BoxTarget(box, gone), ring())


def test_skeletons_away_from_the_object() -> None:
    vertices = body_of(standing(), 0.06).vertices
    check_meets(SkeletonTarget(standing(), moved(standing(), 0, 0, 9)), vertices)  # a target may be anywhere
    with pytest.raises(MissedControlError, match="18 of its 18 joints"):
        check_meets(SkeletonTarget(moved(standing(), 0, 0, 9), standing()), vertices)
