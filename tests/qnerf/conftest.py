"""A ball whose queries are known: what every view sees of it, and what lies behind it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from qnerf.rays import token_camera
from qnerf.store import QueryLayer, QueryStore
from scene.camera import Camera, orbit_camera

RADIUS = 0.5
"""Of the ball, which stands at the origin."""
HALF = 0.6
"""Half side of the box around it."""
LAYERS = (QueryLayer(4, 24, 0), QueryLayer(8, 20, 0), QueryLayer(16, 16, 0), QueryLayer(16, 16, 1))
_FINE = 64
"""Rays along a picture's side whose means are the tokens."""


def ring(count: int, turn: float = 0.0) -> list[Camera]:
    """Cameras around the ball, alternately above and below its equator."""
    return [
        orbit_camera(2 * math.pi * (k + turn) / count, math.radians(25 if k % 2 else -10), 1.5, size=128)
        for k in range(count)
    ]


@dataclass(frozen=True)
class Ball:
    """A ball with smooth queries on its surface, before a background of one query for each layer."""

    layers: Sequence[QueryLayer] = LAYERS

    def queries(self, camera: Camera) -> dict[QueryLayer, Tensor]:
        """What each layer sees: means over tokens."""
        surface, hit = self._seen(camera)
        out = {}
        for number, layer in enumerate(self.layers):
            rng = np.random.default_rng(number)
            waves, shift = rng.normal(0, 3, (3, 12)), rng.uniform(0, 7, 12)
            mix, back = rng.normal(0, 1, (12, layer.channels)), rng.normal(0, 2, layer.channels)
            values = np.where(hit[..., None], np.sin(surface @ waves + shift) @ mix + 1, back)
            out[layer] = pooled(torch.from_numpy(values).float(), layer.side)
        return out

    def mask(self, camera: Camera, side: int = 16) -> Tensor:
        """How much of each token the ball covers."""
        return pooled(torch.from_numpy(self._seen(camera)[1]).float()[..., None], side)[..., 0]

    def depth(self, camera: Camera, side: int = 16) -> Tensor:
        """z-depth of the ball at the tokens' centres, 0 beside it."""
        surface, hit = self._seen(camera, side)
        return torch.from_numpy(np.where(hit, camera.project(surface)[1], 0)).float()

    def store(self, cameras: Sequence[Camera], noise: float = 0.0) -> QueryStore:
        """What all views see, with noise of its own for each token."""
        generator = torch.Generator().manual_seed(0)
        store = QueryStore.create(None, self.layers, len(cameras))
        for view, camera in enumerate(cameras):
            seen = self.queries(camera)
            store.put(view, {k: v + noise * torch.randn(v.shape, generator=generator) for k, v in seen.items()})
        return store

    def _seen(self, camera: Camera, side: int = _FINE) -> tuple[np.ndarray, np.ndarray]:
        origin, direction = token_camera(camera, side).rays()
        along = -(origin * direction).sum(-1)
        inside = RADIUS**2 - (origin**2).sum(-1) + along**2
        distance = along - np.sqrt(inside.clip(0))
        return origin + direction * distance[..., None], inside > 0


def pooled(values: Tensor, side: int) -> Tensor:
    """Means over the tokens of a grid."""
    return torch.nn.functional.adaptive_avg_pool2d(values.movedim(-1, 0), side).movedim(0, -1)


@pytest.fixture(scope="session")
def ball() -> Ball:
    return Ball()


@pytest.fixture(scope="session")
def box() -> tuple[Tensor, Tensor]:
    return torch.full((3,), -HALF), torch.full((3,), HALF)


@pytest.fixture(scope="session")
def cameras() -> Callable[..., list[Camera]]:
    return ring
