"""The capture check: every fault is named where it is, and sound captures are left in peace."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.procedural import Part, Pattern, box, moved
from recon.checks.cameras import coverage_of
from recon.checks.capture import CaptureReport, check_capture
from recon.checks.image_quality import deviations, image_quality, reduced, similar_views
from recon.checks.orientation import Turn
from recon.checks.silhouettes import compare, silhouette
from recon.views.normalise import normalise_capture
from scene.camera import Camera, look_at, normalising_transform, orbit_camera
from scene.view import View
from scene.viewset import ViewSet
from scene.voxels import sphere_cameras

SIZE = 128
AXES = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
NOISE = Pattern("noise", (0.1, 0.2, 0.9), 9.0, AXES, (0.3, 0.1, 0.7), 0.9)


@pytest.fixture(scope="module")
def ring(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> ViewSet:
    """Fourteen pictures around a patterned thing that has no symmetry."""
    one, other = ball(0.26, (0.1, 0.05, 0.1)), moved(box((0.3, 0.12, 0.13)), (-0.1, 0.1, -0.18))
    vertices = np.concatenate([one[0], other[0]])
    faces = np.concatenate([one[1], other[1] + len(one[0])])
    cameras = [orbit_camera(k * math.pi / 7, (0.5, 0.1)[k % 2], 1.5, size=SIZE) for k in range(14)]
    return shoot((vertices, faces), cameras, solid=(NOISE,))


def changed(views: ViewSet, k: int, change: Callable[[np.ndarray], np.ndarray]) -> ViewSet:
    """The set with one picture changed."""
    parts = list(views.views)
    parts[k] = replace(parts[k], pixels=change(parts[k].rgba().copy()))
    return replace(views, views=tuple(parts))


def colour(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A change of the colour alone."""
    return lambda rgba: np.dstack([np.clip(change(rgba[..., :3].astype(float)), 0, 255).astype(np.uint8), rgba[..., 3]])


