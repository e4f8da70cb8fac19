"""Training of the VAE on four pictures."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.training.data.store import SampleStore
from pipeline.training.tasks.vae import VaeLoss, VaeTask, nano_vae, reconstruction_scores

CPU = torch.device("cpu")


def small_vae() -> AutoencoderKL:
    """Latents of half the picture's side."""
    torch.manual_seed(0)
    return AutoencoderKL(
        in_channels=4,
        out_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        scaling_factor=1.0,
    )


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
    assert before.keys() == {"psnr", "foreground_psnr", "alpha_iou"}
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
    assert sum(p.numel() for p in vae.parameters()) < 4_000_000
    with torch.no_grad():
        assert vae.encode(torch.zeros(1, 4, 128, 128)).latent_dist.mode().shape == (1, 4, 16, 16)
