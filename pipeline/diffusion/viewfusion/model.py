"""How streams become one prediction, and the noise that they predict.

A view is predicted from any number of pictures: each is a stream through the network, and a softmax over the streams of
a view, for every place and channel, says what each counts. Pictures need no order and no cameras.

Source: Spiegl et al. 2024 (arXiv 2402.02906), sections 3.1 and 3.2; the training step is of its published code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.parts import load_part, save_part
from pipeline.diffusion.modules.latents import LatentCodec, images_from_rgba, rgba_from_images, vae_factor
from pipeline.diffusion.viewfusion.published import published_file, published_unet
from pipeline.diffusion.viewfusion.unet import FusionUNet
from scene.errors import CheckpointError, InputError


@dataclass(frozen=True, eq=False)
class Streams:
    """Pictures of several objects, one after the other.

    Args:
        pictures: as the network takes them: pixels in [0, 1], or normalised latents.
        counts: pictures of each object, at least one.

    Raises:
        InputError: the counts are not of these pictures.
    """

    pictures: Float[Tensor, "s c h w"]
    counts: Int[Tensor, "b"]

    def __post_init__(self) -> None:
        if int(self.counts.sum()) != len(self.pictures) or (self.counts < 1).any():
            raise InputError(f"{len(self.pictures)} pictures are not {self.counts.tolist()} of each object")

    @classmethod
    def of(cls, pictures: Float[Tensor, "n c h w"], views: int) -> Streams:
        """The pictures of one object, once for each of so many views."""
        counts = torch.full((views,), len(pictures), device=pictures.device)
        return cls(pictures.repeat(views, 1, 1, 1), counts)

    @property
    def owners(self) -> Int[Tensor, "s"]:
        """Which object a picture is of."""
        return torch.repeat_interleave(torch.arange(len(self.counts), device=self.counts.device), self.counts)

    @property
    def references(self) -> Int[Tensor, "s"]:
        """The first picture of each picture's object."""
        return (self.counts.cumsum(0) - self.counts)[self.owners]


def fuse(
    noise: Float[Tensor, "s c h w"], logits: Float[Tensor, "s c h w"] | None, streams: Streams
) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "s c h w"]]:
    """One prediction of each object's streams, and what each stream counts in it.

    Args:
        noise: that streams predict.
        logits: of their weights; all alike without.
        streams: whose they are.
    """
    owners, counts = streams.owners, streams.counts
    most = int(counts.max())
    slots = torch.arange(len(owners), device=owners.device) - streams.references
    # Single precision, lest weights of many streams that are alike round to a sum that is not 1.
    padded = noise.new_full((len(counts), most, *noise.shape[1:]), -torch.inf, dtype=torch.float32)
    said = torch.zeros_like(noise, dtype=torch.float32) if logits is None else logits.float()
    weights = padded.index_put((owners, slots), said).softmax(1)[owners, slots]
    fused = torch.zeros_like(padded[:, 0]).index_add(0, owners, weights * noise.float())
    return fused, weights


