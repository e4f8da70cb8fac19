"""Training of the nano editor: a U-Net and its ControlNet together, on pairs of one object in two states.

A row of each pair is the source, clean and with its own control; the other one is the target, which in most steps reads
the source's keys and values in the finest places of the decoder, as edits do (:class:`MutualSelfAttention`). Public
models keep an object's looks that way untrained, from a source that is as noisy as the target; a small one has to learn
it, and learns more from one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.denoising.loop import RowNoise, denoise
from pipeline.diffusion.denoising.schedule import Span, timestep_pairs, trailing_timesteps
from pipeline.diffusion.methods.mutual_self_attention import MutualSelfAttention
from pipeline.diffusion.modules.attention import Step, hooked
from pipeline.editing.model import KINDS, Controls, EditDiffusion
from pipeline.training.data.edit_pairs import PairBatch
from pipeline.training.tasks.latent_state import latent_state, require_latents
from pipeline.training.tasks.views import channel_weights, shifted_timesteps
from pipeline.training.trainer import Task
from scene.metrics import view_scores

EDIT_SCHEDULER: dict[str, object] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}
"""Stable Diffusion's own levels of noise: the last one keeps some signal, so that it can be inverted."""


@dataclass(frozen=True)
class EditNetwork:
    """Architecture of a fresh editor.

    Args:
        widths: channels of each level, the finest first.
        layers: residual blocks of a level of the encoder; the decoder has one more.
        heads: of attention.
        control_widths: of the network that brings controls to the size of latents.
        token: width of the empty prompt.
    """

    widths: tuple[int, ...] = (48, 80, 112)
    layers: int = 2
    heads: int = 1
    control_widths: tuple[int, ...] = (16, 32, 48, 64)
    token: int = 16


@dataclass(frozen=True)
class EditLoss:
    """How the editor is trained.

    Args:
        shift: how far noise levels are drawn towards high noise, in -logSNR; latents of 16 pixels a side keep their
            large shapes visible at noise that hides those of 32.
        shared: share of the steps in which targets read their sources' keys and values.
        drop: chance that a target loses its control (for guidance over it).
        source_control: chance that a source has its own control.
        object_weight: how much more a place of the object, in either state, counts than one of the background.
        by_sensitivity: weigh latent channels by what an error in them does to pictures.
    """

    shift: float = 1.0
    shared: float = 0.75
    drop: float = 0.1
    source_control: float = 0.9
    object_weight: float = 3.0
    by_sensitivity: bool = True


def shared_sides(model: EditDiffusion) -> tuple[int, ...]:
    """Sides of the decoder's two finest token grids, where targets read their sources."""
    return tuple(sorted({layer.resolution for layer in model.decoder_layers}, reverse=True)[:2])


def fresh_editor(weights: Path, network: EditNetwork = EditNetwork()) -> EditDiffusion:
    """An untrained editor around the VAE of a checkpoint."""
    vae = cast(AutoencoderKL, load_part(AutoencoderKL, weights / "vae"))
    latents, levels = int(vae.config["latent_channels"]), len(network.widths)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=latents,
        out_channels=latents,
        layers_per_block=network.layers,
        block_out_channels=network.widths,
        down_block_types=("CrossAttnDownBlock2D",) * levels,
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=network.token,
        attention_head_dim=network.heads,  # diffusers' name for the number of heads of this class
        norm_num_groups=16,
    )
    with torch.no_grad():
        unet.conv_out.weight.zero_()
        unet.conv_out.bias.zero_()
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=network.control_widths)
    prompt = torch.zeros(1, network.token)
    return EditDiffusion(unet, vae, dict.fromkeys(KINDS, control), EDIT_SCHEDULER, prompt, "Apache-2.0", "clean")


class EditModules(nn.Module):
    """The trained parts of an editor, as one module."""

    def __init__(self, model: EditDiffusion) -> None:
        super().__init__()
        self.unet = model.unet
        self.controlnet = next(iter(model.controlnets.values()))


