"""Plots of result files."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from pipeline.evaluation.plots import plot_f_against_seconds
from scene import backends
from scene.errors import MissingBackendError


def test_a_plot_of_two_presets(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    scores = {f"cup/{name}": {"seconds": s, "f_1": f} for name, s, f in (("hull", 1.0, 0.4), ("draft", 9.0, 0.8))}
    plot_f_against_seconds(scores, tmp_path / "plot.png")
    assert Image.open(tmp_path / "plot.png").width > 300


def test_without_matplotlib_the_message_names_an_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backends, "optional_module", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"a plot needs the package matplotlib\. Run: .*viewloom\[plots\]"):
        plot_f_against_seconds({}, tmp_path / "plot.png")
