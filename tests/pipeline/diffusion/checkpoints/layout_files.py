"""Writes tiny random checkpoints in exactly the published layouts; names and shapes are written down here anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file

Shapes = dict[str, tuple[int, ...]]
Weights = dict[str, torch.Tensor]
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
PLUS_SCHEDULER = {
    "_class_name": "EulerAncestralDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "timestep_spacing": "linspace",
}
PNDM_SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}
CONTEXT = 32
"""Length of tiny embeddings; 768 in the published files."""
UNET_CONFIG: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.12.1",
    "sample_size": 8,
    "in_channels": 8,
    "out_channels": 4,
    "layers_per_block": 1,
    "block_out_channels": [32, 64],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "cross_attention_dim": CONTEXT,
    "attention_head_dim": 8,
}
FULL_UNET_CONFIG: dict[str, Any] = {
    "sample_size": 32,
    "in_channels": 8,
    "out_channels": 4,
    "layers_per_block": 2,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "use_linear_projection": False,
}
VAE_CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [32, 32],
    "layers_per_block": 1,
    "latent_channels": 4,
    "sample_size": 16,
}
CLIP_CONFIG: dict[str, Any] = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "model_type": "clip_vision_model",
    "hidden_act": "quick_gelu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": CONTEXT,
}


def noise(shapes: Shapes, seed: int = 0) -> Weights:
    """Random weights of these shapes, small enough for a network to stay finite."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * 0.05 + (1.0 if "norm" in name or ".ln_" in name else 0.0)
        for name, shape in shapes.items()
    }


def shapes_of(module: torch.nn.Module) -> Shapes:
    """Names and shapes of a module's weights."""
    return {name: tuple(value.shape) for name, value in module.state_dict().items()}


# --- the original code's names ----------------------------------------------------------------------------------------


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _conv(name: str, inside: int, outside: int, side: int = 3) -> Shapes:
    return {f"{name}.weight": (outside, inside, side, side), f"{name}.bias": (outside,)}


def _linear(name: str, inside: int, outside: int, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outside, inside), **({f"{name}.bias": (outside,)} if bias else {})}


def _unet_resnet(name: str, inside: int, outside: int, time: int) -> Shapes:
    return {
        **_norm(f"{name}.in_layers.0", inside),
        **_conv(f"{name}.in_layers.2", inside, outside),
        **_linear(f"{name}.emb_layers.1", time, outside),
        **_norm(f"{name}.out_layers.0", outside),
        **_conv(f"{name}.out_layers.3", outside, outside),
        **(_conv(f"{name}.skip_connection", inside, outside, 1) if inside != outside else {}),
    }


def _unet_attention(name: str, width: int, context: int) -> Shapes:
    block = f"{name}.transformer_blocks.0"
    return {
        **_norm(f"{name}.norm", width),
        **_conv(f"{name}.proj_in", width, width, 1),
        **{
            k: v
            for kind, read in (("attn1", width), ("attn2", context))
            for part in (
                _linear(f"{block}.{kind}.to_q", width, width, False),
                _linear(f"{block}.{kind}.to_k", read, width, False),
                _linear(f"{block}.{kind}.to_v", read, width, False),
                _linear(f"{block}.{kind}.to_out.0", width, width),
            )
            for k, v in part.items()
        },
        **_linear(f"{block}.ff.net.0.proj", width, 8 * width),
        **_linear(f"{block}.ff.net.2", 4 * width, width),
        **_norm(f"{block}.norm1", width),
        **_norm(f"{block}.norm2", width),
        **_norm(f"{block}.norm3", width),
        **_conv(f"{name}.proj_out", width, width, 1),
    }


