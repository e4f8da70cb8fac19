"""Baselines of views know the training set, and nothing of the photo's other sides."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.evaluation.view_baselines import NearestTraining, mean_images
from pipeline.training.data.samples import Sample, SampleSettings, SampleStream
from pipeline.training.data.store import SampleStore


def test_the_mean_image_is_one_of_views_at_the_default_radius() -> None:
    settings = SampleSettings(size=4, targets=2, volume=0)
    store = SampleStore(settings, 50)
    poses = np.array([[0.1, 0.2, 1.5], [0.1, 0.2, 2.2]], np.float32)
    targets = np.stack([np.full((4, 4, 4), 255, np.uint8), np.zeros((4, 4, 4), np.uint8)])
    sample = Sample(
        targets[0], np.zeros(4, np.float32), targets, poses, np.zeros((0, 0, 0), bool), np.zeros((0, 0, 0, 3), np.uint8)
    )
    for _ in range(50):
        store.append(sample)
    assert np.allclose(mean_images(store, 4)(poses[0]), 1)
    assert mean_images(store, 8)(poses[0]).shape == (8, 8, 4)


def test_the_nearest_training_object_is_the_one_photographed(pool_folder: Path) -> None:
    settings = SampleSettings(size=32, targets=2, volume=0)
    store = SampleStore(settings, 6)
    for sample in SampleStream(pool_folder, settings, seed=5, workers=0).read(0, 6):
        store.append(sample)
    nearest = NearestTraining(pool_folder, store, seed=5)
    for k in range(6):
        batch = store.batch(np.array([k]))
        views = nearest.views(batch.source[0], batch.target_cameras[0], 32)
        assert np.abs(views[0] - batch.targets[0, 0] / 255).max() < 0.01
