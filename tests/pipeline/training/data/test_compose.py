"""Rendered objects, painted surroundings, and photos composed of both."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.training.data.backdrops import HELD_OUT, TEXTURES, Paint, Patches, backdrop, fractal, random_tint
from pipeline.training.data.compose import ComposeSettings, _Layer, _perched, compose
from pipeline.training.data.foregrounds import Foreground, ForegroundStore, random_foregrounds, render_foreground
from pipeline.training.data.objects import ObjectPool
from pipeline.training.procedural import superellipsoid
from scene.errors import InputError
from scene.mesh import ColouredMesh

SIZE = 48


@pytest.fixture(scope="module")
def ball() -> Foreground:
    """A white ball."""
    vertices, faces = superellipsoid(1.0, 1.0, (0.6, 0.6, 0.6))
    colours = np.full((len(vertices), 3), 255, np.uint8)
    mesh = ColouredMesh(vertices.astype(np.float32), faces, vertex_colours=colours).normalised()
    return render_foreground(mesh, SIZE, np.random.default_rng(0))


@pytest.fixture(scope="module")
def objects(ball: Foreground) -> ForegroundStore:
    """Three pictures of the ball."""
    store = ForegroundStore(SIZE, 3)
    for _ in range(3):
        store.append(ball)
    return store


def test_objects_fill_their_pictures_and_are_unlit(ball: Foreground) -> None:
    solid = ball.rgba[..., 3] > 200
    rows = np.nonzero(solid.any(axis=1))[0]
    assert np.ptp(rows) + 1 == pytest.approx(0.96 * SIZE, abs=2)
    assert (ball.rgba[..., :3][solid] > 250).all()
    assert np.abs(np.linalg.norm(ball.normals[solid] / 127.0, axis=-1) - 1).max() < 0.02


def test_normals_say_where_the_light_is(ball: Foreground) -> None:
    """x towards the camera, y right, z up: checked on a ball, whose normals are its places."""
    middle = SIZE // 2
    assert ball.normals[3, middle, 2] > 80
    assert ball.normals[middle, SIZE - 4, 1] > 80
    assert ball.normals[middle, 3, 1] < -80
    assert ball.normals[middle, middle, 0] > 40


def test_stores_give_back_what_was_put_in_and_go_on(ball: Foreground, tmp_path: Path) -> None:
    store = ForegroundStore(SIZE, 2, tmp_path / "held")
    store.append(ball)
    store.flush()
    store.append(ball)  # lost: not flushed
    again = ForegroundStore(SIZE, 4, tmp_path / "held")
    assert len(again) == 1
    for _ in range(3):
        again.append(ball)
    again.flush()
    read = ForegroundStore.open(tmp_path / "held")
    assert len(read) == 4
    assert np.array_equal(read[3].rgba, ball.rgba)
    assert np.array_equal(read[0].normals, ball.normals)
    with pytest.raises(IndexError):
        read[4]
    with pytest.raises(InputError, match="holds pictures of 48 pixels"):
        ForegroundStore(SIZE + 1, 4, tmp_path / "held")
    with pytest.raises(InputError, match=r"no pictures.*render_foregrounds\.py"):
        ForegroundStore.open(tmp_path)


def test_rendered_objects_follow_from_seed_and_number(pool_folder: Path) -> None:
    first = list(islice(random_foregrounds(pool_folder, 24, 2, seed=5), 6))
    later = list(islice(random_foregrounds(pool_folder, 24, 2, seed=5, start=2), 2))
    for a, b in zip(first[4:], later, strict=True):
        assert np.array_equal(a.rgba, b.rgba)
    assert not np.array_equal(first[0].rgba, first[1].rgba)


@pytest.mark.parametrize("paint", [*TEXTURES, *HELD_OUT], ids=lambda paint: paint.__name__)
def test_surroundings_are_pictures_and_repeat(paint: Paint) -> None:
    one, two, other = (paint(np.random.default_rng(seed), 40) for seed in (1, 1, 2))
    assert one.shape == (40, 40, 3)
    assert one.dtype == np.float32
    assert 0 <= one.min() <= one.max() <= 1
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_surroundings_of_all_layouts_are_pictures() -> None:
    grounds = set()
    for seed in range(40):
        made = backdrop(np.random.default_rng(seed), 32, TEXTURES)
        assert made.picture.shape == (32, 32, 3)
        assert 0 <= made.picture.min() <= made.picture.max() <= 1
        grounds.add(None if made.ground is None else made.ground > 0)
    assert grounds == {None, True, False}


def test_noise_and_tints_stay_in_range() -> None:
    rng = np.random.default_rng(0)
    assert np.abs(fractal(rng, 32, 4.0)).max() == pytest.approx(1, abs=1e-5)
    tints = np.stack([random_tint(rng, 0.9) for _ in range(50)])
    assert 0 <= tints.min() < tints.max() <= 1


def test_patches_are_cut_from_textures_of_some_size(pool_folder: Path) -> None:
    assert Patches.of_pool(ObjectPool(pool_folder, "train")).pictures == ()  # its texture is 2x2
    picture = np.zeros((64, 80, 3), np.uint8)
    picture[..., 0] = 255
    cut = Patches((picture,))
    tones = np.concatenate([cut(np.random.default_rng(k), 16).reshape(-1, 3) for k in range(8)])
    assert 0 <= tones.min() <= tones.max() <= 1
    assert (tones[:, 0] > tones[:, 1]).mean() > 0.5


def test_photos_repeat_with_their_seed(objects: ForegroundStore) -> None:
    settings = ComposeSettings(size=SIZE)
    one, two = (compose(np.random.default_rng(3), objects, TEXTURES, settings) for _ in range(2))
    assert np.array_equal(one.rgb, two.rgb)
    assert np.array_equal(one.alpha, two.alpha)


def test_objects_lie_within_the_frame_unless_they_may_be_cut(objects: ForegroundStore) -> None:
    whole = ComposeSettings(size=SIZE, none=0.0, cut=0.0, several=0.0)
    cut = ComposeSettings(size=SIZE, none=0.0, cut=1.0, several=0.0)

    def touching(settings: ComposeSettings) -> float:
        alphas = [compose(np.random.default_rng(k), objects, TEXTURES, settings).alpha for k in range(40)]
        assert all((alpha > 200).any() for alpha in alphas)
        return float(np.mean([max(a[0].max(), a[-1].max(), a[:, 0].max(), a[:, -1].max()) > 127 for a in alphas]))

    assert touching(whole) < 0.15  # only what fills the frame to 95 % and is stretched beyond it
    assert touching(cut) > 0.3


def test_empty_photos_and_groups(objects: ForegroundStore) -> None:
    empty = compose(np.random.default_rng(0), objects, TEXTURES, ComposeSettings(size=SIZE, none=1.0))
    assert empty.alpha.max() == 0
    assert empty.rgb.std() >= 0
    groups = ComposeSettings(size=SIZE, none=0.0, several=1.0)
    shares = [(compose(np.random.default_rng(k), objects, TEXTURES, groups).alpha > 127).mean() for k in range(10)]
    assert 0.01 < min(shares) <= max(shares) < 0.9


def test_the_mask_is_where_the_object_is_seen() -> None:
    """A bright object on dark paint: brightness and mask tell the same."""

    def dark(rng: np.random.Generator, size: int) -> np.ndarray:
        return np.full((size, size, 3), 0.05, np.float32)

    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[4:-4, 10:-10] = (250, 250, 250, 255)
    normals = np.zeros((SIZE, SIZE, 3), np.int8)
    normals[4:-4, 10:-10, 0] = 127
    store = ForegroundStore(SIZE, 1)
    store.append(Foreground(rgba, normals))
    agreements = []
    for k in range(60):
        photo = compose(
            np.random.default_rng(k), store, (dark,), ComposeSettings(size=SIZE, none=0.0, several=0.0, clutter=0.0)
        )
        inside = photo.alpha > 200
        outside = photo.alpha < 5
        if inside.any() and outside.any():
            brightness = photo.rgb.mean(axis=-1)
            agreements.append(float(brightness[inside].mean() - brightness[outside].mean()))
    # Studio sheets may be as bright as the object; on dark paint it stands out.
    assert np.mean(np.array(agreements) > 15) > 0.6


def square(colour: tuple[int, int, int]) -> ForegroundStore:
    """One square of one colour that faces the camera."""
    rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
    rgba[4:-4, 4:-4] = (*colour, 255)
    normals = np.zeros((SIZE, SIZE, 3), np.int8)
    normals[4:-4, 4:-4, 0] = 127
    store = ForegroundStore(SIZE, 1)
    store.append(Foreground(rgba, normals))
    return store


def dusky(rng: np.random.Generator, size: int) -> np.ndarray:
    """Surroundings of one dark green."""
    return np.broadcast_to(np.array([0.1, 0.25, 0.1], np.float32), (size, size, 3)).copy()


def photos(settings: ComposeSettings, paint: Paint = dusky) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Colours of forty photos of a white square, and what is inside and outside of its mask."""
    made = [compose(np.random.default_rng(k), square((240, 240, 240)), (paint,), settings) for k in range(40)]
    return [(photo.rgb.astype(float), photo.alpha > 250, photo.alpha == 0) for photo in made]


