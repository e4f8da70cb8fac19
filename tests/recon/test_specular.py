"""Specular reflection: harmonics without a mean, and reflected lines of sight."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recon.specular import TERMS, harmonics, reflected


def on_sphere(count: int, seed: int = 0) -> np.ndarray:
    points = np.random.default_rng(seed).standard_normal((count, 3))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def test_harmonics_are_orthonormal_and_have_no_mean() -> None:
    # Products of degree six and less are integrated exactly by four Gauss points in height and eight around.
    height, weight = np.polynomial.legendre.leggauss(4)
    angle = np.arange(8) * math.pi / 4
    across = np.sqrt(1 - height**2)
    points = np.stack(
        [np.outer(across, np.cos(angle)), np.outer(across, np.sin(angle)), np.outer(height, np.ones(8))], -1
    ).reshape(-1, 3)
    share = np.repeat(weight / 2, 8) / 8
    values = harmonics(points)
    assert values.shape == (32, TERMS)
    assert share @ values == pytest.approx(np.zeros(TERMS), abs=1e-12)
    assert values.T @ (values * share[:, None]) == pytest.approx(np.eye(TERMS), abs=1e-12)


@given(st.integers(0, 1000), st.floats(0.1, 50))
def test_mirrors_keep_angles_and_twice_is_nothing(seed: int, length: float) -> None:
    sight, normal = on_sphere(2, seed)[:1], on_sphere(2, seed)[1:]
    out = reflected(length * sight, normal)
    assert np.linalg.norm(out) == pytest.approx(1)
    assert (out * normal).sum() == pytest.approx(-(sight * normal).sum())
    assert np.linalg.det(np.concatenate([sight, normal, out])) == pytest.approx(0, abs=1e-9)
    assert reflected(out, normal) == pytest.approx(sight)
