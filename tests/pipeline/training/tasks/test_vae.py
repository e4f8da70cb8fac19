"""Training of the VAE on four pictures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from pipeline.diffusion.checkpoints.digests import latent_digest, part_digest
from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.latents import (
    LatentCodec,
    decode_latents,
    encode_images,
    vae_channels,
    vae_factor,
    vae_fold,
)
from pipeline.training.data.store import SampleStore
from pipeline.training.tasks import vae as module
from pipeline.training.tasks.vae import (
    VaeLoss,
    VaeTask,
    beyond_range_forgiven,
    chroma_error,
    disc_error,
    disc_pictures,
    nano_vae,
    outline_error,
    recoloured,
    reconstruction_scores,
)
from scene.resources import default_weights
from tests.vaes import half_side_vae

CPU = torch.device("cpu")


def small_vae() -> AutoencoderKL:
    """Latents of half the picture's side."""
    torch.manual_seed(0)
    return half_side_vae(scaling_factor=1.0).train()


def losses(task: VaeTask, steps: int, rate: float = 5e-3) -> list[float]:
    """Loss of every step on one batch, always with the same noise."""
    optimiser = torch.optim.Adam(task.vae.parameters(), lr=rate)
    batch, seen = next(task.batches()), []
    for _ in range(steps):
        torch.manual_seed(0)
        loss, count, _ = task.loss(batch)
        assert count == len(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    return seen


@pytest.fixture
def make_task(small_store: SampleStore) -> Callable[..., VaeTask]:
    """A task on the made-up samples."""

    def make(**weights: float) -> VaeTask:
        return VaeTask(small_vae(), [small_store], small_store.batch_all().source, 4, CPU, VaeLoss(**weights))

    return make


def test_steps_on_one_batch_lower_the_loss(make_task: Callable[..., VaeTask]) -> None:
    values = losses(make_task(), 20)
    assert values[-1] < 0.7 * values[0]
    assert np.isfinite(values).all()


def test_batches_are_pictures_of_the_store(make_task: Callable[..., VaeTask], small_store: SampleStore) -> None:
    batches = make_task().batches()
    first, second = next(batches), next(batches)
    assert first.shape == (4, 32, 32, 4)
    assert not torch.equal(first, second)
    everything = small_store.batch_all()
    known = {image.tobytes() for image in (*everything.source, *everything.targets.reshape(-1, 32, 32, 4))}
    assert {image.numpy().tobytes() for image in first} <= known


@pytest.mark.parametrize(("wanted", "rises"), [(1e-4, True), (1e4, False)])
def test_the_kl_weight_is_steered_to_the_wanted_information(
    make_task: Callable[..., VaeTask], wanted: float, rises: bool
) -> None:
    task = make_task(kl_nats=wanted)
    batch = next(task.batches())
    weights = [task.loss(batch)[2]["kl_weight"] for _ in range(5)]
    assert all((later > earlier) == rises for earlier, later in pairwise(weights))


def test_held_out_scores(make_task: Callable[..., VaeTask]) -> None:
    task = make_task()
    with torch.no_grad():
        before = task.evaluate()
    losses(task, 40)
    with torch.no_grad():
        after = task.evaluate()
    assert before.keys() == {"psnr", "foreground_psnr", "alpha_iou", "disc_error"}
    assert after["psnr"] > before["psnr"] + 1


def test_saved_latents_are_normalised_by_their_statistics(make_task: Callable[..., VaeTask], tmp_path: Path) -> None:
    task = make_task()
    losses(task, 5)
    task.save(tmp_path)
    loaded = load_part(AutoencoderKL, tmp_path)
    assert len(loaded.config["latents_mean"]) == 4
    codec = LatentCodec(loaded)
    with torch.no_grad():
        pictures = torch.from_numpy(task.stores[0].images(np.random.default_rng(5), 64))
        latents = codec.normalise(codec.encode_raw(pictures))
    assert torch.allclose(latents.mean(dim=(0, 2, 3)), torch.zeros(4), atol=0.15)
    assert torch.allclose(latents.std(dim=(0, 2, 3)), torch.ones(4), atol=0.15)
    assert next(task.vae.parameters()).dtype == torch.float32
    assert task.vae.config.get("latents_mean") is None


def test_scores_of_known_pictures() -> None:
    image = torch.ones(2, 4, 8, 8)
    image[:, 3] = -1
    image[:, :3, 2:6, 2:6], image[:, 3, 2:6, 2:6] = -1, 1  # a black square on white
    perfect = reconstruction_scores(image, image)
    assert perfect["psnr"].tolist() == pytest.approx([100, 100])
    assert perfect["alpha_iou"].tolist() == [1, 1]
    shifted = image.clone()
    shifted[1, :3, 2:6, 2:6] = -0.8  # a tenth brighter, on the object only
    shifted[1, 3, 2:6, 4:6] = -1  # and half of it missing from alpha
    scores = reconstruction_scores(shifted, image)
    assert scores["foreground_psnr"][1] == pytest.approx(20, abs=1e-3)
    assert scores["psnr"][1] == pytest.approx(20 + 10 * np.log10(4), abs=1e-3)
    assert scores["alpha_iou"].tolist() == [1, 0.5]


def test_the_shipped_size() -> None:
    vae = nano_vae()
    assert sum(p.numel() for p in vae.parameters()) < 4_500_000
    with torch.no_grad():
        pictures = torch.rand(2, 4, 128, 128) * 2 - 1
        latents = encode_images(vae, pictures).mode()
        assert latents.shape == (2, 8, 16, 16)
        assert decode_latents(vae, latents).shape == pictures.shape
    assert (vae_fold(vae), vae_channels(vae), vae_factor(vae)) == (4, 4, 8)


@pytest.mark.parametrize("fold", [1, 2, 4])
def test_folding_keeps_places_and_channels(fold: int) -> None:
    """A folded VAE's picture moves with its input, and channels stay apart."""
    torch.manual_seed(0)
    vae = nano_vae(4, fold, (16, 16)).eval()
    assert vae_factor(vae) == 2 * fold
    kernel = vae.decoder.conv_out
    with torch.no_grad():
        kernel.weight.zero_()
        kernel.bias.zero_()
        kernel.bias.view(4, fold, fold)[1, 0, 0] = 1  # green of each block's first pixel
        out = decode_latents(vae, torch.randn(1, 4, 4, 4))
    lit = out[0].nonzero()
    assert (lit[:, 0] == 1).all()
    assert (lit[:, 1:] % fold == 0).all()
    assert len(lit) == 8 * 8


def test_hues_are_turned_and_saturated_and_grey_stays_grey() -> None:
    pictures = torch.zeros(300, 2, 2, 4, dtype=torch.uint8)
    pictures[..., 0, :] = torch.tensor([180, 90, 90, 255], dtype=torch.uint8)
    pictures[..., 1, :] = torch.tensor([120, 120, 120, 77], dtype=torch.uint8)
    changed = recoloured(pictures, np.random.default_rng(0), 1.0)
    assert torch.equal(changed[..., 3], pictures[..., 3])
    assert torch.equal(recoloured(pictures, np.random.default_rng(0), 0.0), pictures)
    red = changed[:, 0, 0, :3].float()
    for channel in range(3):
        assert (red.argmax(1) == channel).float().mean() > 0.2  # every hue
    spread = red.max(1).values - red.min(1).values
    assert float(spread.median()) > 90
    turned = changed[:, 0, 1, :3].float()
    grey = (turned.max(1).values - turned.min(1).values) < 3
    assert grey.float().mean() == pytest.approx(2 / 3, abs=0.08)  # the others have a tint
    assert ((changed != pictures).flatten(1).any(1)).float().mean() > 0.95


def test_lost_hues_are_chroma_errors_and_lost_light_is_not() -> None:
    emphasis = torch.ones(1, 1, 8, 8)
    light, hue = torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    light[:, :3] = 0.2
    hue[:, 0], hue[:, 1] = 0.2, -0.2
    assert float(chroma_error(light, emphasis)) == pytest.approx(0, abs=1e-6)
    assert float(chroma_error(hue, emphasis)) == pytest.approx((0.4 + 4 * 0.16) / 2, abs=1e-6)


def test_values_beyond_the_range_are_no_errors() -> None:
    target = torch.tensor([1.0, 1.0, -1.0, -1.0, 0.5]).view(1, 1, 1, 5)
    image = torch.tensor([1.3, 0.9, -1.2, -0.7, 1.5]).view(1, 1, 1, 5)
    assert beyond_range_forgiven(image, target).flatten().tolist() == pytest.approx([0, -0.1, 0, 0.3, 1.0])


def test_disc_error_is_that_of_the_colours_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = disc_pictures(32)
    assert pictures.shape == (8, 32, 32, 4)
    assert float((pictures[..., 3] > 0).float().mean()) == pytest.approx(np.pi / 16, abs=0.01)

    class Same:
        def __init__(self, image: torch.Tensor) -> None:
            self.image = image

        def mode(self) -> torch.Tensor:
            return self.image

    vae = nano_vae(4, 4, (16, 16))
    monkeypatch.setattr(module, "encode_images", lambda vae, image: Same(image))
    monkeypatch.setattr(module, "decode_latents", lambda vae, image: image)
    assert disc_error(vae) == pytest.approx(0, abs=1e-4)
    monkeypatch.setattr(module, "decode_latents", lambda vae, image: image * 0.9)
    assert disc_error(vae) == pytest.approx(12.75, abs=1e-3)  # every channel of every corner is 5 % off its end


def test_only_pixels_at_the_outline_decide_its_error() -> None:
    truth = torch.full((1, 1, 16, 16), -1.0)
    truth[..., 4:12, 4:12] = 1
    truth[..., 3, 4:12] = 0.2  # the outline crosses these
    assert float(outline_error(4 * truth, truth)) < 0.1
    wrong = 4 * truth.clone()
    wrong[..., 3, 4:12] = -0.5
    near = float(outline_error(wrong, truth))
    assert near > 3 * float(outline_error(4 * truth, truth))
    wrong[..., 12:, :] = 3  # far from it, left to the other terms
    assert float(outline_error(wrong, truth)) == pytest.approx(near)
    whole = torch.ones(1, 1, 8, 8)
    assert float(outline_error(whole, whole)) == 0


def test_the_decoder_is_trained_alone(small_store: SampleStore, tmp_path: Path) -> None:
    vae = small_vae()
    vae.register_to_config(latents_mean=[0.1] * 4, latents_std=[2.0] * 4)
    pictures = small_store.batch_all().source
    task = VaeTask(vae, [small_store], pictures, 4, CPU, VaeLoss(outline=1.0), decoder_only=True)
    meaning, whole = latent_digest(vae), part_digest(vae)
    values = losses(task, 10)
    assert values[-1] < values[0]
    assert all(p.grad is None for p in (*vae.encoder.parameters(), *vae.quant_conv.parameters()))
    task.save(tmp_path)
    saved = load_part(AutoencoderKL, tmp_path)
    assert latent_digest(saved) == meaning
    assert part_digest(saved) != whole


def test_the_steered_weight_goes_on(make_task: Callable[..., VaeTask]) -> None:
    task, other = make_task(), make_task()
    batch = next(task.batches())
    for _ in range(3):
        task.loss(batch)
    other.load_state(task.state())
    assert other.state() == task.state() != make_task().state()


def test_the_shipped_vae_has_all_hues() -> None:
    vae = load_part(AutoencoderKL, default_weights() / "vae")
    assert disc_error(vae) <= 4
