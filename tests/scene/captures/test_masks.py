"""Masks by threshold: objects with openings before dark and light backdrops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scene.camera import orbit_camera
from scene.captures.masks import threshold_masks
from scene.errors import InputError
from scene.view import View
from scene.viewset import ViewSet

SIDE = 120


def ring(level: int, colour: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a thick ring with a bar across, and its mask; what is inside the ring is background."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    mask = (np.abs(np.hypot(x, y) - 32) < 10) | ((np.abs(y) < 6) & (np.abs(x) < 30))
    values = np.where(mask[..., None], colour + np.array([20, 0, -20]), level)
    return np.clip(values + rng.normal(0, noise, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8), mask


def views_of(rgb: np.ndarray) -> ViewSet:
    pixels = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    return ViewSet((View("only", orbit_camera(0.0, 0.0, size=SIDE), pixels),), has_masks=False)


def mask_of(views: ViewSet) -> np.ndarray:
    return views.views[0].rgba()[..., 3] > 127


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@settings(max_examples=30)
@given(
    st.sampled_from([(5, 120), (0, 200), (12, 90), (250, 120), (235, 60), (128, 220)]),
    st.floats(0, 4),
    st.integers(0, 99),
)
def test_the_object_and_its_openings(levels: tuple[int, int], noise: float, seed: int) -> None:
    rgb, mask = ring(*levels, noise, seed)
    views = threshold_masks(views_of(rgb))
    assert views.has_masks
    assert views.metadata["masks"] == "threshold"
    assert overlap(mask_of(views), mask) > 0.96
    assert not mask_of(views)[SIDE // 2 + 14, SIDE // 2]  # inside the ring, above the bar


def test_the_colours_stay(tmp_path: Path) -> None:
    rgb, _ = ring(5, 150, 2.0)
    assert np.array_equal(threshold_masks(views_of(rgb)).views[0].rgba()[..., :3], rgb)


def test_specks_and_shadows_are_filled_and_crumbs_dropped() -> None:
    rgb, mask = ring(5, 150, 1.0)
    rgb[60:63, 40:42] = 5  # a speck of background colour in the bar
    rgb[52:62, 87:97] = 50  # a shadow: darker than the object, not as dark as the background
    rgb[8:12, 8:12] = 200  # a crumb beside the object
    found = mask_of(threshold_masks(views_of(rgb)))
    assert found[60:63, 40:42].all()
    assert found[53:61, 88:96].all()
    assert not found[8:12, 8:12].any()
    assert overlap(found, mask) > 0.96


def test_folds_of_the_backdrop_are_not_the_object() -> None:
    """Cloth that is a little lighter than the rest of the backdrop and touches the object."""
    rgb, mask = ring(5, 160, 1.0)
    cloth = np.zeros_like(mask)
    cloth[20:100, 100:104] = True
    cloth[58:62, 90:104] = True
    rgb[cloth & ~mask] = 38
    assert overlap(mask_of(threshold_masks(views_of(rgb))), mask) > 0.95


def test_a_border_that_is_not_even_is_refused() -> None:
    rgb, _ = ring(5, 150, 1.0)
    rgb[:, :40] = np.random.default_rng(0).integers(0, 256, (SIDE, 40, 3))
    with pytest.raises(InputError, match="only: its border is not even"):
        threshold_masks(views_of(rgb))


def test_an_object_that_touches_the_border_a_little_is_found() -> None:
    rgb, mask = ring(5, 150, 1.0)
    rgb[55:65, 90:], mask[55:65, 90:] = 150, True
    assert overlap(mask_of(threshold_masks(views_of(rgb))), mask) > 0.95


def test_a_picture_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="only: nothing stands out"):
        threshold_masks(views_of(np.full((SIDE, SIDE, 3), 7, np.uint8)))
