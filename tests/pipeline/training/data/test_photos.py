"""Photos of stored samples: framed targets show what their camera sees; variations keep solids in place."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from pipeline.training.data.photos import PhotoBatch, PhotoSettings, draw_photos, framed_target
from pipeline.training.data.samples import SampleSettings, claimed_camera, render_sample
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.procedural import box
from scene.camera import ZERO123_FOV, orbit_camera
from scene.framing import DEFAULT_FILL
from scene.mesh import ColouredMesh
from scene.render import WORLD_LIGHT, MeshRenderer

PLAIN = PhotoSettings(targets=0.0, fill_jitter=0.0, shift_jitter=0.0, mirror=0.0, recolour=0.0)
SIZE = 64
POSES = np.array([[0.7, 0.3, 1.5], [2.5, -0.1, 2.0], [4.4, 0.6, 1.8], [5.2, 1.4, 1.5]])


def brick() -> ColouredMesh:
    """A box without symmetry in colour, off its middle."""
    vertices, faces = box((0.15, 0.35, 0.25))
    vertices = vertices + np.array([0.04, -0.05, 0.03])
    colours = np.where(vertices > 0, 230, 40).astype(np.uint8)
    return ColouredMesh(vertices.astype(np.float32), faces, vertex_colours=colours)


def samples(count: int = 3) -> SampleBatch:
    """The brick from random sources and the four poses, the last of which is too high for a photo."""
    settings = SampleSettings(size=SIZE, targets=4, volume=16)
    store = SampleStore(settings, count)
    for k in range(count):
        store.append(render_sample(brick(), WORLD_LIGHT, settings, np.random.default_rng(k), POSES))
    return store.batch_all()


def outline(photo: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is seen."""
    rows, columns = np.nonzero((photo[..., 3] >= 128).any(1))[0], np.nonzero((photo[..., 3] >= 128).any(0))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@pytest.mark.parametrize("k", range(3))
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.03, -0.05)])
def test_a_framed_target_is_what_its_camera_sees(k: int, shift: tuple[float, float]) -> None:
    """From the default radius perspective differs a little from that of the true one."""
    renderer = MeshRenderer(brick())
    rgba = np.round(renderer.render(orbit_camera(*POSES[k], size=SIZE, fov=ZERO123_FOV)).rgba * 255).astype(np.uint8)
    framed = framed_target(rgba, POSES[k], DEFAULT_FILL, shift)
    assert framed is not None
    photo, description = framed
    left, top, right, bottom = outline(photo)
    assert max(right - left, bottom - top) == pytest.approx(DEFAULT_FILL * SIZE, abs=2)
    assert (left + right) / 2 == pytest.approx((0.5 + shift[0]) * SIZE, abs=1)
    assert (top + bottom) / 2 == pytest.approx((0.5 + shift[1]) * SIZE, abs=1)
    claimed = claimed_camera(description, SIZE)
    turned = orbit_camera(float(POSES[k, 0]), float(description[0]), size=SIZE)
    seen = renderer.render(replace(claimed, c2w=turned.c2w)).rgba
    mask = photo[..., 3] >= 128
    assert (mask & (seen[..., 3] >= 0.5)).sum() / (mask | (seen[..., 3] >= 0.5)).sum() > 0.9
    core = (photo[..., 3] == 255) & (seen[..., 3] == 1)
    assert np.abs(photo[core][:, :3] / 255 - seen[core][:, :3]).mean() < 0.05


def test_an_empty_target_is_no_photo() -> None:
    assert framed_target(np.zeros((8, 8, 4), np.uint8), POSES[0]) is None


def test_without_targets_and_variations_the_sources_come_back() -> None:
    batch = samples()
    drawn, expected = draw_photos(batch, np.random.default_rng(0), PLAIN), PhotoBatch.of_sources(batch)
    for name, value in vars(expected).items():
        assert np.array_equal(getattr(drawn, name), value), name
    assert (drawn.photo == batch.source).all()
    assert len(drawn) == 3


def test_only_targets_in_range_are_drawn() -> None:
    batch, found = samples(), set()
    for seed in range(20):
        drawn = draw_photos(batch, np.random.default_rng(seed), replace(PLAIN, targets=1.0))
        found |= {round(float(a), 3) for a in drawn.azimuth}
        assert np.array_equal(drawn.solid, batch.solid)
    assert found == {round(float(a), 3) for a in POSES[:3, 0]}
    sky = replace(PLAIN, targets=1.0, elevation_deg=(86.0, 90.0))
    assert (draw_photos(batch, np.random.default_rng(0), sky).photo == batch.source).all()


def test_a_mirrored_photo_shows_the_mirrored_solid() -> None:
    """Voxels that project into the photo before still do so, at the mirrored place."""
    batch = samples()
    settings = replace(PLAIN, targets=0.5)
    plain = draw_photos(batch, np.random.default_rng(4), settings)
    mirrored = draw_photos(batch, np.random.default_rng(4), replace(settings, mirror=1.0))
    assert np.array_equal(mirrored.photo, plain.photo[:, :, ::-1])
    axis = ((np.arange(16) + 0.5) / 16 * 2 - 1) * 0.6
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    for k in range(len(plain)):
        places = []
        for photos in (plain, mirrored):
            camera = claimed_camera(photos.camera[k], SIZE)
            stand = orbit_camera(float(photos.azimuth[k]), float(photos.camera[k, 0]), size=SIZE)
            solid = photos.solid[k] > 0
            pixels, depth = replace(camera, c2w=stand.c2w).project(points[solid])
            colours = photos.solid_colours[k][solid].astype(float)
            places.append(np.concatenate([pixels, depth[:, None], colours], 1))
        places[1][:, 0] = SIZE - places[1][:, 0]
        one, other = (rows[np.lexsort(np.round(rows, 3).T)] for rows in places)
        assert np.allclose(one, other, atol=1e-2)


def test_recolouring_changes_photo_and_solid_alike() -> None:
    batch = samples()
    drawn = draw_photos(batch, np.random.default_rng(1), replace(PLAIN, recolour=1.0))
    assert np.array_equal(drawn.photo[..., 3], batch.source[..., 3])
    assert np.array_equal(drawn.camera, batch.source_camera)
    for k in range(len(drawn)):
        a, b = batch.source[k].reshape(-1, 4)[:, :3], drawn.photo[k].reshape(-1, 4)[:, :3]
        # Which channel each new one is: the one it is proportional to.
        order = [int(np.argmax([np.corrcoef(a[:, i], b[:, j])[0, 1] for i in range(3)])) for j in range(3)]
        assert sorted(order) == [0, 1, 2]
        old, new = batch.solid_colours[k][..., order].astype(float), drawn.solid_colours[k].astype(float)
        for j in range(3):
            scale = b[:, j].sum() / a[:, order[j]].sum()
            assert 0.65 < scale <= 1
            assert np.abs(new[..., j] - old[..., j] * scale).max() <= 3


def test_photos_repeat_with_the_seed() -> None:
    batch = samples()
    one, two = (draw_photos(batch, np.random.default_rng(5)) for _ in range(2))
    for name, value in vars(one).items():
        assert np.array_equal(getattr(two, name), value), name
    assert not math.isclose(float(one.camera.sum()), float(draw_photos(batch, np.random.default_rng(6)).camera.sum()))
