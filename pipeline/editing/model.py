"""The editor: a U-Net, its VAE and ControlNets for skeletons and depth, with an empty prompt.

The nano editor has one ControlNet for both kinds of control, pictures with alpha in and out, and no text encoder: its
prompt is one token of zeros. Stable Diffusion 1.5 with two public ControlNets runs through the same class.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.checkpoints.layouts import INDEX, licence_in, read_json, scheduler_config
from pipeline.diffusion.checkpoints.parts import load_part, quiet_diffusers, save_part
from pipeline.diffusion.denoising.schedule import NoiseSchedule
from pipeline.diffusion.modules.attention import Layer, self_attention_layers, use_one_token_attention
from pipeline.diffusion.modules.latents import LatentCodec, save_decoder_memory, vae_factor
from pipeline.diffusion.settings import Memory
from pipeline.editing.controls import ControlKind
from scene.errors import CheckpointError, InputError
from scene.resources import default_weights

Source = Literal["noised", "clean"]
KINDS: tuple[ControlKind, ...] = get_args(ControlKind)


@dataclass(frozen=True, eq=False)
class Controls:
    """What rows are to show.

    Args:
        kind: of all pictures.
        pictures: in [0, 1], one for each row.
        scales: of each row's control; rows of 0 go without, and cost nothing.
    """

    kind: ControlKind
    pictures: Float[Tensor, "r 3 H W"]
    scales: Float[Tensor, "r"]

    def rows(self, index: Sequence[int] | slice | Int[Tensor, "k"]) -> Controls:
        """The controls of some rows."""
        return Controls(self.kind, self.pictures[index], self.scales[index])


@dataclass(eq=False)
class EditDiffusion:
    """A text-to-image model with ControlNets, as edits use it.

    Args:
        unet: denoises latents.
        vae: pictures to latents and back.
        controlnets: one for each kind of control that it knows; one network may serve several.
        scheduler: config of the noise process, in diffusers' terms.
        prompt: embedded tokens of the prompt, the same for all rows.
        licence: of the weights.
        source: how noisy the originals are whose keys and values it reads: as noisy as the edit, as any model takes
            them, or clean, at timestep 0 and with their own control, as it was trained.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    controlnets: Mapping[ControlKind, ControlNetModel]
    scheduler: dict[str, object]
    prompt: Float[Tensor, "n d"]
    licence: str = "unknown"
    source: Source = "noised"

    def __post_init__(self) -> None:
        self.codec = LatentCodec(self.vae)
        made = {name: int(self.unet.config[f"{name}_channels"]) for name in ("in", "out")}
        if set(made.values()) != {self.codec.latents}:
            raise CheckpointError(
                f"the U-Net takes {made['in']} and makes {made['out']} channels, the VAE has {self.codec.latents}"
            )
        width = int(self.unet.config["cross_attention_dim"])
        if self.prompt.shape[1] != width:
            raise CheckpointError(f"the prompt's tokens are {self.prompt.shape[1]} wide, the U-Net takes {width}")
        self.schedule = NoiseSchedule.of_config(self.scheduler)
        if self.schedule.zero_terminal_snr:
            raise CheckpointError(
                "its schedule keeps no signal at the last timestep, and cannot be inverted",
                fix="Use an editor that was trained without rescaled betas.",
            )
        if len(self.prompt) == 1:
            for network in (self.unet, *self.controlnets.values()):
                use_one_token_attention(network)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    @property
    def latent_size(self) -> int:
        """Side of the latents."""
        return int(self.unet.config["sample_size"])

    @property
    def image_size(self) -> int:
        """Side of the pictures."""
        return self.latent_size * vae_factor(self.vae)

    @property
    def decoder_layers(self) -> list[Layer]:
        """The decoder's self-attention layers, in the order of computation: those whose queries are made one."""
        return [layer for layer in self_attention_layers(self.unet).values() if layer.place == "decoder"]

    def channels_of(self, layer: Layer) -> int:
        """Width of a layer's queries, all heads together."""
        names = {found: name for name, found in self_attention_layers(self.unet).items()}
        module = self.unet.get_submodule(names[layer].removesuffix(".processor"))
        return int(cast(Any, module).to_q.out_features)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> EditDiffusion:
        """Move every part, in place."""
        with quiet_diffusers():
            for part in (self.unet, self.vae, *self.controlnets.values()):
                part.to(device=device, dtype=dtype).eval().requires_grad_(False)
        self.prompt = self.prompt.to(device)
        return self

    def use_memory(self, memory: Memory) -> EditDiffusion:
        """Trade time for memory, in place: ``low`` decodes in tiles and keeps no inner results for gradients."""
        save_decoder_memory(self.vae, memory)
        for network in (self.unet, *self.controlnets.values()):
            (network.enable_gradient_checkpointing if memory == "low" else network.disable_gradient_checkpointing)()
        return self

    def predict(
        self, z: Float[Tensor, "r c h w"], t: int | Int[Tensor, "r"], controls: Controls | None = None
    ) -> Float[Tensor, "r c h w"]:
        """The U-Net's raw prediction; hooks must be installed by the caller.

        Args:
            z: noisy normalised latents.
            t: timestep, of all rows or of each.
            controls: of each row; None for none.

        Raises:
            InputError: the model has no ControlNet of that kind.
        """
        dtype = self.unet.dtype
        times = torch.full((len(z),), t, device=z.device) if isinstance(t, int) else t
        prompt = self.prompt.to(dtype).expand(len(z), -1, -1)
        rows = z.to(dtype)
        down, mid = (None, None) if controls is None else self._residuals(rows, times, prompt, controls)
        out = self.unet(
            rows, times, prompt, down_block_additional_residuals=down, mid_block_additional_residual=mid
        ).sample
        return out.float()

    def _residuals(
        self, rows: Tensor, times: Tensor, prompt: Tensor, controls: Controls
    ) -> tuple[tuple[Tensor, ...] | None, Tensor | None]:
        """What the ControlNet adds to each row, zeros to those without a control."""
        network = self.controlnets.get(controls.kind)
        if network is None:
            known = ", ".join(sorted(self.controlnets)) or "none"
            raise InputError(f"the editor has no ControlNet for {controls.kind}", fix=f"It has: {known}.")
        given = controls.scales.nonzero()[:, 0]
        if not len(given):
            return None, None
        pictures = controls.pictures[given].to(rows.dtype)
        down, mid = network(rows[given], times[given], prompt[given], controlnet_cond=pictures, return_dict=False)
        scale = controls.scales[given].to(rows.dtype).view(-1, 1, 1, 1)

        def spread(residual: Tensor) -> Tensor:
            whole = residual.new_zeros((len(rows), *residual.shape[1:]))
            return whole.index_copy(0, given, residual * scale)

        return tuple(spread(one) for one in down), spread(mid)

    @classmethod
    def from_pretrained(cls, folder: Path) -> EditDiffusion:
        """Load the nano editor, or one of its layout, onto the CPU.

        A folder without a VAE is an editor of the nano checkpoint's latents, and takes its VAE.

        Raises:
            CheckpointError: a part is missing, damaged, or does not fit, as may be the nano checkpoint's VAE.
        """
        index = read_json(folder / INDEX)
        own = index.get("viewloom")
        own = own if isinstance(own, dict) else {}
        kinds = own.get("controls")
        if index.get("_class_name") != cls.__name__ or not isinstance(kinds, list) or not set(kinds) <= set(KINDS):
            raise CheckpointError("is no editor", where=folder / INDEX, fix="Give a folder that train_edit.py wrote.")
        own_vae = (folder / "vae").is_dir()
        vae = load_part(AutoencoderKL, (folder if own_vae else default_weights()) / "vae")
        if not own_vae and own.get("latents") != latent_digest(cast(AutoencoderKL, vae)):
            raise CheckpointError(
                "was trained on the latents of another VAE than the nano checkpoint's",
                where=folder,
                fix="Give the editor its own vae folder.",
            )
        unet = cast(UNet2DConditionModel, load_part(UNet2DConditionModel, folder / "unet"))
        control = cast(ControlNetModel, load_part(ControlNetModel, folder / "controlnet"))
        return cls(
            unet,
            cast(AutoencoderKL, vae),
            dict.fromkeys(kinds, control),
            scheduler_config(folder),
            torch.zeros(1, int(unet.config["cross_attention_dim"])),
            licence_in(index),
            "clean" if own.get("source") == "clean" else "noised",
        )

    def save_pretrained(self, folder: Path, *, vae: bool = True) -> None:
        """Write the nano editor in diffusers' layout, in half precision; over an older one, a kill leaves a mixture.

        Args:
            folder: of the checkpoint.
            vae: write the VAE too; without, it is taken from the nano checkpoint.

        Raises:
            CheckpointError: it has several ControlNets, or a prompt, which this layout does not hold.
        """
        networks = {id(network): network for network in self.controlnets.values()}
        if len(networks) != 1 or len(self.prompt) != 1 or self.prompt.any():
            raise CheckpointError("public checkpoints are loaded, not written", fix="Keep the files they came from.")
        folder.mkdir(parents=True, exist_ok=True)
        parts: dict[str, Any] = {"unet": self.unet, "controlnet": next(iter(networks.values()))}
        index: dict[str, object] = {"_class_name": type(self).__name__}
        for name, part in (parts | {"vae": self.vae} if vae else parts).items():
            save_part(part, folder / name)
            index[name] = ["diffusers", type(part).__name__]
        index["scheduler"] = ["diffusers", "DDIMScheduler"]
        kept: dict[str, object] = {"controls": sorted(self.controlnets), "licence": self.licence, "source": self.source}
        index["viewloom"] = kept if vae else kept | {"latents": latent_digest(self.vae)}
        (folder / "scheduler").mkdir(exist_ok=True)
        for path, content in (
            (folder / "scheduler" / "scheduler_config.json", self.scheduler),
            (folder / INDEX, index),
        ):
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
