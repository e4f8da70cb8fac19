"""Lenses: OpenCV as an independent reference, inverses, and pictures that come out straight."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene.camera import look_at
from scene.errors import InputError
from scene.lens import Intrinsics, Lens, Undistortion, pinhole_of, undistort

WIDE = Intrinsics(310.0, 305.0, 205.0, 148.0, 400, 300)
LENSES = {
    "simple radial": Lens(k1=-0.12),
    "radial": Lens(k1=0.15, k2=-0.08),
    "opencv": Lens(k1=-0.25, k2=0.09, p1=0.002, p2=-0.003),
    "full opencv": Lens(0.9, 0.3, 0.05, 1.1, 0.4, 0.03, 0.001, -0.002),
    "fisheye": Lens(0.03, -0.01, 0.004, -0.001, fisheye=True),
    "ideal fisheye": Lens(fisheye=True),
}
over_lenses = pytest.mark.parametrize("lens", LENSES.values(), ids=LENSES)
small = st.floats(-0.08, 0.08)
tiny = st.floats(-0.004, 0.004)
lenses = st.builds(Lens, k1=small, k2=small, k3=small, p1=tiny, p2=tiny) | st.builds(
    Lens, k1=small, k2=small, k3=tiny, k4=tiny, fisheye=st.just(True)
)


def by_opencv(points: np.ndarray, lens: Lens, raw: Intrinsics) -> np.ndarray:
    """Pixels of points in camera coordinates (OpenCV axes) by OpenCV; pixels counted as the project does."""
    # OpenCV's functions are the same for pixels counted from the corner if the principal point is.
    k = np.array([[raw.fx, 0, raw.cx], [0, raw.fy, raw.cy], [0, 0, 1.0]])
    zero = np.zeros(3)
    if lens.fisheye:
        factors = np.array([lens.k1, lens.k2, lens.k3, lens.k4])
        pixels, _ = cv2.fisheye.projectPoints(points[:, None], zero, zero, k, factors)
    else:
        factors = np.array([lens.k1, lens.k2, lens.p1, lens.p2, lens.k3, lens.k4, lens.k5, lens.k6])
        pixels, _ = cv2.projectPoints(points[:, None], zero, zero, k, factors)
    return pixels[:, 0]


@over_lenses
def test_distortion_is_opencvs(lens: Lens) -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(-0.9, 0.9, (200, 2)), np.zeros((1, 2))])
    expected = by_opencv(np.c_[points, np.ones(len(points))], lens, Intrinsics(1, 1, 0, 0, 1, 1))
    assert lens.distort(points) == pytest.approx(expected, abs=1e-9)


@given(lenses, st.floats(-0.6, 0.6), st.floats(-0.6, 0.6))
def test_undistort_is_the_inverse(lens: Lens, x: float, y: float) -> None:
    point = np.array([[x, y]])
    if math.hypot(x, y) < 0.9 * lens.max_radius:
        assert lens.undistort(lens.distort(point)) == pytest.approx(point, abs=1e-7)


def test_where_no_image_can_be_there_is_no_inverse() -> None:
    """r - r^3 is at most 0.385, at r = 0.577."""
    lens = Lens(k1=-1.0)
    assert lens.max_radius == pytest.approx(1 / math.sqrt(3), abs=2e-3)
    assert np.isnan(lens.undistort(np.array([[0.5, 0.0]]))).all()
    assert np.isfinite(lens.undistort(np.array([[0.3, 0.0]]))).all()


@settings(max_examples=40)
@given(lenses)
def test_points_of_the_straightened_picture_are_where_a_pinhole_sees_them(lens: Lens) -> None:
    """Project with distortion (OpenCV), look the place up in the maps: it must be the pinhole's pixel."""
    pinhole = pinhole_of(lens, WIDE)
    rng = np.random.default_rng(3)
    camera = pinhole.camera(look_at(np.array([2.0, 0.5, 0.7])))
    points = rng.uniform(-0.4, 0.4, (60, 3))
    pixels, depth = camera.project(points)
    seen = (depth > 0) & (pixels > 1).all(axis=1) & (pixels < [pinhole.width - 1, pinhole.height - 1]).all(axis=1)
    local = (points[seen] - camera.centre) @ camera.c2w[:3, :3] * [1, -1, -1]
    raw = by_opencv(local, lens, WIDE)
    ramp = np.stack(np.meshgrid(np.arange(WIDE.width) + 0.5, np.arange(WIDE.height) + 0.5), axis=-1)
    # The undistorted picture of a picture of coordinates tells where each of its pixels came from.
    maps = Undistortion(lens, WIDE, pinhole).picture(ramp.astype(np.float32)).astype(np.float64)
    came_from = cv2.remap(maps, *(pixels[seen] - 0.5).astype(np.float32).T[:, None], cv2.INTER_LINEAR)[0]
    assert seen.sum() > 10
    assert np.linalg.norm(came_from - raw, axis=1).max() < 0.05


