"""What the training scripts decide by themselves: which model, which data."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import tyro

from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.training.trainer import Progress, TrainSettings, begin
from scene.errors import InputError
from scripts import train_coarse, train_vae, train_views


@pytest.fixture
def arguments(tiny_checkpoint: Path, tmp_path: Path) -> train_views.Arguments:
    """To resume view training from the tiny checkpoint on stored samples."""
    (tmp_path / "samples.json").write_text("{}", encoding="utf-8")
    settings = TrainSettings(tmp_path / "out", resume=tiny_checkpoint)
    return train_views.Arguments(settings, objects=tmp_path, samples_dir=(tmp_path,))


def test_resumed_view_training_keeps_its_conditioning(arguments: train_views.Arguments) -> None:
    model = train_views.build(arguments)
    assert train_views.build(replace(arguments, conditioning=model.conditioning)).conditioning == model.conditioning
    with pytest.raises(InputError, match=r"another conditioning.*without --resume"):
        train_views.build(replace(arguments, conditioning=Conditioning()))


def test_the_conditioning_is_given_at_the_end_of_the_line() -> None:
    def parsed(*line: str) -> Conditioning | None:
        config = (tyro.conf.OmitArgPrefixes,)
        return tyro.cli(train_views.Arguments, args=["--out", "a", "--objects", "b", *line], config=config).conditioning

    assert parsed("--weights", "c") is None
    assert parsed("conditioning") == Conditioning()
    assert parsed("conditioning", "--source-row", "--joint", "8", "4") == Conditioning(source_row=True, joint=(8, 4))


def test_fresh_view_training_needs_weights(arguments: train_views.Arguments, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"needs a trained VAE.*--weights"):
        train_views.build(replace(arguments, train=TrainSettings(tmp_path / "out")))


@pytest.mark.parametrize("script", [train_vae, train_coarse, train_views], ids=lambda script: script.__name__)
def test_a_resumed_run_reads_another_stream(script: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The seed that opens the data is that of the run, not that of the settings."""
    seeds = []

    def note(stack: contextlib.ExitStack, objects: Path, samples: Path | None, workers: int, held: int, seed: int, *_):  # type: ignore[no-untyped-def]
        seeds.append(seed)
        raise InterruptedError

    monkeypatch.setattr(script, "open_data", note)
    for kind in ("AutoencoderKL", "CoarseVolumeModel"):
        if script is not train_views and hasattr(script, kind):
            monkeypatch.setattr(getattr(script, kind), "from_pretrained", lambda *_, **__: torch.nn.Linear(1, 1))
    if script is train_views:
        monkeypatch.setattr(script, "build", lambda _: ViewDiffusionStub())
    for samples in (0, 80):
        Progress(samples, 1.0).save(tmp_path)
        settings = TrainSettings(tmp_path / "out", resume=tmp_path, device="cpu")
        with pytest.raises(InterruptedError):
            script.main(script.Arguments(settings, objects=tmp_path))
        assert seeds[-1] == begin(settings)
    assert seeds[0] != seeds[1]


class ViewDiffusionStub:
    """As much of a view model as is touched before the data are opened."""

    def __init__(self) -> None:
        self.vae = self.unet = self.image_encoder = self.cc_projection = torch.nn.Linear(1, 1)
        self.coarse = self.coarse_map = None
