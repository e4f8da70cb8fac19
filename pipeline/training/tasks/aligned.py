"""Training of the aligned decoder's layers on rings of views; the VAE, decoder included, stays as it is.

So what the plain decoder makes of the same latents is the control: nothing of a gain is owed to a decoder that was
trained longer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.diffusion.aligned_decoder import AlignedDecoder
from pipeline.diffusion.epipolar import Pixels, shown, surface_points
from pipeline.diffusion.epipolar_attention import Guide
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses
from pipeline.training.data.view_rings import DepthNoise, ViewRing
from pipeline.training.tasks.latent_state import latent_state, require_latents
from pipeline.training.tasks.vae import VaeLoss, reconstruction_loss
from pipeline.training.trainer import Task

BEHIND = 0.02
"""World units by which a point may lie behind another view's true surface and still be seen there."""


@dataclass(frozen=True)
class AlignedLoss:
    """How the layers are trained.

    Args:
        pixels: the loss of decoded pictures, the VAE's own.
        noise: on depth maps.
        noisy_latents: share of sets whose latents are noised.
        latent_spread: its largest standard deviation, in the scale of the diffusion model.
        without_front: share of sets that have no front view.
    """

    pixels: VaeLoss = VaeLoss()
    noise: DepthNoise = DepthNoise()
    noisy_latents: float = 1 / 3
    latent_spread: float = 0.1
    without_front: float = 0.05


def ring_guide(
    ring: ViewRing, noise: DepthNoise | None = None, factor: float = 1.0, grow: int = 0, seed: int = 0
) -> Guide:
    """What the decoder knows of a ring: true depth, or spoiled depth.

    Args:
        ring: the ring.
        noise: how depth is spoiled; not at all by default.
        factor, grow, seed: see :meth:`DepthNoise.spoiled`. The ring's draft is taken for its depth, if it has one.
    """
    depth, front_depth = torch.from_numpy(ring.depths), torch.from_numpy(ring.front_depth)[None]
    if noise is not None:
        if ring.draft_depths is not None and ring.draft_front_depth is not None:
            depth, front_depth = torch.from_numpy(ring.draft_depths), torch.from_numpy(ring.draft_front_depth)[None]
        depth = noise.spoiled(depth, factor, grow, seed)
        front_depth = noise.spoiled(front_depth, factor, grow, seed + 1)
    front = images_from_rgba(torch.from_numpy(ring.front)[None], 4)[0]
    return Guide(Poses.of(ring.cameras), depth, front, Poses.of([ring.front_camera]), front_depth)


def seen_by_front(ring: ViewRing) -> Bool[Tensor, "v s s"]:
    """Pixels of the views whose surface the front view shows, too."""
    guide = ring_guide(ring)
    assert guide.front_depth is not None
    assert guide.front_pose is not None
    out = torch.zeros(guide.depth.shape, dtype=torch.bool)
    for view, depth in enumerate(guide.depth):
        pixels = Pixels.of(depth)
        _, seen = shown(guide.front_pose, guide.front_depth, surface_points(guide.poses[view], pixels), BEHIND)
        out[view] = out[view].flatten().index_copy(0, pixels.index, seen[0]).view(depth.shape)
    return out


@torch.no_grad()
def encoded_ring(decoder: AlignedDecoder, ring: ViewRing) -> tuple[Float[Tensor, "v 4 s s"], Float[Tensor, "v c h w"]]:
    """True pictures of a ring, and their normalised latents."""
    rgba, codec = torch.from_numpy(ring.views).to(decoder.vae.device), decoder.codec
    return images_from_rgba(rgba, 4), codec.normalise(codec.encode_raw(rgba))