@over_lenses
def test_every_pixel_of_the_straightened_picture_was_seen(lens: Lens) -> None:
    pinhole = pinhole_of(lens, WIDE)
    edge = np.linspace(0.5, pinhole.width - 0.5, 500), np.linspace(0.5, pinhole.height - 0.5, 500)
    border = [np.stack(np.broadcast_arrays(edge[0], y), axis=-1) for y in edge[1][[0, -1]]]
    border += [np.stack(np.broadcast_arrays(x, edge[1]), axis=-1) for x in edge[0][[0, -1]]]
    plane = (np.concatenate(border) - [pinhole.cx, pinhole.cy]) / [pinhole.fx, pinhole.fy]
    raw = by_opencv(np.c_[plane, np.ones(len(plane))], lens, WIDE)
    assert (raw > 0.5 - 1e-3).all()
    assert (raw < np.array([WIDE.width, WIDE.height]) - 0.5 + 1e-3).all()
    # And no more is cut off than must be: the border is touched somewhere.
    margin = np.minimum(raw - 0.5, [WIDE.width - 0.5, WIDE.height - 0.5] - raw)
    assert margin.min() < 1
    assert (pinhole.width, pinhole.height) == (WIDE.width, WIDE.height)
    assert pinhole.fx / pinhole.fy == pytest.approx(WIDE.fx / WIDE.fy)


def test_white_stays_white_to_the_corners() -> None:
    for lens in LENSES.values():
        undistortion = Undistortion(lens, WIDE, pinhole_of(lens, WIDE))
        assert undistortion.picture(np.full((300, 400, 4), 255, np.uint8)).min() == 255


def test_lines_become_straight() -> None:
    """A line in space, drawn as the lens sees it, has its points on one line afterwards."""
    lens = LENSES["opencv"]
    pinhole = pinhole_of(lens, WIDE)
    along = np.linspace(-0.5, 0.5, 300)
    raw = by_opencv(np.stack([along, 0.3 + 0 * along, np.ones(300)], axis=1), lens, WIDE)
    drawn = np.zeros((300, 400), np.uint8)
    cv2.polylines(drawn, [np.round((raw - 0.5) * 16).astype(np.int32)], False, 255, 2, cv2.LINE_AA, 4)
    rows = np.arange(300)[:, None] + 0.5

    def bow(image: np.ndarray) -> float:
        columns = slice(120, 280)
        weights = image[:, columns].astype(float)
        centres = (weights * rows).sum(axis=0) / weights.sum(axis=0)
        x = np.arange(centres.size)
        return float(np.abs(centres - np.polyval(np.polyfit(x, centres, 1), x)).max())

    assert bow(drawn) > 0.6
    assert bow(Undistortion(lens, WIDE, pinhole).picture(drawn)) < 0.2


def test_values_are_not_mixed() -> None:
    steps = np.where(np.arange(400)[None] < 200, np.float32(1), np.float32(9)).repeat(300, axis=0)
    lens = LENSES["radial"]
    undistortion = Undistortion(lens, WIDE, pinhole_of(lens, WIDE))
    assert set(np.unique(undistortion.values(steps))) == {1, 9}
    assert len(np.unique(undistortion.picture(steps))) > 2


def test_equal_cameras_share_maps_and_pinholes_need_none() -> None:
    lens, other = LENSES["radial"], LENSES["opencv"]
    first, plain, second, alone = undistort([(lens, WIDE), (Lens(), WIDE), (lens, WIDE), (other, WIDE)])
    assert plain is None
    assert first is second
    assert first is not None
    assert first.keeps_maps
    assert alone is not None
    assert not alone.keeps_maps


@pytest.mark.parametrize("lens", [Lens(k1=-40.0), Lens(k1=1e300), Lens(k4=-50.0), Lens(p1=9.0)])
def test_lenses_that_make_no_sense(lens: Lens) -> None:
    with pytest.raises(InputError, match=r"cannot be undone.*Check the coefficients"):
        pinhole_of(lens, WIDE)


def test_a_very_wide_fisheye_is_cut_where_pinholes_end() -> None:
    raw = Intrinsics(200.0, 200.0, 400.0, 400.0, 800, 800)  # its border is at 114 degrees
    pinhole = pinhole_of(Lens(fisheye=True), raw)
    assert math.degrees(math.atan(400 / pinhole.fx)) < 61


def test_a_picture_of_another_size() -> None:
    lens = LENSES["radial"]
    with pytest.raises(InputError, match="the picture is 400x299, its camera says 400x300"):
        Undistortion(lens, WIDE, pinhole_of(lens, WIDE)).picture(np.zeros((299, 400), np.uint8))


def test_resized_intrinsics_see_the_same() -> None:
    half = WIDE.resized(200, 150)
    point = np.array([[0.3, -0.2, 2.0]])
    assert by_opencv(point, Lens(), half) == pytest.approx(by_opencv(point, Lens(), WIDE) / 2)
