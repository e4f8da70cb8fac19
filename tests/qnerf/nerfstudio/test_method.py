"""The method as nerfstudio finds, trains, saves and shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.plugins.registry import discover_methods
from nerfstudio.utils.eval_utils import eval_load_checkpoint

from qnerf.nerfstudio.method import query_field, query_field_method
from tests.nerfstudio_runs import discovered, importers_of
from tests.qnerf.nerfstudio.conftest import small_config


def test_nerfstudio_finds_the_method_through_the_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods, descriptions = discovered(tmp_path, monkeypatch)
    assert methods["qnerf"] is query_field.config
    assert descriptions["qnerf"] == query_field.description


def test_nerfstudio_finds_the_method_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERFSTUDIO_METHOD_CONFIGS", "queries=qnerf.nerfstudio.method:query_field_method")
    methods, _ = discover_methods()
    assert methods["queries"].method_name == "qnerf"
    assert methods["queries"].pipeline == query_field.config.pipeline


def test_nothing_else_imports_the_plug_in() -> None:
    assert importers_of("qnerf.nerfstudio") == []


def test_the_method_needs_no_accounts_and_keeps_the_captures_frame() -> None:
    config = query_field_method().config
    assert config.vis == "tensorboard"
    parser = config.pipeline.datamanager.dataparser
    assert (parser.orientation_method, parser.center_method, parser.auto_scale_poses) == ("none", "none", False)
    assert parser.downscale_factor == 1
    assert query_field_method().config is not query_field_method().config


def test_a_few_steps_lower_the_loss(run: tuple[Trainer, list[float]]) -> None:
    _, losses = run
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_two_steps_move_every_parameter(capture: Path, tmp_path: Path) -> None:
    trainer = Trainer(small_config(capture, tmp_path, 2))
    trainer.setup()
    parameters = dict(trainer.pipeline.model.field.named_parameters())
    before = {name: value.detach().clone() for name, value in parameters.items()}
    trainer.train()
    assert trainer.step == 1
    assert not [name for name, value in parameters.items() if torch.equal(value, before[name])]


def test_the_viewer_gets_three_pictures_and_nothing_wide(run: tuple[Trainer, list[float]]) -> None:
    pipeline = run[0].pipeline
    pipeline.eval()
    outputs = pipeline.model.get_outputs_for_camera(pipeline.datamanager.train_dataset.cameras[:1])
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "rgb": (128, 128, 3),
        "accumulation": (128, 128, 1),
        "depth": (128, 128, 1),
    }
    assert 0 <= float(outputs["rgb"].min()) < float(outputs["rgb"].max()) <= 1
    assert 0 <= float(outputs["accumulation"].min()) < float(outputs["accumulation"].max()) <= 1


def test_whole_pictures_are_drawn_for_evaluation(run: tuple[Trainer, list[float]]) -> None:
    pipeline = run[0].pipeline
    metrics, pictures = pipeline.get_eval_image_metrics_and_images(step=0)
    assert metrics["psnr"] > 5
    assert pictures["img"].shape == (128, 256, 3)
    assert {"accumulation", "depth"} <= pictures.keys()
    _, losses, measured = pipeline.get_eval_loss_dict(step=0)
    assert losses.keys() == {"queries"}
    assert float(measured["psnr"]) > 5


def test_checkpoints_load_with_torchs_defaults(run: tuple[Trainer, list[float]], tmp_path: Path) -> None:
    trainer, _ = run
    (path,) = trainer.checkpoint_dir.glob("*.ckpt")
    assert torch.load(path)["step"] == 59
    config = small_config(trainer.config.data, tmp_path, 1)
    config.load_dir = trainer.checkpoint_dir
    pipeline = config.pipeline.setup(device="cpu", test_mode="inference")
    eval_load_checkpoint(config, pipeline)
    points = torch.rand(20, 3) - 0.5
    assert torch.equal(pipeline.model.field.density(points), trainer.pipeline.model.field.density(points))


def test_no_weights_come_from_the_network(run: tuple[Trainer, list[float]]) -> None:
    assert not [name for name, _ in run[0].pipeline.model.named_modules() if "lpips" in name.lower()]