@dataclass(eq=False)
class ViewFusionModel:
    """The network, and the VAE of its pictures if these are latents.

    Args:
        unet: the network.
        vae: of its latents; None where it draws pixels.

    Raises:
        CheckpointError: the VAE is not the one that the network was trained with, or it needs one and there is none.
    """

    unet: FusionUNet
    vae: AutoencoderKL | None = None

    def __post_init__(self) -> None:
        wanted = self.unet.config["vae"]
        if bool(wanted) != (self.vae is not None):
            raise CheckpointError(
                "the network draws latents, and there is no VAE" if wanted else "the network draws pixels, not latents"
            )
        if self.vae is not None and wanted != latent_digest(self.vae):
            raise CheckpointError(
                "the network was trained with the latents of another VAE", fix="Use the checkpoint that it came with."
            )
        self.codec = None if self.vae is None else LatentCodec(self.vae)
        c = self.unet.config
        self.gammas = linear_gammas(c["steps"], c["first"], c["last"])

    @classmethod
    def from_pretrained(cls, source: Path | str, vae: Path | None = None) -> ViewFusionModel:
        """A folder of ours, or a file of the published code.

        Args:
            source: the folder with the network's config and weights, the file, or ``owner/name`` of the file's
                repository on the hub; the network is used for the last only.
            vae: folder of the VAE, for a network that draws latents.

        Raises:
            CheckpointError: it is missing, damaged, of another kind, or of another VAE.
        """
        path = local_checkpoint(source)
        if (file := published_file(path)) is not None:
            return cls(published_unet(file))
        unet = cast(FusionUNet, load_part(FusionUNet, path))
        needs = bool(unet.config["vae"]) and vae is not None
        return cls(unet, cast(AutoencoderKL, load_part(AutoencoderKL, cast(Path, vae))) if needs else None)

    def save(self, folder: Path) -> None:
        """Write the network, without the VAE, in half precision."""
        save_part(self.unet, folder)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    @property
    def image_size(self) -> int:
        """Side of its pictures in pixels."""
        factor = 1 if self.vae is None else vae_factor(self.vae)
        return int(self.unet.config["sample_size"]) * factor

    @torch.no_grad()
    def pictures_of(self, rgba: UInt8[Tensor, "n s s 4"]) -> Float[Tensor, "n c h w"]:
        """Straight-alpha pictures of :attr:`image_size` as the network takes them."""
        if self.codec is None:
            return images_from_rgba(rgba.to(self.device), 3) * 0.5 + 0.5
        return self.codec.normalise(self.codec.encode_raw(rgba.to(self.device)))

    @torch.no_grad()
    def shown(self, views: Float[Tensor, "n c h w"]) -> Float[Tensor, "n s s 4"]:
        """What the network draws, as straight-alpha pictures in [0, 1]; of pixels, what is not white is the object."""
        return rgba_from_images(views * 2 - 1) if self.codec is None else self.codec.decode(views)

    def predict(
        self,
        streams: Streams,
        noisy: Float[Tensor, "b c h w"],
        gamma: Float[Tensor, "b"],
        azimuth: Float[Tensor, "b"],
        rows: int | None = None,
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "s c h w"]]:
        """The noise in views, and what each stream counts in it.

        Args:
            streams: the pictures of each view's object.
            noisy: the views.
            gamma: their shares of signal.
            azimuth: of the views, radians; from each object's first picture if the network is a relative one.
            rows: streams that go through the network at once; all by default.
        """
        c, owners, pictures = self.unet.config, streams.owners, streams.pictures
        if c["angle"] == "raw":
            azimuth = azimuth % (2 * math.pi)
        if c["fusing"] == "concatenated":
            x = torch.cat([self._in_slots(streams), noisy], 1)
            out = self._passed(x, gamma, azimuth, rows)
            return out, torch.ones_like(pictures) / streams.counts[owners, None, None, None]
        planes = [pictures, noisy[owners]]
        if c["relative"]:
            planes = [pictures[streams.references], *planes]
        out = self._passed(torch.cat(planes, 1), gamma[owners], azimuth[owners], rows)
        noise, *logits = out.split(c["channels"], 1)
        return fuse(noise, logits[0] if logits else None, streams)

    def _passed(self, x: Tensor, gamma: Tensor, azimuth: Tensor, rows: int | None) -> Tensor:
        parts = (part.split(rows or len(x)) for part in (x, gamma, azimuth))
        return torch.cat([self.unet(*one) for one in zip(*parts, strict=True)])

    def _in_slots(self, streams: Streams) -> Float[Tensor, "b e h w"]:
        """Pictures as channels, blank where an object has fewer than there are slots; those beyond are left out."""
        slots = int(self.unet.config["slots"])
        index = torch.arange(len(streams.pictures), device=streams.counts.device) - streams.references
        kept = index < slots
        blank = streams.pictures.new_zeros(len(streams.counts), slots, *streams.pictures.shape[1:])
        return blank.index_put((streams.owners[kept], index[kept]), streams.pictures[kept]).flatten(1, 2)

    def loss(
        self,
        streams: Streams,
        views: Float[Tensor, "b c h w"],
        azimuth: Float[Tensor, "b"],
        channels: Float[Tensor, "c"] | None = None,
    ) -> Float[Tensor, ""]:
        """Squared error of the fused noise at random levels, drawn evenly between those of random steps.

        Args:
            streams: pictures of each view's object.
            views: the clean views.
            azimuth: of these.
            channels: what each counts; all alike by default.
        """
        step = torch.randint(1, len(self.gammas), (len(views),))
        within = torch.rand(len(views), dtype=self.gammas.dtype)
        gamma = torch.lerp(self.gammas[step], self.gammas[step - 1], within).to(views.device, views.dtype)
        noise = torch.randn_like(views)
        found, _ = self.predict(streams, noised(views, noise, gamma), gamma, azimuth)
        error = (found - noise).square()
        return (error if channels is None else error * channels[:, None, None]).mean()


def noised(
    clean: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], gamma: Float[Tensor, "b"]
) -> Float[Tensor, "b c h w"]:
    """Views with noise, of a share of signal ``gamma`` in their variance."""
    kept = gamma[:, None, None, None]
    return kept.sqrt() * clean + (1 - kept).sqrt() * noise


def linear_gammas(steps: int = 2000, first: float = 1e-6, last: float = 1e-2) -> Float[Tensor, "g"]:
    """Shares of signal after each step of a schedule whose betas rise linearly, the most signal first; in double
    precision, since the first are next to 1.

    The published network was trained with the defaults; ``linear_gammas(1000, 1e-4, 0.09)`` is the shorter schedule of
    its configuration.
    """
    betas = torch.linspace(first, last, steps, dtype=torch.float64)
    return (1 - betas).cumprod(0)
