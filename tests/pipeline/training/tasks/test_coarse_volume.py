"""Training of the coarse volume on four samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.training.data.photos import PhotoBatch, PhotoSettings
from pipeline.training.data.samples import Sample, SampleSettings
from pipeline.training.data.store import SampleStore
from pipeline.training.tasks.coarse_volume import CoarseLoss, CoarseTask, dice_score, iou

CPU = torch.device("cpu")


def small_task(store: SampleStore) -> CoarseTask:
    """A tiny model on the made-up samples, placed exactly."""
    torch.manual_seed(0)
    model = CoarseVolumeModel(image_size=32, resolution=8, channels=(16, 16, 16), fine_channels=8)
    return CoarseTask(model, [store], store.batch_all(), 4, CPU, CoarseLoss(camera_jitter=0.0))


def train_for(task: CoarseTask, steps: int) -> list[float]:
    """Loss of every step on one batch."""
    optimiser = torch.optim.Adam(task.model.parameters(), lr=1e-2)
    batch, seen = PhotoBatch.of_sources(task.held_out), []
    for _ in range(steps):
        loss, count, _ = task.loss(batch)
        assert count == len(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        seen.append(float(loss.detach()))
    return seen


def test_steps_on_one_batch_lower_the_loss_and_raise_the_scores(small_store: SampleStore) -> None:
    task = small_task(small_store)
    with torch.no_grad():
        before = task.evaluate()
    values = train_for(task, 30)
    with torch.no_grad():
        after = task.evaluate()
    assert values[-1] < 0.6 * values[0]
    assert before.keys() == {"iou", "iou_predicted_camera", "colour_l1", "elevation_error_deg", "focal_error"}
    assert after["iou"] > before["iou"] + 0.1
    assert after["elevation_error_deg"] < before["elevation_error_deg"]
    assert after["colour_l1"] < before["colour_l1"]


def test_every_part_of_the_loss_trains_the_network(small_store: SampleStore) -> None:
    task = small_task(small_store)
    loss, _, numbers = task.loss(PhotoBatch.of_sources(small_store.batch_all()))
    loss.backward()
    assert numbers.keys() == {"entropy", "dice", "colour", "pose"}
    for name, parameter in task.model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert float(task.model.camera[-1].weight.grad.abs().sum()) > 0


def test_the_camera_is_not_pulled_by_the_solid(small_store: SampleStore) -> None:
    """With the pose weight off, a given camera leaves the camera head without a gradient."""
    task = small_task(small_store)
    task.weights = CoarseLoss(camera=0.0, camera_jitter=0.0)
    task.loss(PhotoBatch.of_sources(small_store.batch_all()))[0].backward()
    assert float(task.model.camera[-1].weight.grad.abs().sum()) == 0


def test_batches_are_random_and_repeat_with_the_seed(small_store: SampleStore) -> None:
    one, two = small_task(small_store).batches(), small_task(small_store).batches()
    picks = [next(one).camera for _ in range(6)]
    assert all(np.array_equal(pick, next(two).camera) for pick in picks)
    assert any(not np.array_equal(picks[0], pick) for pick in picks)


def test_batches_come_from_every_store(small_store: SampleStore) -> None:
    """Also where their pictures differ in size and number, and as often as they have samples."""
    other = SampleStore(SampleSettings(size=16, targets=1, volume=8), 4)
    for _ in range(4):
        other.append(
            Sample(
                np.zeros((16, 16, 4), np.uint8),
                np.full(4, 9, np.float32),
                np.zeros((1, 16, 16, 4), np.uint8),
                np.zeros((1, 3), np.float32),
                np.zeros((8, 8, 8), bool),
                np.zeros((8, 8, 8, 3), np.uint8),
            )
        )
    task = small_task(small_store)
    task.stores, task.photos = [small_store, other], PhotoSettings(mirror=0.0)
    batches = task.batches()
    sizes = [next(batches).photo.shape[1] for _ in range(40)]
    assert 8 <= sizes.count(16) <= 32
    assert sizes.count(16) + sizes.count(32) == 40


def test_saved_models_come_back(small_store: SampleStore, tmp_path: Path) -> None:
    task = small_task(small_store)
    train_for(task, 2)
    task.save(tmp_path)
    loaded = load_part(CoarseVolumeModel, tmp_path)
    for key, value in task.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value.half().float())
    assert next(task.model.parameters()).dtype == torch.float32
    task.model = loaded
    task.save(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again/config.json").read_text(encoding="utf-8")


def test_overlaps_of_known_volumes() -> None:
    a, b = torch.zeros(3, 4, 4, 4), torch.zeros(3, 4, 4, 4)
    a[0, :2], b[0, 1:3] = 1, 1  # a third of the union
    b[1] = 1
    assert iou(a > 0, b > 0).tolist() == pytest.approx([1 / 3, 0, 1])
    assert dice_score(a, b).tolist() == pytest.approx([33 / 65, 1 / 65, 1])
    assert dice_score(b, b)[1] == 1
