"""The method as nerfstudio finds, trains, saves and reloads it."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest
import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer
from nerfstudio.plugins.registry import discover_methods

from recon.nerfstudio.export import load_pipeline
from recon.nerfstudio.method import surface_method, viewloom_surface
from scene.errors import CheckpointError, InputError
from tests.nerfstudio_runs import GROUP, ROOT, declared, discovered, importers_of


def test_nerfstudio_finds_the_method_through_the_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods, descriptions = discovered(tmp_path, monkeypatch)
    assert methods["viewloom-surface"] is viewloom_surface.config
    assert descriptions["viewloom-surface"] == viewloom_surface.description


def test_the_installed_distribution_has_the_entry_point() -> None:
    distribution = importlib.metadata.distribution("viewloom")
    if ROOT.as_uri() not in (distribution.read_text("direct_url.json") or ""):
        pytest.skip("another checkout is installed: pip install --no-deps -e . installs this one")
    found = {entry.name: entry.value for entry in distribution.entry_points if entry.group == GROUP}
    assert found == declared()


def test_nerfstudio_finds_the_method_through_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NERFSTUDIO_METHOD_CONFIGS", "loom=recon.nerfstudio.method:surface_method")
    methods, _ = discover_methods()
    assert methods["loom"].method_name == "viewloom-surface"
    assert methods["loom"].pipeline == viewloom_surface.config.pipeline


def test_nothing_else_imports_the_plug_in() -> None:
    assert importers_of("recon.nerfstudio") == []


def test_the_method_needs_no_accounts_and_no_pictures_of_other_sizes() -> None:
    config = surface_method().config
    assert config.vis == "tensorboard"
    parser = config.pipeline.datamanager.dataparser
    assert (parser.orientation_method, parser.center_method, parser.auto_scale_poses) == ("none", "none", False)
    assert parser.downscale_factor == 1
    assert surface_method().config is not surface_method().config


def test_a_few_steps_lower_the_loss(run: tuple[Trainer, list[float]]) -> None:
    _, losses = run
    assert len(losses) == 60
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


def test_all_levels_are_active_in_the_end(run: tuple[Trainer, list[float]]) -> None:
    field = run[0].pipeline.model.field
    assert field.grid.active_levels == field.grid.layout.levels


def test_checkpoints_load_with_torchs_defaults(run: tuple[Trainer, list[float]]) -> None:
    trainer, _ = run
    (path,) = trainer.checkpoint_dir.glob("*.ckpt")
    state = torch.load(path)
    assert state["step"] == 59
    optimisers = Optimizers(trainer.config.optimizers.copy(), trainer.pipeline.get_param_groups())
    optimisers.load_optimizers(state["optimizers"])
    optimisers.load_schedulers(state["schedulers"])


def test_a_run_goes_on_from_its_checkpoint(run: tuple[Trainer, list[float]], tmp_path: Path) -> None:
    trainer, _ = run
    config = surface_method().config
    for name in ("machine", "data", "pipeline", "optimizers"):
        setattr(config, name, getattr(trainer.config, name))
    config.output_dir, config.timestamp, config.max_num_iterations = tmp_path, "on", 3
    config.load_dir = trainer.checkpoint_dir
    resumed = Trainer(config)
    resumed.setup()
    points = torch.rand(50, 3) - 0.5
    assert torch.equal(resumed.pipeline.model.field.sdf(points), trainer.pipeline.model.field.sdf(points))
    resumed.train()
    assert resumed.step == 62


def test_a_saved_run_is_the_same_field(run: tuple[Trainer, list[float]]) -> None:
    trainer, _ = run
    loaded = load_pipeline(trainer.base_dir / "config.yml")
    points = torch.rand(50, 3) - 0.5
    assert torch.equal(loaded.model.field.sdf(points), trainer.pipeline.model.field.sdf(points))
    assert torch.equal(loaded.model.field.rgb(points), trainer.pipeline.model.field.rgb(points))
    assert float(loaded.model.inv_s) == float(trainer.pipeline.model.inv_s)


def test_whole_pictures_are_drawn_for_evaluation(run: tuple[Trainer, list[float]]) -> None:
    metrics, pictures = run[0].pipeline.get_eval_image_metrics_and_images(step=0)
    assert metrics["psnr"] > 12
    assert pictures["img"].shape == (64, 128, 3)
    assert {"accumulation", "depth", "normal"} <= pictures.keys()


def test_runs_that_cannot_be_loaded_say_why(run: tuple[Trainer, list[float]], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config\.yml: there is no such run"):
        load_pipeline(tmp_path / "config.yml")
    text = (run[0].base_dir / "config.yml").read_text()
    (tmp_path / "config.yml").write_text(text)
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        load_pipeline(tmp_path / "config.yml")
    (tmp_path / "nerfstudio_models").mkdir()
    state = {"pipeline": {"_model.field.low": torch.zeros(3)}, "step": 1}
    torch.save(state, tmp_path / "nerfstudio_models" / "step-000000001.ckpt")
    with pytest.raises(CheckpointError, match=r"step-000000001\.ckpt: does not fit its settings"):
        load_pipeline(tmp_path / "config.yml")
