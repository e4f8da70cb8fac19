"""Training of the view U-Net on four samples: plain Zero123, and with every condition."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from pipeline.diffusion.modules.coarse_volume import CAMERA_SCALE, CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses, pluecker_maps, pose_tokens
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.tasks.views import (
    NANO_SCHEDULER,
    EncodedBatch,
    EncodedStore,
    ViewLoss,
    ViewModules,
    ViewTask,
    encode_samples,
    encode_store,
    nano_parts,
    shifted_timesteps,
)

CPU = torch.device("cpu")
PLAIN, FULL = Conditioning(), Conditioning(source_row=True, coarse=True, pluecker=True, joint=(8, 4))


def small_model(conditioning: Conditioning) -> ViewDiffusion:
    """A tiny view model for pictures of 32 pixels and latents of 16."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=conditioning.channels,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        in_channels=4,
        out_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        scaling_factor=2.0,
    ).eval()
    coarse = CoarseVolumeModel(image_size=32, resolution=8, channels=(16, 16, 16), fine_channels=8).eval()
    return ViewDiffusion(
        unet,
        vae,
        PhotoEncoder(width=16, image_size=32),
        PoseProjection(width=16),
        conditioning,
        NANO_SCHEDULER,
        coarse if conditioning.coarse else None,
    )


def exact(batch: SampleBatch) -> torch.Tensor:
    """No jitter of the claimed cameras."""
    return torch.zeros(len(batch), 4)


@pytest.fixture(params=[PLAIN, FULL], ids=["plain", "full"])
def task(request: pytest.FixtureRequest, small_store: SampleStore) -> ViewTask:
    """A task whose every batch is all four samples."""
    model, batch = small_model(request.param), small_store.batch_all()
    encoded = encode_samples(model, batch, exact(batch))
    return ViewTask(
        model,
        lambda rng: encoded,
        batch,
        CPU,
        ViewLoss(views=2),
        sampling=SamplingSettings(steps=2, guidance=1.0),
        held_views=2,
    )


# --- the task ---------------------------------------------------------------------------------------------------------


def test_steps_on_one_batch_lower_the_loss(task: ViewTask) -> None:
    """With the same draws of noise, views and levels in every step."""
    modules = ViewModules(task.model)
    optimiser = torch.optim.Adam(modules.parameters(), lr=3e-3)
    batch, values = next(task.batches()), []
    for _ in range(20):
        torch.manual_seed(1)
        loss, count, _ = task.loss(batch)
        assert count == 8  # target rows
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(float(loss.detach()))
    assert values[-1] < 0.85 * values[0]
    assert np.isfinite(values).all()


def test_every_trained_part_gets_a_gradient(task: ViewTask) -> None:
    modules = ViewModules(task.model)
    for vae_or_coarse in (task.model.vae, task.model.coarse):
        if vae_or_coarse is not None:
            vae_or_coarse.requires_grad_(False)
    torch.manual_seed(3)
    task.loss(next(task.batches()))[0].backward()
    for part in ("unet", "image_encoder", "cc_projection"):
        gradients = [p.grad for p in getattr(modules, part).parameters()]
        assert all(g is not None and torch.isfinite(g).all() for g in gradients), part
        assert sum(float(g.abs().sum()) for g in gradients) > 0, part


def test_the_untrained_loss_is_that_of_predicting_nothing(task: ViewTask) -> None:
    """With a silent network the error is the mean square of v: that of noise and latents, mixed."""
    with torch.no_grad():
        task.model.unet.conv_out.weight.zero_()
        task.model.unet.conv_out.bias.zero_()
        power = next(task.batches()).targets.square().mean()
        loss = torch.stack([task.loss(next(task.batches()))[0] for _ in range(20)]).mean()
    assert min(float(power), 1.0) * 0.8 < float(loss) < max(float(power), 1.0) * 1.2


