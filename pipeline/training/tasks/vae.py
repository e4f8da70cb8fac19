"""Training of the nano VAE: RGBA pictures of 128 px to latents of 16 px a side and of controlled information."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.checkpoints.parts import quiet_diffusers, write_part
from pipeline.diffusion.modules.latents import (
    decode_latents,
    encode_images,
    images_from_rgba,
    rgba_from_images,
    vae_channels,
    vae_fold,
)
from pipeline.training.data.store import SampleStore
from pipeline.training.trainer import Task


@dataclass(frozen=True)
class VaeLoss:
    """Weights of the VAE's loss.

    Args:
        squared: weight of the squared error beside the absolute one.
        edges: weight of the absolute error of finite differences.
        chroma: weight of the error of red minus green and of their mean minus blue, over means of 4x4 pixels. Without
            it a VAE of few channels spends none on a second hue axis: little light is lost with it.
        foreground: extra weight of pixels the object covers.
        outline: weight of the cross entropy of alpha being above one half, at the pixels that the outline crosses and
            beside them. Four of five pixels of a mask that are wrong are such; absolute errors do not know the half.
        kl_nats: information per latent position (all channels) that the KL weight is steered to.
        latent_noise: noise added to latents before decoding, so that the decoder forgives small diffusion errors.
        recolour: chance that a picture's colours are turned or tinted (:func:`recoloured`).
    """

    squared: float = 4.0
    edges: float = 0.5
    chroma: float = 4.0
    foreground: float = 2.0
    outline: float = 0.0
    kl_nats: float = 10.0
    latent_noise: float = 0.05
    recolour: float = 0.5


def nano_vae(
    latent_channels: int = 8, fold: int = 4, widths: tuple[int, ...] = (96, 160), layers: int = 1
) -> AutoencoderKL:
    """The shipped architecture: latents of an eighth of the picture's side, alpha in and out, folded pictures.

    Args:
        latent_channels: of the latents.
        fold: see :func:`pipeline.diffusion.modules.latents.encode_images`.
        widths: channels of each level, largest pictures first; each further one halves the side.
        layers: residual blocks of a level of the encoder; the decoder has one more.
    """
    vae = AutoencoderKL(
        in_channels=4 * fold**2,
        out_channels=4 * fold**2,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=layers,
        norm_num_groups=16,
        latent_channels=latent_channels,
        sample_size=128 // fold,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )
    vae.register_to_config(fold=fold)
    return vae


_LUMA = (0.299, 0.587, 0.114)


def recoloured(rgba: UInt8[Tensor, "b s s 4"], rng: np.random.Generator, chance: float) -> UInt8[Tensor, "b s s 4"]:
    """Pictures of which some have turned hues and stronger saturation, or a saturated tint.

    Rendered objects are mostly of subdued colours; a VAE that sees only these has no need of the corners of the cube.

    Args:
        rgba: straight alpha.
        rng: chooses pictures and changes.
        chance: of a picture to be changed; a third of these are tinted.
    """
    out = rgba.clone()
    luma = torch.tensor(_LUMA)
    for k in np.nonzero(rng.random(len(rgba)) < chance)[0]:
        colour = rgba[k, ..., :3].float() / 255
        grey = (colour @ luma)[..., None]
        if rng.random() < 1 / 3:
            tint = torch.from_numpy(rng.random(3)).float()
            tint = (tint - tint.min()) / (tint.max() - tint.min()).clamp(min=1e-3)
            amount = float(rng.uniform(0.5, 1.0))
            colour = colour * (1 - amount) + amount * tint * (0.3 + 0.7 * grey)
        else:
            # Turn about the grey axis: Rodrigues' formula for the axis (1, 1, 1) / sqrt(3).
            angle = float(rng.uniform(0, 2 * math.pi))
            cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
            turn = cos * torch.eye(3) + (1 - cos) / 3 + sin * torch.tensor([[0, 1, -1], [-1, 0, 1], [1, -1, 0]])
            colour = grey + float(rng.uniform(1.0, 2.5)) * ((colour - grey) @ turn)
        out[k, ..., :3] = (colour.clamp(0, 1) * 255).round().to(torch.uint8)
    return out


class VaeTask(Task[UInt8[Tensor, "b s s 4"]]):
    """Reconstruction of rendered pictures; see :class:`pipeline.training.trainer.Task`.

    Args:
        vae: what is trained.
        stores: of the pictures.
        held_out: pictures that are measured.
        batch: pictures of a step.
        device: where the VAE is.
        weights: of the loss.
        seed: of the pictures drawn and their colours.
        decoder_only: the encoder stays as it is, so that models of its latents keep their meaning.
    """

    def __init__(
        self,
        vae: AutoencoderKL,
        stores: Sequence[SampleStore],
        held_out: UInt8[np.ndarray, "n s s 4"],
        batch: int,
        device: torch.device,
        weights: VaeLoss = VaeLoss(),
        seed: int = 0,
        *,
        decoder_only: bool = False,
    ) -> None:
        self.decoder_only = decoder_only
        self.vae, self.stores, self.batch, self.device, self.weights = vae, stores, batch, device, weights
        self.held_out = torch.from_numpy(held_out)
        self._rng = np.random.default_rng(seed)
        self._log_kl_weight = math.log(1e-4)

    def batches(self) -> Iterator[UInt8[Tensor, "b s s 4"]]:
        """Endless random pictures; stores that another process still fills grow meanwhile."""
        for step in itertools.count():
            if step % 200 == 0:
                for store in self.stores:
                    store.reread()
            pictures = torch.from_numpy(self._drawn(self._rng, self.batch))
            yield recoloured(pictures, self._rng, self.weights.recolour).to(self.device)

    def _drawn(self, rng: np.random.Generator, count: int) -> UInt8[np.ndarray, "b s s 4"]:
        sizes = np.array([len(store) for store in self.stores])
        return self.stores[int(rng.choice(len(sizes), p=sizes / sizes.sum()))].images(rng, count)

    def loss(self, batch: UInt8[Tensor, "b s s 4"]) -> tuple[Tensor, int, dict[str, float]]:
        """Weighted reconstruction error plus the KL term."""
        w = self.weights
        target = images_from_rgba(batch, 4)
        with torch.set_grad_enabled(not self.decoder_only):
            posterior = encode_images(self.vae, target)
            latents = posterior.sample()
        image = decode_latents(self.vae, latents + w.latent_noise * torch.randn_like(latents)).float()
        total = reconstruction_loss(image, target, w)
        if self.decoder_only:
            return total, len(batch), {}
        kl = posterior.kl().mean() / latents[0, 0].numel()
        total = total + math.exp(self._log_kl_weight) * kl
        # Steer the weight so that the information settles at the wanted value, whatever the data.
        self._log_kl_weight += 0.01 * max(-1.0, min(1.0, (float(kl.detach()) - w.kl_nats) / w.kl_nats))
        return total, len(batch), {"kl": float(kl.detach()), "kl_weight": math.exp(self._log_kl_weight)}

    def evaluate(self) -> dict[str, float]:
        """Full-frame and foreground PSNR over white, and IoU of the alpha masks, through the posterior mode."""
        total: dict[str, float] = {}
        for chunk in self.held_out.split(32):
            rgba = chunk.to(self.device)
            image = images_from_rgba(rgba, 4)
            out = decode_latents(self.vae, encode_images(self.vae, image).mode()).float()
            for key, value in reconstruction_scores(out, image).items():
                total[key] = total.get(key, 0.0) + float(value.sum())
        return {k: v / len(self.held_out) for k, v in total.items()} | {"disc_error": disc_error(self.vae)}

    def save(self, folder: Path) -> None:
        """Write the VAE with the statistics of its latents, half precision."""
        with quiet_diffusers():  # it does not know of folding
            twin = AutoencoderKL.from_config(self.vae.config)
        twin.load_state_dict(self.vae.state_dict())
        # Said again in either case: diffusers takes values for its defaults that were registered after construction.
        if self.decoder_only:
            twin.register_to_config(**{key: self.vae.config[key] for key in ("latents_mean", "latents_std")})
        else:
            with torch.no_grad():
                mean, std = self.latent_statistics()
            twin.register_to_config(
                latents_mean=[round(float(v), 5) for v in mean], latents_std=[round(float(v), 5) for v in std]
            )
        write_part(twin.half(), folder)

    def state(self) -> dict[str, Any]:
        """The steered weight."""
        return {"log_kl_weight": self._log_kl_weight}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with the steered weight."""
        self._log_kl_weight = float(state["log_kl_weight"])

    def latent_statistics(self) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
        """Per-channel mean and standard deviation of training latents."""
        rng = np.random.default_rng(1)
        parts = [
            encode_images(self.vae, images_from_rgba(torch.from_numpy(self._drawn(rng, 32)).to(self.device), 4))
            .mode()
            .float()
            for _ in range(16)
        ]
        latents = torch.cat(parts)
        return latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))


