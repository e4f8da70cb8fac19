"""Assets deformed by skeletons and boxes: where things go, what stays, what is told."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import KDTree

from pipeline.editing.boxes import BoxTarget
from pipeline.editing.deform import deform
from pipeline.editing.target import SkeletonTarget
from recon.export.asset import Asset, asset_health, to_asset_frame
from recon.settings import GlbSettings
from recon.texture.bake import TexturedMesh
from scene.camera import apply_transform
from scene.mesh import vertex_normals
from scene.skeleton import Skeleton
from tests.bodies import body_of, standing

TURN = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
"""The left arm up."""


def asset_of(spread: float = 90.0) -> Asset:
    body = body_of(standing(spread=spread), 0.04)
    uv = np.random.default_rng(0).random((len(body.vertices), 2))
    normals = vertex_normals(body.vertices, body.faces)
    texture = np.full((16, 16, 3), 90, np.uint8)
    return to_asset_frame(TexturedMesh(body.vertices, body.faces, normals, uv, texture), GlbSettings())


def frame_of(asset: Asset) -> np.ndarray:
    """From the world to the asset."""
    assert asset.world_from_asset is not None
    return np.asarray(np.linalg.inv(asset.world_from_asset))


def in_world(asset: Asset) -> np.ndarray:
    assert asset.world_from_asset is not None
    return apply_transform(asset.world_from_asset, asset.vertices.astype(np.float64))


def posed(asset: Asset, rest: Skeleton, target: Skeleton) -> SkeletonTarget:
    return SkeletonTarget(rest, target).transformed(frame_of(asset))


def test_a_body_takes_the_targets_pose() -> None:
    asset, rest = asset_of(), standing()
    target = rest.posed({"left_shoulder": TURN})
    made = deform(asset, posed(asset, rest, target))
    assert made.moved == ("left shoulder turns by 90 degrees",)
    assert made.warnings == ()
    truth = KDTree(body_of(target, 0.04).vertices)
    # Away from where it bends, the surface is the body's in the other pose.
    after = in_world(made.asset)
    apart = truth.query(after)[0]
    bends = np.linalg.norm(after - target.joint("left_shoulder"), axis=1) < 0.25
    assert apart[~bends].max() < 0.04
    length = np.linalg.norm(made.asset.normals, axis=1)
    np.testing.assert_allclose(length, 1, atol=1e-5)
    assert asset_health(made.asset).watertight


def test_normals_turn_with_the_surface() -> None:
    asset, rest = asset_of(), standing()
    made = deform(asset, posed(asset, rest, rest.posed({"body": TURN})))
    turn = frame_of(asset)[:3, :3] @ TURN @ np.linalg.inv(frame_of(asset)[:3, :3])
    before, place = KDTree(asset.vertices), frame_of(asset)
    about = apply_transform(place, rest.joint("mid_hip")[None])[0]
    back = (made.asset.vertices.astype(np.float64) - about) @ turn + about
    gap, index = before.query(back)
    assert gap.max() < 1e-5
    assert (np.einsum("vi,vi->v", made.asset.normals @ turn, asset.normals[index]) > 0.99).mean() > 0.99


def test_parts_that_were_glued_are_cut_and_closed() -> None:
    asset, rest = asset_of(spread=8.0), standing(spread=8.0)
    assert asset_health(asset).watertight
    made = deform(asset, posed(asset, rest, rest.posed({"left_shoulder": TURN})))
    assert made.cuts > 0
    assert asset_health(made.asset).watertight
    assert made.rig is not None
    assert len(made.asset.faces) == len(made.rig.asset.faces)


def test_boxes_move_what_they_hold_and_leave_the_rest() -> None:
    asset = asset_of()
    arm = np.array([[0.4, 0, 0, 0], [0, 0.4, 0, 0.75], [0, 0, 0.3, 1.4], [0, 0, 0, 1.0]])
    others = np.array([[0.4, 0, 0, 0], [0, 0.7, 0, -0.45], [0, 0, 1.0, 0.9], [0, 0, 0, 1.0]])
    longer = arm.copy()
    longer[1, 1], longer[1, 3] = 0.6, 0.95  # from 0.35 to 1.55 in place of 1.15
    target = BoxTarget(np.stack([arm, others]), np.stack([longer, others])).transformed(frame_of(asset))
    made = deform(asset, target, softness=0.1)
    before, after = in_world(asset), in_world(made.asset)
    assert after[:, 1].max() - 0.35 == pytest.approx(1.5 * (before[:, 1].max() - 0.35), rel=0.02)
    still = before[:, 1] < 0.2
    np.testing.assert_allclose(after[still], before[still], atol=1e-3)
    assert made.moved == ("box 0 is stretched by 1.50 x 1.00 x 1.00, moves by 12% of the object's longest side",)
    assert made.rig is None
