"""Between pictures and latents: value ranges, alpha, and the scaling that the diffusion model works in."""

from __future__ import annotations

from typing import TypeAlias

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.settings import Memory
from scene.errors import ViewloomError

AnyVae: TypeAlias = AutoencoderKL | AutoencoderKLTemporalDecoder
"""The second one's decoder takes the views of one object for the frames of a film."""


def images_from_rgba(rgba: UInt8[Tensor, "b h w 4"], channels: int) -> Float[Tensor, "b c h w"]:
    """8-bit straight-alpha pictures to a VAE's input in [-1, 1]: composited on white, then alpha if 4 channels."""
    values = rgba.permute(0, 3, 1, 2).float() / 255
    colour, alpha = values[:, :3], values[:, 3:]
    white = colour * alpha + (1 - alpha)
    out = white if channels == 3 else torch.cat([white, alpha], dim=1)
    return out * 2 - 1


def rgba_from_images(images: Float[Tensor, "b c h w"], *, white_threshold: float = 0.95) -> Float[Tensor, "b h w 4"]:
    """A VAE's output to straight-alpha colour in [0, 1].

    Three-channel models get alpha 1 wherever some channel is darker than ``white_threshold``. Colour is what, laid on
    white with that alpha, gives the decoded picture back.
    """
    values = (images.float() * 0.5 + 0.5).clamp(0, 1)
    white = values[:, :3]
    if values.shape[1] == 4:
        alpha = values[:, 3:]
    else:
        alpha = (white.amin(dim=1, keepdim=True) < white_threshold).float()
    colour = torch.where(alpha > 0.02, (white - (1 - alpha)) / alpha.clamp(min=0.02), 0.0).clamp(0, 1)
    return torch.cat([colour, alpha], dim=1).permute(0, 2, 3, 1)


def encode_images(vae: AutoencoderKL, images: Float[Tensor, "b c h w"]) -> DiagonalGaussianDistribution:
    """A VAE's posterior of pictures in [-1, 1]; a folded VAE gets blocks of ``fold`` x ``fold`` pixels as channels.

    Folding (``fold`` in the config, absent from public checkpoints) moves the work from full-size pictures, where it is
    mostly memory traffic, to wide small ones: the same as a strided convolution without overlap in front.
    """
    return vae.encode(F.pixel_unshuffle(images, vae_fold(vae)).to(vae.dtype)).latent_dist


def decode_latents(vae: AutoencoderKL, raw: Float[Tensor, "b l h w"]) -> Float[Tensor, "b c H W"]:
    """A VAE's pictures of unscaled latents, in its own precision, unfolded if it is a folded one."""
    return F.pixel_shuffle(vae.decode(raw.to(vae.dtype)).sample, vae_fold(vae))


def vae_fold(vae: AnyVae) -> int:
    """Side of the pixel blocks that a VAE takes as channels; 1 for all public ones."""
    return int(vae.config.get("fold", 1))


def vae_channels(vae: AnyVae) -> int:
    """Channels of a VAE's pictures: 3, or 4 with alpha."""
    return int(vae.config["in_channels"]) // vae_fold(vae) ** 2


def vae_factor(vae: AnyVae) -> int:
    """How many times smaller latents are than pictures."""
    return vae_fold(vae) * 2 ** (len(vae.config["block_out_channels"]) - 1)


def checked_finite(images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """A VAE's output as it is, in the precision that it was made in.

    Raises:
        ViewloomError: some of it is not finite, which would pass for an empty picture, or a white one.
    """
    if not torch.isfinite(images).all():
        name = str(images.dtype).removeprefix("torch.")
        others = {"float16": "Use --dtype bfloat16 or float32.", "bfloat16": "Use --dtype float32."}
        raise ViewloomError(
            f"the model produced numbers that are not finite in {name}",
            fix=others.get(name, "Try another --views.sampling.seed, less guidance, or other weights."),
        )
    return images


class LatentCodec:
    """Encodes to and decodes from the latents that a diffusion model denoises.

    Uses the VAE's per-channel ``latents_mean`` and ``latents_std`` if its config has them, else ``scaling_factor``.
    """

    def __init__(self, vae: AnyVae) -> None:
        self.vae = vae
        self.channels = vae_channels(vae)
        self.latents = int(vae.config["latent_channels"])
        mean, std = vae.config.get("latents_mean"), vae.config.get("latents_std")
        count = vae.config["latent_channels"]
        scale = vae.config["scaling_factor"]
        self._mean = torch.tensor(mean if mean is not None else [0.0] * count).view(1, -1, 1, 1)
        self._std = torch.tensor(std if std is not None else [1 / scale] * count).view(1, -1, 1, 1)

    def encode_raw(self, rgba: UInt8[Tensor, "b h w 4"]) -> Float[Tensor, "b c h8 w8"]:
        """Unscaled posterior mode, the form in which Zero123 concatenates the source."""
        return encode_images(self.vae, images_from_rgba(rgba, self.channels)).mode().float()

    def normalise(self, raw: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Unscaled latents to the scale of the diffusion model."""
        return (raw - self._mean.to(raw.device)) / self._std.to(raw.device)

    def raw(self, latents: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Latents of the diffusion model to unscaled ones: the inverse of :meth:`normalise`."""
        return latents * self._std.to(latents.device) + self._mean.to(latents.device)

    def decode(self, latents: Float[Tensor, "b c h8 w8"]) -> Float[Tensor, "b h w 4"]:
        """Diffusion latents to straight-alpha pictures in [0, 1].

        Raises:
            ViewloomError: the pictures are not finite.
        """
        return rgba_from_images(self.decode_images(latents))

    def decode_images(self, latents: Float[Tensor, "b l h8 w8"]) -> Float[Tensor, "b c H W"]:
        """Diffusion latents to pictures on white, with alpha if the VAE has it, about [-1, 1] and not clamped.

        Raises:
            ViewloomError: the pictures are not finite.
        """
        return checked_finite(decode_latents(self.vae, self.raw(latents)))


def save_decoder_memory(vae: AutoencoderKL, memory: Memory) -> None:
    """Decode picture by picture and in tiles if memory is low.

    Attention is not sliced: the fused attention that runs here never holds its scores.
    """
    for switch in (
        (vae.enable_slicing, vae.enable_tiling) if memory == "low" else (vae.disable_slicing, vae.disable_tiling)
    ):
        switch()