def reconstruction_loss(
    image: Float[Tensor, "b 4 h w"], target: Float[Tensor, "b 4 h w"], weights: VaeLoss
) -> Float[Tensor, ""]:
    """Weighted error of decoded pictures: absolute and squared, edges, chroma, outlines.

    Args:
        image: decoded, about [-1, 1].
        target: true, [-1, 1].
        weights: of the terms.
    """
    error = beyond_range_forgiven(image, target)
    emphasis = 1 + weights.foreground * (target[:, 3:] > -0.99).float()
    emphasis = emphasis / emphasis.mean()
    pixels = (emphasis * (error.abs() + weights.squared * error.square())).mean()
    if weights.outline:
        pixels = pixels + weights.outline * outline_error(image[:, 3:], target[:, 3:])
    edges = [(emphasis.narrow(d, 0, error.shape[d] - 1) * error.diff(dim=d).abs()).mean() for d in (2, 3)]
    return pixels + weights.edges * (edges[0] + edges[1]) + weights.chroma * chroma_error(error, emphasis)


def beyond_range_forgiven(
    image: Float[Tensor, "b c h w"], target: Float[Tensor, "b c h w"]
) -> Float[Tensor, "b c h w"]:
    """Decoded less true values, 0 where the truth is an end of the range and the decoded value lies beyond it.

    Such values are clamped in use. Were they errors, the decoder would hedge: white would come out grey, and corners of
    the colour cube 8 of 255 inside it.
    """
    error = image - target
    beyond = ((target >= 1) & (error > 0)) | ((target <= -1) & (error < 0))
    return error.masked_fill(beyond, 0.0)