def alpha(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
    """A change of the mask alone."""
    return lambda rgba: np.dstack([rgba[..., :3], change(rgba[..., 3])])


def without_top(mask: np.ndarray) -> np.ndarray:
    mask[: SIZE // 2] = 0
    return mask


FAULTS = {
    "blurred": colour(lambda rgb: cv2.GaussianBlur(rgb, (0, 0), 3)),
    "bright": colour(lambda rgb: rgb * 2.2),
    "dark": colour(lambda rgb: rgb * 0.3),
    "empty": alpha(np.zeros_like),
    "full": alpha(lambda mask: np.full_like(mask, 255)),
    "mask": alpha(lambda mask: np.roll(mask, 8, axis=1)),
}


def kinds(report: CaptureReport) -> set[tuple[str, tuple[str, ...]]]:
    return {(issue.kind, issue.views) for issue in report.issues}


# --- sound captures ---------------------------------------------------------------------------------------------------


def test_sound_captures_are_left_in_peace(ring: ViewSet, ball_views: ViewSet) -> None:
    for views in (ring, ball_views):
        report = check_capture(views)
        assert report.warnings == ()
        assert report.usable
        assert report.consistency is not None
        assert report.consistency > 0.92
        assert [view.name for view in report.views] == [view.name for view in views]
        assert all(view.silhouette_iou is not None and view.silhouette_iou > 0.7 for view in report.views)
        assert all(view.truncated == 0 for view in report.views)


def test_without_masks_only_pictures_and_cameras_are_judged(ring: ViewSet) -> None:
    opaque = ViewSet(
        tuple(replace(v, pixels=np.dstack([v.rgba()[..., :3], np.full((SIZE, SIZE), 255, np.uint8)])) for v in ring),
        False,
    )
    report = check_capture(opaque)
    assert (report.warnings, report.consistency) == ((), None)
    assert all(v.mask_fraction is None and v.silhouette_iou is None and v.sharpness is not None for v in report.views)
    assert kinds(check_capture(changed(opaque, 3, FAULTS["blurred"]))) == {("blurred", ("03",))}


def test_the_check_reads_files_and_changes_nothing(ring: ViewSet, tmp_path: Path) -> None:
    ring.save(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert check_capture(ViewSet.load(tmp_path)).warnings == ()
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_large_pictures_are_judged_like_small_ones(ring: ViewSet) -> None:
    twice = tuple(
        replace(v, camera=v.camera.resized(2 * SIZE, 2 * SIZE), pixels=v.rgba().repeat(2, axis=0).repeat(2, axis=1))
        for v in ring
    )
    large = check_capture(changed(replace(ring, views=twice), 5, alpha(lambda mask: np.roll(mask, 16, axis=1))))
    (issue,) = large.issues
    assert (issue.kind, issue.views) == ("mask", ("05",))
    assert large.views[5].shift is not None
    assert abs(large.views[5].shift[0] + 16) <= 4  # in pixels of the picture


# --- what the report carries ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(150, 113), (128, 128), (64, 90), (401, 300)])
def test_the_capture_is_normalised_as_a_job_would_do_it(
    ball: Callable[..., Part], shoot: Callable[..., ViewSet], size: tuple[int, int]
) -> None:
    cameras = [
        Camera(c.c2w, 1.1 * max(size), 1.1 * max(size), size[0] / 2 + 1, size[1] / 2, *size)
        for c in sphere_cameras(8, 64, 1.5)
    ]
    matrix = normalising_transform(np.array([[3.0, 1, 2], [5, 2, 7]]))
    views = shoot(ball(0.3, (0.1, 0.0, -0.05)), cameras).transformed(np.linalg.inv(matrix))
    report, truth = check_capture(views), normalise_capture(views)
    assert report.normalised is not None
    assert report.normalised.matrix.tobytes() == truth.matrix.tobytes()
    for mine, other in zip(report.normalised.views, truth.views, strict=True):
        assert mine.camera.c2w.tobytes() == other.camera.c2w.tobytes()
        assert np.array_equal(mine.rgba(), other.rgba())
    assert report.normalised_after([]) is report.normalised
    assert report.normalised_after([Turn("00", 2)]) is None


@pytest.mark.parametrize("kind", ["empty", "full"])
def test_a_capture_with_views_left_out_is_not_normalised(ring: ViewSet, kind: str) -> None:
    assert check_capture(changed(ring, 3, FAULTS[kind])).normalised is None
    assert check_capture(replace(ring, has_masks=False)).normalised is None


# --- one fault at a time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("k", [2, 9])
def test_one_faulty_view_is_named_and_nothing_else(ring: ViewSet, kind: str, k: int) -> None:
    report = check_capture(changed(ring, k, FAULTS[kind]))
    assert kinds(report) == {(kind, (f"{k:02d}",))}
    assert report.usable
    assert f"{k:02d}" in report.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda mask: np.roll(mask, 8, axis=1), "pixels left"),
        (lambda mask: np.roll(mask, -8, axis=0), "pixels down"),
        (lambda mask: cv2.dilate(mask, np.ones((17, 17))), "where other views see nothing"),
        (without_top, "lacks parts"),
    ],
    ids=["right", "up", "grown", "cut"],
)
def test_how_a_mask_contradicts_the_others_is_told(
    ring: ViewSet, change: Callable[[np.ndarray], np.ndarray], words: str
) -> None:
    (issue,) = check_capture(changed(ring, 6, alpha(change))).issues
    assert (issue.kind, issue.views) == ("mask", ("06",))
    assert words in issue.text


