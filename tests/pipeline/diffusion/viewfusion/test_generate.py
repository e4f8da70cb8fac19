"""From photos to a ring of posed views: what is drawn where, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pipeline.diffusion.settings import FusionSampling
from pipeline.diffusion.viewfusion.generate import fuse_views
from pipeline.diffusion.viewfusion.model import ViewFusionModel
from pipeline.diffusion.viewfusion.unet import FusionUNet
from pipeline.training.tasks.fusion import FusionNetwork, fresh_fusion
from pipeline.training.tasks.vae import nano_vae
from scene.errors import InputError, ViewloomError

QUICK = FusionSampling(steps=2, keep_weights=2)


def photo(size: int, seed: int = 0) -> np.ndarray:
    rgba = np.random.default_rng(seed).integers(0, 255, (size, size, 4), dtype=np.uint8)
    rgba[..., 3] = 255
    return rgba


@pytest.fixture(scope="module")
def latents() -> ViewFusionModel:
    torch.manual_seed(0)
    vae = nano_vae(4, 4, (16, 16)).requires_grad_(False).eval()
    return fresh_fusion(vae, FusionNetwork(width=16, multipliers=(1.0,), attended=(), groups=8))


@pytest.fixture(scope="module")
def pixels() -> ViewFusionModel:
    torch.manual_seed(0)
    return ViewFusionModel(FusionUNet(sample_size=16, width=16, multipliers=(1,), blocks=1, groups=8).eval())


def test_pictures_go_in_and_come_out(pixels: ViewFusionModel, latents: ViewFusionModel) -> None:
    rgba = torch.from_numpy(photo(16))[None]
    assert pixels.pictures_of(rgba).shape == (1, 3, 16, 16)
    assert torch.allclose(pixels.shown(pixels.pictures_of(rgba))[..., :3], rgba[..., :3] / 255, atol=1e-5)
    assert latents.image_size == 128
    large = latents.pictures_of(torch.from_numpy(photo(128))[None])
    assert large.shape == (1, 4, 16, 16)
    assert latents.shown(large).shape == (1, 128, 128, 4)


def test_a_ring_around_the_first_photo(latents: ViewFusionModel) -> None:
    told: list[tuple[int, int]] = []
    photos = [photo(128, k) for k in range(3)]
    ring = fuse_views(latents, photos, 4, QUICK, elevation_deg=30.0, on_step=lambda *step: told.append(step))
    assert told == [(1, 2), (2, 2)]
    assert len(ring.views.views) + len(ring.empty) == 5
    first = ring.views.views[0]
    assert first.name == "photo"
    assert first.origin != "generated"
    assert np.array_equal(first.rgba(), photos[0])
    for view in ring.views.views[1:]:
        k = int(view.name.removeprefix("view_"))
        x, y, z = view.camera.c2w[:3, 3]
        assert math.degrees(math.atan2(y, x)) % 360 == pytest.approx(90 * k, abs=1e-4)
        assert math.degrees(math.asin(z / np.linalg.norm([x, y, z]))) == pytest.approx(30, abs=1e-4)
    assert ring.weights.shape == (2, 4, 3, 16, 16)
    assert ring.weights.sum(2) == pytest.approx(1, abs=1e-5)


def test_without_a_reference_no_photo_has_a_camera(pixels: ViewFusionModel) -> None:
    ring = fuse_views(pixels, [photo(16)], 2, QUICK)
    assert {view.origin for view in ring.views.views} == {"generated"}


def test_one_network_may_draw_nothing(pixels: ViewFusionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = pixels.shown
    monkeypatch.setattr(pixels, "shown", lambda views: shown(views) * torch.tensor([1, 1, 1, 0.0]))
    with pytest.raises(ViewloomError, match="empty views only"):
        fuse_views(pixels, [photo(16)], 2, QUICK)


@pytest.mark.parametrize(
    ("photos", "count", "elevation", "said"),
    [
        ([], 4, 0.0, "no photos"),
        ([photo(16)] * 24, 4, 0.0, "24 photos are more"),
        ([photo(16), photo(12)], 4, 0.0, "photo 1 is"),
        ([photo(16) * np.array([1, 1, 1, 0], np.uint8)], 4, 0.0, "photo 0 shows nothing"),
        ([photo(16)], 0, 0.0, "0 views"),
        ([photo(16)], 4, math.nan, "elevation of nan"),
        ([photo(16)], 4, 91.0, "elevation of 91"),
    ],
)
def test_bad_input(pixels: ViewFusionModel, photos: list[np.ndarray], count: int, elevation: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        fuse_views(pixels, photos, count, QUICK, elevation_deg=elevation)
