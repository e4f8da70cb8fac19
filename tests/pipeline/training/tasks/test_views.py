"""Training of the view U-Net on four samples: plain Zero123, and with every condition."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.diffusion.modules.attention import self_attention_layers
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import CoarseMap, Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.diffusion.modules.poses import Poses, pluecker_maps, pose_tokens
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.encoded import EncodedBatch, encode_samples
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.tasks.views import (
    NANO_CONDITIONING,
    NANO_SCHEDULER,
    ViewLoss,
    ViewModules,
    ViewNetwork,
    ViewTask,
    channel_weights,
    fitted_coarse_map,
    fresh_view_model,
    nano_parts,
    shifted_timesteps,
    with_fitted_map,
)
from scene.errors import InputError
from tests.vaes import half_side_vae

CPU = torch.device("cpu")
PLAIN, FULL = Conditioning(), Conditioning(source_row=True, coarse=True, pluecker=True, joint=(8, 4))
RESIDUAL = replace(FULL, normalised=True, residual=True)


def small_model(conditioning: Conditioning) -> ViewDiffusion:
    """A tiny view model for pictures of 32 pixels and latents of 16."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=conditioning.channels(4),
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = half_side_vae()
    coarse = CoarseVolumeModel(image_size=32, resolution=8, channels=(16, 16, 16), fine_channels=8).eval()
    return ViewDiffusion(
        unet,
        vae,
        PhotoEncoder(width=16, image_size=32),
        PoseProjection(width=16),
        conditioning,
        NANO_SCHEDULER,
        coarse if conditioning.coarse else None,
        CoarseMap() if conditioning.residual else None,
    )


def exact(batch: SampleBatch) -> torch.Tensor:
    """No jitter of the claimed cameras."""
    return torch.zeros(len(batch), 4)


@pytest.fixture(params=[PLAIN, FULL, RESIDUAL], ids=["plain", "full", "residual"])
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
    for fixed in (task.model.vae, task.model.coarse, task.model.coarse_map):
        if fixed is not None:
            fixed.requires_grad_(False)
    torch.manual_seed(3)
    task.loss(next(task.batches()))[0].backward()
    for part in ("unet", "image_encoder", "cc_projection"):
        # With one token, what cross-attention asks it for does not matter: no gradient reaches the questions.
        idle = re.compile(r"\.(norm2\.|attn2\.to_[qk]\.)")
        gradients = [p.grad for name, p in getattr(modules, part).named_parameters() if not idle.search(name)]
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
    normalised = model.conditioning.normalised
    scaled = lambda raw: model.codec.normalise(raw[None])[0] if normalised else raw  # noqa: E731
    picks = set()
    for o in range(4):
        for v in range(2):
            k = int((batch.targets[o] - rows[o, v, :4]).square().sum((1, 2, 3)).argmin())
            picks.add(k)
            assert torch.equal(rows[o, v, 4:8], scaled(batch.source[o]))
            assert torch.allclose(told[o, v, 0], tokens[o, k], atol=1e-5)
            if model.conditioning.coarse:
                assert torch.equal(rows[o, v, 8:12], scaled(batch.coarse[o, k]))
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
    kinds = ["", "one_step_", *(["map_"] if task.model.conditioning.residual else [])]
    assert scores.keys() == {f"{kind}{key}" for kind in kinds for key in ("psnr", "foreground_psnr", "ssim", "iou")}
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
    return lambda shift: shifted_timesteps(model.schedule, shift)


