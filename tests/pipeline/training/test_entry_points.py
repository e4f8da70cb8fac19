"""What the scripts decide by themselves: which model, which latents, which data, which baseline."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
import tyro

from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import Sample, SampleSettings, SampleStream
from pipeline.training.data.store import SampleStore
from pipeline.training.procedural import box, lathe
from pipeline.training.trainer import Progress, TrainSettings, begin
from scene.errors import InputError
from scene.mesh import ColouredMesh
from scripts import evaluate_meshes, evaluate_views, train_coarse, train_vae, train_views


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
    assert np.allclose(evaluate_views.mean_images(store, 4)(poses[0]), 1)
    assert evaluate_views.mean_images(store, 8)(poses[0]).shape == (8, 8, 4)


def test_the_nearest_training_object_is_the_one_photographed(pool_folder: Path) -> None:
    settings = SampleSettings(size=32, targets=2, volume=0)
    store = SampleStore(settings, 6)
    for sample in SampleStream(pool_folder, settings, seed=5, workers=0).read(0, 6):
        store.append(sample)
    nearest = evaluate_views.NearestTraining(pool_folder, store, seed=5)
    for k in range(6):
        batch = store.batch(np.array([k]))
        views = nearest.views(batch.source[0], batch.target_cameras[0], 32)
        assert np.abs(views[0] - batch.targets[0, 0] / 255).max() < 0.01


def test_objects_come_from_files_or_from_the_val_split(pool_folder: Path, tmp_path: Path) -> None:
    for k in range(3):
        trimesh.creation.box((1, 1 + k, 1)).export(tmp_path / f"box{k}.glb")
    files = list(evaluate_views.subjects(pool_folder, [tmp_path], 2))
    assert [f.name for f in files] == ["box0", "box2"]
    assert [f.index for f in files] == [0, 2]
    sample = files[1].sample(SampleSettings(size=16, targets=3, volume=0))
    assert sample.targets.shape == (3, 16, 16, 4)
    pool = list(evaluate_views.subjects(pool_folder, [], None))
    assert len(pool) == len(ObjectPool(pool_folder, "val"))
    with pytest.raises(InputError, match="no GLB files"):
        list(evaluate_views.subjects(None, [pool_folder], None))
    with pytest.raises(InputError, match="no objects"):
        list(evaluate_views.subjects(None, [], None))


def test_round_things_are_near_symmetric_and_bars_are_not() -> None:
    def mesh_of(shape: tuple[np.ndarray, np.ndarray]) -> ColouredMesh:
        return ColouredMesh(shape[0].astype(np.float32), shape[1].astype(np.int32)).normalised()

    profile = np.array([[0, -0.5], [0.3, -0.5], [0.4, 0.5], [0, 0.5]])
    assert evaluate_views.near_symmetric(mesh_of(lathe(profile)))
    assert not evaluate_views.near_symmetric(mesh_of(box((0.5, 0.2, 0.3))))


def test_meshes_are_scored_once_and_runs_go_on(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trimesh.creation.box((1, 0.6, 0.8)).export(tmp_path / "box.glb")
    arguments = evaluate_meshes.Arguments(
        meshes=(tmp_path,), weights=tiny_checkpoint, only=("sphere", "extruded outline"), out=tmp_path / "scores.json"
    )
    evaluate_meshes.main(replace(arguments, only=("sphere",)))
    held = json.loads((tmp_path / "scores.json").read_text())
    held["box"]["sphere"]["chamfer"] = 0.5
    (tmp_path / "scores.json").write_text(json.dumps(held))
    evaluate_meshes.main(arguments)
    held = json.loads((tmp_path / "scores.json").read_text())
    assert held["box"]["sphere"]["chamfer"] == 0.5
    assert 0.01 < held["box"]["extruded outline"]["chamfer"] < 0.2
    assert "| sphere | 0.5000 (0.5000 to 0.5000) |" in capsys.readouterr().out