class AlignedTask(Task[list[ViewRing]]):
    """Pictures of rings through latents and back; see :class:`pipeline.training.trainer.Task`.

    Args:
        decoder: whose layers are trained.
        rings: endless.
        held_out: rings that are measured.
        batch: rings of a step.
        device: where the decoder is.
        weights: of the loss, and how inputs are spoiled.
        seed: of the noise.
    """

    def __init__(
        self,
        decoder: AlignedDecoder,
        rings: Iterator[ViewRing],
        held_out: Sequence[ViewRing],
        batch: int,
        device: torch.device,
        weights: AlignedLoss = AlignedLoss(),
        seed: int = 0,
    ) -> None:
        self.decoder, self.rings, self.batch, self.device, self.weights = decoder, rings, batch, device, weights
        self.held_out = held_out
        self._rng = np.random.default_rng([seed, 18])

    def batches(self) -> Iterator[list[ViewRing]]:
        """Endless batches of rings."""
        while True:
            yield [next(self.rings) for _ in range(self.batch)]

    def loss(self, batch: list[ViewRing]) -> tuple[Tensor, int, dict[str, float]]:
        """Mean loss of the rings' pictures."""
        losses = [self._ring_loss(ring) for ring in batch]
        return torch.stack(losses).mean(), len(batch), {}

    def _ring_loss(self, ring: ViewRing) -> Float[Tensor, ""]:
        w, rng = self.weights, self._rng
        grow = int(rng.integers(-w.noise.mask, w.noise.mask + 1))
        guide = ring_guide(ring, w.noise, float(rng.uniform(0, w.noise.most)), grow, int(rng.integers(2**31)))
        if rng.random() < w.without_front:
            guide = Guide(guide.poses, guide.depth)
        target, latents = encoded_ring(self.decoder, ring)
        if rng.random() < w.noisy_latents:
            latents = latents + float(rng.uniform(0, w.latent_spread)) * torch.randn_like(latents)
        image = self.decoder.decode_images(latents, guide.to(self.device)).float()
        return reconstruction_loss(image, target, w.pixels)

    def evaluate(self) -> dict[str, float]:
        """Foreground PSNR (dB), mean over held-out rings, and its gain over plain decoding: with true depth, where the
        front sees and where it does not, and with noise on depth.
        """
        rows: dict[str, list[float]] = {}

        def add(name: str, value: float) -> None:
            rows.setdefault(name, []).append(value)

        for index, ring in enumerate(self.held_out):
            target, latents = encoded_ring(self.decoder, ring)
            seen = seen_by_front(ring).to(self.device)
            whole = target[:, 3] > 0
            plain = self.decoder.decode_images(latents, None)
            true = self.decoder.decode_images(latents, ring_guide(ring).to(self.device))
            spoiled = ring_guide(ring, self.weights.noise, 1.0, 0, index).to(self.device)
            noisy = self.decoder.decode_images(latents, spoiled)
            before = masked_psnr(plain, target, whole)
            add("foreground_psnr", masked_psnr(true, target, whole))
            add("plain_psnr", before)
            add("gain", masked_psnr(true, target, whole) - before)
            add("gain_noisy", masked_psnr(noisy, target, whole) - before)
            for name, part in (("seen", whole & seen), ("unseen", whole & ~seen)):
                if part.any():
                    add(f"gain_{name}", masked_psnr(true, target, part) - masked_psnr(plain, target, part))
        return {name: float(np.mean(values)) for name, values in rows.items()}

    def save(self, folder: Path) -> None:
        """Write the layers as they stand."""
        self.decoder.save(folder)

    def state(self) -> dict[str, Any]:
        """Which VAE the latents are of."""
        return latent_state(cast(AutoencoderKL, self.decoder.vae))

    def load_state(self, state: dict[str, Any]) -> None:
        """Refuse to go on with another VAE.

        Raises:
            InputError: its latents mean something else.
        """
        require_latents(cast(AutoencoderKL, self.decoder.vae), state)


def masked_psnr(
    image: Float[Tensor, "v c h w"], target: Float[Tensor, "v c h w"], mask: Bool[Tensor, "v h w"]
) -> float:
    """PSNR (dB) of colours in [-1, 1] over the pixels of a mask, of all views together."""
    error = (image[:, :3].float().clamp(-1, 1) - target[:, :3]).square().mean(1) / 4
    return float(-10 * error[mask].mean().clamp(min=1e-10).log10())