@pytest.mark.parametrize("count", [5, 7])
def test_of_few_views_the_wrong_one_is_named(ring: ViewSet, count: int) -> None:
    few = replace(ring, views=ring.views[:: 14 // count][:count])
    report = check_capture(changed(few, 1, alpha(lambda mask: np.roll(mask, 10, axis=1))))
    assert ("mask", (few.views[1].name,)) in kinds(report)
    assert len([c for c in report.issues if c.kind == "mask"]) == 1


def test_a_wrong_pose_is_a_contradiction(ring: ViewSet) -> None:
    parts = list(ring.views)
    parts[4] = replace(parts[4], camera=replace(parts[4].camera, c2w=parts[8].camera.c2w))
    report = check_capture(replace(ring, views=tuple(parts)))
    assert ("mask", ("04",)) in kinds(report)


def test_masks_of_different_things_contradict_each_other_as_a_whole(ring: ViewSet) -> None:
    rng = np.random.default_rng(0)
    parts = []
    for view in ring:
        rgba = np.roll(view.rgba(), tuple(int(v) for v in rng.integers(-20, 20, 2)), axis=(0, 1))
        parts.append(replace(view, pixels=rgba))
    report = check_capture(replace(ring, views=tuple(parts)))
    assert report.consistency is not None
    assert report.consistency < 0.85
    assert any(f"contradict each other: {report.consistency:.2f}" in text for text in report.warnings)


def test_an_object_that_the_border_cuts_is_named(ring: ViewSet) -> None:
    view = ring.views[3]
    shifted = np.zeros_like(view.rgba())
    shifted[:, 40:] = view.rgba()[:, :-40]
    parts = list(ring.views)
    parts[3] = replace(view, pixels=shifted, camera=replace(view.camera, cx=view.camera.cx + 40))
    assert kinds(check_capture(replace(ring, views=tuple(parts)))) == {("truncated", ("03",))}


# --- coverage ---------------------------------------------------------------------------------------------------------


def test_half_a_ring_leaves_a_gap_between_its_ends(ring: ViewSet) -> None:
    report = check_capture(replace(ring, views=ring.views[2:9]))
    (issue,) = report.issues
    assert (issue.kind, issue.views) == ("gap", ("08", "02"))
    assert report.coverage is not None
    assert report.coverage.gap_deg == pytest.approx(360 - 6 * 360 / 14, abs=12)


def test_cameras_side_by_side_are_too_near(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    cameras = [orbit_camera(0.02 * k, 0.2, 1.5, size=64) for k in range(6)]
    assert [c.kind for c in check_capture(shoot(ball(0.4), cameras)).issues] == ["baseline"]


def test_cameras_that_look_outwards_surround_no_object() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (64, 64, 4), np.uint8)
    views = []
    for k in range(8):
        camera = orbit_camera(k * math.pi / 4, 0.1, 1.0, size=64)
        outwards = replace(camera, c2w=look_at(camera.centre, 2 * camera.centre))
        views.append(View(str(k), outwards, pixels))
    assert "outward" in [c.kind for c in check_capture(ViewSet(tuple(views), False)).issues]


def test_coverage_counts_angles_from_the_object() -> None:
    centre = np.array([3.0, -2, 7])
    azimuths = [0.0, 0.5, 1.5, 4.0]
    cameras = []
    for azimuth in azimuths:
        camera = orbit_camera(azimuth, 0.3, 2.0)
        c2w = camera.c2w.copy()
        c2w[:3, 3] += centre
        cameras.append(replace(camera, c2w=c2w))
    found = coverage_of(cameras, centre)
    assert found.gap_deg == pytest.approx(math.degrees(2.5))
    assert found.gap_between == (2, 3)
    assert found.elevation_deg == pytest.approx((math.degrees(0.3),) * 2)
    assert found.outward == 0


# --- captures that cannot be used -------------------------------------------------------------------------------------


def test_what_cannot_be_reconstructed_is_not_usable(ring: ViewSet, tmp_path: Path) -> None:
    empty = replace(ring, views=tuple(replace(v, pixels=np.zeros((SIZE, SIZE, 4), np.uint8)) for v in ring))
    report = check_capture(empty)
    assert not report.usable
    assert "masks of all views are empty" in report.warnings[0]
    one = check_capture(replace(ring, views=ring.views[:1]))
    assert (one.usable, [c.kind for c in one.issues]) == (False, ["few"])
    parallel = replace(ring, views=tuple(replace(v, camera=ring.views[0].camera) for v in ring))
    assert "direction" in [c.kind for c in check_capture(parallel).issues if c.fatal]
    gone = replace(ring, views=(*ring.views[1:], View("gone", ring.views[0].camera, image_path=tmp_path / "gone.png")))
    report = check_capture(gone)
    assert report.usable  # without it
    assert kinds(report) == {("unreadable", ("gone",))}
    assert not check_capture(replace(ring, views=gone.views[-3:])).usable
    assert "gone.png" in report.warnings[0]
    assert report.consistency is not None  # the others are judged all the same


# --- parts ------------------------------------------------------------------------------------------------------------


def test_a_silhouette_is_what_rays_through_the_voxels_hit() -> None:
    axis = (np.arange(32) + 0.5) / 32 * 1.2 - 0.6
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    solid = (x**2 + (y / 0.5) ** 2 + z**2 < 0.5**2) | ((x > 0.2) & (abs(y) < 0.4) & (abs(z) < 0.1))
    camera = orbit_camera(0.7, 0.4, 1.5, size=48)
    origin, direction = camera.rays()
    steps = origin[..., None, :] + direction[..., None, :] * np.linspace(0.7, 2.3, 400)[:, None]
    index = np.floor((steps + 0.6) / 1.2 * 32).astype(int)
    within = ((index >= 0) & (index < 32)).all(-1)
    index = np.clip(index, 0, 31)
    hit = (solid[index[..., 0], index[..., 1], index[..., 2]] & within).any(-1)
    drawn = silhouette(solid, 0.6, camera)
    assert (drawn & hit).sum() / (drawn | hit).sum() > 0.95
    assert not (drawn & ~cv2.dilate(hit.astype(np.uint8), np.ones((3, 3))).astype(bool)).any()


@given(st.integers(-9, 9), st.integers(-9, 9))
def test_a_displaced_mask_is_found_again(right: int, down: int) -> None:
    outline = np.zeros((80, 96), bool)
    outline[30:50, 30:62] = True
    outline[26:34, 40:44] = True
    found = compare(np.roll(outline, (down, right), axis=(0, 1)), outline)
    assert found.shift == (-right, -down)
    assert found.iou + found.gain == pytest.approx(1)
    assert found.false_positive == pytest.approx(found.missing)
    assert (found.iou == 1) == (right == down == 0)


def test_a_mask_and_an_outline_that_never_meet() -> None:
    mask, outline = np.zeros((40, 40), bool), np.zeros((40, 40), bool)
    mask[:3, :3], outline[-3:, -3:] = True, True
    found = compare(mask, outline)
    assert (found.iou, found.false_positive, found.missing) == (0, 1, 1)
    assert compare(mask, np.zeros_like(mask)).iou == 0


def test_reducing_keeps_colour_out_of_where_nothing_is() -> None:
    rgba = np.zeros((64, 64, 4), np.uint8)
    rgba[..., 1] = 255  # green where alpha is 0
    rgba[16:47, 16:47] = (200, 30, 40, 255)
    small = reduced(rgba, 16, 16)
    assert small.shape == (16, 16, 4)
    edge = (small[..., 3] > 0) & (small[..., 3] < 255)
    assert edge.any()
    assert np.abs(small[edge][:, :3].astype(int) - (200, 30, 40)).max() <= 1


def test_quality_of_a_picture() -> None:
    rng = np.random.default_rng(0)
    rgba = np.zeros((100, 100, 4), np.uint8)
    rgba[20:80, 30:100, :3] = rng.integers(60, 140, (60, 70, 1))
    rgba[20:80, 30:100, 3] = 255
    rgba[20:35, 30:100, :3] = 255
    found = image_quality(rgba, has_mask=True)
    assert found.mask_fraction == pytest.approx(0.42)
    assert found.overexposed == pytest.approx(0.25)
    assert found.truncated == pytest.approx(60 / (2 * 60 + 2 * 70 - 4))
    assert image_quality(rgba, has_mask=False).mask_fraction == 1
    assert math.isnan(image_quality(np.zeros_like(rgba), has_mask=True).laplacian)


def test_a_deviation_counts_only_if_neither_the_set_nor_the_neighbourhood_explains_it() -> None:
    similar = [np.array([1]), np.array([0]), np.array([3]), np.array([2]), np.array([0, 1])]
    found = deviations(np.array([0.0, 0.0, 5.0, 5.2, np.nan]), similar)
    assert found[:4] == pytest.approx([0, 0, -0.2, 0.2])
    assert math.isnan(found[4])
    assert deviations(np.array([0, 0, 0, 9.0, 0]), similar)[3] == 9


def test_similar_views_look_in_similar_directions() -> None:
    cameras = [orbit_camera(k * math.pi / 6, 0.1) for k in range(12)]
    assert all(set(near) == {(k + d) % 12 for d in (-2, -1, 1, 2)} for k, near in enumerate(similar_views(cameras)))
    assert [list(near) for near in similar_views(cameras[:2])] == [[1], [0]]


def test_hidden_parts_are_no_contradiction(ring: ViewSet) -> None:
    """Half of a mask lost is a contradiction; half of it hidden is none."""
    rgba = ring.views[3].rgba().copy()
    hidden = np.zeros(rgba.shape[:2], np.uint8)
    rows = np.flatnonzero((rgba[..., 3] > 127).any(axis=1))
    hidden[: (rows[0] + rows[-1]) // 2] = 255
    rgba[hidden > 0, 3] = 0
    for source, expected in ((None, True), (hidden, False)):
        view = replace(ring.views[3], pixels=rgba, unknown_source=source)
        report = check_capture(replace(ring, views=(*ring.views[:3], view, *ring.views[4:])))
        found = [issue.kind for issue in report.issues if ring.views[3].name in issue.views]
        assert ("mask" in found) == expected, found
