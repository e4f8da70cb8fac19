"""Training of the symmetry head on four samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.symmetry import SymmetryHead
from pipeline.training.data.photos import PhotoBatch
from pipeline.training.data.store import SampleStore
from pipeline.training.data.symmetry import HEADINGS, SymmetryLabels
from pipeline.training.tasks.symmetry import HeldOutPhotos, SymmetryBatch, SymmetryTask, precise_threshold

CPU = torch.device("cpu")


def errors_with_planes(*degrees: float) -> np.ndarray:
    """Objects with one plane each."""
    away = np.abs(np.arange(HEADINGS) * 180 / HEADINGS - np.array(degrees)[:, None])
    return np.minimum(away, 180 - away) / 180


@pytest.fixture
def task(small_store: SampleStore) -> SymmetryTask:
    torch.manual_seed(0)
    coarse = CoarseVolumeModel(image_size=32, resolution=8, channels=(16, 16, 16), fine_channels=8)
    head = SymmetryHead.beside(coarse)
    errors = errors_with_planes(*np.linspace(0, 135, len(small_store)))
    held = HeldOutPhotos.of(small_store.batch_all(), errors)
    return SymmetryTask(head, coarse, small_store, SymmetryLabels(errors, 0 * errors), held, 8, CPU)


def test_steps_on_one_batch_lower_the_loss_and_leave_the_trunk(task: SymmetryTask) -> None:
    before = {name: value.clone() for name, value in task.coarse.state_dict().items()}
    optimiser = torch.optim.Adam(task.model.parameters(), lr=3e-3)
    batch, losses = next(task.batches()), []
    for _ in range(40):
        loss, count, _ = task.loss(batch)
        assert count == 8
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.7 * losses[0]
    assert all(torch.equal(value, before[name]) for name, value in task.coarse.state_dict().items())


def test_a_mirrored_photo_has_its_plane_at_the_opposite_heading(
    task: SymmetryTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[torch.Tensor] = []

    def entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        wanted.append(target)
        return logits.sum()

    monkeypatch.setattr("torch.nn.functional.binary_cross_entropy_with_logits", entropy)
    photos = PhotoBatch.of_sources(task.store.batch(np.array([0, 1])))
    batch = SymmetryBatch(photos, errors_with_planes(20, 20))
    for chance in (0.9, 0.1):
        monkeypatch.setattr("torch.rand", lambda count, device, chance=chance: torch.full((count,), chance))
        task.loss(batch)
    middle = [float(row[0].nonzero().float().mean()) * 180 / HEADINGS for row in wanted]
    assert middle[0] == pytest.approx(20)
    assert middle[1] == pytest.approx(160)


def test_held_out_numbers(task: SymmetryTask) -> None:
    with torch.no_grad():
        found = task.evaluate()
    assert found.keys() == {"entropy", "right", "used_at_95", "threshold_95"}
    assert 0 <= found["right"] <= 1
    assert len(task.held_out.photo) == len(task.held_out.azimuth) > len(task.store)


def test_batches_hold_labelled_samples_only(task: SymmetryTask) -> None:
    task.labels = replace(task.labels, errors=task.labels.errors[:1], offsets=task.labels.offsets[:1])
    batch = next(task.batches())
    assert (batch.errors == task.labels.errors[0]).all()


def test_the_head_is_saved_in_half_precision(task: SymmetryTask, tmp_path: Path) -> None:
    task.save(tmp_path)
    again = load_part(SymmetryHead, tmp_path)
    torch.testing.assert_close(again.net[0].weight, task.model.net[0].weight, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("confidence", "right", "wanted"),
    [([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 0.8), ([0.9, 0.8, 0.7], [0, 1, 1], 1.01), ([0.9, 0.8], [1, 1], 0.8)],
)
def test_the_threshold_is_the_lowest_that_is_precise(confidence: list[float], right: list[int], wanted: float) -> None:
    assert precise_threshold(np.array(confidence), np.array(right, bool), 0.95) == wanted
