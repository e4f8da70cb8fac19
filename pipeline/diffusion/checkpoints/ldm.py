"""Checkpoints of the original latent-diffusion code: their names, translated to those of diffusers and transformers.

U-Net and VAE go through diffusers' own converters, which only rename; OpenAI's vision tower has none there. Sizes are
read off the weights; what weights do not show (heads, groups, the noise) is Zero-1-to-3's configuration,
sd-objaverse-finetune-c_concat-256.yaml.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders import single_file_utils
from torch import Tensor

from pipeline.diffusion.checkpoints.weight_files import some
from scene.errors import CheckpointError

UNET, EMA, VAE, CLIP, POSE = (
    "model.diffusion_model.",
    "model_ema.",
    "first_stage_model.",
    "cond_stage_model.model.",
    "cc_projection.",
)
HEADS = 8
LATENT_SIDE = 32
SCALE = 0.18215
SCHEDULER: dict[str, object] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

_CLIP_ENDS = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def is_ldm(keys: Mapping[str, object] | set[str]) -> bool:
    """Whether the names are those of a Zero-1-to-3 checkpoint of the original code."""
    return any(key.startswith(UNET) for key in keys) and any(key.startswith(POSE) for key in keys)


def part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights of one part, without its prefix."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def unet_part(state: Mapping[str, Tensor], where: Path) -> tuple[dict[str, Tensor], bool]:
    """The U-Net's weights under their original names, averaged if the file holds averages; and whether it does.

    Raises:
        CheckpointError: only some of the averages are there.
    """
    plain = part(state, UNET)
    # The averages are buffers, whose names may hold no dots.
    names = {key: EMA + (UNET.removeprefix("model.") + key).replace(".", "") for key in plain}
    missing = [name for name in names.values() if name not in state]
    if len(missing) == len(names):
        return plain, False
    if missing:
        raise CheckpointError(
            f"lacks {len(missing)} of {len(names)} averaged weights: {some(missing)}",
            where=where,
            fix="It is partial: download or copy it again.",
        )
    return {key: state[name] for key, name in names.items()}, True


def unet_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of diffusers' U-Net, read off weights under their original names."""
    depth = 1 + max(int(key.split(".")[1]) for key in weights if key.startswith("input_blocks."))
    steps = [k for k in range(depth) if f"input_blocks.{k}.0.op.weight" in weights]
    layers = (steps[0] if steps else depth) - 1
    firsts = [1 + level * (layers + 1) for level in range(len(steps) + 1)]
    attended = [f"input_blocks.{k}.1.norm.weight" in weights for k in firsts]
    crossed = next(key for key in sorted(weights) if key.endswith("attn2.to_k.weight"))
    return {
        "sample_size": LATENT_SIDE,
        "in_channels": weights["input_blocks.0.0.weight"].shape[1],
        "out_channels": weights["out.2.weight"].shape[0],
        "layers_per_block": layers,
        "block_out_channels": tuple(weights[f"input_blocks.{k}.0.out_layers.3.weight"].shape[0] for k in firsts),
        "down_block_types": tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attended),
        "up_block_types": tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)),
        "cross_attention_dim": weights[crossed].shape[1],
        # diffusers' name is old: it means the number of heads here.
        "attention_head_dim": HEADS,
        "use_linear_projection": False,
    }


def unet_weights(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The U-Net's weights under diffusers' names."""
    return _converted(single_file_utils.convert_ldm_unet_checkpoint, UNET, weights, config)


def vae_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of diffusers' VAE, read off weights under their original names."""
    levels = 1 + max(int(key.split(".")[2]) for key in weights if key.startswith("encoder.down."))
    layers = 1 + max(int(key.split(".")[4]) for key in weights if key.startswith("encoder.down.0.block."))
    widths = tuple(weights[f"encoder.down.{k}.block.0.conv1.weight"].shape[0] for k in range(levels))
    return {
        "in_channels": weights["encoder.conv_in.weight"].shape[1],
        "out_channels": weights["decoder.conv_out.weight"].shape[0],
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "block_out_channels": widths,
        "layers_per_block": layers,
        "latent_channels": weights["post_quant_conv.weight"].shape[0],
        "sample_size": LATENT_SIDE * 2 ** (levels - 1),
        "scaling_factor": SCALE,
    }


def vae_weights(weights: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The VAE's weights under diffusers' names; its attention's 1x1 convolutions become matrices."""
    used = {
        key: value[:, :, 0, 0] if ".attn_" in key and value.ndim == 4 else value
        for key, value in weights.items()
        if not key.startswith("loss.")
    }
    return _converted(single_file_utils.convert_ldm_vae_checkpoint, VAE, used, config)


def clip_config(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The config of transformers' vision tower, read off OpenAI's weights."""
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    grid = math.isqrt(weights["visual.positional_embedding"].shape[0] - 1)
    layers = 1 + max(int(key.split(".")[3]) for key in weights if key.startswith("visual.transformer.resblocks."))
    return {
        "hidden_size": width,
        "intermediate_size": weights["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "image_size": grid * patch,
        "patch_size": patch,
        "projection_dim": weights["visual.proj"].shape[1],
        "hidden_act": "quick_gelu",
    }


def clip_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenAI's vision tower under transformers' names; the text tower, which Zero123 does not use, is left out."""
    out = {}
    for key, value in weights.items():
        layer = re.fullmatch(r"visual\.transformer\.resblocks\.(\d+)\.(.+)", key)
        if key == "visual.proj":
            out["visual_projection.weight"] = value.T.contiguous()
        elif layer is not None:
            to, inner = f"vision_model.encoder.layers.{layer[1]}", layer[2]
            if inner.startswith("attn.in_proj_"):
                kind = inner.removeprefix("attn.in_proj_")
                for name, third in zip("qkv", value.chunk(3), strict=True):
                    out[f"{to}.self_attn.{name}_proj.{kind}"] = third
            else:
                module, _, kind = inner.rpartition(".")
                out[f"{to}.{_CLIP_LAYER.get(module, module)}.{kind}"] = value
        elif key.startswith("visual."):
            out[_CLIP_ENDS.get(key, key)] = value
    return out


def check_noise(state: Mapping[str, Tensor], alphas_cumprod: Tensor, where: Path) -> None:
    """Compare the noise schedule, which the original code stores, with the one that is going to be used.

    Raises:
        CheckpointError: it is another.
    """
    stored = state.get("alphas_cumprod")
    if stored is not None and (
        stored.shape != alphas_cumprod.shape or not torch.allclose(stored.float(), alphas_cumprod, atol=1e-4)
    ):
        raise CheckpointError("was trained with another noise schedule than Zero-1-to-3's", where=where)


def _converted(
    convert: Callable[..., dict[str, Tensor | None]],
    prefix: str,
    weights: Mapping[str, Tensor],
    config: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Weights renamed by a converter of diffusers.

    The converters drop weights that they do not know and put None for some that are missing. Here the former keep their
    original names and the latter are left out, so that whoever fills a module with the result can name both.
    """
    found = convert({prefix + key: value for key, value in weights.items()}, dict(config))
    converted = {key: value for key, value in found.items() if value is not None}
    known = {id(value) for value in converted.values()}
    return {**{key: value for key, value in weights.items() if id(value) not in known}, **converted}
