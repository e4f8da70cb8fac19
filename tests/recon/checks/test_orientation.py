"""Pictures stored turned against their cameras: found exactly, mended exactly, and imagined nowhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.procedural import Part, box, moved
from recon.checks.capture import CaptureReport, check_capture
from recon.checks.orientation import Turn, find_turned, put_right, turned
from recon.views.normalise import normalise_capture
from scene.camera import orbit_camera
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

COUNT, SIZE = 12, 72
THIRDS = {"scattered": (1, 4, 5, 10), "in a row": (4, 5, 6, 7)}


def around(size: int = SIZE) -> list:
    return [orbit_camera(k * 2 * math.pi / COUNT, (0.5, 0.1)[k % 2], 1.5, size=size) for k in range(COUNT)]


@pytest.fixture(scope="module")
def odd(ball: Callable[..., Part]) -> Part:
    """A thing that has no symmetry: an arm at the side of a post with a head."""
    parts = [
        ball(0.2, (0.05, 0.05, 0.3), subdivisions=2),
        moved(box((0.12, 0.12, 0.4)), (0.0, 0.0, -0.05)),
        moved(box((0.34, 0.1, 0.1)), (0.2, 0.1, -0.3)),
    ]
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [triangles + start for (_, triangles), start in zip(parts, starts, strict=False)]
    return 0.85 * np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces)


@pytest.fixture(scope="module")
def ring(odd: Part, shoot: Callable[..., ViewSet]) -> ViewSet:
    return shoot(odd, around())


@pytest.fixture(scope="module")
def good(ring: ViewSet) -> CaptureReport:
    return check_capture(ring)


def lying(views: ViewSet, which: Collection[int], quarters: int, mirrored: bool = False) -> ViewSet:
    """The set with some pictures stored such that so many quarters (then a mirror) put them right."""

    def wrong(rgba: np.ndarray) -> np.ndarray:
        rgba = np.rot90(rgba, -quarters)
        return np.ascontiguousarray(rgba[:, ::-1] if mirrored else rgba)

    parts = [replace(v, pixels=wrong(v.rgba())) if k in which else v for k, v in enumerate(views)]
    return replace(views, views=tuple(parts))


def same_pictures(one: ViewSet, other: ViewSet) -> bool:
    return all(np.array_equal(a.rgba(), b.rgba()) for a, b in zip(one, other, strict=True))


# --- what lies wrongly is found ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("which", THIRDS.values(), ids=THIRDS)
def test_a_third_of_the_pictures_is_found_exactly_and_mended(
    ring: ViewSet, good: CaptureReport, which: tuple[int, ...], quarters: int
) -> None:
    wrong = lying(ring, which, quarters)
    report = check_capture(wrong)
    assert [(t.name, t.quarters, t.mirrored) for t in report.turned] == [(f"{k:02d}", quarters, False) for k in which]
    (issue,) = report.issues
    assert (issue.kind, issue.views, issue.fatal) == ("turned", tuple(f"{k:02d}" for k in which), False)
    moved = report.normalised_after(report.turned)
    truth = normalise_capture(turned(wrong, report.turned))
    assert moved is not None
    assert moved.matrix.tobytes() == truth.matrix.tobytes()
    assert same_pictures(moved.views, truth.views)
    assert report.normalised_after([]) is None
    assert report.consistency is not None
    assert good.consistency is not None
    assert report.consistency < good.consistency - 0.1
    mended = turned(wrong, report.turned)
    assert same_pictures(mended, ring)
    again = check_capture(mended)
    assert (again.consistency, again.warnings) == (good.consistency, ())


@pytest.mark.parametrize("which", [(3,), (0, 11)])
def test_single_pictures_are_found_too(ring: ViewSet, which: tuple[int, ...]) -> None:
    assert [t.name for t in find_turned(lying(ring, which, 2))] == [f"{k:02d}" for k in which]


@pytest.mark.parametrize(("quarters", "words"), [(0, "mirrored left to right"), (2, "mirrored top to bottom")])
def test_mirrored_pictures_are_named_as_such(ring: ViewSet, quarters: int, words: str) -> None:
    report = check_capture(lying(ring, (2, 7), quarters, mirrored=True))
    (issue,) = report.issues
    assert (issue.kind, issue.views) == ("mirrored", ("02", "07"))
    assert words in issue.text
    assert all(t.mirrored and t.quarters == quarters for t in report.turned)


def test_pictures_that_are_not_square_are_turned_by_halves(odd: Part, shoot: Callable[..., ViewSet]) -> None:
    wide = [replace(camera, width=SIZE + 24, cx=camera.cx + 9) for camera in around()]
    ring = shoot(odd, wide)
    wrong = lying(ring, (2, 3, 4, 8), 2)
    found = check_capture(wrong).turned
    assert [(t.name, t.quarters) for t in found] == [("02", 2), ("03", 2), ("04", 2), ("08", 2)]
    # The principal point is off the middle: only with the camera as it is do the masks fit again.
    assert same_pictures(turned(wrong, found), ring)


# --- what does not is left in peace -----------------------------------------------------------------------------------


def test_good_captures_are_untouched(ring: ViewSet, good: CaptureReport) -> None:
    assert (good.turned, good.warnings) == ((), ())
    assert turned(ring, ()).views == ring.views


def test_never_are_all_or_most_of_the_pictures_turned(ring: ViewSet) -> None:
    assert find_turned(lying(ring, range(COUNT), 2), quarters=True) == ()
    assert len(find_turned(lying(ring, range(8), 2), quarters=True)) < COUNT / 2


def test_symmetric_objects_are_untouched(ball: Callable[..., Part], shoot: Callable[..., ViewSet]) -> None:
    level = [orbit_camera(k * 2 * math.pi / COUNT, 0.1, 3.0, size=SIZE) for k in range(COUNT)]
    which = THIRDS["in a row"]
    for part in (ball(0.5, subdivisions=2), box((0.3, 0.3, 0.3)), box((0.25, 0.4, 0.3))):
        views = shoot(part, level)
        assert find_turned(views, quarters=True) == ()
        # Only perspective tells which way a box was up: it may be said of some, but of no others.
        assert {t.name for t in find_turned(lying(views, which, 2))} <= {f"{k:02d}" for k in which}
    assert find_turned(lying(shoot(ball(0.5, subdivisions=2), level), which, 2)) == ()


def test_other_faults_are_not_taken_for_turns(ring: ViewSet) -> None:
    rng = np.random.default_rng(0)

    def displaced(reach: int, every: int) -> ViewSet:
        parts = [
            replace(v, pixels=np.roll(v.rgba(), tuple(int(s) for s in rng.integers(-reach, reach + 1, 2)), (0, 1)))
            if k % every == 0
            else v
            for k, v in enumerate(ring)
        ]
        return replace(ring, views=tuple(parts))

    for views in (displaced(3, 1), displaced(12, 1), displaced(6, 5)):
        assert find_turned(views, quarters=True) == ()


def test_without_masks_or_with_few_views_nothing_is_said(ring: ViewSet) -> None:
    wrong = lying(ring, THIRDS["in a row"], 2)
    assert find_turned(replace(wrong, has_masks=False)) == ()
    assert find_turned(replace(wrong, views=wrong.views[3:8])) == ()


# --- putting right ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 3), st.booleans())
def test_all_maps_turn_with_the_picture(quarters: int, mirrored: bool) -> None:
    rng = np.random.default_rng(7)
    rgba = rng.integers(0, 255, (9, 9, 4), np.uint8)
    mask = rng.integers(0, 255, (9, 9), np.uint8)
    camera = orbit_camera(0.3, 0.2, 1.5, size=9)
    depth = rng.uniform(1, 2, (9, 9)).astype(np.float32)
    view = View("a", camera, rgba, mask=mask, depth_source=depth, depth_scale=2.0, weight=0.5)
    (found,) = turned(ViewSet((view,), True), [Turn("a", quarters, mirrored)])
    assert np.array_equal(found.rgba()[..., :3], put_right(rgba[..., :3], quarters, mirrored))
    assert np.array_equal(found.rgba()[..., 3], put_right(mask, quarters, mirrored))
    turned_depth = found.depth()
    assert turned_depth is not None
    assert np.array_equal(turned_depth, put_right(2 * depth, quarters, mirrored))
    assert (found.name, found.camera, found.weight) == ("a", camera, 0.5)


@given(st.integers(0, 3), st.booleans())
def test_normals_turn_in_themselves_too(quarters: int, mirrored: bool) -> None:
    # A paraboloid: its normals follow from its heights, before as after.
    across, up = np.meshgrid(np.linspace(-0.4, 0.6, 40), np.linspace(0.5, -0.3, 40))
    height = 0.5 * across**2 + 0.2 * across * up - 0.3 * up**2 + 0.4 * across

    def normals_of(heights: np.ndarray) -> np.ndarray:
        down, right = np.gradient(heights, 0.8 / 39, 1 / 39)
        vectors = np.stack([-right, down, np.ones_like(right)], axis=-1)
        return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)

    square = height[:, :40]
    camera = orbit_camera(0.3, 0.2, 1.5, size=40)
    view = View("a", camera, np.zeros((40, 40, 4), np.uint8), normal_source=normals_of(square))
    (found,) = turned(ViewSet((view,), True), [Turn("a", quarters, mirrored)])
    vectors = found.normals()
    assert vectors is not None
    lies = put_right(square, quarters, mirrored)
    down, right = np.gradient(lies, *((1 / 39, 0.8 / 39) if quarters % 2 else (0.8 / 39, 1 / 39)))
    expected = np.stack([-right, down, np.ones_like(right)], axis=-1)
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    assert np.abs(vectors - expected).max() < 1e-5


def test_a_quarter_turn_needs_a_square(ring: ViewSet) -> None:
    view = View("a", replace(ring.views[0].camera, width=SIZE + 1), np.zeros((SIZE, SIZE + 1, 4), np.uint8))
    with pytest.raises(InputError, match="not square"):
        turned(ViewSet((view,), True), [Turn("a", 1)])


def test_hidden_parts_do_not_mislead_the_search(ring: ViewSet) -> None:
    """The lower half is hidden in every second picture; some lie upside down, and what hides it with them."""
    views = []
    for k, view in enumerate(ring):
        rgba, bar = view.rgba().copy(), np.zeros((SIZE, SIZE), np.uint8)
        if k % 2:
            rows = np.flatnonzero((rgba[..., 3] > 127).any(axis=1))
            bar[int(rows[0] + (rows[-1] - rows[0]) * 0.5) :] = 255
        rgba[bar > 0, 3] = 0
        if k in THIRDS["scattered"]:
            rgba, bar = (np.ascontiguousarray(np.rot90(part, 2)) for part in (rgba, bar))
        views.append(replace(view, pixels=rgba, unknown_source=bar))
    hidden = replace(ring, views=tuple(views))
    assert [(t.name, t.quarters) for t in find_turned(hidden)] == [(f"{k:02d}", 2) for k in THIRDS["scattered"]]
    taken_for_background = replace(hidden, views=tuple(replace(view, unknown_source=None) for view in hidden))
    assert find_turned(taken_for_background) == ()