def ldm_unet(width: int, multiples: tuple[int, ...], layers: int, attended: int, context: int) -> Shapes:
    """The original U-Net: blocks are numbered through; the first ``attended`` levels have attention."""
    time, levels = 4 * width, len(multiples)
    out = {**_linear("time_embed.0", width, time), **_linear("time_embed.2", time, time)}
    out |= _conv("input_blocks.0.0", 8, width)
    skips, now, index = [width], width, 1
    for level, multiple in enumerate(multiples):
        for _ in range(layers):
            out |= _unet_resnet(f"input_blocks.{index}.0", now, width * multiple, time)
            now = width * multiple
            if level < attended:
                out |= _unet_attention(f"input_blocks.{index}.1", now, context)
            skips.append(now)
            index += 1
        if level < levels - 1:
            out |= _conv(f"input_blocks.{index}.0.op", now, now)
            skips.append(now)
            index += 1
    out |= _unet_resnet("middle_block.0", now, now, time)
    out |= _unet_attention("middle_block.1", now, context)
    out |= _unet_resnet("middle_block.2", now, now, time)
    index = 0
    for level in reversed(range(levels)):
        for k in range(layers + 1):
            out |= _unet_resnet(f"output_blocks.{index}.0", now + skips.pop(), width * multiples[level], time)
            now = width * multiples[level]
            if level < attended:
                out |= _unet_attention(f"output_blocks.{index}.1", now, context)
            if level > 0 and k == layers:
                out |= _conv(f"output_blocks.{index}.{1 + (level < attended)}.conv", now, now)
            index += 1
    return {**out, **_norm("out.0", now), **_conv("out.2", now, 4)}


def _vae_resnet(name: str, inside: int, outside: int) -> Shapes:
    return {
        **_norm(f"{name}.norm1", inside),
        **_conv(f"{name}.conv1", inside, outside),
        **_norm(f"{name}.norm2", outside),
        **_conv(f"{name}.conv2", outside, outside),
        **(_conv(f"{name}.nin_shortcut", inside, outside, 1) if inside != outside else {}),
    }


def _vae_middle(side: str, width: int) -> Shapes:
    out = {**_vae_resnet(f"{side}.mid.block_1", width, width), **_vae_resnet(f"{side}.mid.block_2", width, width)}
    out |= _norm(f"{side}.mid.attn_1.norm", width)
    for name in ("q", "k", "v", "proj_out"):
        out |= _conv(f"{side}.mid.attn_1.{name}", width, width, 1)
    return out


def ldm_vae(width: int, multiples: tuple[int, ...], layers: int) -> Shapes:
    """The original VAE."""
    out, now = _conv("encoder.conv_in", 3, width), width
    for level, multiple in enumerate(multiples):
        for k in range(layers):
            out |= _vae_resnet(f"encoder.down.{level}.block.{k}", now, width * multiple)
            now = width * multiple
        if level < len(multiples) - 1:
            out |= _conv(f"encoder.down.{level}.downsample.conv", now, now)
    out |= {**_vae_middle("encoder", now), **_norm("encoder.norm_out", now), **_conv("encoder.conv_out", now, 8)}
    out |= {**_conv("quant_conv", 8, 8, 1), **_conv("post_quant_conv", 4, 4, 1)}
    out |= {**_conv("decoder.conv_in", 4, now), **_vae_middle("decoder", now)}
    for level in reversed(range(len(multiples))):
        for k in range(layers + 1):
            out |= _vae_resnet(f"decoder.up.{level}.block.{k}", now, width * multiples[level])
            now = width * multiples[level]
        if level > 0:
            out |= _conv(f"decoder.up.{level}.upsample.conv", now, now)
    return {**out, **_norm("decoder.norm_out", now), **_conv("decoder.conv_out", now, 3)}


def openai_clip(width: int, layers: int, patch: int, grid: int, projection: int, hidden: int) -> Shapes:
    """OpenAI's vision tower, and a little of the text tower beside it."""
    out: Shapes = {
        "positional_embedding": (77, 16),
        "token_embedding.weight": (10, 16),
        "logit_scale": (),
        "text_projection": (16, projection),
        "visual.class_embedding": (width,),
        "visual.positional_embedding": (grid * grid + 1, width),
        "visual.proj": (width, projection),
        "visual.conv1.weight": (width, 3, patch, patch),
        **_norm("visual.ln_pre", width),
        **_norm("visual.ln_post", width),
        **_norm("ln_final", 16),
    }
    for k in range(layers):
        block = f"visual.transformer.resblocks.{k}"
        out |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
        out |= {**_linear(f"{block}.attn.out_proj", width, width), **_norm(f"{block}.ln_1", width)}
        out |= {**_linear(f"{block}.mlp.c_fc", width, hidden), **_linear(f"{block}.mlp.c_proj", hidden, width)}
        out |= _norm(f"{block}.ln_2", width)
    return out