class EditTask(Task[PairBatch]):
    """v-prediction of targets beside their sources; see :class:`pipeline.training.trainer.Task`."""

    def __init__(
        self,
        model: EditDiffusion,
        draw: Callable[[np.random.Generator], PairBatch],
        held_out: PairBatch,
        device: torch.device,
        weights: EditLoss = EditLoss(),
        seed: int = 0,
        steps: int = 10,
    ) -> None:
        self.model, self.draw, self.device, self.weights = model, draw, device, weights
        self.held_out, self.steps = held_out, steps
        self._rng = np.random.default_rng(seed)
        self._levels = shifted_timesteps(model.schedule, weights.shift)
        self._sides = shared_sides(model)
        few = draw(np.random.default_rng([seed, 2])).target[:24].to(device)
        uniform = torch.ones(model.codec.latents, device=device)
        self.channels = channel_weights(model.codec, few) if weights.by_sensitivity else uniform

    def batches(self) -> Iterator[PairBatch]:
        """Endless random batches."""
        while True:
            yield self.draw(self._rng)

    def loss(self, batch: PairBatch) -> tuple[Tensor, int, dict[str, float]]:
        """Squared error of the predicted v of targets."""
        w, model, count = self.weights, self.model, len(batch)
        t = self._levels[torch.randint(len(self._levels), (count,))].to(self.device)
        noise = torch.randn_like(batch.target)
        noisy = model.schedule.add_noise(batch.target, noise, t)
        wanted = model.schedule.target(batch.target, noise, t)
        kept = (torch.rand(count, device=self.device) >= w.drop).float()
        own = (torch.rand(count, device=self.device) < w.source_control).float()
        controls = Controls("skeleton", pairs(batch.source_control, batch.target_control), pairs(own, kept))
        shared = bool(torch.rand(()) < w.shared)
        hook = MutualSelfAttention(2, Span(0, len(model.schedule)), self._sides)
        with hooked(model.unet, [hook] if shared else []):
            hook.begin_pass(Step(0, 1, 0))
            if shared:
                predicted = model.predict(pairs(batch.source, noisy), pairs(torch.zeros_like(t), t), controls)[1::2]
            else:
                predicted = model.predict(noisy, t, controls.rows(slice(1, None, 2)))
        cover = torch.maximum(batch.source_cover, batch.target_cover)
        places = 1 + (w.object_weight - 1) * cover
        places = places / places.mean(dim=(1, 2), keepdim=True)
        error = ((predicted - wanted).square() * self.channels[:, None, None]).mean(1)
        loss = (error * places).mean()
        return loss, count, {"shared" if shared else "alone": float(loss.detach())}

    def evaluate(self) -> dict[str, float]:
        """Scores of sampled targets: the object's looks from the source, its state from the control."""
        batch = self.held_out
        latents = edited_pairs(self.model, batch, self.steps, self._sides)
        shown = self.model.codec.decode(latents).float().cpu().numpy()
        truth = self.model.codec.decode(batch.target).float().cpu().numpy()
        found = [view_scores(one, true) for one, true in zip(shown, truth, strict=True)]
        return {key: float(np.mean([scores[key] for scores in found])) for key in found[0]}

    def save(self, folder: Path) -> None:
        """Write the editor, VAE and all."""
        self.model.save_pretrained(folder)

    def state(self) -> dict[str, Any]:
        """Which VAE the latents are of."""
        return latent_state(self.model.vae)

    def load_state(self, state: dict[str, Any]) -> None:
        """Refuse to go on with another VAE.

        Raises:
            InputError: its latents mean something else.
        """
        require_latents(self.model.vae, state)


def pairs(sources: Shaped[Tensor, "b *s"], targets: Shaped[Tensor, "b *s"]) -> Shaped[Tensor, "b2 *s"]:
    """Rows of sources and targets in turn."""
    return torch.stack([sources, targets], 1).flatten(0, 1)


@torch.no_grad()
def edited_pairs(
    model: EditDiffusion, batch: PairBatch, steps: int, sides: tuple[int, ...]
) -> Float[Tensor, "b c h w"]:
    """Targets, sampled beside their clean sources, from these at the noisiest level."""
    count, schedule, device = len(batch), model.schedule, batch.source.device
    ones = torch.ones(count, device=device)
    controls = Controls("skeleton", pairs(batch.source_control, batch.target_control), pairs(ones, ones))
    timesteps = trailing_timesteps(steps, len(schedule))
    noise = RowNoise.of(range(count)).draw(batch.source.shape[1:], device)
    start = schedule.add_noise(batch.source, noise, torch.full((count,), timesteps[0], device=device))

    def predict(z: Tensor, t: int) -> Tensor:
        times = torch.full((count,), t, device=device)
        return model.predict(pairs(batch.source, z), pairs(torch.zeros_like(times), times), controls)[1::2]

    hook = MutualSelfAttention(2, Span(0, len(schedule)), sides)
    with hooked(model.unet, [hook]):
        return denoise(
            predict, start, schedule, timestep_pairs(timesteps), noise=RowNoise.of(range(count)), hooks=[hook]
        )
