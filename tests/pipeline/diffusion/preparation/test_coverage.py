"""Alpha and masks as evidence: specks, glass, shadows, faint layers; what is ordinary stays bit for bit."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.diffusion.preparation.coverage import weighed


def disc(radius: float, centre: tuple[float, float] = (150, 150), side: int = 300) -> np.ndarray:
    y, x = np.mgrid[:side, :side] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) < radius


def soft(mask: np.ndarray, blur: float = 0.0) -> np.ndarray:
    """The alpha of an object, its outline blurred."""
    alpha = np.where(mask, 255, 0).astype(np.uint8)
    return cv2.GaussianBlur(alpha, (0, 0), blur) if blur else alpha


RED = np.full((300, 300, 3), (190, 60, 40), np.uint8)


@pytest.mark.parametrize("is_mask", [False, True])
@pytest.mark.parametrize(
    "alpha",
    [
        soft(disc(60)),
        soft(disc(60), 2.0),
        soft(disc(60), 6.0),
        soft(disc(60) | disc(25, (60, 240))),
        soft(disc(60) & ~disc(20)),
        soft(disc(60) | disc(2, (150, 214))),
        np.where(disc(60), 210, 0).astype(np.uint8),
    ],
    ids=["hard", "soft", "softer", "two pieces", "a ring", "a speck beside it", "nearly opaque"],
)
def test_ordinary_coverage_stays_bit_for_bit(alpha: np.ndarray, is_mask: bool) -> None:
    found, notes = weighed(alpha, RED, is_mask=is_mask)
    assert np.array_equal(found, alpha)
    assert notes == ()


@pytest.mark.parametrize("blur", [0.0, 1.0])
@pytest.mark.parametrize("is_mask", [False, True])
@pytest.mark.parametrize(
    ("specks", "said"),
    [
        ([(6, 6, 2.3)], "A speck of the cut-out, far from the object"),
        ([(6, 6, 2.3), (290, 20, 4.0), (10, 280, 1.2)], "3 specks of the cut-out, far from the object"),
    ],
)
def test_specks_far_from_the_object_go_and_are_told(
    specks: list[tuple[float, float, float]], said: str, is_mask: bool, blur: float
) -> None:
    clean = soft(disc(60), blur)
    dirty = clean.copy()
    for y, x, radius in specks:
        dirty = np.maximum(dirty, soft(disc(radius, (y, x)), blur / 2))
    found, notes = weighed(dirty, RED, is_mask=is_mask)
    assert np.array_equal(found >= 128, clean >= 128)
    assert len(notes) == 1
    assert said in notes[0]


def test_a_small_piece_apart_from_the_object_stays_and_is_told() -> None:
    alpha = soft(disc(60) | disc(12, (20, 20)))
    found, notes = weighed(alpha, RED)
    assert np.array_equal(found, alpha)
    assert "lies apart from the rest and has 4 % of its area" in notes[0]


def test_an_object_of_many_small_pieces_keeps_them() -> None:
    alpha = soft(disc(20))
    for k in range(40):
        alpha = np.maximum(alpha, soft(disc(1.9, (20 + 6 * k, 30 + 5 * k % 240))))
    assert np.array_equal(weighed(alpha, RED)[0], alpha)


@pytest.mark.parametrize("level", [60, 89, 128, 170])
@pytest.mark.parametrize("is_mask", [False, True])
def test_glass_keeps_its_silhouette(level: int, is_mask: bool) -> None:
    body = disc(80)
    alpha = soft(body, 0.8)
    alpha = np.where(disc(70), level, alpha).astype(np.uint8)
    found, notes = weighed(alpha, RED, is_mask=is_mask)
    assert ((found >= 128) == body).mean() > 0.985
    assert (found[disc(60)] == 255).all()
    assert found[~disc(86)].max() == 0
    assert len(notes) == 1
    assert "of the object is half transparent" in notes[0]


def test_how_much_is_half_transparent_is_counted() -> None:
    alpha = np.zeros((300, 300), np.uint8)
    alpha[50:250, 50:250] = 255
    alpha[50:250, 50:130] = 100
    (note,) = weighed(alpha, RED)[1]
    assert 36 <= int(note.split(" %")[0]) <= 40


def test_a_black_shadow_is_no_glass() -> None:
    body, shadow = disc(60), disc(60, (190, 190))
    alpha = np.where(body, 255, np.where(shadow, 110, 0)).astype(np.uint8)
    rgb = np.where(body[..., None], (190, 60, 40), 0).astype(np.uint8)
    found, notes = weighed(alpha, rgb)
    assert np.array_equal(found >= 128, body)
    assert (found[shadow & ~disc(66)] == 0).all()
    assert "taken for a shadow" in notes[0]


@pytest.mark.parametrize("most", [20, 60, 127, 200])
def test_faint_layers_are_used_at_their_own_scale(most: int) -> None:
    alpha = np.round(soft(disc(60), 1.0) * (most / 255)).astype(np.uint8)
    found, notes = weighed(alpha, RED)
    assert ((found >= 128) == disc(60)).mean() > 0.99
    assert found.max() == 255
    assert f"{100 * most / 255:.0f} % at most: it is used at its own scale" in notes[0]


def test_masks_of_zeros_and_ones() -> None:
    found, notes = weighed(disc(60).astype(np.uint8), RED, is_mask=True)
    assert np.array_equal(found, soft(disc(60)))
    assert "brightest value is 1 of 255" in notes[0]


@pytest.mark.parametrize("is_mask", [False, True])
def test_nothing_stays_nothing(is_mask: bool) -> None:
    found, notes = weighed(np.zeros((40, 50), np.uint8), RED[:40, :50], is_mask=is_mask)
    assert not found.any()
    assert notes == ()


@pytest.mark.parametrize("kind", ["fading", "flat"])
def test_halos_around_a_solid_object_are_left_out(kind: str) -> None:
    """As cut-out programs leave them; glass within or beside the object is none."""
    y, x = np.indices((400, 400))
    far = np.hypot(y - 200, x - 200)
    ring = 0.5 * np.clip((140 - far) / 40, 0, 1) if kind == "fading" else np.where(far < 120, 0.3, 0.0)
    rgb = np.random.default_rng(0).integers(90, 160, (400, 400, 3)).astype(np.uint8)

    def taken(alpha: np.ndarray) -> tuple[np.ndarray, str]:
        found, notes = weighed(np.round(255 * alpha).astype(np.uint8), rgb)
        return found >= 128, " ".join(notes)

    disc = far < 100
    solid, said = taken(np.where(disc, 1.0, ring))
    assert "halo" in said
    assert (solid & disc).sum() / (solid | disc).sum() > 0.98
    handle = (x > 290) & (x < 360) & (abs(y - 200) < 50)
    for glass in (np.where(disc, 1.0, np.where(handle, 0.4, 0.0)), np.where(disc, np.where(far < 60, 0.4, 1.0), 0.0)):
        solid, said = taken(glass)
        assert "taken as solid" in said
        assert np.array_equal(solid, glass > 0)


@pytest.mark.parametrize("level", [0.3, 0.5])
@pytest.mark.parametrize("kind", ["globe", "a drink in a glass", "a thick wall", "a rim"])
def test_glass_around_a_solid_core_is_no_halo(kind: str, level: float) -> None:
    """It is wide and as even at its edge as within, as a halo is not."""
    y, x = np.indices((400, 400))
    far = np.hypot(y - 200, x - 200)
    core, glass = {
        "globe": (far < 90, far < 150),
        "a drink in a glass": ((abs(x - 200) < 70) & (y > 120) & (y < 330), (abs(x - 200) < 90) & (y > 60) & (y < 345)),
        "a thick wall": (far < 60, far < 82),
        "a rim": (far < 80, far < 130),
    }[kind]
    alpha = np.where(core, 1.0, np.where(glass, level, 0.0))
    if kind == "a rim":
        alpha = np.where((far > 124) & glass, 0.7, alpha)
    rgb = np.random.default_rng(0).integers(90, 160, (400, 400, 3)).astype(np.uint8)
    found, notes = weighed(cv2.GaussianBlur(np.round(255 * alpha).astype(np.uint8), (0, 0), 1.0), rgb)
    assert ((found >= 128) & glass).sum() / ((found >= 128) | glass).sum() > 0.96
    assert len(notes) == 1
    assert "of the object is half transparent" in notes[0]


@pytest.mark.parametrize(("side", "width"), [(100, 4), (400, 8), (400, 20), (400, 80)])
def test_slim_halos_and_wide_ones_that_fade_are_cut(side: int, width: int) -> None:
    y, x = np.indices((side, side))
    far = np.hypot(y - side / 2, x - side / 2)
    radius = side / 8 if side == 100 else side / 4
    fading = 0.5 * np.clip((radius + width - far) / width, 0, 1)
    ring = fading if width > 20 else np.where(far < radius + width, 0.35, 0.0)
    rgb = np.random.default_rng(0).integers(90, 160, (side, side, 3)).astype(np.uint8)
    found, notes = weighed(np.round(255 * np.where(far < radius, 1.0, ring)).astype(np.uint8), rgb)
    assert np.array_equal(found >= 128, far < radius)
    assert all("halo" in note for note in notes)