def ldm_state(*, ema: bool = True, seed: int = 0) -> Weights:
    """All weights of a tiny checkpoint of the original code."""
    unet = ldm_unet(32, (1, 2), 1, 1, CONTEXT)
    state = {f"model.diffusion_model.{k}": v for k, v in noise(unet, seed).items()}
    if ema:
        flat = {("diffusion_model." + k).replace(".", ""): v for k, v in noise(unet, seed + 100).items()}
        state |= {f"model_ema.{k}": v for k, v in flat.items()}
        state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(7)}
    state |= {f"first_stage_model.{k}": v for k, v in noise(ldm_vae(32, (1, 1), 1), seed + 1).items()}
    clip = openai_clip(64, 2, 14, 2, CONTEXT, 96)
    state |= {f"cond_stage_model.model.{k}": v for k, v in noise(clip, seed + 2).items()}
    state |= {"cond_stage_model.mean": torch.zeros(3), "cond_stage_model.std": torch.ones(3)}
    state |= {f"cc_projection.{k}": v for k, v in projection_weights(seed).items()}
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return {**state, "betas": betas.float(), "alphas_cumprod": torch.cumprod(1 - betas, 0).float()}


def write_ldm(path: Path, *, ema: bool = True, **changes: torch.Tensor) -> Path:
    """A file of the original code: a pickle with bookkeeping beside the weights, or flat safetensors."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {**ldm_state(ema=ema), **changes}
    if path.suffix == ".safetensors":
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    else:
        torch.save({"state_dict": state, "global_step": 105000, "epoch": 3}, path)
    return path


# --- diffusers' folders -----------------------------------------------------------------------------------------------


def projection_weights(seed: int = 0) -> Weights:
    """A pose projection."""
    return noise({"weight": (CONTEXT, CONTEXT + 4), "bias": (CONTEXT,)}, seed + 3)


def clip_vision() -> Shapes:
    """A vision tower in transformers' names."""
    width, hidden = CLIP_CONFIG["hidden_size"], CLIP_CONFIG["intermediate_size"]
    out: Shapes = {
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (5, width),
        **_norm("vision_model.pre_layrnorm", width),
        **_norm("vision_model.post_layernorm", width),
        "visual_projection.weight": (CONTEXT, width),
    }
    return out | _clip_layers("vision_model.encoder.layers", width, hidden, 2)


def _clip_layers(name: str, width: int, hidden: int, layers: int) -> Shapes:
    out: Shapes = {}
    for k in range(layers):
        for part in ("q", "k", "v", "out"):
            out |= _linear(f"{name}.{k}.self_attn.{part}_proj", width, width)
        out |= {**_norm(f"{name}.{k}.layer_norm1", width), **_norm(f"{name}.{k}.layer_norm2", width)}
        out |= {**_linear(f"{name}.{k}.mlp.fc1", width, hidden), **_linear(f"{name}.{k}.mlp.fc2", hidden, width)}
    return out


def write_part(folder: Path, config: dict[str, Any], weights: Weights, *names: str) -> None:
    """A config and the same weights under one or several file names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in names:
        if name.endswith(".bin"):
            torch.save(weights, folder / name)
        else:
            kind = torch.float16 if "fp16" in name else torch.float32
            save_file(
                {k: v.to(kind).contiguous() if v.is_floating_point() else v for k, v in weights.items()}, folder / name
            )


def unet_weights(seed: int = 0, **changes: Any) -> Weights:
    """A tiny U-Net in diffusers' names."""
    with torch.device("meta"):
        shapes = shapes_of(UNet2DConditionModel.from_config({**UNET_CONFIG, **changes}))
    return noise(shapes, seed)


def vae_weights(seed: int = 1, *, old_names: bool = False) -> Weights:
    """A tiny VAE in diffusers' names, or in those of before 0.18."""
    with torch.device("meta"):
        shapes = shapes_of(AutoencoderKL.from_config(VAE_CONFIG))
    weights = noise(shapes, seed)
    if old_names:
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            weights = {k.replace(f".attentions.0.{new}.", f".attentions.0.{old}."): v for k, v in weights.items()}
    return weights


def _write_index(root: Path, pipeline: str, projection: list[str], folder: str, licence: str | None) -> None:
    index = {
        "_class_name": pipeline,
        "_diffusers_version": "0.17.1",
        folder: projection,
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (root / "scheduler").mkdir(parents=True, exist_ok=True)
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(SCHEDULER))
    (root / "model_index.json").write_text(json.dumps(index))
    if licence is not None:
        (root / "README.md").write_text(f"---\nlicense: {licence}\ntags:\n- 3d\n---\n# A model\n")


