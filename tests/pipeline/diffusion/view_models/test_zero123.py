"""The view model: checkpoints that come back as they went or say what is wrong; inputs in the right channels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.utils import logging
from safetensors.torch import load_file, save_file

from pipeline.diffusion.checkpoints.parts import load_part, save_part
from pipeline.diffusion.modules.attention import SharedViews, hooked
from pipeline.diffusion.modules.conditioning import Conditioning, Conditions, PoseProjection
from pipeline.diffusion.settings import SamplingPlan
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from scene.errors import CheckpointError

FULL = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(4, 2))
Make = Callable[..., ViewDiffusion]
CPU = torch.device("cpu")


def some_conditions(objects: int = 2, views: int = 3) -> Conditions:
    """Random conditions of every kind, for latents of 8."""
    latents = (objects, views, 4, 8, 8)
    return Conditions(
        torch.randn(objects, 4, 8, 8),
        torch.randn(objects, 4, 8, 8),
        torch.randn(objects, views, 16),
        torch.randn(objects, 16),
        torch.randn(latents),
        torch.rand(latents),
        torch.randn(objects, views, 6, 8, 8),
        torch.randn(objects, 6, 8, 8),
    )


def predicted(model: ViewDiffusion, z: torch.Tensor, conditions: Conditions) -> torch.Tensor:
    """A prediction at timestep 500 with the model's own sharing of rows."""
    sharing = model.shared_views(z.shape[1], joint=False)
    with torch.no_grad(), hooked(model.unet, [] if sharing is None else [sharing], model.latent_size):
        return model.predict(z, torch.full(z.shape[:2], 500), conditions)


def weights_of(model: ViewDiffusion) -> dict[str, torch.Tensor]:
    """All weights of all parts."""
    return {
        f"{name}.{key}": value
        for name in ("unet", "vae", "image_encoder", "cc_projection", "coarse")
        if (part := getattr(model, name)) is not None
        for key, value in part.state_dict().items()
    }


# --- checkpoints ------------------------------------------------------------------------------------------------------


def test_round_trip_in_single_precision_is_exact(model: ViewDiffusion, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path, dtype=torch.float32)
    loaded = ViewDiffusion.from_pretrained(tmp_path)
    before, after = weights_of(model), weights_of(loaded)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert loaded.conditioning == model.conditioning
    assert loaded.scheduler == model.scheduler
    assert loaded.licence == "test"
    assert (loaded.coarse is None) == (model.coarse is None)
    z, conditions = torch.randn(2, 3, 4, 8, 8), some_conditions()
    assert torch.allclose(predicted(loaded, z, conditions), predicted(model, z, conditions), atol=1e-6)


def test_checkpoints_are_half_precision_and_live_weights_stay_as_they_are(model: ViewDiffusion, tmp_path: Path) -> None:
    before = {key: value.clone() for key, value in weights_of(model).items()}
    model.save_pretrained(tmp_path)
    assert all(
        torch.equal(value, before[key]) and value.dtype == before[key].dtype for key, value in weights_of(model).items()
    )
    stored = load_file(tmp_path / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in stored.values()} == {torch.float16}
    loaded = weights_of(ViewDiffusion.from_pretrained(tmp_path))
    assert {value.dtype for value in loaded.values() if value.is_floating_point()} == {torch.float32}
    assert all(torch.equal(loaded[key], value.half().float()) for key, value in before.items())


