"""Any checkpoint that edits: viewloom's own, or Stable Diffusion with public ControlNets.

Source: the layouts of Stable Diffusion 1.5 (Rombach et al. 2022) and of ControlNet 1.1 (Zhang et al. 2023) in
diffusers' parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from pipeline.diffusion.checkpoints.clip_text import embed_prompt
from pipeline.diffusion.checkpoints.configs import read_config
from pipeline.diffusion.checkpoints.hub import local_checkpoint, local_part
from pipeline.diffusion.checkpoints.layouts import (
    INDEX,
    licence_of,
    load_vae,
    on_meta,
    part_config,
    read_json,
    scheduler_config,
)
from pipeline.diffusion.checkpoints.weight_files import fill, read_part
from pipeline.diffusion.modules.latents import vae_factor
from pipeline.editing.controls import ControlKind
from pipeline.editing.model import EditDiffusion
from scene.errors import CheckpointError, InputError

CONTROLS: Mapping[ControlKind, str] = {
    "skeleton": "lllyasviel/control_v11p_sd15_openpose",
    "depth": "lllyasviel/control_v11f1p_sd15_depth",
}
"""What Stable Diffusion is controlled with by default: repositories of the hub."""
_CONTROLS_WIDTH = 768
_PIPELINE = "StableDiffusionPipeline"


def load_editor(
    source: Path | str,
    controls: Mapping[ControlKind, Path | str] | None = None,
    *,
    prompt: str = "",
    dtype: torch.dtype = torch.float32,
) -> EditDiffusion:
    """Load an editor of any layout onto the CPU.

    Args:
        source: a folder, or a hub id (``owner/name``) of Stable Diffusion 1.x; 2.x with ControlNets of its own.
        controls: folder or hub id of the ControlNet of each kind; by default :data:`CONTROLS`. Viewloom's own editors
            have theirs, and take none.
        prompt: text that all rows are conditioned on; viewloom's own editors take none.
        dtype: of the networks; the embedded prompt stays in single precision.

    Raises:
        CheckpointError: a checkpoint is missing, incomplete, damaged, of another kind, or one does not fit the other.
        InputError: controls or a prompt are given to an editor that takes none, or the prompt is too long.
        MissingBackendError: the checkpoint needs transformers, which is not installed.
    """
    root = local_checkpoint(source)
    if not (root / INDEX).is_file():
        raise CheckpointError(
            f"is no folder with a {INDEX}", where=root, fix="Give a checkpoint folder in diffusers layout."
        )
    index = read_json(root / INDEX)
    if index.get("_class_name") == EditDiffusion.__name__:
        if controls is not None or prompt:
            raise InputError(
                "the editor has its own ControlNet, and an empty prompt", where=root, fix="Give no controls, no prompt."
            )
        return EditDiffusion.from_pretrained(root).to(torch.device("cpu"), dtype)
    check_kind(index, root)
    scheduler = scheduler_config(root)
    # What the configs tell is checked before gigabytes are downloaded and read.
    unet = _described(UNet2DConditionModel, root / "unet")
    _check_unet(unet, root / "unet", with_default_controls=controls is None)
    chosen = CONTROLS if controls is None else controls
    embedded = embed_prompt(root, prompt)
    vae = load_vae(root / "vae", dtype)
    folders = {kind: local_part(given) for kind, given in chosen.items()}
    networks: dict[Path, Any] = {}
    for folder in dict.fromkeys(folders.values()):
        networks[folder] = _described(ControlNetModel, folder)
        _check_control(networks[folder], unet, vae_factor(vae), folder)
    for part, folder in ((unet, root / "unet"), *((network, folder) for folder, network in networks.items())):
        fill(part, read_part(folder), folder, dtype)
    licences = dict.fromkeys(licence_of(folder) for folder in (root, *networks))
    try:
        return EditDiffusion(
            unet,
            vae,
            {kind: networks[folder] for kind, folder in folders.items()},
            scheduler,
            embedded,
            ", ".join(licences),
        )
    except CheckpointError as error:
        raise CheckpointError(error.what, where=root, fix=error.fix) from error


def check_kind(index: Mapping[str, Any], root: Path) -> None:
    """Refuse other pipelines than Stable Diffusion's, by what the index says.

    Args:
        index: of the checkpoint.
        root: its folder, for messages.

    Raises:
        CheckpointError: it is of another kind.
    """
    kind = index.get("_class_name", "of no named class")
    if kind == _PIPELINE and "text_encoder_2" not in index:
        return
    why = "two text encoders, as Stable Diffusion XL" if "text_encoder_2" in index else str(kind)
    raise CheckpointError(
        f"is a checkpoint of another kind ({why})",
        where=root,
        fix=f"Stable Diffusion 1.x in diffusers layout ({_PIPELINE}) and viewloom's own editors load.",
    )


def _described(kind: type[UNet2DConditionModel] | type[ControlNetModel], folder: Path) -> Any:
    """A network of a folder's config, still without weights."""
    if (folder / INDEX).is_file():
        raise CheckpointError(
            "is a whole checkpoint, not one part of it", where=folder, fix=f"Give a folder of one {kind.__name__}."
        )
    config = read_config(part_config(folder))
    stated = config.get("_class_name", kind.__name__)
    if stated != kind.__name__:
        raise CheckpointError(f"holds a {stated}, not a {kind.__name__}", where=folder)
    return on_meta(kind, config, folder)


def _check_unet(unet: UNet2DConditionModel, folder: Path, *, with_default_controls: bool) -> None:
    """Refuse U-Nets that read more than noisy latents, and those that the default ControlNets do not fit."""
    inside, outside = int(unet.config["in_channels"]), int(unet.config["out_channels"])
    if inside != outside:
        what = " (it is for inpainting)" if inside == 2 * outside + 1 else ""
        raise CheckpointError(
            f"takes {inside} channels and makes {outside}{what}: it reads more than noisy latents",
            where=folder,
            fix="Give the plain text-to-image checkpoint.",
        )
    width = unet.config["cross_attention_dim"]
    if with_default_controls and width != _CONTROLS_WIDTH:
        raise CheckpointError(
            f"reads tokens of {width}, the default ControlNets of {_CONTROLS_WIDTH}",
            where=folder,
            fix="Give Stable Diffusion 1.x, or ControlNets that were trained with this checkpoint.",
        )


def _check_control(network: ControlNetModel, unet: UNet2DConditionModel, factor: int, folder: Path) -> None:
    """Refuse ControlNets whose results could not be added to the U-Net's.

    Args:
        network: the ControlNet.
        unet: that it is to control.
        factor: pixels per latent.
        folder: for messages.
    """
    ours, wanted = network.config, unet.config
    names = ("cross_attention_dim", "block_out_channels", "layers_per_block", "in_channels")
    compared = {name: (ours[name], wanted[name]) for name in names}
    compared["conditioning_channels"] = ours["conditioning_channels"], 3
    compared["reduction of pictures"] = 2 ** (len(ours["conditioning_embedding_out_channels"]) - 1), factor
    wrong = [f"{name} is {_plain(a)}, not {_plain(b)}" for name, (a, b) in compared.items() if _plain(a) != _plain(b)]
    if wrong:
        raise CheckpointError(
            f"does not fit the checkpoint: {'; '.join(wrong)}",
            where=folder,
            fix="Give a ControlNet of pictures that was trained with this checkpoint's kind of U-Net.",
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
