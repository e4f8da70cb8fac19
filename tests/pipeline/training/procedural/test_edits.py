"""Things edited by boxes: closed parts, boxes that hold them before and after, edits that are seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.editing.controls import box_mesh, check_boxes_hit, check_control_mesh
from pipeline.training.procedural.edits import FAMILIES, BoxEdit, Family, box_edit
from pipeline.training.procedural.polygonise import is_closed
from scene.camera import OBJECT_RADIUS
from scene.mesh import signed_volume

families = st.sampled_from(FAMILIES)


def held(vertices: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which points some box holds."""
    back = np.linalg.inv(boxes)
    local = np.einsum("bij,vj->bvi", back[:, :3, :3], vertices) + back[:, None, :3, 3]
    return (np.abs(local) <= 1 + 1e-6).all(axis=2).any(axis=0)


@settings(max_examples=20)
@given(families, st.integers(0, 2**31 - 1))
def test_boxes_hold_the_thing_before_and_after(family: Family, seed: int) -> None:
    edit = box_edit(family, seed)
    assert held(edit.before.vertices, edit.boxes_before).all()
    assert held(edit.after.vertices, edit.boxes_after).all()
    assert edit.boxes_before.shape == edit.boxes_after.shape
    check_boxes_hit(edit.boxes_before, edit.before.vertices.astype(np.float64))
    for boxes in (edit.boxes_before, edit.boxes_after):
        check_control_mesh(*box_mesh(boxes))


@settings(max_examples=12)
@given(families, st.integers(0, 10_000))
def test_parts_are_closed_and_only_sizes_change(family: Family, seed: int) -> None:
    edit = box_edit(family, seed)
    assert np.array_equal(edit.before.faces, edit.after.faces)
    for mesh in (edit.before, edit.after):
        assert is_closed(mesh.faces)
        assert signed_volume(mesh.vertices.astype(np.float64), mesh.faces) > 0
    # The materials are the same: so are colours where a part has no pattern.
    face = np.arange(len(edit.before.faces))
    bary = np.full((len(face), 2), 1 / 3)
    same = np.abs(edit.before.colours_at(face, bary) - edit.after.colours_at(face, bary)).max(axis=1) < 1e-3
    assert same.mean() > 0.3


@settings(max_examples=12)
@given(families, st.integers(0, 10_000))
def test_edits_are_normalised_by_the_original_seen_and_in_view(family: Family, seed: int) -> None:
    edit = box_edit(family, seed)
    assert float(np.linalg.norm(edit.before.vertices, axis=1).max()) == pytest.approx(OBJECT_RADIUS, abs=1e-5)
    assert edit.reach <= 1.031 * OBJECT_RADIUS
    assert np.abs(edit.boxes_after - edit.boxes_before).sum(axis=2).max() >= 0.12
    assert_equal(edit, box_edit(family, seed))


def assert_equal(one: BoxEdit, other: BoxEdit) -> None:
    assert np.array_equal(one.after.vertices, other.after.vertices)
    assert np.array_equal(one.boxes_after, other.boxes_after)