PLAIN = ComposeSettings(size=SIZE, none=0.0, several=0.0, clutter=0.0, perch=0.0, alike=0.0, detail=0.0)


def test_objects_can_be_coloured_like_their_surroundings() -> None:
    def contrast(settings: ComposeSettings) -> float:
        return float(np.median([np.abs(rgb[i].mean(0) - rgb[o].mean(0)).max() for rgb, i, o in photos(settings)]))

    assert contrast(replace(PLAIN, alike=1.0)) < 0.6 * contrast(PLAIN)


def test_objects_can_have_patterns_of_surroundings() -> None:
    def checks(rng: np.random.Generator, size: int) -> np.ndarray:
        board = (np.indices((size, size)) // 4).sum(axis=0) % 2
        return np.where(board[..., None], 0.2, 0.8).astype(np.float32).repeat(3, axis=2)

    def unrest(settings: ComposeSettings) -> float:
        return float(np.median([rgb[inside].mean(axis=-1).std() for rgb, inside, _ in photos(settings, checks)]))

    assert unrest(replace(PLAIN, detail=1.0)) > 1.5 * unrest(PLAIN)


def test_what_holds_an_object_up_is_not_part_of_it() -> None:
    """It is painted into the surroundings, where it meets the object or what is right under it."""
    rng = np.random.default_rng(0)
    alpha = np.zeros((SIZE, SIZE), np.float32)
    alpha[10:24, 16:32] = 1
    layer = _Layer(np.zeros((SIZE, SIZE, 3), np.float32), alpha, np.zeros((SIZE, SIZE, 3), np.float32))
    empty = np.zeros((SIZE, SIZE, 3), np.float32)
    for _ in range(20):
        seen = _perched(rng, empty, layer, (lambda rng, size: np.ones((size, size, 3), np.float32),))
        held = seen.max(axis=-1) > 0.1
        assert 0 <= seen.min() <= seen.max() <= 1
        assert held.any()
        assert (held & (cv2.dilate(alpha, np.ones((9, 9))) > 0)).any()