def write_kxic(root: Path) -> Path:
    """kxic/zero123-xl: pickles, old names in the VAE, CCProjection whose config has no fields."""
    _write_index(root, "Zero1to3StableDiffusionPipeline", ["pipeline_zero1to3", "CCProjection"], "cc_projection", "mit")
    write_part(root / "unet", UNET_CONFIG, unet_weights(), "diffusion_pytorch_model.bin")
    write_part(root / "vae", VAE_CONFIG, vae_weights(old_names=True), "diffusion_pytorch_model.bin")
    ids = {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    write_part(root / "image_encoder", CLIP_CONFIG, {**noise(clip_vision(), 2), **ids}, "pytorch_model.bin")
    named = {f"projection.{k}": v for k, v in projection_weights().items()}
    write_part(root / "cc_projection", {"_class_name": "CCProjection"}, named, "diffusion_pytorch_model.bin")
    return root


def write_bennyguo(root: Path, *, variants: tuple[str, ...] = ("", ".fp16", ".fp16_ema")) -> Path:
    """bennyguo/zero123-diffusers: safetensors in variants, of which the averaged U-Net is another."""
    _write_index(root, "Zero123Pipeline", ["zero123", "CLIPCameraProjection"], "clip_camera_projection", "openrail")
    main = tuple(f"diffusion_pytorch_model{v}.safetensors" for v in variants)
    for name in main:
        write_part(root / "unet", UNET_CONFIG, unet_weights(50 if "ema" in name else 0), name)
    write_part(root / "vae", VAE_CONFIG, vae_weights(), *main)
    towers = tuple(f"model{v}.safetensors" for v in variants)
    write_part(root / "image_encoder", CLIP_CONFIG, noise(clip_vision(), 2), *towers)
    config = {"_class_name": "CLIPCameraProjection", "additional_embeddings": 4, "embedding_dim": CONTEXT}
    named = {f"proj.{k}": v for k, v in projection_weights().items()}
    write_part(root / "clip_camera_projection", config, named, *main)
    return root


def write_ashawkey(root: Path, trap: Path) -> Path:
    """ashawkey/zero123-xl-diffusers: one variant without suffix, and code beside the projection, here a trap."""
    write_bennyguo(root, variants=("",))
    code = f"open({str(trap)!r}, 'w').close()\nclass CLIPCameraProjection: pass\n"
    for place in (root / "clip_camera_projection" / "zero123.py", root / "zero123.py"):
        place.write_text(code)
    return root


def write_zero123plus(root: Path, *, version: str = "1.2", tokens: int = 7) -> Path:
    """sudo-ai/zero123plus: six views, a text encoder, and the ramp in the index."""
    _write_index(root, "Zero123PlusPipeline", ["transformers", "CLIPVisionModelWithProjection"], "vision_encoder", None)
    index = json.loads((root / "model_index.json").read_text())
    first = [0.0, 0.2060, 0.1868] if version == "1.1" else [0.00302, 0.22046, 0.21528]
    index["ramping_coefficients"] = first + [0.1] * (tokens - 3)
    (root / "model_index.json").write_text(json.dumps(index))
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(PLUS_SCHEDULER))
    config = {**UNET_CONFIG, "in_channels": 4, "use_linear_projection": True, "attention_head_dim": [4, 8]}
    weights = unet_weights(in_channels=4, use_linear_projection=True, attention_head_dim=[4, 8])
    write_part(root / "unet", config, weights, "diffusion_pytorch_model.safetensors")
    write_part(root / "vae", VAE_CONFIG, vae_weights(), "diffusion_pytorch_model.safetensors")
    write_part(root / "vision_encoder", CLIP_CONFIG, noise(clip_vision(), 2), "model.safetensors")
    write_text(root, CONTEXT, tokens, pad="!")
    return root