# --- the shipped size -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("latents", [4, 8])
def test_nano_parts_of_the_shipped_size(latents: int) -> None:
    unet, encoder, projection = nano_parts(NANO_CONDITIONING, latents)
    assert sum(p.numel() for p in unet.parameters()) <= 14_000_000
    assert unet.config["in_channels"] == NANO_CONDITIONING.channels(latents) == unet.conv_in.weight.shape[1]
    assert unet.config["out_channels"] == latents
    assert (unet.conv_out.weight == 0).all()
    assert (unet.conv_in.weight[:, latents:] != 0).any()
    photo = torch.rand(1, 4, 64, 64)
    embedding = encoder(photo)
    assert torch.allclose(projection(embedding, torch.randn(1, 4)), embedding, atol=1e-6)
    assert unet.config["cross_attention_dim"] == embedding.shape[1] == 128
    layers = self_attention_layers(unet).values()
    assert {(layer.place, layer.resolution) for layer in layers if layer.resolution == 16} == {("decoder", 16)}
    everywhere, _, _ = nano_parts(NANO_CONDITIONING, latents, ViewNetwork(encoder_attention=True, zero_conditions=True))
    assert {layer.place for layer in self_attention_layers(everywhere).values() if layer.resolution == 16} == {
        "encoder",
        "decoder",
    }
    assert (everywhere.conv_in.weight[:, latents:] == 0).all()


def test_channels_that_nobody_sees_count_little() -> None:
    """The decoder reads the first channel ten times as strongly as the second, and the last not at all."""
    model = small_model(FULL)
    with torch.no_grad():
        kernel = model.vae.post_quant_conv
        kernel.weight.zero_()
        kernel.weight[0, 0], kernel.weight[1, 1], kernel.weight[2, 2] = 1.0, 0.1, 1.0
        kernel.bias.zero_()
    weights = channel_weights(model.codec, torch.randn(6, 4, 16, 16, generator=torch.Generator().manual_seed(1)))
    assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
    assert weights.argmin() == 3
    assert 0 < weights[3] < 0.05 * weights.max()
    assert weights[1] < 0.3 * weights[0]


def test_the_loss_weighs_channels(small_store: SampleStore) -> None:
    batch = small_store.batch_all()
    model = small_model(FULL)
    encoded = encode_samples(model, batch, exact(batch))
    tasks = [
        ViewTask(model, lambda rng: encoded, batch, CPU, ViewLoss(views=2, by_sensitivity=on)) for on in (True, False)
    ]
    losses = []
    for task in tasks:
        torch.manual_seed(0)
        losses.append(float(task.loss(encoded)[0].detach()))
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def picture_loss(model: ViewDiffusion, encoded: EncodedBatch, batch: SampleBatch, weights: ViewLoss) -> ViewTask:
    """A task with the VAE fixed, as the trainer has it."""
    model.vae.requires_grad_(False)
    return ViewTask(model, lambda rng: encoded, batch, CPU, weights)


def test_decoded_estimates_are_part_of_the_loss(small_store: SampleStore) -> None:
    batch, model = small_store.batch_all(), small_model(FULL)
    encoded = encode_samples(model, batch, exact(batch))
    values = []
    for weight in (0.0, 2.0):
        task = picture_loss(model, encoded, batch, ViewLoss(views=2, pictures=weight, decoded=3))
        torch.manual_seed(0)
        loss, _, numbers = task.loss(encoded)
        values.append(float(loss.detach()) - weight * numbers.get("loss_pictures", 0.0))
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert numbers["loss_pictures"] > 0
    loss.backward()
    assert all(p.grad is None for p in model.vae.parameters())


def test_the_true_view_has_no_picture_error_and_the_object_counts_more(small_store: SampleStore) -> None:
    batch, model = small_store.batch_all(), small_model(FULL)
    encoded = encode_samples(model, batch, exact(batch))
    with torch.no_grad():
        model.vae.decoder.conv_out.weight.mul_(0.1)  # nothing lies beyond the range of pictures
    clean = encoded.targets[:, 0]
    errors = []
    for foreground in (0.0, 3.0):
        task = picture_loss(model, encoded, batch, ViewLoss(pictures=1.0, foreground=foreground))
        with torch.no_grad():
            assert float(task.picture_error(clean, clean)) == 0
            errors.append(float(task.picture_error(torch.zeros_like(clean), clean)))
    assert 1.05 * errors[0] < errors[1] <= 4 * errors[0]


