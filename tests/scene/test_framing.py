"""Framing: boxes land where they should, and colours stay on their side of the edge."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from scene.camera import orbit_camera
from scene.errors import InputError
from scene.framing import Framing, apply_framing, framing_of_box, framing_of_mask

coordinates = st.floats(-500, 500)
fills = st.floats(0.2, 1.0)


@st.composite
def boxes(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """A photo's height and width, and a box of at least eight pixels a side within it: top, bottom, left, right."""
    height, width = draw(st.integers(8, 120)), draw(st.integers(8, 120))
    top, left = draw(st.integers(0, height - 8)), draw(st.integers(0, width - 8))
    return height, width, top, draw(st.integers(top + 8, height)), left, draw(st.integers(left + 8, width))


@given(
    coordinates,
    coordinates,
    st.floats(0.5, 500),
    st.floats(0.5, 500),
    st.integers(8, 600),
    fills,
    st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
)
def test_a_box_is_centred_and_its_longest_side_fills_its_share(
    left: float, top: float, wide: float, high: float, size: int, fill: float, shift: tuple[float, float]
) -> None:
    framing = framing_of_box(left, top, left + wide, top + high, size, fill, shift)
    low = framing.scale * np.array([left, top]) + framing.offset
    high_corner = framing.scale * np.array([left + wide, top + high]) + framing.offset
    assert (low + high_corner) / 2 == pytest.approx(size * (0.5 + np.array(shift)), abs=1e-6 * framing.scale * 1000)
    assert (high_corner - low).max() == pytest.approx(fill * size)


@given(boxes(), st.integers(16, 160), fills)
def test_a_cut_out_fills_its_place_in_the_frame(box: tuple[int, ...], size: int, fill: float) -> None:
    height, width, top, bottom, left, right = box
    rgba = np.zeros((height, width, 4), np.uint8)
    rgba[top:bottom, left:right] = (200, 100, 50, 255)
    framing = framing_of_mask(rgba[..., 3] > 0, size, fill)
    framed = apply_framing(rgba, framing)
    assert framed.shape == (size, size, 4)
    sides = framing.scale * np.array([right - left, bottom - top])
    assert sides.max() == pytest.approx(fill * size)
    assume(sides.min() > 3)  # slivers below a few pixels only fade
    alpha = framed[..., 3] / 255.0
    assert alpha.sum() == pytest.approx(np.prod(sides), rel=0.06, abs=2)
    for k, profile in enumerate((alpha.max(axis=0), alpha.max(axis=1))):
        solid = np.nonzero(profile >= 0.5)[0]
        assert (solid[0] + solid[-1] + 1) / 2 == pytest.approx(size / 2, abs=1)
        assert solid[-1] + 1 - solid[0] == pytest.approx(sides[k], abs=1 + 0.2 * framing.scale)
    core = alpha > 0.9
    assert np.abs(framed[core][:, :3].astype(int) - [200, 100, 50]).max() <= 3


def test_hidden_background_does_not_bleed_over_the_edge() -> None:
    """A blue disc whose transparent surroundings are red stays blue up to its last pixel."""
    y, x = np.mgrid[:90, :90]
    inside = (x - 45) ** 2 + (y - 45) ** 2 < 30**2
    rgba = np.where(inside[..., None], [0, 0, 255, 255], [255, 0, 0, 0]).astype(np.uint8)
    framed = apply_framing(rgba, framing_of_mask(inside, 40))
    seen = framed[..., 3] > 8
    assert ((framed[..., 3] > 8) & (framed[..., 3] < 250)).any()
    assert framed[seen][:, 0].max() <= 3
    assert framed[seen][:, 2].min() >= 250


@given(st.floats(0.2, 3), st.floats(-40, 40), st.floats(-40, 40))
def test_outside_the_photo_is_transparent(scale: float, x: float, y: float) -> None:
    opaque = np.full((20, 30, 4), 255, np.uint8)
    framed = apply_framing(opaque, Framing(scale, (x, y), 48))
    columns, rows = (np.arange(48) + 0.5 - x) / scale, (np.arange(48) + 0.5 - y) / scale
    far = 2.5 / min(scale, 1)  # the reach of the filter, in photo pixels
    outside = (columns < -far) | (columns > 30 + far)
    inside = ((rows > far) & (rows < 20 - far))[:, None] & ((columns > far) & (columns < 30 - far))
    assert (framed[:, outside, 3] == 0).all()
    assert (framed[inside] == 255).all()


def test_framing_and_camera_move_pixels_alike() -> None:
    """A point of the photo and its place in the frame are seen by the camera and its cropped copy."""
    camera = orbit_camera(0.3, 0.2, size=100)
    framing = framing_of_box(10.0, 20.0, 70.0, 90.0, 64)
    point = np.array([[0.1, -0.2, 0.3]])
    expected = framing.scale * camera.project(point)[0] + framing.offset
    assert camera.cropped(framing.scale, framing.offset, 64).project(point)[0] == pytest.approx(expected)


@given(st.floats(0.1, 5), st.floats(-100, 100), st.integers(1, 500), st.integers(1, 500))
def test_resized_framing_scales_every_pixel(scale: float, offset: float, size: int, other: int) -> None:
    framing = Framing(scale, (offset, -offset), size)
    resized = framing.resized(other)
    for pixel in (0.0, 17.0):
        assert resized.scale * pixel + resized.offset[0] == pytest.approx(
            (scale * pixel + offset) * other / size, abs=1e-9 * other
        )
    assert resized.size == other


def test_reducing_averages_every_pixel() -> None:
    """One white line in twenty black ones leaves a twentieth of its light wherever it falls."""
    rgba = np.zeros((200, 200, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[::20, :, :3] = 255
    framed = apply_framing(rgba, Framing(0.05, (0.0, 0.0), 10))
    assert np.abs(framed[2:-2, 2:-2, 0].astype(int) - 255 / 20).max() < 6


@given(st.floats(0.06, 4), st.floats(0, 1), st.floats(0, 1))
def test_a_part_of_a_photo_is_what_resampling_the_whole_gives(scale: float, x: float, y: float) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (300, 300, 4), dtype=np.uint8)
    rgba[..., 3] = 255
    side = 16 / scale
    left, top = 3 + x * (294 - side), 3 + y * (294 - side)
    framed = apply_framing(rgba, Framing(scale, (-left * scale, -top * scale), 16))
    box = (left, top, left + side, top + side)
    plane = Image.fromarray(rgba[..., 1].astype(np.float32)).resize((16, 16), Image.Resampling.BICUBIC, box=box)
    assert np.abs(framed[..., 1] - np.clip(plane, 0, 255)).max() <= 1
    assert (framed[..., 3] == 255).all()


def test_framing_a_small_part_takes_little_memory() -> None:
    rgba = np.full((1000, 1000, 4), 200, np.uint8)
    tracemalloc.start()
    apply_framing(rgba, Framing(0.5, (-200.0, -200.0), 50))
    part = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    apply_framing(rgba, Framing(0.05, (0.0, 0.0), 50))
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert part < 1e6
    assert whole < 14 * 1000 * 1000


@pytest.mark.parametrize(
    "box", [(5.0, 5.0, 5.0, 5.0), (9.0, 9.0, 2.0, 2.0), (0.0, 0.0, math.nan, 4.0), (0.0, 0.0, math.inf, 1.0)]
)
def test_empty_boxes_are_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(InputError, match="bounding box is empty"):
        framing_of_box(*box, 64)


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(InputError, match=r"mask is empty.*--mask"):
        framing_of_mask(np.zeros((5, 5), bool), 64)
