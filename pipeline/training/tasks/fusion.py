"""Training of ViewFusion's network on latents: any number of pictures of an object, and a view of it to draw.

Rows of a step are as many as are asked for, whatever the numbers of pictures of its objects: what a step costs does not
change. Noise levels, loss and the chance that a view is among its own pictures are as published (Spiegl et al. 2024,
arXiv 2402.02906, and its code); the angle of a relative network is the right one in those cases, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.diffusion.checkpoints.digests import latent_digest
from pipeline.diffusion.settings import FusionSampling
from pipeline.diffusion.viewfusion.model import Streams, ViewFusionModel
from pipeline.diffusion.viewfusion.sample import sample_fused
from pipeline.diffusion.viewfusion.unet import Angle, Fusing, FusionUNet
from pipeline.training.tasks.latent_state import latent_state, require_latents
from pipeline.training.tasks.views import channel_weights
from pipeline.training.trainer import Task
from scene.errors import InputError
from scene.metrics import view_scores

Rings = tuple[Float[Tensor, "o v c h w"], Float[Tensor, "o v"]]
"""Views of objects, as latents, and their azimuths (radians)."""


@dataclass(frozen=True)
class FusionNetwork:
    """Architecture of a fresh network.

    Args:
        width: channels of the finest level.
        multipliers: of that, for each level.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attended: sides of maps with attention.
        groups: of group normalisation.
        angle: how the angle is told.
        relative: angles are told from the first picture, as photos of things have no heading that all share.
        fusing: how streams are fused.
    """

    width: int = 64
    multipliers: tuple[float, ...] = (1.0, 1.25, 1.5)
    blocks: int = 1
    attended: tuple[int, ...] = (16, 8, 4)
    groups: int = 16
    angle: Angle = "periodic"
    relative: bool = True
    fusing: Fusing = "learned"


@dataclass(frozen=True)
class FusionLoss:
    """How the network is trained.

    Args:
        pictures: fewest and most of an object; as many of each number.
        itself: chance that the view may be among its own pictures.
        by_sensitivity: weigh latent channels by what an error in them does to pictures.
    """

    pictures: tuple[int, int] = (1, 6)
    itself: float = 0.1
    by_sensitivity: bool = True


def fresh_fusion(vae: AutoencoderKL, network: FusionNetwork = FusionNetwork()) -> ViewFusionModel:
    """An untrained network for the latents of a VAE of 128 pixels; it predicts nothing at first."""
    sizes = {field.name: getattr(network, field.name) for field in fields(network)}
    unet = FusionUNet(
        **sizes, channels=int(vae.config["latent_channels"]), sample_size=16, slots=6, vae=latent_digest(vae)
    )
    with torch.no_grad():
        unet.head["conv"].weight.zero_()
        unet.head["conv"].bias.zero_()
    return ViewFusionModel(unet, vae)


@dataclass(frozen=True, eq=False)
class FusionBatch:
    """Views to draw, and pictures to draw them from.

    Args:
        streams: pictures of each view's object.
        views: clean latents.
        azimuth: of the views, as the network is told it.
    """

    streams: Streams
    views: Float[Tensor, "b c h w"]
    azimuth: Float[Tensor, "b"]

    def __len__(self) -> int:
        return len(self.views)


def chosen_views(
    rng: np.random.Generator, views: int, counts: Sequence[int], itself: float
) -> tuple[Int[np.ndarray, "b"], list[Int[np.ndarray, "_"]]]:
    """Of rings of so many views: one to draw for each count, and as many of the others to draw it from.

    Args:
        rng: of the choice.
        views: of a ring.
        counts: pictures of each.
        itself: chance that the view may be among them.
    """
    targets, pictures = [], []
    for count in counts:
        order = rng.permutation(views)
        targets.append(int(order[0]))
        pictures.append(rng.permutation(views)[:count] if rng.random() < itself else order[1 : 1 + count])
    return np.array(targets), pictures


def counts_of_rows(rng: np.random.Generator, rows: int, pictures: tuple[int, int]) -> list[int]:
    """Numbers of pictures that together are so many rows; the last one is what is left."""
    counts: list[int] = []
    while (left := rows - sum(counts)) > 0:
        counts.append(min(left, int(rng.integers(pictures[0], pictures[1] + 1))))
    return counts


def batch_of(
    rings: Rings, targets: Int[np.ndarray, "b"], pictures: Sequence[Int[np.ndarray, "_"]], *, relative: bool
) -> FusionBatch:
    """Views of rings, and pictures of the same.

    Args:
        rings: an object for each view.
        targets: the views' numbers.
        pictures: those of the pictures.
        relative: angles are told from the first picture.
    """
    latents, azimuths = rings
    rows = torch.arange(len(targets))
    firsts = torch.as_tensor(np.array([one[0] for one in pictures]))
    told = azimuths[rows, torch.as_tensor(targets)]
    if relative:
        told = told - azimuths[rows, firsts]
    shown = torch.cat([latents[k, torch.as_tensor(one)] for k, one in enumerate(pictures)])
    counts = torch.tensor([len(one) for one in pictures], device=latents.device)
    return FusionBatch(Streams(shown, counts), latents[rows, torch.as_tensor(targets)], told % (2 * math.pi))


class FusionTask(Task[FusionBatch]):
    """Fused noise of views; see :class:`pipeline.training.trainer.Task`.

    Args:
        model: the network, and its VAE.
        draw: random rings, so many.
        held_out: rings that are measured on.
        device: where all is.
        rows: streams of a step.
        weights: how it is trained.
        seed: of the data.
        steps: of sampling when it is measured.
        counts: of pictures when it is measured.
    """

    def __init__(
        self,
        model: ViewFusionModel,
        draw: Callable[[np.random.Generator, int], Rings],
        held_out: Rings,
        device: torch.device,
        rows: int,
        weights: FusionLoss = FusionLoss(),
        seed: int = 0,
        steps: int = 10,
        counts: tuple[int, ...] = (1, 3, 6),
    ) -> None:
        if model.vae is None or model.codec is None:
            raise InputError("only networks that draw latents are trained", fix="Begin a fresh one.")
        self.model, self.vae, self.codec, self.draw, self.device = model, model.vae, model.codec, draw, device
        self.rows, self.weights, self.held_out, self.steps, self.counts = rows, weights, held_out, steps, counts
        self._rng = np.random.default_rng(seed)
        self._relative = bool(model.unet.config["relative"])
        few = held_out[0].flatten(0, 1)[:: max(1, held_out[0].shape[1] // 2)][:24].to(device)
        uniform = torch.ones(self.codec.latents, device=device)
        self.channels = channel_weights(self.codec, few) if weights.by_sensitivity else uniform

    def batches(self) -> Iterator[FusionBatch]:
        """Endless random batches."""
        while True:
            counts = counts_of_rows(self._rng, self.rows, self.weights.pictures)
            latents, azimuths = self.draw(self._rng, len(counts))
            chosen = chosen_views(self._rng, latents.shape[1], counts, self.weights.itself)
            yield batch_of((latents.to(self.device), azimuths.to(self.device)), *chosen, relative=self._relative)

    def loss(self, batch: FusionBatch) -> tuple[Tensor, int, dict[str, float]]:
        """Squared error of the fused noise."""
        loss = self.model.loss(batch.streams, batch.views, batch.azimuth, self.channels)
        return loss, len(batch), {"noise": float(loss.detach())}

    def evaluate(self) -> dict[str, float]:
        """Scores of views drawn from each number of pictures, one of each held-out object, always the same."""
        found: dict[str, float] = {}
        for count in self.counts:
            scores = []
            for k, (batch, truth) in enumerate(held_out_views(self.held_out, count, relative=self._relative)):
                drawn = sample_fused(
                    self.model,
                    batch.streams.pictures.to(self.device),
                    batch.azimuth.to(self.device),
                    FusionSampling(steps=self.steps, seed=k),
                )
                pair = torch.cat([drawn.views, truth.to(self.device)])
                shown = self.codec.decode(pair).float().cpu().numpy()
                scores.append(view_scores(shown[0], shown[1]))
            found |= {f"{key}_{count}": float(np.mean([one[key] for one in scores])) for key in scores[0]}
        return found

    def save(self, folder: Path) -> None:
        """Write the network; its VAE is another checkpoint's."""
        self.model.save(folder)

    def state(self) -> dict[str, Any]:
        """Which VAE the latents are of."""
        return latent_state(self.vae)

    def load_state(self, state: dict[str, Any]) -> None:
        """Refuse to go on with another VAE.

        Raises:
            InputError: its latents mean something else.
        """
        require_latents(self.vae, state)


def held_out_views(
    rings: Rings, count: int, *, relative: bool
) -> Iterator[tuple[FusionBatch, Float[Tensor, "1 c h w"]]]:
    """One view of each ring, and pictures of it; those of fewer pictures are among those of more.

    Args:
        rings: the held-out objects.
        count: pictures.
        relative: angles are told from the first picture.
    """
    latents, azimuths = rings
    for k in range(len(latents)):
        order = np.random.default_rng([k, 20]).permutation(latents.shape[1])
        part = (latents[k : k + 1], azimuths[k : k + 1])
        batch = batch_of(part, order[:1], [order[1 : 1 + count]], relative=relative)
        yield batch, batch.views