def test_an_estimate_beyond_the_range_of_pictures_is_pulled_back(small_store: SampleStore) -> None:
    """Clamped to [-1, 1] it would look right, and have no gradient."""
    batch, model = small_store.batch_all(), small_model(FULL)
    encoded = encode_samples(model, batch, exact(batch))
    task = picture_loss(model, encoded, batch, ViewLoss(pictures=1.0))
    with torch.no_grad():
        model.vae.decoder.conv_out.bias.fill_(3.0)  # everything is whiter than white
    far = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
    error = task.picture_error(far, encoded.targets[:4, 0])
    error.backward()
    assert float(error.detach()) > 0.1
    assert far.grad is not None
    assert float(far.grad.abs().sum()) > 0


# --- the linear map ---------------------------------------------------------------------------------------------------


def made_up(count: int, true: CoarseMap, codec: LatentCodec, noise: float) -> EncodedBatch:
    """Samples whose targets a linear map explains, but for noise."""
    coarse, visible = torch.randn(count, 3, 4, 16, 16), torch.rand(count, 3, 4, 16, 16)
    with torch.no_grad():
        normalised = codec.normalise(coarse.flatten(0, 1)).unflatten(0, (count, 3))
        targets = true(normalised, visible) + noise * torch.randn(count, 3, 4, 16, 16)
    empty = torch.zeros(count, 4, 16, 16)
    return EncodedBatch(empty, empty, targets, coarse, visible, torch.zeros(count, 4), torch.zeros(count, 3, 3))


def test_the_linear_map_is_found_by_least_squares() -> None:
    codec, true = small_model(RESIDUAL).codec, CoarseMap()
    found = fitted_coarse_map([made_up(4, true, codec, 0.01) for _ in range(3)], codec, ridge=1e-9)
    assert torch.allclose(found.map.weight, true.map.weight, atol=2e-3)
    assert torch.allclose(found.map.bias, true.map.bias, atol=5e-3)
    with pytest.raises(InputError, match="needs samples"):
        fitted_coarse_map([], codec)


def test_a_fresh_residual_model_says_what_its_map_says(
    small_store: SampleStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step from pure noise gives the map's estimate: the U-Net predicts nothing yet."""
    small_model(FULL).save_pretrained(tmp_path / "weights")
    network = ViewNetwork(widths=(16, 16, 16), token=32)
    model = fresh_view_model(tmp_path / "weights", RESIDUAL, network)
    batch = encode_samples(model, small_store.batch_all(), exact(small_store.batch_all()))
    calls: list[int] = []

    def draw(rng: np.random.Generator) -> EncodedBatch:
        calls.append(1)
        return batch

    assert model.coarse_map is not None
    with_fitted_map(model, draw, batches=2)
    assert len(calls) == 2
    weight = model.coarse_map.map.weight.clone()
    assert weight.any()
    with_fitted_map(model, draw)
    assert torch.equal(weight, model.coarse_map.map.weight)  # once
    held = small_store.batch_all()
    sampling = SamplingSettings(steps=1, guidance=1.0, strength=1.0)
    task = ViewTask(model, draw, held, CPU, ViewLoss(views=2), sampling=sampling, held_views=2)
    with torch.no_grad():
        numbers = task.evaluate()
    for key in ("psnr", "foreground_psnr", "iou"):
        assert numbers[f"one_step_{key}"] == pytest.approx(numbers[f"map_{key}"], abs=1e-3)
        assert numbers[key] == pytest.approx(numbers[f"map_{key}"], abs=1e-3)
    model.save_pretrained(tmp_path / "saved")
    loaded = ViewDiffusion.from_pretrained(tmp_path / "saved")
    assert loaded.conditioning == RESIDUAL
    assert loaded.coarse_map is not None
    assert torch.allclose(loaded.coarse_map.map.weight, weight, atol=2e-3)


def test_training_does_not_go_on_with_another_vae(task: ViewTask) -> None:
    state = task.state()
    task.load_state(state)
    with torch.no_grad():
        task.model.vae.decoder.conv_out.bias += 1
        task.load_state(state)  # a decoder trained on is still that VAE
        task.model.vae.encoder.conv_out.bias += 1
    with pytest.raises(InputError, match="began with another VAE"):
        task.load_state(state)
