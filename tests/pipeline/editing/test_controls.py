"""Control pictures: equal to the annotator's own, in the right place, consistent over views, and clear about faults."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from pipeline.editing.controls import (
    COLOURS,
    ControlError,
    DepthBounds,
    EmptyControlError,
    MissedControlError,
    OpenControlError,
    box_mesh,
    check_boxes_hit,
    check_control_mesh,
    depth_controls,
    draw_skeleton,
    project_joints,
    skeleton_control,
    skeleton_controls,
)
from pipeline.training.procedural import box, superellipsoid
from scene.camera import Camera, orbit_camera
from scene.raycast import mesh_caster
from scene.skeleton import DRAWN_LIMBS, INDEX, JOINTS

ALL = np.ones(18, bool)
STANDING = np.array([
    [0.09, 0, 0.45], [0, 0, 0.3], [0, -0.12, 0.3], [0, -0.2, 0.1], [0, -0.22, -0.08], [0, 0.12, 0.3], [0, 0.2, 0.1],
    [0, 0.22, -0.08], [0, -0.07, -0.02], [0, -0.08, -0.28], [0, -0.08, -0.5], [0, 0.07, -0.02], [0, 0.08, -0.28],
    [0, 0.08, -0.5], [0.07, -0.03, 0.48], [0.07, 0.03, 0.48], [0, -0.08, 0.46], [0, 0.08, 0.46],
])  # fmt: skip
"""A standing body, facing +x, normalised."""


def ring(count: int, size: int = 64) -> list[Camera]:
    return [orbit_camera(k * 2 * np.pi / count, 0.2, size=size) for k in range(count)]


def annotator() -> Any:
    """The module of controlnet-aux that draws bodies, without the detectors that its package imports."""
    found = importlib.util.find_spec("controlnet_aux")
    if found is None or found.origin is None:
        pytest.skip("controlnet-aux is not installed: pip install viewloom[edit]")
    folder = Path(found.origin).parent / "open_pose"
    for name, where in (("annotator_parts", folder),):
        package = types.ModuleType(name)
        package.__path__ = [str(where)]  # type: ignore[attr-defined]
        sys.modules[name] = package
    # What the drawing needs of the detector's module is a point with two coordinates.
    body = types.ModuleType("annotator_parts.body")
    body.Keypoint = body.BodyResult = types.SimpleNamespace  # type: ignore[attr-defined]
    sys.modules["annotator_parts.body"] = body
    spec = importlib.util.spec_from_file_location("annotator_parts.util", folder / "util.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_equals_the_annotators_own_drawing() -> None:
    drawing, rng = annotator(), np.random.default_rng(0)
    for _ in range(20):
        pixels, present = rng.uniform(-100, 612, (18, 2)), rng.random(18) < 0.85
        points = [
            types.SimpleNamespace(x=x / 512, y=y / 512) if there else None
            for (x, y), there in zip(pixels, present, strict=True)
        ]
        theirs = drawing.draw_bodypose(np.zeros((512, 512, 3), np.uint8), points)
        assert np.array_equal(draw_skeleton(pixels, present, 512, 512), theirs)


def test_a_drawing_is_the_stored_one() -> None:
    # Of controlnet-aux 0.0.10 for these joints; the test above compares with the package where there is one.
    angle = np.arange(18) * 2.4
    pixels = 256 + (20 + 11 * np.arange(18))[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    drawn = draw_skeleton(pixels, ALL, 512, 512)
    assert hashlib.sha256(drawn.tobytes()).hexdigest() == STORED


STORED = "597c019fc79633431be8454e2fb2cb5e7e75e8a8a44411160768fe8334a7b0e5"


@settings(max_examples=40)
@given(npst.arrays(np.float64, (18, 2), elements=st.floats(8, 500)), st.integers(0, 17))
def test_joints_are_on_top_in_full_colour_and_missing_ones_take_their_limbs_with_them(
    pixels: np.ndarray, missing: int
) -> None:
    present = ALL.copy()
    present[missing] = False
    drawn = draw_skeleton(pixels, present, 512, 512)
    # The last joint is drawn over all else.
    last = max(k for k in range(18) if present[k])
    x, y = (int(v) for v in pixels[last])
    assert tuple(drawn[y, x]) == COLOURS[last]
    limbs = [[int(c * 0.6) for c in COLOURS[k]] for k, limb in enumerate(DRAWN_LIMBS) if missing not in limb]
    allowed = np.array([*limbs, *(COLOURS[k] for k in range(18) if k != missing), (0, 0, 0)])
    packed = np.array([1, 256, 65536])
    assert np.isin(drawn.astype(np.int64) @ packed, allowed @ packed).all()


@settings(max_examples=30)
@given(st.floats(0, 6.28), st.floats(-0.5, 1.2))
def test_a_control_shows_joints_where_rays_to_them_pass(azimuth: float, elevation: float) -> None:
    camera = orbit_camera(azimuth, elevation, size=512)
    pixels, present = project_joints(STANDING, camera)
    control = skeleton_control(STANDING, camera)
    for k in np.nonzero(present)[0]:
        x, y = (int(v) for v in pixels[k])
        assert control[y, x].max() > 0
        _, ray = camera.rays(pixels[k][None])
        towards = STANDING[k] - camera.centre
        assert float(ray[0] @ towards) == pytest.approx(float(np.linalg.norm(towards)), rel=1e-9)


def test_small_controls_are_the_large_one_averaged() -> None:
    large, small = (skeleton_control(STANDING, orbit_camera(0.7, 0.2, size=size)) for size in (512, 128))
    assert np.allclose(small, large.reshape(128, 4, 128, 4, 3).mean(axis=(1, 3)), atol=1e-6)
    wide = replace(orbit_camera(0.7, 0.2, size=128), width=192, cx=96.0)
    assert skeleton_control(STANDING, wide).shape == (128, 192, 3)
    assert np.allclose(skeleton_control(STANDING, wide)[:, 32:160], small, atol=0.02)


def test_the_far_side_of_the_face_is_left_out() -> None:
    def drawn(azimuth: float) -> set[str]:
        present = project_joints(STANDING, orbit_camera(azimuth, 0.0))[1]
        return {name for name in JOINTS if not present[INDEX[name]]}

    assert drawn(0.0) <= {"right_ear", "left_ear"}
    assert drawn(np.pi) >= {"nose", "right_eye", "left_eye"}
    # From the body's left, which is +y.
    assert "right_ear" in drawn(np.pi / 2)
    assert "left_ear" not in drawn(np.pi / 2)
    without = STANDING.copy()
    without[INDEX["left_ear"]] = np.nan
    assert not project_joints(without, orbit_camera(0.0, 0.0))[1][INDEX["left_ear"]]
    assert project_joints(without, orbit_camera(np.pi, 0.0))[1][INDEX["nose"]]


def test_joints_behind_the_camera_or_far_outside_are_left_out() -> None:
    camera = orbit_camera(0.0, 0.0, size=128)
    joints = STANDING.copy()
    joints[2] = (3.0, 0, 0)
    joints[5] = (0.0, 1.5, 0.0)
    joints[8] = (0.0, 5.0, 0.0)
    present = project_joints(joints, camera)[1]
    assert not present[2]
    assert present[5]
    assert not present[8]


def test_skeletons_that_no_camera_sees_are_refused() -> None:
    with pytest.raises(MissedControlError, match="no camera sees a joint"):
        skeleton_controls(STANDING + 30, ring(4))
    with pytest.raises(EmptyControlError, match="no joints"):
        skeleton_controls(np.full((18, 3), np.nan), ring(4))
    assert len(skeleton_controls(STANDING, ring(4))) == 4


@settings(max_examples=30)
@given(st.floats(0.2, 0.5), st.floats(0.2, 0.5), st.floats(-0.1, 0.1))
def test_depth_is_that_of_the_first_hit_with_one_pair_of_bounds(a: float, b: float, shift: float) -> None:
    vertices, faces = superellipsoid(1.0, 1.0, (a, b, 0.3))
    vertices = vertices + np.array([shift, 0, 0])
    cameras = ring(3, 32)
    controls, bounds = depth_controls(vertices, faces, cameras)
    brightest = max(float(control.max()) for control in controls)
    assert brightest == pytest.approx(1.0, abs=1e-6)
    for camera, control in zip(cameras, controls, strict=True):
        origins, directions = (rays.reshape(-1, 3) for rays in camera.rays())
        hits = mesh_caster(vertices, faces).cast(origins, directions)
        z = np.where(hits.face >= 0, hits.distance * (directions @ camera.forward), np.inf).reshape(32, 32)
        expected = np.where(np.isfinite(z), (1 / z - 1 / bounds.far) / (1 / bounds.near - 1 / bounds.far), 0)
        assert np.allclose(control, expected[..., None], atol=1e-5)
        # What is seen is told from the background.
        assert float(control[np.isfinite(z)].min()) > 0.1


def test_a_box_is_as_deep_as_its_planes_are() -> None:
    frame = np.diag([0.3, 0.2, 0.25, 1.0])
    camera = orbit_camera(0.0, 0.0, size=33)
    (control,), bounds = depth_controls(*box_mesh(frame[None]), [camera], bounds=DepthBounds(1.0, np.inf))
    # The camera stands 1.5 away on +x and sees the face at x = 0.3 straight on.
    assert bounds.control(np.full((1, 1), 1.2, np.float32))[0, 0, 0] == pytest.approx(1 / 1.2)
    assert control[16, 16] == pytest.approx(1 / 1.2, abs=1e-6)
    assert control[0, 0].max() == 0


def test_two_controls_share_their_bounds_if_told_to() -> None:
    cameras = ring(2, 32)
    near = superellipsoid(1.0, 1.0, (0.5, 0.5, 0.5))
    _, bounds = depth_controls(*near, cameras)
    (small, _), same = depth_controls(*superellipsoid(1.0, 1.0, (0.1, 0.1, 0.1)), cameras, bounds=bounds)
    assert same == bounds
    assert 0.3 < small.max() < 0.9


def test_controls_that_cannot_drive_an_edit_are_refused_by_name() -> None:
    vertices, faces = superellipsoid(1.0, 1.0, (0.3, 0.3, 0.3))
    check_control_mesh(vertices, faces)
    # Cut along a seam, as files have it, it is closed still.
    check_control_mesh(vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3))
    with pytest.raises(OpenControlError, match="open: 3 of its edges"):
        check_control_mesh(vertices, faces[1:])
    with pytest.raises(OpenControlError, match="inside out"):
        check_control_mesh(vertices, faces[:, ::-1])
    with pytest.raises(EmptyControlError, match="no faces"):
        check_control_mesh(vertices, faces[:0])
    with pytest.raises(EmptyControlError, match="single point"):
        check_control_mesh(vertices * 0, faces)
    with pytest.raises(EmptyControlError, match="encloses nothing"):
        check_control_mesh(box((1.0, 1.0, 1.0))[0] * (1, 1, 0), box((1.0, 1.0, 1.0))[1])
    with pytest.raises(MissedControlError, match="no camera sees"):
        depth_controls(vertices + 40, faces, ring(3, 16))
    masks = [np.zeros((16, 16), bool)] * 3
    with pytest.raises(MissedControlError, match="away from the object"):
        depth_controls(vertices, faces, ring(3, 16), object_masks=masks)
    with pytest.raises(ControlError, match="in order"):
        DepthBounds(2.0, 1.0)


def test_boxes_that_miss_or_hold_nothing_are_named() -> None:
    points = superellipsoid(1.0, 1.0, (0.3, 0.3, 0.3))[0]
    good, away, flat, mirrored = (np.eye(4) for _ in range(4))
    good[:3, :3] *= 0.4
    away[:3, 3] = 9
    flat[2, 2] = 0
    mirrored[0, 0] = -1
    check_boxes_hit(good[None], points)
    with pytest.raises(MissedControlError, match="box 1 misses"):
        check_boxes_hit(np.stack([good, away]), points)
    with pytest.raises(EmptyControlError, match="box 1 encloses nothing"):
        box_mesh(np.stack([good, flat]))
    with pytest.raises(ControlError, match="box 0 is mirrored"):
        box_mesh(mirrored[None])
    with pytest.raises(EmptyControlError, match="no boxes"):
        box_mesh(np.zeros((0, 4, 4)))
    vertices, faces = box_mesh(np.stack([good, good @ good]))
    check_control_mesh(vertices, faces)
    assert len(vertices) == 16
