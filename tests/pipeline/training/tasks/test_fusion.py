"""Training of ViewFusion's network: which pictures it sees, what it is told, what it learns, what is kept."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from pipeline.diffusion.viewfusion.model import ViewFusionModel
from pipeline.training.tasks.fusion import (
    FusionLoss,
    FusionNetwork,
    FusionTask,
    Rings,
    batch_of,
    chosen_views,
    counts_of_rows,
    fresh_fusion,
    held_out_views,
)
from pipeline.training.tasks.vae import nano_vae
from pipeline.training.trainer import TrainSettings, train
from scene.errors import InputError

CPU = torch.device("cpu")
NETWORK = FusionNetwork(width=16, multipliers=(1.0, 2.0), attended=(8,), groups=8)
VIEWS = 24


def vae(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    return nano_vae(4, 4, (16, 16)).requires_grad_(False).eval()


def rings(rng: np.random.Generator, count: int) -> Rings:
    """A view shows one number of its object, in every place; its azimuth does not matter."""
    latents = torch.from_numpy(rng.normal(size=(count, 1, 4, 1, 1))).float().expand(-1, VIEWS, -1, 16, 16)
    return latents, numbered(count)


def numbered(count: int) -> Tensor:
    return (torch.arange(VIEWS) * 2 * math.pi / VIEWS).expand(count, -1)


def task(model: ViewFusionModel, **more: object) -> FusionTask:
    held_out = rings(np.random.default_rng(9), 3)
    return FusionTask(model, rings, held_out, CPU, rows=24, **more)  # type: ignore[arg-type]


def test_the_embedded_size_is_small() -> None:
    made = fresh_fusion(vae())
    assert sum(p.numel() for p in made.unet.parameters()) < 3e6
    assert made.unet.config["channels"] == 4


def test_rows_are_as_many_as_asked_for() -> None:
    rng = np.random.default_rng(0)
    counts = [counts_of_rows(rng, 50, (1, 6)) for _ in range(200)]
    assert {sum(one) for one in counts} == {50}
    most = np.concatenate([one[:-1] for one in counts])
    assert set(most) == set(range(1, 7))
    assert np.bincount(most, minlength=7)[1:].min() > 0.8 * len(most) / 6


@pytest.mark.parametrize(("itself", "share"), [(0.0, 0.0), (1.0, 6 / 24)])
def test_views_are_not_among_their_pictures(itself: float, share: float) -> None:
    targets, pictures = chosen_views(np.random.default_rng(1), VIEWS, [6] * 2000, itself)
    among = np.mean([target in one for target, one in zip(targets, pictures, strict=True)])
    assert among == pytest.approx(share, abs=0.03)
    assert all(len(set(one)) == 6 for one in pictures)
    assert len(set(targets)) == VIEWS


@pytest.mark.parametrize("relative", [False, True])
def test_what_the_network_is_told(relative: bool) -> None:
    latents = torch.arange(2.0 * VIEWS).view(2, VIEWS, 1, 1, 1)
    targets, pictures = np.array([3, 0]), [np.array([5, 1]), np.array([23])]
    batch = batch_of((latents, numbered(2)), targets, pictures, relative=relative)
    assert batch.streams.pictures.flatten().tolist() == [5, 1, 47]
    assert batch.streams.counts.tolist() == [2, 1]
    assert batch.views.flatten().tolist() == [3, 24]
    steps = (batch.azimuth * VIEWS / (2 * math.pi)).round() % VIEWS
    assert steps.tolist() == ([22, 1] if relative else [3, 0])


def test_held_out_pictures_are_nested() -> None:
    some = rings(np.random.default_rng(2), 4)
    some = (some[0] + torch.arange(float(VIEWS))[:, None, None, None], some[1])
    few, more = (list(held_out_views(some, count, relative=True)) for count in (2, 5))
    for (a, truth), (b, same) in zip(few, more, strict=True):
        assert torch.equal(truth, same)
        assert torch.equal(a.streams.pictures, b.streams.pictures[:2])
        assert not any(torch.equal(truth[0], one) for one in b.streams.pictures)


def test_it_learns_and_its_weights_too(tmp_path: Path) -> None:
    torch.manual_seed(3)
    model = fresh_fusion(vae(), NETWORK)
    begun = task(model)
    losses = [float(begun.loss(next(begun.batches()))[0]) for _ in range(4)]
    assert np.mean(losses) == pytest.approx(1, abs=0.15)
    settings = TrainSettings(tmp_path, samples=800, lr=4e-3, warmup=5, every_minutes=60.0, precision="fp32", ema=200)
    train(model.unet, lambda device: task(model), settings)
    after = [float(begun.loss(next(begun.batches()))[0]) for _ in range(8)]
    assert np.mean(after) < 0.6
    found = task(model).evaluate()
    assert {f"foreground_psnr_{n}" for n in (1, 3, 6)} <= found.keys()


def test_a_run_goes_on_with_its_own_vae_only(tmp_path: Path) -> None:
    begun = task(fresh_fusion(vae(), NETWORK))
    with pytest.raises(InputError, match="another VAE"):
        task(fresh_fusion(vae(1), NETWORK)).load_state(begun.state())
    task(fresh_fusion(vae(), NETWORK)).load_state(begun.state())


def test_channels_may_count_alike() -> None:
    model = fresh_fusion(vae(), NETWORK)
    assert task(model, weights=FusionLoss(by_sensitivity=False)).channels.tolist() == [1] * 4
    assert float(task(model).channels.mean()) == pytest.approx(1)
