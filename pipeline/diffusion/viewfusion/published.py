"""Files of ViewFusion's published code: their names, translated to ours; read as tensors, without running code.

Source: github.com/bronemos/view-fusion (MIT), whose files hold the network under ``denoise_fn.`` and the noise schedule
beside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipeline.diffusion.checkpoints.weight_files import PICKLES, fill, read_weights
from pipeline.diffusion.viewfusion.unet import FusionUNet
from scene.errors import CheckpointError

NETWORK = "denoise_fn."
_BUFFERS = {
    "gammas",
    "sqrt_recip_gammas",
    "sqrt_recipm1_gammas",
    "posterior_log_variance_clipped",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
}
_RENAMED = (
    ("noise_level_mlp.", "condition."),
    ("res_block.noise_func.noise_func.0.", "bias."),
    ("res_block.block1.block.0.", "norm1."),
    ("res_block.block1.block.3.", "conv1."),
    ("res_block.block2.block.0.", "norm2."),
    ("res_block.block2.block.3.", "conv2."),
    ("res_block.res_conv.", "skip."),
    ("attn.", "attention."),
    ("final_conv.block.0.", "head.norm."),
    ("final_conv.block.3.", "head.conv."),
)


def published_file(path: Path) -> Path | None:
    """The pickle of weights that a path is, or that is the only one in a folder without a config; None otherwise."""
    if path.is_file():
        return path if path.suffix in PICKLES else None
    held = [one for one in path.glob("*") if one.suffix in PICKLES]
    return held[0] if len(held) == 1 and not (path / "config.json").exists() else None


def published_unet(path: Path) -> FusionUNet:
    """The network of a published file, in single precision on the CPU, frozen.

    Raises:
        CheckpointError: the file is damaged, holds another model, or another noise schedule than it says.
    """
    content = read_weights(path)
    held = content.get("model", content)
    if not isinstance(held, dict):
        raise CheckpointError(f"its model is a {type(held).__name__}, not named tensors", where=path)
    state = {key: value for key, value in held.items() if isinstance(key, str) and isinstance(value, Tensor)}
    network = {our_name(key.removeprefix(NETWORK)): value for key, value in state.items() if key.startswith(NETWORK)}
    others = state.keys() - {NETWORK + key for key in map(their_name, network)} - _BUFFERS
    if "head.conv.weight" not in network or others:
        raise CheckpointError(
            "is no checkpoint of ViewFusion" + (f": it holds {sorted(others)[:3]}" if others else ""), where=path
        )
    config = config_of(network, path)
    with torch.device("meta"):
        unet = FusionUNet(**config)
    _check_schedule(unet, state, path)
    return fill(unet, network, path, torch.float32)


def our_name(name: str) -> str:
    """A published name of a weight, as ours."""
    for theirs, ours in _RENAMED:
        name = name.replace(theirs, ours)
    return name


def their_name(name: str) -> str:
    """A name of ours, as the published code has it."""
    for theirs, ours in _RENAMED:
        name = re.sub(rf"(?<![\w]){re.escape(ours)}", theirs, name)
    return name


def config_of(network: Mapping[str, Tensor], where: Path) -> dict[str, object]:
    """Sizes of a published network, read off its weights; what they do not show is as published.

    Raises:
        CheckpointError: they are no such network's.
    """
    try:
        first, last = network["downs.0.weight"], network["head.conv.weight"]
        width, inside = first.shape[:2]
        made = last.shape[0]
        steps = sorted(int(m[1]) for key in network if (m := re.fullmatch(r"downs\.(\d+)\.conv\.weight", key)))
        blocks = (steps[0] if steps else 1 + max(int(key.split(".")[1]) for key in network if "downs" in key)) - 1
        starts = [1 + level * (blocks + 1) for level in range(len(steps) + 1)]
        widths = [network[f"downs.{k}.conv1.weight"].shape[0] for k in starts]
        sides = [64 // 2**level for level, k in enumerate(starts) if f"downs.{k}.attention.qkv.weight" in network]
        embedding = network["condition.0.weight"].shape[1] // 2
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointError(f"is no checkpoint of ViewFusion ({error} is missing)", where=where) from error
    # Noise, and logits behind it where weights are learned; a picture, the noisy view, perhaps one of reference before.
    kinds = {(2, 2): (True, False), (3, 2): (True, True), (2, 1): (False, False), (3, 1): (False, True)}
    found = [(made // o, *kind) for (i, o), kind in kinds.items() if made * i == inside * o and made % o == 0]
    if len(found) != 1:
        raise CheckpointError(f"is no checkpoint of ViewFusion: {inside} channels in, {made} out", where=where)
    channels, learned, relative = found[0]
    return {
        "channels": channels,
        "width": width,
        "multipliers": [out / width for out in widths],
        "blocks": blocks,
        "attended": sides,
        "embedding": embedding,
        "relative": relative,
        "fusing": "learned" if learned else "equal",
    }


def _check_schedule(unet: FusionUNet, state: Mapping[str, Tensor], where: Path) -> None:
    """Refuse a file whose noise schedule is not the one that the network is used with."""
    held = state.get("gammas")
    if held is None:
        return
    c = unet.config
    known = (1 - torch.linspace(c["first"], c["last"], c["steps"], dtype=torch.float64)).cumprod(0)
    if held.shape != known.shape or not torch.allclose(held.double(), known, rtol=1e-3, atol=1e-6):
        raise CheckpointError(
            f"holds another noise schedule than the published one ({held.numel()} steps)",
            where=where,
            fix="Use a checkpoint of the published configuration.",
        )