def write_text(root: Path, width: int, tokens: int, *, pad: str) -> None:
    """A text encoder, and a tokenizer that knows the letter a; ``!`` has number 0."""
    text = {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_act": "quick_gelu",
        "hidden_size": width,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "vocab_size": 5,
        "max_position_embeddings": tokens,
        "projection_dim": width,
        "bos_token_id": 3,
        "eos_token_id": 4,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }
    shapes: Shapes = {
        "text_model.embeddings.token_embedding.weight": (5, width),
        "text_model.embeddings.position_embedding.weight": (tokens, width),
        **_clip_layers("text_model.encoder.layers", width, 48, 1),
        **_norm("text_model.final_layer_norm", width),
    }
    ids = {"text_model.embeddings.position_ids": torch.arange(tokens)[None]}
    write_part(root / "text_encoder", text, {**noise(shapes, 5), **ids}, "model.safetensors")
    tokenizer = root / "tokenizer"
    tokenizer.mkdir()
    vocabulary = {"!": 0, "a": 1, "a</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    (tokenizer / "vocab.json").write_text(json.dumps(vocabulary))
    (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    start, end = (
        {"content": f"<|{name}oftext|>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
        for name in ("start", "end")
    )
    marks = {"bos_token": start, "eos_token": end, "unk_token": end}
    (tokenizer / "special_tokens_map.json").write_text(json.dumps({**marks, "pad_token": pad}))
    facts = {
        **{name: {"__type": "AddedToken", **mark} for name, mark in marks.items()},
        "pad_token": pad,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": tokens,
        "special_tokens_map_file": "./special_tokens_map.json",
        "tokenizer_class": "CLIPTokenizer",
    }
    (tokenizer / "tokenizer_config.json").write_text(json.dumps(facts))


# --- Stable Diffusion and ControlNets ---------------------------------------------------------------------------------


def control_config(width: int = CONTEXT, **changes: Any) -> dict[str, Any]:
    """The keys of the config of a published ControlNet, in tiny sizes."""
    names = ("layers_per_block", "block_out_channels", "down_block_types", "attention_head_dim")
    return {
        "_class_name": "ControlNetModel",
        "_diffusers_version": "0.16.0.dev0",
        "_name_or_path": "controlnet_v1_1/control_v11p_sd15_openpose",
        "act_fn": "silu",
        "class_embed_type": None,
        "conditioning_embedding_out_channels": [16, 32],
        "controlnet_conditioning_channel_order": "rgb",
        "cross_attention_dim": width,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": 4,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-05,
        "norm_num_groups": 32,
        "num_class_embeds": None,
        "only_cross_attention": False,
        "projection_class_embeddings_input_dim": None,
        "resnet_time_scale_shift": "default",
        "upcast_attention": False,
        "use_linear_projection": False,
        **{name: UNET_CONFIG[name] for name in names},
        **changes,
    }


def write_control(
    folder: Path, seed: int = 7, names: tuple[str, ...] = ("diffusion_pytorch_model.safetensors",), **changes: Any
) -> Path:
    """lllyasviel/control_v11*: one part at the root of its repository, with a card."""
    config = control_config(**changes)
    with torch.device("meta"):
        shapes = shapes_of(ControlNetModel.from_config(config))
    write_part(folder, config, noise(shapes, seed), *names)
    (folder / "README.md").write_text("---\nlicense: openrail\nbase_model: runwayml/stable-diffusion-v1-5\n---\n")
    return folder


def write_sd15(root: Path, *, width: int = CONTEXT, tokens: int = 7, **changes: Any) -> Path:
    """Stable Diffusion 1.5: old names in the VAE, and parts that nothing here reads."""
    root.mkdir(parents=True)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.6.0",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (root / "model_index.json").write_text(json.dumps(index))
    (root / "README.md").write_text("---\nlicense: creativeml-openrail-m\ninference: true\n---\n# v1-5\n")
    (root / "v1-5-pruned.ckpt").write_bytes(b"not read")
    for part in ("safety_checker", "feature_extractor"):
        (root / part).mkdir()
        (root / part / "config.json").write_text("not read")
    (root / "scheduler").mkdir()
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(PNDM_SCHEDULER))
    sizes = {"in_channels": 4, "cross_attention_dim": width, **changes}
    main = tuple(f"diffusion_pytorch_model{v}.safetensors" for v in ("", ".fp16"))
    write_part(root / "unet", {**UNET_CONFIG, **sizes}, unet_weights(**sizes), *main)
    write_part(root / "vae", VAE_CONFIG, vae_weights(old_names=True), *main)
    write_text(root, width, tokens, pad="<|endoftext|>")
    return root
