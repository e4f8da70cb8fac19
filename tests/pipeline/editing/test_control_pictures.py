"""Controls of both states: bounds of depth are one pair for all views of a state, and no matter of the other state."""

from __future__ import annotations

import numpy as np

from pipeline.editing.boxes import BoxTarget
from pipeline.editing.control_pictures import both_control_pictures, control_pictures
from pipeline.editing.controls import box_mesh, depth_of
from pipeline.evaluation.editing.cases import ring
from scene.raycast import mesh_caster


def box(shift: float, half: float = 0.3) -> np.ndarray:
    matrix = np.diag([half, half, half, 1.0])
    matrix[0, 3] = shift
    return matrix[None]


def test_depth_means_the_same_in_all_views_of_a_state() -> None:
    cameras = ring(5, 32)
    target = BoxTarget(box(-0.3), box(0.4, 0.2))
    before, after = both_control_pictures(target, cameras)
    assert before is not None
    for state, matrices in ((before, target.before), (after, target.after)):
        caster = mesh_caster(*box_mesh(matrices))
        seen = [(depth_of(caster, camera), control[..., 0]) for camera, control in zip(cameras, state, strict=True)]
        depths = np.concatenate([depth[depth > 0] for depth, _ in seen]).astype(np.float64)
        values = np.concatenate([control[depth > 0] for depth, control in seen])
        near, far = depths.min(), 2 * depths.max()
        np.testing.assert_allclose(values, (1 / depths - 1 / far) / (1 / near - 1 / far), atol=1e-5)


def test_a_state_looks_alike_whatever_the_other_is() -> None:
    cameras = ring(3, 32)
    for other in (box(0.4, 0.2), box(0.0, 0.5)):
        before, after = both_control_pictures(BoxTarget(box(-0.3), other), cameras)
        alone = control_pictures(BoxTarget(other, box(-0.3)), cameras)
        assert before is not None
        np.testing.assert_array_equal(before, alone)
        assert not np.array_equal(before, after)