def test_a_network_that_knows_the_answer_has_no_loss(task: ViewTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same latents for every view, so that the true v follows from what the network is given."""
    batch = next(task.batches())
    clean = batch.targets[:1, :1]
    same = replace(batch, targets=clean.expand_as(batch.targets).contiguous())

    def predict(z: torch.Tensor, t: torch.Tensor, given: Conditions) -> torch.Tensor:
        level = task.model.schedule.alphas_cumprod[t][..., None, None, None]
        noise = (z - level.sqrt() * clean) / (1 - level).sqrt()
        return level.sqrt() * noise - (1 - level).sqrt() * clean

    monkeypatch.setattr(task.model, "predict", predict)
    assert max(float(task.loss(same)[0]) for _ in range(10)) < 1e-4


def test_each_row_has_the_conditions_of_its_own_view(task: ViewTask) -> None:
    """Without noise, a row shows which view it is; coarse picture, rays and token must be of the same one."""
    seen: list[tuple[torch.Tensor, ...]] = []
    model, batch = task.model, next(task.batches())
    task.weights = ViewLoss(views=2, drop=0.0, drop_coarse=0.0)
    task._levels = torch.zeros(10, dtype=torch.long)
    model.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    with torch.no_grad():
        model.cc_projection.projection.weight[:, 16:] = torch.randn(16, 4)
        task.loss(batch)
        embedding = model.image_encoder(batch.photo)
        tokens = model.tokens(embedding, pose_tokens(batch.source_camera[:, None], batch.target_cameras))
    first = int(model.conditioning.source_row)
    rows, _, told = (x.unflatten(0, (4, -1))[:, first:] for x in seen[0])
    picks = set()
    for o in range(4):
        for v in range(2):
            k = int((batch.targets[o] - rows[o, v, :4]).square().sum((1, 2, 3)).argmin())
            picks.add(k)
            assert torch.equal(rows[o, v, 4:8], batch.source[o])
            assert torch.allclose(told[o, v, 0], tokens[o, k], atol=1e-5)
            if model.conditioning.coarse:
                assert torch.equal(rows[o, v, 8:12], batch.coarse[o, k])
                assert torch.equal(rows[o, v, 12:16], batch.visible[o, k])
                rays = pluecker_maps(Poses.of_orbits(batch.target_cameras[o, k]), 16)
                assert torch.allclose(rows[o, v, 16:], rays, atol=1e-5)
    assert len(picks) > 1


@pytest.mark.parametrize("blank", [True, False])
def test_dropped_objects_lose_their_conditions(task: ViewTask, blank: bool) -> None:
    seen: list[tuple[torch.Tensor, ...]] = []
    task.weights = ViewLoss(views=2, drop=float(blank))
    task.model.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    task.loss(next(task.batches()))
    rows, _, tokens = seen[0]
    views = rows.unflatten(0, (4, -1))[:, int(task.model.conditioning.source_row) :]
    assert bool((views[:, :, 4:8] == 0).all()) is blank
    assert bool((tokens == 0).all()) is blank


def test_views_of_one_object_share_their_noise_level(task: ViewTask) -> None:
    seen: list[torch.Tensor] = []
    task.model.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    for _ in range(4):
        task.loss(next(task.batches()))
    first = int(task.model.conditioning.source_row)
    times = torch.stack(seen).unflatten(1, (4, -1))
    assert (times[..., first:] == times[..., first : first + 1]).all()
    assert (times[..., :first] == 0).all()
    assert len(times[..., first].unique()) > 4


def test_held_out_views_are_sampled_and_scored(task: ViewTask) -> None:
    scores = task.evaluate()
    assert scores.keys() == {"psnr", "foreground_psnr", "ssim", "iou"}
    assert all(np.isfinite(value) for value in scores.values())


def test_perfect_views_score_perfectly(task: ViewTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each generated view is compared with the true one of its own object and camera."""
    truth = torch.from_numpy(task.held_out.targets).float() / 255
    monkeypatch.setattr("pipeline.training.tasks.views.decode_views", lambda model, latents: truth[:, [0, 1]])
    scores = task.evaluate()
    assert scores["psnr"] == pytest.approx(100)
    assert scores["iou"] == 1
    monkeypatch.setattr("pipeline.training.tasks.views.decode_views", lambda model, latents: truth[:, [1, 0]])
    assert task.evaluate()["psnr"] < 60


def test_saved_models_load_whole(task: ViewTask, tmp_path: Path) -> None:
    task.save(tmp_path)
    loaded = ViewDiffusion.from_pretrained(tmp_path)
    assert loaded.conditioning == task.model.conditioning
    assert loaded.scheduler == NANO_SCHEDULER


# --- encoding ---------------------------------------------------------------------------------------------------------


def test_encoded_samples_hold_what_the_network_needs(small_store: SampleStore) -> None:
    model, batch = small_model(FULL), small_store.batch_all()
    encoded = encode_samples(model, batch, exact(batch))
    assert {name: tuple(value.shape) for name, value in vars(encoded).items()} == {
        "photo": (4, 4, 64, 64),
        "source": (4, 4, 16, 16),
        "targets": (4, 3, 4, 16, 16),
        "coarse": (4, 3, 4, 16, 16),
        "visible": (4, 3, 4, 16, 16),
        "source_camera": (4, 4),
        "target_cameras": (4, 3, 3),
    }
    assert np.array_equal(encoded.source_camera.numpy(), batch.source_camera)
    assert np.array_equal(encoded.target_cameras.numpy(), batch.target_cameras)
    with torch.no_grad():
        raw = model.vae.encode(images_from_rgba(torch.from_numpy(batch.targets[2]), 4)).latent_dist.mode()
    assert torch.allclose(encoded.targets[2], raw * 2, atol=0.05)  # mixed precision
    assert torch.allclose(encoded.source[0], model.codec.encode_raw(torch.from_numpy(batch.source[:1]))[0], atol=0.05)


def test_claimed_cameras_are_jittered_in_typical_deviations(small_store: SampleStore) -> None:
    model, batch = small_model(PLAIN), small_store.batch_all()
    jitter = torch.tensor([[1.0, -1.0, 2.0, 0.5]]).expand(4, 4)
    encoded = encode_samples(model, batch, jitter)
    expected = torch.from_numpy(batch.source_camera) + jitter * torch.tensor(CAMERA_SCALE)
    assert torch.allclose(encoded.source_camera, expected, atol=1e-6)


def test_encoded_stores_are_made_once_and_again_for_another_key(small_store: SampleStore, tmp_path: Path) -> None:
    model, built = small_model(PLAIN), []

    def build() -> Iterator[EncodedBatch]:
        built.append(1)
        return encode_store(model, small_store, 0.0, 0, chunk=3)

    store = EncodedStore(tmp_path, "key", build)
    assert len(store) == 4
    assert len(EncodedStore(tmp_path, "key", build)) == 4
    assert len(built) == 1
    EncodedStore(tmp_path, "other", build)
    assert len(built) == 2
    batch = store.batch(np.random.default_rng(0), 5, CPU)
    everything = small_store.batch_all()
    assert batch.targets.shape == (5, 3, 4, 16, 16)
    encoded = encode_samples(model, everything, exact(everything))
    places = [int((encoded.source_camera - camera).abs().sum(1).argmin()) for camera in batch.source_camera]
    assert torch.allclose(batch.targets, encoded.targets[places], atol=0.02)
    assert torch.allclose(batch.target_cameras, encoded.target_cameras[places], atol=0.01)


def test_encoding_some_views_keeps_them_with_their_cameras(small_store: SampleStore) -> None:
    model, everything = small_model(PLAIN), small_store.batch_all()
    whole = encode_samples(model, everything, exact(everything))
    (some,) = encode_store(model, small_store, 0.0, 0, views=2)
    assert some.targets.shape == (4, 2, 4, 16, 16)
    for k in range(4):
        apart = (some.target_cameras[k, :, None] - whole.target_cameras[k]).abs().sum(-1)
        place = apart.argmin(1)
        assert float(apart.min(1).values.max()) == 0
        assert len(set(place.tolist())) == 2
        assert torch.allclose(some.targets[k], whole.targets[k, place], atol=0.05)  # mixed precision


# --- noise levels -----------------------------------------------------------------------------------------------------


def test_unshifted_timesteps_are_even(make_levels: Callable[[float], torch.Tensor]) -> None:
    assert torch.equal(make_levels(0.0), torch.linspace(0, 999, 4096).round().long())


@pytest.mark.parametrize("shift", [0.7, 1.4, 3.0])
def test_shifted_timesteps_lower_the_log_snr_by_the_shift(
    make_levels: Callable[[float], torch.Tensor], shift: float
) -> None:
    schedule = small_model(PLAIN).schedule
    even, shifted = make_levels(0.0), make_levels(shift)
    assert int(shifted.max()) <= 999
    assert (shifted >= even).all()
    inner = (shifted < 990) & (even > 5)
    assert inner.float().mean() > 0.5
    lowered = schedule.log_snr(even[inner]) - schedule.log_snr(shifted[inner])
    step = -schedule.log_snr(torch.arange(1000)).diff().neg()
    assert float(lowered.mean()) == pytest.approx(shift, abs=0.02)
    assert float((lowered - shift).abs().max()) < float(step[4:990].abs().max()) + 1e-3


@pytest.fixture
def make_levels() -> Callable[[float], torch.Tensor]:
    """Timesteps of the nano schedule for a shift."""
    model = small_model(PLAIN)
    return lambda shift: shifted_timesteps(model, shift)


# --- the shipped size -------------------------------------------------------------------------------------------------


def test_nano_parts_start_as_zero123_did() -> None:
    unet, encoder, projection = nano_parts(FULL)
    assert sum(p.numel() for p in unet.parameters()) <= 14_000_000
    assert unet.config["in_channels"] == FULL.channels == unet.conv_in.weight.shape[1]
    assert (unet.conv_in.weight[:, 8:] == 0).all()
    assert (unet.conv_in.weight[:, :8] != 0).any()
    photo = torch.rand(1, 4, 64, 64)
    embedding = encoder(photo)
    assert torch.allclose(projection(embedding, torch.randn(1, 4)), embedding, atol=1e-6)
    assert unet.config["cross_attention_dim"] == embedding.shape[1] == 128
