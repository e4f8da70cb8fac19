"""What the configs of checkpoints may say: sizes and factors with a lower and an upper end, checked before their use.

Libraries take the values of a config as they come: a size of a million layers is built until memory ends, and a text in
place of a number is noticed in the middle of the work. Keys that are not named here are left to the library, as long as
their numbers are finite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from pipeline.diffusion.modules.conditioning import Conditioning, FourthEntry
from pipeline.diffusion.settings import SamplingPlan
from scene.documents import is_number, is_whole, read_object, shown
from scene.errors import CheckpointError

_FIX = "Its config does not belong to its weights: copy the whole checkpoint again."
_WIDEST = 65_536
_SIZES: Mapping[str, tuple[int, int]] = {
    "addition_embed_type_num_heads": (1, 1024),
    "attention_head_dim": (1, 4096),
    "block_out_channels": (1, _WIDEST),
    "blocks": (0, 64),
    "camera_channels": (0, 4096),
    "channels": (1, _WIDEST),
    "conv_in_kernel": (1, 31),
    "conv_out_kernel": (1, 31),
    "cross_attention_dim": (1, _WIDEST),
    "downsample_padding": (0, 1),
    "fine_channels": (1, 4096),
    "fold": (1, 16),
    "headings": (2, 3600),
    "hidden": (1, _WIDEST),
    "hidden_size": (1, _WIDEST),
    "image_size": (8, 1024),
    "in_channels": (1, _WIDEST),
    "intermediate_size": (1, 1 << 20),
    "kernel": (1, 31),
    "latent_channels": (1, 1024),
    "latents": (1, 1024),
    "layers_per_block": (1, 16),
    "max_position_embeddings": (1, 1 << 20),
    "norm_num_groups": (1, 4096),
    "num_attention_heads": (1, 1024),
    "num_channels": (1, 64),
    "num_hidden_layers": (1, 256),
    "out_channels": (1, _WIDEST),
    "patch_size": (1, 1024),
    "pose": (1, 64),
    "projection_dim": (1, _WIDEST),
    "resolution": (2, 256),
    "sample_size": (1, 4096),
    "side": (1, 512),
    "transformer_layers_per_block": (1, 16),
    "vocab_size": (1, 1 << 20),
    "width": (1, _WIDEST),
}
_FACTORS: Mapping[str, tuple[float | int, float | int]] = {
    "contrast": (0, 1),
    "dropout": (0, 1),
    "latents_mean": (-1e4, 1e4),
    "latents_std": (1e-4, 1e4),
    "layer_norm_eps": (0, 1),
    "norm_eps": (0, 1),
    "scaling_factor": (1e-6, 1e6),
    "sharpness": (1e-3, 1e3),
    "shift_factor": (-1e4, 1e4),
    "threshold": (0, 10),
}
_NEEDED = ("sample_size", "scaling_factor", "sharpness", "contrast", "image_size", "in_channels", "out_channels")
"""Keys that have no meaning when they are null."""
_SINGLE = (
    "sample_size",
    "in_channels",
    "out_channels",
    "latent_channels",
    "scaling_factor",
    "sharpness",
    "contrast",
    "fold",
)
"""Keys that hold one number, where others may hold one for each level."""
_MOST_LEVELS = 16


def read_config(path: Path) -> dict[str, Any]:
    """The config of a part of a checkpoint, with values that something can be built of.

    Raises:
        CheckpointError: the file is missing, no JSON object, or holds a size that is none.
    """
    config = read_object(path, CheckpointError, finite=True)
    for name, value in config.items():
        _check(name, value, path)
    mean, count = config.get("latents_mean"), config.get("latent_channels")
    for name in ("latents_mean", "latents_std"):
        if isinstance(config.get(name), list) and len(config[name]) != count:
            raise CheckpointError(f"{name} has {len(config[name])} numbers for {count} channels", where=path, fix=_FIX)
    if (mean is None) != (config.get("latents_std") is None):
        raise CheckpointError("has only one of latents_mean and latents_std", where=path, fix=_FIX)
    if config.get("class_embed_type") is not None:
        raise CheckpointError("is of a U-Net that wants the class of a picture", where=path, fix=_FIX)
    return config


def conditioning_of(index: Mapping[str, Any], where: Path) -> Conditioning:
    """What ``viewloom`` in an index says of a model's conditions.

    Raises:
        CheckpointError: it says something else, or nothing.
    """
    own = index.get("viewloom", {})
    stated = own.get("conditioning", {}) if isinstance(own, dict) else None
    if not isinstance(stated, dict):
        raise CheckpointError("viewloom.conditioning is no object", where=where)
    known = Conditioning.__dataclass_fields__
    for name, value in stated.items():
        if name == "joint":
            fits = isinstance(value, list) and all(is_whole(side, 1, 4096) for side in value) and len(value) <= 64
        elif name == "fourth":
            fits = value in get_args(FourthEntry)
        else:
            fits = name in known and isinstance(value, bool)
        if not fits:
            raise CheckpointError(f"viewloom.conditioning.{name} cannot be {shown(value)}", where=where)
    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in stated.items()}
    return Conditioning(**fields)


def sampling_of(index: Mapping[str, Any], where: Path) -> SamplingPlan | None:
    """How ``viewloom.sampling`` in an index asks for the model to be sampled; None if it does not say.

    Raises:
        CheckpointError: it says something else.
    """
    stated = index.get("viewloom", {}).get("sampling")
    if stated is None:
        return None
    limits: dict[str, Callable[[object], bool]] = {
        "steps": lambda value: is_whole(value, 1, 1000),
        "guidance": lambda value: is_number(value, 0, 1000),
        "strength": lambda value: is_number(value, 1e-3, 1),
    }
    if not isinstance(stated, dict) or stated.keys() != limits.keys():
        raise CheckpointError(f"viewloom.sampling is no object of {', '.join(limits)}", where=where)
    for name, value in stated.items():
        if not limits[name](value):
            raise CheckpointError(f"viewloom.sampling.{name} cannot be {shown(value)}", where=where)
    return SamplingPlan(**stated)


def _check(name: str, value: object, path: Path) -> None:
    if name not in _SIZES and name not in _FACTORS:
        return
    if value is None and name not in _NEEDED:
        return
    # One number, one for each level, or a list for each level.
    inner: list[object] = [value]
    if isinstance(value, list) and name not in _SINGLE:
        inner = [entry for item in value for entry in (item if isinstance(item, list) else [item])]
    low, high = _SIZES[name] if name in _SIZES else _FACTORS[name]
    if name in _SIZES:
        fits = all(is_whole(entry, *_SIZES[name]) for entry in inner)
    else:
        fits = all(is_number(entry, low, high) for entry in inner)
    most = _MOST_LEVELS if name in _SIZES else _SIZES["latent_channels"][1]
    if not fits or not 1 <= len(inner) <= most:
        kind = "whole numbers" if name in _SIZES else "numbers"
        raise CheckpointError(f"{name} is {shown(value)}, not {kind} from {low:g} to {high:g}", where=path, fix=_FIX)
