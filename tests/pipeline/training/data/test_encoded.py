"""Encoded samples: what they hold, and how their store grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.diffusion.modules.coarse_volume import CAMERA_SCALE, CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import Conditioning, PhotoEncoder, PoseProjection
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data import encoded as module
from pipeline.training.data.encoded import (
    EncodedSource,
    EncodedStore,
    encode_samples,
    encoded,
    encoded_stores,
    part_digest,
)
from pipeline.training.data.samples import SampleSettings, SampleStream
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.tasks.views import NANO_SCHEDULER
from scene.errors import InputError
from tests.vaes import half_side_vae

CPU = torch.device("cpu")


@pytest.fixture
def model() -> ViewDiffusion:
    """A tiny view model for pictures of 32 pixels, with every condition."""
    torch.manual_seed(0)
    conditioning = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(8, 4))
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=conditioning.channels(4),
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = half_side_vae()
    coarse = CoarseVolumeModel(image_size=32, resolution=8, channels=(16, 16, 16), fine_channels=8).eval()
    encoder, projection = PhotoEncoder(width=16, image_size=32), PoseProjection(width=16)
    return ViewDiffusion(unet, vae, encoder, projection, conditioning, NANO_SCHEDULER, coarse)


def exact(batch: SampleBatch) -> torch.Tensor:
    """No jitter of the claimed cameras."""
    return torch.zeros(len(batch), 4)


def test_encoded_samples_hold_what_the_network_needs(model: ViewDiffusion, small_store: SampleStore) -> None:
    batch = small_store.batch_all()
    made = encode_samples(model, batch, exact(batch))
    assert {name: tuple(value.shape) for name, value in vars(made).items()} == {
        "photo": (4, 4, 64, 64),
        "source": (4, 4, 16, 16),
        "targets": (4, 3, 4, 16, 16),
        "coarse": (4, 3, 4, 16, 16),
        "visible": (4, 3, 4, 16, 16),
        "source_camera": (4, 4),
        "target_cameras": (4, 3, 3),
    }
    assert np.array_equal(made.source_camera.numpy(), batch.source_camera)
    assert np.array_equal(made.target_cameras.numpy(), batch.target_cameras)
    with torch.no_grad():
        raw = model.vae.encode(images_from_rgba(torch.from_numpy(batch.targets[2]), 4)).latent_dist.mode()
    assert torch.allclose(made.targets[2], raw * 2, atol=0.05)  # mixed precision
    assert torch.allclose(made.source[0], model.codec.encode_raw(torch.from_numpy(batch.source[:1]))[0], atol=0.05)


def test_claimed_cameras_are_jittered_in_typical_deviations(model: ViewDiffusion, small_store: SampleStore) -> None:
    batch = small_store.batch_all()
    jitter = torch.tensor([[1.0, -1.0, 2.0, 0.5]]).expand(4, 4)
    made = encode_samples(model, batch, jitter)
    expected = torch.from_numpy(batch.source_camera) + jitter * torch.tensor(CAMERA_SCALE)
    assert torch.allclose(made.source_camera, expected, atol=1e-6)


@pytest.fixture
def samples(pool_folder: Path, tmp_path: Path) -> Path:
    """A folder of five rendered samples."""
    settings = SampleSettings(size=32, targets=3, volume=8)
    store = SampleStore(settings, 5, tmp_path / "samples")
    for sample in SampleStream(pool_folder, settings, seed=1, workers=0).read(0, 5):
        store.append(sample)
    store.flush()
    return tmp_path / "samples"


def test_stores_are_made_once_and_grow(
    model: ViewDiffusion, samples: Path, pool_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 2)
    (store,) = encoded_stores(model, [samples], 0.2, 2, encode=True)
    assert len(store) == 5
    assert store.of(np.arange(5), CPU).targets.shape == (5, 2, 4, 16, 16)
    before = store.of(np.arange(5), CPU)
    (again,) = encoded_stores(model, [samples], 0.2, 2, encode=False)
    assert (again.folder, len(again)) == (store.folder, 5)
    settings = SampleSettings(size=32, targets=3, volume=8)
    rendered = SampleStore(settings, 8, samples)
    for sample in SampleStream(pool_folder, settings, seed=1, workers=0).read(5, 8):
        rendered.append(sample)
    rendered.flush()
    assert len(encoded_stores(model, [samples], 0.2, 2, encode=False)[0]) == 5
    (grown,) = encoded_stores(model, [samples], 0.2, 2, encode=True)
    assert len(grown) == 8
    assert torch.equal(grown.of(np.arange(5), CPU).targets, before.targets)
    assert len(store) == 5
    store.reread()  # as a training run does now and then
    assert len(store) == 8


def test_what_is_drawn_of_a_sample_follows_from_its_number(model: ViewDiffusion, samples: Path) -> None:
    store = SampleStore.open(samples)
    whole = next(encoded(model, store, np.arange(5), 0.2, 7, 2))
    (last,) = encoded(model, store, np.array([3, 4]), 0.2, 7, 2)
    assert torch.equal(last.target_cameras, whole.target_cameras[3:])
    assert torch.equal(last.source_camera, whole.source_camera[3:])
    (other,) = encoded(model, store, np.array([3, 4]), 0.2, 8, 2)
    assert not torch.equal(other.source_camera, last.source_camera)


def test_some_views_keep_their_cameras(model: ViewDiffusion, small_store: SampleStore) -> None:
    everything = small_store.batch_all()
    whole = encode_samples(model, everything, exact(everything))
    (some,) = encoded(model, small_store, np.arange(4), 0.0, 0, 2)
    assert some.targets.shape == (4, 2, 4, 16, 16)
    for k in range(4):
        apart = (some.target_cameras[k, :, None] - whole.target_cameras[k]).abs().sum(-1)
        place = apart.argmin(1)
        assert float(apart.min(1).values.max()) == 0
        assert len(set(place.tolist())) == 2
        assert torch.allclose(some.targets[k], whole.targets[k, place], atol=0.05)  # mixed precision


def test_stores_belong_to_the_weights_that_made_them(model: ViewDiffusion, samples: Path) -> None:
    (first,) = encoded_stores(model, [samples], 0.2, 2, encode=True)

    def folder() -> Path:
        return encoded_stores(model, [samples], 0.2, 2, encode=True)[0].folder

    assert folder() == first.folder
    with torch.no_grad():
        model.unet.conv_in.weight += 1
        assert folder() == first.folder
        model.vae.decoder.conv_out.bias += 1  # latents keep their meaning
        assert folder() == first.folder
        model.vae.encoder.conv_out.bias += 1
        second = folder()
        assert model.coarse is not None
        next(iter(model.coarse.parameters())).add_(1)
        third = folder()
    model.vae.register_to_config(latents_mean=[0.5] * 4)
    assert len({first.folder, second, third, folder()}) == 4
    with pytest.raises(InputError, match="made by another VAE or coarse volume"):
        EncodedStore(first.folder, "other")


def test_nothing_encoded_is_said(model: ViewDiffusion, samples: Path) -> None:
    with pytest.raises(InputError, match="none of the samples are encoded"):
        encoded_stores(model, [samples], 0.2, 2, encode=False)


def test_batches_come_from_all_stores(model: ViewDiffusion, samples: Path, tmp_path: Path) -> None:
    (store,) = encoded_stores(model, [samples], 0.0, 2, encode=True)
    empty = EncodedStore(tmp_path / "empty", "key")
    source = EncodedSource([empty, store], 3, CPU)
    rng = np.random.default_rng(0)
    cameras = torch.cat([source.draw(rng).source_camera for _ in range(20)])
    assert len(torch.unique(cameras, dim=0)) == 5


def test_digests_are_of_weights_as_they_are_shipped(model: ViewDiffusion) -> None:
    before = part_digest(model.vae)
    assert before != part_digest(model.coarse)
    assert part_digest(model.vae.half()) == before == part_digest(model.vae.float(), None)
