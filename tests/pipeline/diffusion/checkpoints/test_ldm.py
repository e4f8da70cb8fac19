"""The original code's names: every weight finds its place, at tiny and at full size, and averages are preferred."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from pipeline.diffusion.checkpoints import ldm
from pipeline.diffusion.denoising.schedule import NoiseSchedule
from scene.errors import CheckpointError

files = SimpleNamespace(**runpy.run_path(str(Path(__file__).with_name("layout_files.py"))))
HERE = Path("here")


def empty(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights of these shapes without memory."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def full_unet() -> dict[str, torch.Tensor]:
    """The U-Net of the published checkpoints."""
    return empty(files.ldm_unet(320, (1, 2, 4, 4), 2, 3, 768))


def on_meta(kind: type, config: dict[str, object]) -> torch.nn.Module:
    """A model without memory."""
    with torch.device("meta"):
        return kind.from_config(config)  # type: ignore[attr-defined]


# --- the published size -----------------------------------------------------------------------------------------------


def test_the_full_u_net_has_the_published_size_and_every_name_its_place() -> None:
    weights = full_unet()
    assert len(weights) == 686
    assert sum(value.numel() for value in weights.values()) == 859_532_484
    config = ldm.unet_config(weights)
    assert {key: config[key] for key in files.FULL_UNET_CONFIG} == files.FULL_UNET_CONFIG
    ours = on_meta(UNet2DConditionModel, config)
    assert files.shapes_of(ours) == {k: tuple(v.shape) for k, v in ldm.unet_weights(weights, config).items()}
    assert sum(p.numel() for p in ours.parameters()) == 859_532_484


@pytest.mark.parametrize(
    ("original", "ours"),
    [
        ("time_embed.2.bias", "time_embedding.linear_2.bias"),
        ("input_blocks.0.0.weight", "conv_in.weight"),
        ("input_blocks.2.0.emb_layers.1.weight", "down_blocks.0.resnets.1.time_emb_proj.weight"),
        ("input_blocks.9.0.op.weight", "down_blocks.2.downsamplers.0.conv.weight"),
        (
            "input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight",
            "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight",
        ),
        ("input_blocks.11.0.in_layers.0.weight", "down_blocks.3.resnets.1.norm1.weight"),
        ("middle_block.2.out_layers.3.bias", "mid_block.resnets.1.conv2.bias"),
        ("middle_block.1.proj_in.weight", "mid_block.attentions.0.proj_in.weight"),
        ("output_blocks.2.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"),
        ("output_blocks.5.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"),
        ("output_blocks.11.0.skip_connection.weight", "up_blocks.3.resnets.2.conv_shortcut.weight"),
        ("out.2.weight", "conv_out.weight"),
    ],
)
def test_published_names(original: str, ours: str) -> None:
    weights = full_unet()
    assert ldm.unet_weights(weights, ldm.unet_config(weights))[ours] is weights[original]


def test_the_full_vae_has_the_published_size_and_every_name_its_place() -> None:
    weights = empty(files.ldm_vae(128, (1, 2, 4, 4), 2))
    assert sum(value.numel() for value in weights.values()) == 83_653_863
    config = ldm.vae_config(weights)
    assert (config["block_out_channels"], config["layers_per_block"]) == ((128, 256, 512, 512), 2)
    assert (config["scaling_factor"], config["latent_channels"]) == (0.18215, 4)
    ours = files.shapes_of(on_meta(AutoencoderKL, config))
    assert ours == {k: tuple(v.shape) for k, v in ldm.vae_weights(weights, config).items()}


def test_the_full_vision_tower_is_vit_l_14() -> None:
    transformers = pytest.importorskip("transformers")
    weights = empty(files.openai_clip(1024, 24, 14, 16, 768, 4096))
    config = ldm.clip_config(weights)
    assert (config["image_size"], config["num_attention_heads"], config["projection_dim"]) == (224, 16, 768)
    with torch.device("meta"):
        tower = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**config))
    assert files.shapes_of(tower) == {k: tuple(v.shape) for k, v in ldm.clip_weights(weights).items()}
    assert sum(p.numel() for p in tower.parameters()) == 303_966_208


# --- values -----------------------------------------------------------------------------------------------------------


def test_every_value_of_the_u_net_keeps_its_own() -> None:
    weights = files.noise(files.ldm_unet(32, (1, 2), 1, 1, 32))
    renamed = ldm.unet_weights(weights, ldm.unet_config(weights))
    assert sorted(map(id, renamed.values())) == sorted(map(id, weights.values()))
    assert renamed["down_blocks.0.resnets.0.conv1.weight"] is weights["input_blocks.1.0.in_layers.2.weight"]


def test_every_value_of_the_vae_keeps_its_own() -> None:
    weights = files.noise(files.ldm_vae(32, (1, 2), 1))
    renamed = ldm.vae_weights({**weights, "loss.logvar": torch.zeros(())}, ldm.vae_config(weights))
    assert len(renamed) == len(weights)
    # The decoder's levels are counted from the finest there, in the order of computation here.
    assert renamed["decoder.up_blocks.1.resnets.0.conv1.weight"] is weights["decoder.up.0.block.0.conv1.weight"]
    query = weights["encoder.mid.attn_1.q.weight"]
    assert torch.equal(renamed["encoder.mid_block.attentions.0.to_q.weight"], query[:, :, 0, 0])


def test_weights_of_no_known_place_keep_their_names_and_missing_ones_leave_no_trace() -> None:
    weights = files.noise(files.ldm_unet(32, (1, 2), 1, 1, 32))
    config = ldm.unet_config(weights)
    whole = ldm.unet_weights(weights, config)
    extra = ldm.unet_weights({**weights, "control.weight": torch.ones(2)}, config)
    assert extra.keys() - whole.keys() == {"control.weight"}
    fewer = ldm.unet_weights({k: v for k, v in weights.items() if k != "input_blocks.2.0.op.bias"}, config)
    assert whole.keys() - fewer.keys() == {"down_blocks.0.downsamplers.0.conv.bias"}
    assert not fewer.keys() - whole.keys()


# --- averages and noise -----------------------------------------------------------------------------------------------


def test_averaged_weights_are_preferred() -> None:
    state = files.ldm_state()
    averaged, found = ldm.unet_part(state, HERE)
    assert found
    plain, found = ldm.unet_part(files.ldm_state(ema=False), HERE)
    assert not found
    assert averaged.keys() == plain.keys()
    key = "input_blocks.1.1.transformer_blocks.0.ff.net.0.proj.weight"
    flat = "model_ema.diffusion_modelinput_blocks11transformer_blocks0ffnet0projweight"
    assert torch.equal(averaged[key], state[flat])
    assert torch.equal(plain[key], state[ldm.UNET + key])
    assert not torch.equal(averaged[key], plain[key])


def test_some_averages_missing_is_a_partial_file() -> None:
    state = files.ldm_state()
    gone = [key for key in state if key.startswith("model_ema.diffusion_modelout2")]
    with pytest.raises(CheckpointError, match=r"lacks 2 of \d+ averaged weights: model_ema\.diffusion_modelout2bias"):
        ldm.unet_part({key: value for key, value in state.items() if key not in gone}, HERE)


def test_another_noise_schedule_is_refused() -> None:
    alphas_cumprod = NoiseSchedule.of_config(ldm.SCHEDULER).alphas_cumprod
    ldm.check_noise(files.ldm_state(), alphas_cumprod, HERE)
    ldm.check_noise({}, alphas_cumprod, HERE)
    with pytest.raises(CheckpointError, match="another noise schedule"):
        ldm.check_noise({"alphas_cumprod": alphas_cumprod * 0.99}, alphas_cumprod, HERE)


def test_what_is_no_such_file_is_told_apart() -> None:
    assert ldm.is_ldm(set(files.ldm_state()))
    assert not ldm.is_ldm({"conv_in.weight", "cc_projection.weight"})
    assert not ldm.is_ldm({"model.diffusion_model.out.0.weight"})  # Stable Diffusion itself
