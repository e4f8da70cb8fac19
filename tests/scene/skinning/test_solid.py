"""Solids: volumes of known bodies, sheets, and distances that stay inside."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from scene.skinning.solid import InnerDistances, voxelise


def of(mesh: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_ball_has_its_volume(flipped: bool) -> None:
    vertices, faces = of(trimesh.creation.icosphere(4))
    solid = voxelise(vertices, faces[:, ::-1] if flipped else faces, 60)
    assert solid.inside.sum() * solid.voxel**3 == pytest.approx(4 / 3 * np.pi, rel=0.01)
    assert np.linalg.norm(solid.centres, axis=1).max() < 1 + solid.voxel
    assert solid.depths.max() == pytest.approx(1, abs=2 * solid.voxel)


def test_a_small_hole_does_no_harm() -> None:
    vertices, faces = of(trimesh.creation.icosphere(4))
    solid = voxelise(vertices, faces[np.arange(len(faces)) % 500 != 0], 60)
    assert solid.inside.sum() * solid.voxel**3 == pytest.approx(4 / 3 * np.pi, rel=0.02)


def test_parts_that_overlap_are_one_solid() -> None:
    boxes = [trimesh.creation.box((1, 1, 1)), trimesh.creation.box((1, 0.5, 0.5))]
    boxes[1].apply_translation((0.6, 0, 0))
    solid = voxelise(*of(trimesh.util.concatenate(boxes)), 80)
    assert solid.inside.sum() * solid.voxel**3 == pytest.approx(1 + 0.6 * 0.25, rel=0.02)


def test_a_sheet_is_solid_too() -> None:
    vertices = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0.0]])
    solid = voxelise(vertices, np.array([[0, 1, 2], [0, 2, 3]]), 40)
    assert 40**2 <= solid.inside.sum() <= 43**2


def test_distances_go_round_the_air() -> None:
    # A horseshoe: its ends are near each other, and far apart inside.
    bars = [
        trimesh.creation.box((0.2, 1, 0.2)),
        trimesh.creation.box((0.2, 1, 0.2)),
        trimesh.creation.box((0.6, 0.2, 0.2)),
    ]
    for bar, shift in zip(bars, [(-0.2, 0.5, 0), (0.2, 0.5, 0), (0, 0, 0)], strict=True):
        bar.apply_translation(shift)
    inner = InnerDistances(voxelise(*of(trimesh.util.concatenate(bars)), 60))
    distance = inner.from_points(np.array([[-0.2, 0.95, 0.0]]))
    _, there = inner.nearest(np.array([[0.2, 0.95, 0.0]]))
    straight, round_about = 0.4, 2 * 0.85 + 0.2
    assert distance[there[0]] > 4 * straight
    assert distance[there[0]] == pytest.approx(round_about, rel=0.12)
    assert distance.min() < inner.solid.voxel


def test_what_floats_is_joined_to_what_is_nearest() -> None:
    boxes = [
        trimesh.creation.box((1, 1, 1)),
        trimesh.creation.box((0.2, 0.2, 0.2)),
        trimesh.creation.box((0.2, 0.2, 0.2)),
    ]
    boxes[1].apply_translation((0.9, 0, 0))
    boxes[2].apply_translation((1.4, 0, 0))
    inner = InnerDistances(voxelise(*of(trimesh.util.concatenate(boxes)), 60))
    distance = inner.from_points(np.zeros((1, 3)))
    assert np.isfinite(distance).all()
    _, far = inner.nearest(np.array([[1.4, 0, 0.0]]))
    assert distance[far[0]] == pytest.approx(1.4, rel=0.1)


def test_many_that_float_are_joined_in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # Crumbs in a row: each hangs on the one before, or, once there are too many, all on what is joined.
    crumbs = [trimesh.creation.box((0.5, 0.5, 0.5))]
    for k in range(12):
        crumbs.append(trimesh.creation.box((0.06, 0.06, 0.06)))
        crumbs[-1].apply_translation((0.35 + 0.12 * k, 0, 0))
    mesh = of(trimesh.util.concatenate(crumbs))
    chain = InnerDistances(voxelise(*mesh)).from_points(np.zeros((1, 3)))
    assert chain.max() == pytest.approx(0.38 + 0.12 * 11, rel=0.05)
    monkeypatch.setattr("scene.skinning.solid._ONE_BY_ONE", 3)
    dust = InnerDistances(voxelise(*mesh)).from_points(np.zeros((1, 3)))
    assert np.isfinite(dust).all()
    np.testing.assert_allclose(dust, chain, rtol=0.05, atol=0.02)  # here the ways are as long


def test_vertices_of_no_face_are_nowhere() -> None:
    vertices, faces = of(trimesh.creation.icosphere(3))
    solid, more = voxelise(vertices, faces, 40), voxelise(np.vstack([vertices, [[900, 0, 0.0]]]), faces, 40)
    np.testing.assert_array_equal(solid.inside, more.inside)
    assert (solid.voxel, tuple(solid.corner)) == (more.voxel, tuple(more.corner))