def test_large_parts_are_written_in_shards_and_read_again(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    model.save_pretrained(tmp_path, max_shard="60KB", dtype=torch.float32)
    shards = list((tmp_path / "unet").glob("*.safetensors"))
    assert len(shards) > 2
    assert max(path.stat().st_size for path in shards) < 90_000
    loaded = ViewDiffusion.from_pretrained(tmp_path)
    assert all(torch.equal(value, weights_of(model)[key]) for key, value in weights_of(loaded).items())
    # Saving again in one piece leaves no shards of before behind.
    make_model(seed=1).save_pretrained(tmp_path, dtype=torch.float32)
    assert [path.name for path in (tmp_path / "unet").glob("*.safetensors*")] == ["diffusion_pytorch_model.safetensors"]
    assert torch.equal(
        ViewDiffusion.from_pretrained(tmp_path).unet.conv_in.weight, make_model(seed=1).unet.conv_in.weight
    )


def test_how_it_asks_to_be_sampled_is_kept(make_model: Make, tmp_path: Path) -> None:
    model = make_model()
    for asked in (None, SamplingPlan(2, 1.0, 0.5)):
        model.sampling = asked
        model.save_pretrained(tmp_path)
        assert ViewDiffusion.from_pretrained(tmp_path).sampling == asked


def test_loaded_parts_keep_sizes_that_differ_from_the_defaults(tmp_path: Path) -> None:
    save_part(PoseProjection(width=24, pose=5), tmp_path / "part")
    assert load_part(PoseProjection, tmp_path / "part").projection.weight.shape == (24, 29)


def test_loading_leaves_the_librarys_verbosity_alone(make_model: Make, tmp_path: Path) -> None:
    make_model().save_pretrained(tmp_path)
    before = logging.get_verbosity()
    ViewDiffusion.from_pretrained(tmp_path)
    assert logging.get_verbosity() == before
    assert logging.is_progress_bar_enabled()


def test_moving_freezes_every_part(make_model: Make) -> None:
    model = make_model(FULL).to(CPU)
    assert model.device == CPU
    for name in ("unet", "vae", "image_encoder", "cc_projection", "coarse"):
        part = getattr(model, name)
        assert not part.training
        assert not any(p.requires_grad for p in part.parameters())


def test_sizes(make_model: Make) -> None:
    model = make_model()
    assert (model.latent_size, model.image_size) == (8, 16)


# --- damaged checkpoints ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(make_model: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete checkpoint, not to be changed."""
    folder = tmp_path_factory.mktemp("sound")
    make_model(FULL).save_pretrained(folder, dtype=torch.float32)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights of a part."""
    path = folder / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def make_nan(weights: dict[str, torch.Tensor]) -> None:
    """One number of one tensor becomes NaN."""
    weights["projection.bias"][3] = float("nan")


def widen(weights: dict[str, torch.Tensor]) -> None:
    """One tensor gets another shape."""
    weights["projection.bias"] = torch.zeros(99)


def cut(path: Path) -> None:
    """Keep half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


WEIGHTS, INDEX = "diffusion_pytorch_model.safetensors", "model_index.json"
FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no index": (lambda f: (f / INDEX).unlink(), r"no model_index\.json here.*--views\.weights at.*diffusers layout"),
    "index no JSON": (lambda f: (f / INDEX).write_text("{"), r"model_index\.json: cannot be read"),
    "index of another type": (lambda f: (f / INDEX).write_text("[]"), r"model_index\.json: cannot be read"),
    "metadata of another type": (lambda f: edit_json(f / INDEX, viewloom=3), "cannot be read"),
    "unknown condition": (
        lambda f: edit_json(f / INDEX, viewloom={"conditioning": {"depth": True}}),
        "cannot be read.*depth",
    ),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), r"scheduler_config\.json: cannot be read"),
    "no U-Net": (lambda f: shutil.rmtree(f / "unet"), "unet: a part of the checkpoint is missing"),
    "no VAE": (lambda f: shutil.rmtree(f / "vae"), "vae: a part of the checkpoint is missing"),
    "no photo encoder": (lambda f: shutil.rmtree(f / "image_encoder"), "image_encoder: a part of the checkpoint"),
    "no projection": (lambda f: shutil.rmtree(f / "cc_projection"), "cc_projection: a part of the checkpoint"),
    "no coarse volume": (lambda f: shutil.rmtree(f / "coarse"), "renders of a coarse volume.*no coarse volume"),
    "no weights": (lambda f: (f / "coarse" / WEIGHTS).unlink(), "coarse: cannot be loaded"),
    "half a file": (lambda f: cut(f / "unet" / WEIGHTS), "unet: cannot be loaded"),
    "config no JSON": (lambda f: (f / "vae" / "config.json").write_text("{"), r"config\.json: cannot be read"),
    "a key too few": (
        lambda f: edit_weights(f / "cc_projection", lambda w: w.pop("projection.bias")),
        r"cc_projection: lacks 1 weights, among them \['projection.bias'\]",
    ),
    "NaN": (
        lambda f: edit_weights(f / "cc_projection", make_nan),
        r"cc_projection: holds weights that are not finite: \['projection.bias'\]",
    ),
    "another shape": (lambda f: edit_weights(f / "cc_projection", widen), "cc_projection: cannot be loaded"),
    "channels that do not fit": (
        lambda f: edit_json(f / INDEX, viewloom={}),
        "22 input channels, its conditioning needs 8",
    ),
}


@pytest.mark.parametrize(("damage", "message"), FAULTS.values(), ids=FAULTS)
def test_damaged_checkpoints_say_what_is_wrong(
    sound: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sound, folder)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        ViewDiffusion.from_pretrained(folder)


def test_parts_must_fit_the_conditioning(make_model: Make) -> None:
    with pytest.raises(CheckpointError, match="8 input channels, its conditioning needs 22 with the 4 of the VAE"):
        make_model(FULL, unet=make_model().unet)
    with pytest.raises(CheckpointError, match="no coarse volume"):
        make_model(FULL, coarse=None)


