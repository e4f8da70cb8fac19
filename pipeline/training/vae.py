"""Training of the nano VAE: RGBA pictures of 128 px to 16x16x4 latents of controlled information."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.latents import images_from_rgba, rgba_from_images
from pipeline.training.store import SampleStore


@dataclass(frozen=True)
class VaeLoss:
    """Weights of the VAE's loss.

    Args:
        squared: weight of the squared error beside the absolute one.
        edges: weight of the absolute error of finite differences.
        foreground: extra weight of pixels the object covers.
        kl_nats: information per latent element that the KL weight is steered to.
        latent_noise: noise added to latents before decoding, so that the decoder forgives small diffusion errors.
    """

    squared: float = 4.0
    edges: float = 0.5
    foreground: float = 2.0
    kl_nats: float = 2.0
    latent_noise: float = 0.05


def nano_vae() -> AutoencoderKL:
    """The shipped architecture: 3.2 M parameters, 8 times smaller latents, alpha in and out."""
    return AutoencoderKL(
        in_channels=4,
        out_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(24, 48, 96, 128),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=128,
        scaling_factor=1.0,
    )


class VaeTask:
    """Reconstruction of rendered pictures; see :class:`pipeline.training.trainer.Task`."""

    def __init__(
        self,
        vae: AutoencoderKL,
        store: SampleStore,
        held_out: UInt8[np.ndarray, "n s s 4"],
        batch: int,
        device: torch.device,
        weights: VaeLoss = VaeLoss(),
        seed: int = 0,
    ) -> None:
        self.vae, self.store, self.batch, self.device, self.weights = vae, store, batch, device, weights
        self.held_out = torch.from_numpy(held_out)
        self._rng = np.random.default_rng(seed)
        self._log_kl_weight = math.log(1e-3)

    def batches(self) -> Iterator[UInt8[Tensor, "b s s 4"]]:
        """Endless random pictures."""
        while True:
            yield torch.from_numpy(self.store.images(self._rng, self.batch)).to(self.device)

    def loss(self, batch: UInt8[Tensor, "b s s 4"]) -> tuple[Tensor, int, dict[str, float]]:
        """Weighted reconstruction error plus the KL term."""
        w = self.weights
        target = images_from_rgba(batch, 4)
        posterior = self.vae.encode(target).latent_dist
        latents = posterior.sample()
        error = self.vae.decode(latents + w.latent_noise * torch.randn_like(latents)).sample.float() - target
        emphasis = 1 + w.foreground * (target[:, 3:] > -0.99).float()
        emphasis = emphasis / emphasis.mean()
        pixels = (emphasis * (error.abs() + w.squared * error.square())).mean()
        edges = sum((emphasis.narrow(d, 0, error.shape[d] - 1) * error.diff(dim=d).abs()).mean() for d in (2, 3))
        kl = posterior.kl().mean() / latents[0].numel()
        total = pixels + w.edges * edges + math.exp(self._log_kl_weight) * kl
        # Steer the weight so that the information settles at the wanted value, whatever the data.
        self._log_kl_weight += 0.01 * max(-1.0, min(1.0, (float(kl.detach()) - w.kl_nats) / w.kl_nats))
        return total, len(batch), {"kl": float(kl.detach()), "kl_weight": math.exp(self._log_kl_weight)}

    def evaluate(self) -> dict[str, float]:
        """Full-frame and foreground PSNR over white, and IoU of the alpha masks, through the posterior mode."""
        total: dict[str, float] = {}
        for chunk in self.held_out.split(32):
            rgba = chunk.to(self.device)
            image = images_from_rgba(rgba, 4)
            out = self.vae.decode(self.vae.encode(image).latent_dist.mode()).sample.float()
            for key, value in reconstruction_scores(out, image).items():
                total[key] = total.get(key, 0.0) + float(value.sum())
        return {k: v / len(self.held_out) for k, v in total.items()}

    def save(self, folder: Path) -> None:
        """Write the VAE with the statistics of its latents, half precision."""
        with torch.no_grad():
            mean, std = self.latent_statistics()
        twin = AutoencoderKL.from_config(self.vae.config)
        twin.load_state_dict(self.vae.state_dict())
        twin.register_to_config(
            latents_mean=[round(float(v), 5) for v in mean], latents_std=[round(float(v), 5) for v in std]
        )
        twin.half().save_pretrained(folder)

    def latent_statistics(self) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
        """Per-channel mean and standard deviation of training latents."""
        rng = np.random.default_rng(1)
        parts = [
            self.vae.encode(images_from_rgba(torch.from_numpy(self.store.images(rng, 32)).to(self.device), 4))
            .latent_dist.mode()
            .float()
            for _ in range(16)
        ]
        latents = torch.cat(parts)
        return latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))


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
