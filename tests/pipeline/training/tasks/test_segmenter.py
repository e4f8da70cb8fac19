"""Training of the segmenter on photos composed of a few objects."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.preparation.segmenter import SegmenterModel
from pipeline.training.data.backdrops import TEXTURES
from pipeline.training.data.compose import ComposeSettings
from pipeline.training.data.foregrounds import Foreground, ForegroundStore
from pipeline.training.tasks.segmenter import (
    PhotoBatch,
    SegmenterLoss,
    SegmenterTask,
    composed,
    held_out_foregrounds,
    held_out_photos,
    soft_iou,
)
from pipeline.training.trainer import TrainSettings, train

CPU = torch.device("cpu")
SIZE = 32


@pytest.fixture(scope="module")
def objects() -> ForegroundStore:
    """Two plain squares."""
    store = ForegroundStore(SIZE, 2)
    for colour in ((240, 40, 40), (40, 60, 240)):
        rgba = np.zeros((SIZE, SIZE, 4), np.uint8)
        rgba[2:-2, 2:-2] = (*colour, 255)
        normals = np.zeros((SIZE, SIZE, 3), np.int8)
        normals[2:-2, 2:-2, 0] = 127
        store.append(Foreground(rgba, normals))
    return store


def small_task(objects: ForegroundStore, batch: int = 4, seed: int = 0, **options: float) -> SegmenterTask:
    """A tiny model."""
    torch.manual_seed(0)
    model = SegmenterModel(image_size=SIZE, channels=(8, 8, 16, 16), blocks=(1, 1, 1, 2), fine_channels=4)
    held = composed([(9, k) for k in range(8)], objects, TEXTURES, ComposeSettings(size=SIZE, none=0.0))
    return SegmenterTask(model, objects, TEXTURES, held, batch, CPU, SegmenterLoss(), seed, **options)  # type: ignore[arg-type]


def test_steps_on_one_batch_lower_the_loss_and_raise_the_overlap(objects: ForegroundStore) -> None:
    task = small_task(objects)
    optimiser = torch.optim.Adam(task.model.parameters(), lr=1e-2)
    seen, overlaps = [], []
    for _ in range(60):
        loss, count, numbers = task.loss(task.held_out)
        assert count == len(task.held_out)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
        overlaps.append(numbers["overlap"])
    assert numbers.keys() == {"entropy", "overlap"}
    assert seen[-1] < 0.7 * seen[0]
    assert overlaps[-1] < overlaps[0] - 0.15
    with torch.no_grad():
        assert task.evaluate().keys() == {"iou", "failed", "held_out_entropy"}


def test_every_weight_is_trained(objects: ForegroundStore) -> None:
    task = small_task(objects)
    task.loss(task.held_out)[0].backward()
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_a_perfect_mask_costs_next_to_nothing(objects: ForegroundStore) -> None:
    task = small_task(objects)
    alpha = (task.held_out.alpha >= 128).astype(np.uint8) * 255

    def told(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        truth = torch.from_numpy(alpha).float()[:, None] / 255
        rough = torch.nn.functional.adaptive_avg_pool2d(truth, SIZE // 8)
        return (truth - 0.5) * 60, torch.logit(rough, 1e-4)

    task.model.forward = told  # type: ignore[method-assign]
    loss, _, numbers = task.loss(PhotoBatch(task.held_out.rgb, alpha))
    assert numbers["overlap"] < 1e-4
    assert numbers["entropy"] < 1e-4
    # What is left is the rough mask's own entropy.
    assert float(loss) < 0.3 * 0.7
    assert task.evaluate()["iou"] == pytest.approx(1, abs=0.02)


def test_batches_follow_from_the_seed_and_hold_new_photos(objects: ForegroundStore) -> None:
    one, two, other = (small_task(objects, seed=seed).batches() for seed in (1, 1, 2))
    firsts = [next(one) for _ in range(3)]
    assert all(np.array_equal(batch.rgb, next(two).rgb) for batch in firsts)
    assert not np.array_equal(firsts[0].rgb, next(other).rgb)
    assert not np.array_equal(firsts[0].rgb, firsts[1].rgb)
    assert len(firsts[2]) == 4


def test_photos_and_masks_are_mirrored_together(objects: ForegroundStore) -> None:
    """Every photo of a later batch is one of the first ones or its mirror image, with its mask."""
    stream = small_task(objects, batch=6, fresh=0.01).batches()
    first = next(stream)
    known = {rgb.tobytes(): a for rgb, a in zip(first.rgb, first.alpha, strict=True)}
    mirrored = {r[:, ::-1].tobytes(): a[:, ::-1] for r, a in zip(first.rgb, first.alpha, strict=True)}
    seen = 0
    for _ in range(4):
        batch = next(stream)
        for rgb, alpha in zip(batch.rgb, batch.alpha, strict=True):
            truth = known.get(rgb.tobytes(), mirrored.get(rgb.tobytes()))
            if truth is not None:
                seen += 1
                assert np.array_equal(alpha, truth)
    assert seen > 6


def test_overlaps_of_known_masks() -> None:
    a, b = torch.zeros(2, 1, 10, 10), torch.zeros(2, 1, 10, 10)
    a[0, :, :5], b[0, :, 3:8] = 1, 1
    assert soft_iou(a, b).tolist() == pytest.approx([21 / 81, 1])


def test_held_out_objects_are_not_those_of_training(pool_folder: Path) -> None:
    store = held_out_foregrounds(pool_folder, 24, count=3)
    assert len(store) == 3
    assert all((store[k].rgba[..., 3] > 0).any() for k in range(3))


@pytest.mark.slow
def test_held_out_photos_repeat(pool_folder: Path) -> None:
    one, two = (held_out_photos(pool_folder, 4, SIZE) for _ in range(2))
    assert np.array_equal(one.rgb, two.rgb)
    assert (one.alpha > 127).any(axis=(1, 2)).all()


def test_a_run_writes_a_model_that_can_go_on(objects: ForegroundStore, tmp_path: Path) -> None:
    task = small_task(objects)
    settings = TrainSettings(tmp_path / "run", samples=8, batch=4, device="cpu", precision="fp32")
    assert train(task.model, lambda _: task, settings).samples == 8
    assert (tmp_path / "run" / "curve.csv").read_text(encoding="utf-8").startswith("samples,minutes")
    loaded = load_part(SegmenterModel, tmp_path / "run" / "model")
    assert isinstance(loaded, SegmenterModel)
    again = TrainSettings(tmp_path / "run", resume=tmp_path / "run" / "model", samples=4, batch=4, precision="fp32")
    other = small_task(objects)
    assert train(other.model, lambda _: other, again).samples == 12


def test_a_model_does_not_tell_where_it_was_resumed_from(objects: ForegroundStore, tmp_path: Path) -> None:
    task = small_task(objects)
    task.save(tmp_path / "secret")
    task.model = SegmenterModel.from_pretrained(tmp_path / "secret", low_cpu_mem_usage=False).float()
    task.save(tmp_path / "model")
    first, second = (json.loads((tmp_path / n / "config.json").read_text("utf-8")) for n in ("secret", "model"))
    assert first == second
    assert "secret" not in str(second)