# --- predictions ------------------------------------------------------------------------------------------------------


def seen_by(model: ViewDiffusion, z: torch.Tensor, conditions: Conditions) -> tuple[torch.Tensor, ...]:
    """Rows, timesteps and tokens that reach the U-Net."""
    seen: list[tuple[torch.Tensor, ...]] = []
    handle = model.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    predicted(model, z, conditions)
    handle.remove()
    return seen[0]


def test_plain_rows_are_noise_then_source(make_model: Make) -> None:
    model, z, conditions = make_model(), torch.randn(2, 3, 4, 8, 8), some_conditions()
    rows, times, tokens = seen_by(model, z, conditions)
    assert rows.shape == (6, 8, 8, 8)
    assert torch.equal(rows[:, :4], z.flatten(0, 1))
    for k in range(6):
        assert torch.equal(rows[k, 4:], conditions.source[k // 3])
        assert torch.equal(tokens[k, 0], conditions.tokens[k // 3, k % 3])
    assert times.tolist() == [500] * 6


def test_plain_predictions_are_the_u_nets(make_model: Make) -> None:
    model, z, conditions = make_model(), torch.randn(1, 2, 4, 8, 8), some_conditions(1, 2)
    with torch.no_grad():
        rows = torch.cat([z[0], conditions.source.expand(2, -1, -1, -1)], 1)
        direct = model.unet(rows, 500, conditions.tokens[0][:, None]).sample
    assert torch.allclose(predicted(model, z, conditions)[0], direct, atol=1e-6)


def test_every_condition_has_its_channels_and_the_source_its_row(make_model: Make) -> None:
    model, z, conditions = make_model(FULL), torch.randn(2, 3, 4, 8, 8), some_conditions()
    rows, times, tokens = seen_by(model, z, conditions)
    rows, tokens = rows.unflatten(0, (2, 4)), tokens.unflatten(0, (2, 4))[:, :, 0]
    wide = conditions.source[:, None].expand_as(z)
    for name, value, start in (
        ("noise", z, 0),
        ("source", wide, 4),
        ("coarse", conditions.coarse, 8),
        ("visible", conditions.visible, 12),
        ("rays", conditions.rays, 16),
    ):
        assert torch.equal(rows[:, 1:, start : start + value.shape[2]], value), name
    source = torch.cat(
        [conditions.source_clean, conditions.source, conditions.source, torch.ones(2, 4, 8, 8), conditions.source_rays],
        1,
    )
    assert torch.equal(rows[:, 0], source)
    assert torch.equal(tokens[:, 0], conditions.source_token)
    assert torch.equal(tokens[:, 1:], conditions.tokens)
    assert times.view(2, 4).tolist() == [[0, 500, 500, 500]] * 2


def test_predictions_have_the_shape_of_the_latents_and_objects_do_not_mix(model: ViewDiffusion) -> None:
    z, conditions = torch.randn(2, 3, 4, 8, 8), some_conditions()
    out = predicted(model, z, conditions)
    assert out.shape == z.shape
    first = Conditions(**{name: value[:1] for name, value in vars(conditions).items()})
    assert torch.allclose(predicted(model, z[:1], first), out[:1], atol=1e-5)


def test_missing_conditions_are_named(make_model: Make) -> None:
    conditions = vars(some_conditions())
    model, z, t = make_model(FULL), torch.randn(2, 3, 4, 8, 8), torch.full((2, 3), 5)
    with pytest.raises(CheckpointError, match="needs the coarse render"):
        model.predict(z, t, Conditions(**{**conditions, "visible": None}))
    with pytest.raises(CheckpointError, match="needs the rays"):
        model.predict(z, t, Conditions(**{**conditions, "source_rays": None}))


def test_rows_are_shared_as_the_model_was_trained(make_model: Make) -> None:
    assert make_model().shared_views(4, joint=True) is None
    full = make_model(FULL)
    assert full.shared_views(4, joint=True) == SharedViews(5, source_row=True, joint=(4, 2))
    assert full.shared_views(4, joint=False) == SharedViews(5, source_row=True, joint=())
    joint = make_model(Conditioning(joint=(4,)))
    assert joint.shared_views(3, joint=True) == SharedViews(3, source_row=False, joint=(4,))
    assert joint.shared_views(3, joint=False) is None


def test_tokens_join_embedding_and_pose(make_model: Make) -> None:
    model = make_model()
    embedding, poses = torch.randn(2, 16), torch.randn(2, 3, 4)
    tokens = model.tokens(embedding, poses)
    expected = model.cc_projection.projection(torch.cat([embedding[1], poses[1, 2]]))
    assert torch.allclose(tokens[1, 2], expected, atol=1e-6)
