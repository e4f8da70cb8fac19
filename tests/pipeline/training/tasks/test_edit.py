"""Training of the editor: what targets see of their sources, what is learnt, what is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from pipeline.editing.model import EditDiffusion
from pipeline.training.data.edit_pairs import PairBatch
from pipeline.training.tasks.edit import (
    EditLoss,
    EditModules,
    EditNetwork,
    EditTask,
    edited_pairs,
    fresh_editor,
    pairs,
    shared_sides,
)
from pipeline.training.trainer import TrainSettings, train
from scene.errors import InputError
from scene.resources import default_weights

CPU = torch.device("cpu")
NETWORK = EditNetwork(widths=(16, 32, 32), layers=1, control_widths=(8, 8, 8, 8), token=8)


def vae() -> AutoencoderKL:
    """A tiny VAE of 4 channels whose latents of 128 pixels are 16 pixels large."""
    torch.manual_seed(0)
    return AutoencoderKL(
        in_channels=4,
        out_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
    ).eval()


@pytest.fixture
def model(tmp_path: Path) -> EditDiffusion:
    vae().save_pretrained(tmp_path / "vae")
    torch.manual_seed(1)
    return fresh_editor(tmp_path, NETWORK)


def batch(count: int = 4, seed: int = 0) -> PairBatch:
    """Targets are their sources, shifted by what the control's colour says."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randn(count, 4, 16, 16, generator=generator)
    control = torch.rand(count, 3, 1, 1, generator=generator).expand(-1, -1, 128, 128).contiguous()
    ones = torch.ones(count, 16, 16)
    target = source + 2 * control[:, :1, :1, :1] - 1
    return PairBatch(source, target, torch.zeros_like(control), control, ones, ones)


def task(model: EditDiffusion, loss: EditLoss = EditLoss()) -> EditTask:
    return EditTask(model, lambda rng: batch(seed=int(rng.integers(1000))), batch(3, 99), CPU, loss, steps=3)


def test_a_fresh_editor_is_sd_shaped_and_reads_clean_sources(model: EditDiffusion) -> None:
    assert [(layer.resolution, layer.ordinal) for layer in model.decoder_layers] == [
        (4, 0), (4, 1), (8, 0), (8, 1), (16, 0), (16, 1),
    ]  # fmt: skip
    assert shared_sides(model) == (16, 8)
    assert model.source == "clean"
    assert not model.schedule.zero_terminal_snr


def test_targets_read_their_own_source_only(model: EditDiffusion) -> None:
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1)
    some = batch(2)
    moved = replace(some, source=torch.stack([some.source[0], some.source[1] + 1]))
    one, other = (edited_pairs(model, given, 2, (16, 8)) for given in (some, moved))
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-5)
    assert float((one[1] - other[1]).abs().max()) > 1e-3


def test_the_loss_counts_targets_and_falls(model: EditDiffusion, tmp_path: Path) -> None:
    made = task(model, EditLoss(shared=1.0, drop=0.0, by_sensitivity=False))
    loss, count, numbers = made.loss(batch())
    assert count == 4
    assert numbers.keys() == {"shared"}
    # An untrained network says nothing: the loss is the mean square of v.
    assert 0.3 < float(loss.detach()) < 3
    made.draw, made.held_out = lambda rng: batch(), batch(1, 99)
    settings = TrainSettings(
        tmp_path / "out", samples=100, batch=4, lr=1e-2, warmup=2, precision="fp32", device="cpu", ema=1
    )
    torch.manual_seed(5)
    before = float(np.mean([float(made.loss(batch())[0].detach()) for _ in range(4)]))
    train(EditModules(model), lambda device: made, settings)
    torch.manual_seed(5)
    after = float(np.mean([float(made.loss(batch())[0].detach()) for _ in range(4)]))
    assert after < 0.8 * before
    kept = EditDiffusion.from_pretrained(tmp_path / "out" / "model")
    assert kept.source == "clean"
    assert (tmp_path / "out" / "model" / "training.json").is_file()


def test_steps_alone_see_no_source(model: EditDiffusion) -> None:
    made = task(model, EditLoss(shared=0.0))
    torch.nn.init.normal_(model.unet.conv_out.weight, std=0.1)
    some = batch()
    torch.manual_seed(3)
    one = made.loss(some)[0]
    torch.manual_seed(3)
    other = made.loss(replace(some, source=some.source + 3))[0]
    assert float(one.detach()) == float(other.detach())


def test_places_of_the_object_count_more(model: EditDiffusion) -> None:
    covered = batch()
    half = torch.zeros(4, 16, 16)
    half[:, :8] = 1
    loss = EditLoss(object_weight=5.0, shared=1.0, by_sensitivity=False)
    torch.manual_seed(3)
    flat = float(task(model, loss).loss(covered)[0].detach())
    lifted = replace(covered, source_cover=half, target_cover=half)
    lifted = replace(lifted, target=torch.cat([covered.target[:, :, :8] * 3, covered.target[:, :, 8:]], 2))
    same = replace(lifted, source_cover=covered.source_cover, target_cover=covered.target_cover)
    torch.manual_seed(3)
    more = float(task(model, loss).loss(lifted)[0].detach())
    torch.manual_seed(3)
    plain = float(task(model, loss).loss(same)[0].detach())
    assert more > 1.2 * plain > 1.2 * flat


def test_a_run_with_another_vae_does_not_go_on(model: EditDiffusion) -> None:
    made = task(model)
    made.load_state(made.state())
    with pytest.raises(InputError, match="another VAE"):
        made.load_state({"vae": "other"})


def test_pairs_take_turns() -> None:
    rows = pairs(torch.zeros(2, 1), torch.ones(2, 1))
    assert rows[:, 0].tolist() == [0, 1, 0, 1]


def test_the_default_network_fits_the_nano_vae_and_its_size() -> None:
    model = fresh_editor(default_weights())
    unet, control = (sum(p.numel() for p in part.parameters()) for part in (model.unet, EditModules(model).controlnet))
    assert unet < 7e6
    assert control < 3.5e6
    assert len(model.decoder_layers) == 9
    assert model.image_size == 128
