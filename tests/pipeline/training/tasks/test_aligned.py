"""Training of the aligned decoder's layers on made-up objects."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from pipeline.diffusion.aligned_decoder import AlignedDecoder, AlignedLayers, nano_places
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.view_rings import RingSettings, ViewRing, heldout_ring
from pipeline.training.tasks.aligned import AlignedTask, ring_guide, seen_by_front
from pipeline.training.tasks.vae import nano_vae
from scene.errors import InputError
from scripts.train_decoder import held_out_objects

CPU = torch.device("cpu")
SMALL = RingSettings(size=32)


def vae(seed: int = 0) -> AutoencoderKL:
    torch.manual_seed(seed)
    return nano_vae(4, 4, (16, 16)).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def rings(pool_folder: Path) -> list[ViewRing]:
    pool = ObjectPool(pool_folder, "val")
    return [heldout_ring(pool, k, SMALL, views=4) for k in range(2)]


def task_on(rings: list[ViewRing], network: AutoencoderKL) -> AlignedTask:
    decoder = AlignedDecoder(network, AlignedLayers.fresh(network, nano_places(network)))
    return AlignedTask(decoder, itertools.cycle(rings), rings, 2, CPU)


def test_what_the_front_sees(rings: list[ViewRing]) -> None:
    """Views go round the object: the one at the front shares most of its pixels, that from behind few."""
    seen, shown = seen_by_front(rings[0]), torch.from_numpy(rings[0].depths > 0)
    assert not (seen & ~shown).any()
    shares = seen.sum((1, 2)) / shown.sum((1, 2))
    assert shares[0] > 0.8
    assert shares[2] < 0.4


def test_closed_gates_gain_nothing(rings: list[ViewRing]) -> None:
    task = task_on(rings, vae())
    with torch.no_grad():
        found = task.evaluate()
    assert found["gain"] == found["gain_seen"] == found["gain_unseen"] == found["gain_noisy"] == 0
    assert found["foreground_psnr"] == found["plain_psnr"]


def test_training_the_layers_beats_plain_decoding_and_leaves_the_vae(rings: list[ViewRing], tmp_path: Path) -> None:
    network = vae()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    task = task_on(rings, network)
    layers = task.decoder.layers
    optimiser = torch.optim.Adam(layers.parameters(), lr=5e-3)
    batches = task.batches()
    for _ in range(15):
        loss, count, _ = task.loss(next(batches))
        assert count == 2
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert all(p.grad is not None for p in layers.parameters())
    layers.eval()
    with torch.no_grad():
        assert task.evaluate()["gain"] > 0.5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    task.save(tmp_path / "model")
    AlignedDecoder.load(tmp_path / "model", network)


def test_another_vae_is_refused(rings: list[ViewRing]) -> None:
    task, other = task_on(rings, vae()), task_on(rings, vae(1))
    task.load_state(task.state())
    with pytest.raises(InputError, match="another VAE"):
        task.load_state(other.state())


def test_guides_hold_true_depth_unless_spoiled(rings: list[ViewRing]) -> None:
    guide = ring_guide(rings[0])
    assert torch.equal(guide.depth, torch.from_numpy(rings[0].depths))
    assert guide.front is not None
    assert guide.front.shape == (4, 64, 64)


def test_textured_objects_are_held_out_first(pool_folder: Path) -> None:
    pool = ObjectPool(pool_folder, "train")
    assert held_out_objects(pool, 1) == [0]
    assert held_out_objects(pool, 2) == [0, 1]
    assert held_out_objects(pool, 3) == [0, 1, 2]