def outline_error(alpha: Float[Tensor, "b 1 h w"], target: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Cross entropy of alpha's side of one half at pixels that the outline crosses and their neighbours, in their mean.

    Args:
        alpha: decoded, [-1, 1], beyond it too.
        target: true, [-1, 1].
    """
    near = F.max_pool2d((target.abs() < 0.99).float(), 3, stride=1, padding=1)
    # A slope of 3: beyond the range there is little left to gain.
    wrong = F.binary_cross_entropy_with_logits(3 * alpha, (target > 0).float(), reduction="none")
    return (near * wrong).sum() / near.sum().clamp(min=1)


def chroma_error(
    error: Float[Tensor, "b 4 h w"], emphasis: Float[Tensor, "b 1 h w"], block: int = 4
) -> Float[Tensor, ""]:
    """Absolute plus four times squared error of the two colour differences, over means of ``block`` x ``block`` pixels.

    Args:
        error: decoded minus true pictures, [-1, 1], alpha last.
        emphasis: weight of every pixel, mean 1.
    """
    red, green, blue = (error * emphasis)[:, :3].unbind(1)
    chroma = F.avg_pool2d(torch.stack([red - green, (red + green) / 2 - blue], 1), block)
    return (chroma.abs() + 4 * chroma.square()).mean()


DISC_COLOURS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1), (0, 0, 0))
"""Corners of the RGB cube."""


def disc_pictures(size: int, colours: Sequence[tuple[float, float, float]] = DISC_COLOURS) -> UInt8[Tensor, "n s s 4"]:
    """A disc of each plain colour on nothing, of half the frame's width."""
    place = (torch.arange(size) + 0.5) / size - 0.5
    inside = (place[:, None] ** 2 + place**2).sqrt() < 0.25
    out = torch.zeros(len(colours), size, size, 4, dtype=torch.uint8)
    out[..., :3] = (torch.tensor(colours)[:, None, None] * 255).round().to(torch.uint8)
    out[..., 3] = inside.to(torch.uint8) * 255
    return out


@torch.no_grad()
def disc_error(vae: AutoencoderKL) -> float:
    """Mean absolute error, of 255, of plain discs' colours after encoding and decoding: what a lost hue axis costs.

    The mean colour within a disc is compared, channel by channel, for the eight corners of the RGB cube.
    """
    size = int(vae.config["sample_size"]) * vae_fold(vae)
    image = images_from_rgba(disc_pictures(size).to(vae.device), vae_channels(vae))
    out = decode_latents(vae, encode_images(vae, image).mode()).float().clamp(-1, 1)
    inside = image.new_tensor(disc_pictures(size)[:1, ..., 3].tolist())[:, None] > 0
    difference = ((out - image)[:, :3] * inside).sum((2, 3)) / inside.sum()
    return float(difference.abs().mean()) * 127.5


def reconstruction_scores(
    out: Float[Tensor, "b 4 h w"], image: Float[Tensor, "b 4 h w"]
) -> dict[str, Float[Tensor, "b"]]:
    """Per-picture scores of VAE outputs in [-1, 1]: PSNR (dB), foreground PSNR (dB), alpha IoU."""
    error = (out[:, :3].clamp(-1, 1) - image[:, :3]).square().mean(dim=1) / 4
    mask = image[:, 3] > 0
    predicted = rgba_from_images(out)[..., 3] >= 0.5
    full = error.mean(dim=(1, 2))
    front = (error * mask).sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)
    union = (mask | predicted).sum(dim=(1, 2)).clamp(min=1)
    return {
        "psnr": -10 * full.clamp(min=1e-10).log10(),
        "foreground_psnr": -10 * front.clamp(min=1e-10).log10(),
        "alpha_iou": (mask & predicted).sum(dim=(1, 2)) / union,
    }
