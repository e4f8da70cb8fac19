"""Shared by the tests of the vocabulary."""

from __future__ import annotations

import jaxtyping
import pytest


@pytest.fixture
def shapes_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production: wrong shapes reach the code's own checks instead of the annotations'."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
