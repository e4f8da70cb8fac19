"""Rings of views: where objects face, what other views see, and how their store grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from pipeline.diffusion.checkpoints.parts import save_part
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.diffusion.modules.poses import Poses
from pipeline.training.data.fusion_rings import (
    FAMILIES,
    FusionRingSettings,
    draw_ring,
    extend_rings,
    held_out_rings,
    open_fusion_store,
    pool_rings,
    random_ring,
    ring_azimuths,
    visibility,
)
from pipeline.training.data.objects import ObjectPool
from pipeline.training.procedural import generate, rotation
from scene.camera import DEFAULT_RADIUS, orbit_of
from scene.errors import InputError
from tests.vaes import half_side_vae

SMALL = FusionRingSettings(size=32, views=6, faces=3000, samples=1)


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    """A tiny VAE that makes latents of half the pictures' side."""
    torch.manual_seed(0)
    return half_side_vae()


@pytest.fixture(scope="module")
def vae_folder(vae: AutoencoderKL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, stored."""
    folder = tmp_path_factory.mktemp("checkpoint") / "vae"
    save_part(vae, folder)
    return folder


def orbits(settings: FusionRingSettings, elevation_deg: float) -> np.ndarray:
    """One elevation, one distance."""
    return random_ring(settings.exact(elevation_deg), np.random.default_rng(0))


def test_views_stand_at_equal_steps_and_jitter_within_bounds() -> None:
    settings = replace(SMALL, views=24)
    found = random_ring(settings, np.random.default_rng(3))
    assert np.allclose(found[:, 0], np.arange(24) * np.radians(15))
    elevation = np.degrees(found[:, 1])
    assert 1.0 < np.ptp(elevation) <= 2 * settings.elevation_jitter
    assert -settings.elevation_jitter <= elevation.min() <= elevation.max() <= 30 + settings.elevation_jitter
    assert 0.02 < np.abs(found[:, 2] / DEFAULT_RADIUS - 1).max() <= settings.distance_jitter
    exact = random_ring(settings.exact(25.0), np.random.default_rng(3))
    assert np.allclose(exact[:, 1:], (np.radians(25), DEFAULT_RADIUS))


def test_a_view_is_the_first_view_of_the_object_turned_back() -> None:
    mesh = generate("chair", 1, faces=3000)
    ring = draw_ring(mesh, orbits(SMALL, 20.0), 32, samples=1)
    for k in (1, 4):
        turn = np.eye(4)
        turn[:3, :3] = rotation("z", -2 * np.pi * k / 6)
        # Unshaded by position, lit by the world: silhouettes and depth turn with the object, shading does not.
        turned = draw_ring(mesh.transformed(turn), orbits(SMALL, 20.0)[:1], 32, samples=1)
        assert np.mean((turned.depths[0] > 0) != (ring.depths[k] > 0)) < 0.005
        both = (turned.depths[0] > 0) & (ring.depths[k] > 0)
        assert np.median(np.abs(turned.depths[0] - ring.depths[k])[both]) < 1e-4
    assert np.mean((ring.depths[0] > 0) != (ring.depths[1] > 0)) > 0.02


def test_fronts_face_plus_x() -> None:
    # Backs of seats are high, at the far side of the front camera; so is what stands above a shoe's heel.
    for family in ("chair", "sofa", "shoe"):
        tops = []
        for seed in range(6):
            vertices = generate(family, seed, faces=3000).vertices
            high = vertices[:, 2] > np.quantile(vertices[:, 2], 0.9)
            tops.append(vertices[high, 0].mean() - (vertices[:, 0].max() + vertices[:, 0].min()) / 2)
        assert np.median(tops) < -0.03, family
    # Only what faces the front has yellow-white lights, and only the back has red ones.
    red = {"front": 0, "back": 0}
    for seed in range(4):
        views = draw_ring(generate("car", seed), orbits(replace(SMALL, views=2), 10.0), 64, samples=1).views
        for k, side in enumerate(("front", "back")):
            rgb = views[k, ..., :3].astype(int)
            lamp = (rgb[..., 0] > 120) & (rgb[..., 1:].max(-1) < 40) & (views[k, ..., 3] > 0)
            red[side] += int(lamp.sum())
    assert red["back"] > 10 + 4 * red["front"]


def test_a_view_sees_itself_and_not_the_back() -> None:
    mesh = generate("sofa", 0, faces=3000)
    ring = draw_ring(mesh, orbits(SMALL, 10.0), 32, samples=1)
    depths = torch.from_numpy(ring.depths)
    shares = visibility(Poses.of(ring.cameras), depths, 8)
    assert shares.shape == (6, 6, 8, 8)
    covered = (depths.view(6, 8, 4, 8, 4) > 0).any(-1).any(2)
    for k in range(6):
        assert torch.equal(shares[k, k], covered[k].float())
        assert float(shares[k, :, ~covered[k]].abs().max()) == 0
    opposite = [float(shares[k, (k + 3) % 6].sum() / shares[k, k].sum()) for k in range(6)]
    beside = [float(shares[k, (k + 1) % 6].sum() / shares[k, k].sum()) for k in range(6)]
    assert np.mean(opposite) < 0.25 < 0.4 < np.mean(beside)
    assert torch.equal(visibility(Poses.of(ring.cameras), depths, 8, [4]), shares[4:5])


def test_a_store_goes_on_where_it_ended_and_grows_under_its_readers(vae_folder: Path, tmp_path: Path) -> None:
    def extend(folder: Path, count: int) -> None:
        extend_rings(folder, vae_folder, SMALL, count, seed=5, chunk=2)

    with pytest.raises(InputError, match="no rendered rings"):
        open_fusion_store(tmp_path / "rings")
    extend(tmp_path / "rings", 3)
    reader = open_fusion_store(tmp_path / "rings")
    before = reader.of(np.arange(3))
    assert before.latents.shape == (3, 6, 4, 16, 16)
    assert torch.allclose(before.azimuths[1], torch.from_numpy(ring_azimuths(6)).float())
    (tmp_path / "rings" / "00002.part").mkdir()  # as a kill leaves it
    extend(tmp_path / "rings", 5)
    assert len(reader) == 3
    reader.reread()
    assert len(reader) == 5
    extend(tmp_path / "whole", 5)
    whole, grown = open_fusion_store(tmp_path / "whole").of(np.arange(5)), reader.of(np.arange(5))
    assert torch.equal(grown.latents[:3], before.latents)
    assert all(torch.equal(getattr(whole, name), value) for name, value in vars(grown).items())
    extend(tmp_path / "rings", 4)  # fewer than there are
    assert len(open_fusion_store(tmp_path / "rings")) == 5


def test_batches_are_of_the_families_asked_for(vae_folder: Path, tmp_path: Path) -> None:
    store = extend_rings(tmp_path, vae_folder, SMALL, 12)
    some = store.of_families(("car", "lamp"))
    drawn = store.batch(np.random.default_rng(0), 40, some)
    assert len(drawn.latents) == 40
    assert {FAMILIES[k] for k in drawn.family.tolist()} <= {"car", "lamp"}
    everything = store.batch(np.random.default_rng(0), 40)
    assert len({FAMILIES[k] for k in everything.family.tolist()}) > 2


def test_a_store_belongs_to_its_vae_and_settings(vae_folder: Path, tmp_path: Path) -> None:
    store = extend_rings(tmp_path, vae_folder, SMALL, 1)
    assert len(open_fusion_store(tmp_path, store.digest)) == 1
    with pytest.raises(InputError, match="another VAE"):
        open_fusion_store(tmp_path, "0" * 64)
    with pytest.raises(InputError, match="drawn otherwise"):
        extend_rings(tmp_path, vae_folder, replace(SMALL, elevation_jitter=1.0), 2)
    with pytest.raises(InputError, match="drawn otherwise"):
        extend_rings(tmp_path, vae_folder, SMALL, 2, seed=1)


def test_held_out_rings_follow_from_the_seed_and_agree_with_themselves(vae: AutoencoderKL) -> None:
    codec = LatentCodec(vae)
    first, second = held_out_rings(codec, 3, 2, SMALL)
    assert (first.family, second.family) == ("chair", "car")
    again = next(held_out_rings(codec, 3, 1, SMALL))
    other = next(held_out_rings(codec, 4, 1, SMALL))
    assert np.array_equal(again.views, first.views)
    assert not np.array_equal(other.views, first.views)
    assert first.visible.shape == (6, 6, 16, 16)
    assert np.array_equal(first.depths > 0, first.views[..., 3] > 0)
    for k, camera in enumerate(first.cameras):
        azimuth, elevation, _ = orbit_of(camera)
        claimed = float(first.azimuths[k]), float(first.elevations[k])
        assert (azimuth % (2 * np.pi), elevation) == pytest.approx(claimed, abs=1e-5)
    with torch.no_grad():
        latents = codec.normalise(codec.encode_raw(torch.from_numpy(first.views)))
    assert torch.allclose(latents, first.latents, atol=5e-3)


def test_objects_of_the_pool_are_turned_to_face_plus_x(
    vae: AutoencoderKL, pool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = ObjectPool(pool_folder, "val")
    monkeypatch.setattr("pipeline.training.data.fusion_rings.LIKE_KINDS", {pool.entries[0].name: "lamp"})
    (ring,) = pool_rings(LatentCodec(vae), pool, SMALL.exact(0.0))
    assert (ring.name, ring.family) == (pool.entries[0].name, "lamp")
    # Red where x > 0 in the file, so that the half seen from +y is red after a quarter turn.
    at = {round(float(np.degrees(azimuth))): k for k, azimuth in enumerate(ring.azimuths.tolist())}
    means = {angle: ring.views[k][ring.views[k, ..., 3] > 0].mean(0) for angle, k in at.items()}
    assert means[60][0] > means[60][2]
    assert means[300][0] < means[300][2]
