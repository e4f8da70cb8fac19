"""Training of the segmenter on composed photos: the object's mask from a photo."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.checkpoints.parts import save_part
from pipeline.diffusion.preparation.segmenter import SegmenterModel
from pipeline.training.data.backdrops import HELD_OUT, Paint
from pipeline.training.data.compose import ComposeSettings, Objects, compose
from pipeline.training.data.foregrounds import ForegroundStore, render_foreground
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.samples import heldout_mesh
from pipeline.training.procedural import generate_any
from pipeline.training.tasks.coarse_volume import iou
from pipeline.training.trainer import Task


@dataclass(frozen=True)
class SegmenterLoss:
    """Weights of the segmenter's loss.

    Args:
        overlap: weight of 1 - soft IoU beside the cross-entropy.
        edge: how much more a pixel near an outline counts in the cross-entropy.
        slope: weight of the difference between the masks' slopes.
        rough: weight of the cross-entropy of the rough mask.
    """

    overlap: float = 1.0
    edge: float = 3.0
    slope: float = 1.0
    rough: float = 0.3


@dataclass(frozen=True, eq=False)
class PhotoBatch:
    """Composed photos stacked along a leading axis."""

    rgb: UInt8[np.ndarray, "b s s 3"]
    alpha: UInt8[np.ndarray, "b s s"]

    def __len__(self) -> int:
        return len(self.rgb)


def composed(
    seeds: Sequence[Sequence[int]], objects: Objects, paints: Sequence[Paint], settings: ComposeSettings
) -> PhotoBatch:
    """One photo for each seed."""
    photos = [compose(np.random.default_rng(seed), objects, paints, settings) for seed in seeds]
    return PhotoBatch(np.stack([p.rgb for p in photos]), np.stack([p.alpha for p in photos]))


def held_out_foregrounds(objects: Path, size: int, count: int = 96) -> ForegroundStore:
    """Objects that are never trained on: the pool's val split, and of the named families as many again."""
    pool = ObjectPool(objects, "val")
    store = ForegroundStore(size, count)
    for k in range(count):
        rng = np.random.default_rng([2**31 + 7, k])
        # The seeds of training objects stay below 2**31.
        mesh = heldout_mesh(pool, k // 2 % len(pool)) if k % 2 == 0 else generate_any(2**31 + k, faces=6000)
        store.append(render_foreground(mesh, size, rng))
    return store


def held_out_photos(objects: Path, count: int = 256, size: int = 128) -> PhotoBatch:
    """Photos of held-out objects in surroundings of kinds that are never trained on (and plain sheets)."""
    store = held_out_foregrounds(objects, size)
    # Without empty photos: overlap with nothing says little.
    settings = ComposeSettings(size=size, none=0.0)
    return composed([(2**31 + 11, k) for k in range(count)], store, HELD_OUT, settings)


class SegmenterTask(Task[PhotoBatch]):
    """Mask from photo; see :class:`pipeline.training.trainer.Task`.

    Args:
        objects: rendered objects.
        paints: what surroundings are painted with.
        held_out: photos to measure on.
        fresh: share of each batch that is composed for it; the rest are earlier photos again, mirrored by chance,
            since composing takes time from training.
        memory: earlier photos kept.
    """

    def __init__(
        self,
        model: SegmenterModel,
        objects: Objects,
        paints: Sequence[Paint],
        held_out: PhotoBatch,
        batch: int,
        device: torch.device,
        weights: SegmenterLoss = SegmenterLoss(),
        seed: int = 0,
        *,
        fresh: float = 0.5,
        memory: int = 4096,
    ) -> None:
        self.model, self.objects, self.paints, self.held_out = model, objects, paints, held_out
        self.batch, self.device, self.weights, self.seed = batch, device, weights, seed
        self.fresh, self.memory = max(1, round(fresh * batch)), memory
        # Depthwise convolutions on a CPU are several times as fast in this layout.
        model.to(memory_format=torch.channels_last)

    def batches(self) -> Iterator[PhotoBatch]:
        """Endless batches; photo ``k`` follows from the seed and ``k`` alone."""
        settings = ComposeSettings(size=int(self.model.config["image_size"]))
        rng = np.random.default_rng([self.seed, 2**32])
        size, made = settings.size, 0
        rgb = np.zeros((self.memory, size, size, 3), np.uint8)
        alpha = np.zeros((self.memory, size, size), np.uint8)
        while True:
            count = self.fresh if made >= self.batch else self.batch
            new = composed([(self.seed, made + k) for k in range(count)], self.objects, self.paints, settings)
            place = np.arange(made, made + count) % self.memory
            rgb[place], alpha[place] = new.rgb, new.alpha
            made += count
            again = rng.integers(min(made, self.memory), size=self.batch - count)
            index = np.concatenate([place, again])
            flip = rng.random(self.batch) < 0.5
            photos, masks = rgb[index], alpha[index]
            photos[flip], masks[flip] = photos[flip, :, ::-1], masks[flip, :, ::-1]
            yield PhotoBatch(photos, masks)

    def loss(self, batch: PhotoBatch) -> tuple[Tensor, int, dict[str, float]]:
        """Cross-entropy, overlap and slopes."""
        w = self.weights
        rgb, alpha = self._tensors(batch)
        logits, rough = (v.float() for v in self.model(rgb))
        near = F.max_pool2d(alpha, 5, 1, 2) + F.max_pool2d(-alpha, 5, 1, 2)
        weight = 1 + w.edge * near
        entropy = (F.binary_cross_entropy_with_logits(logits, alpha, reduction="none") * weight).sum() / weight.sum()
        mask = logits.sigmoid()
        overlap = 1 - soft_iou(mask, alpha).mean()
        slope = sum((mask.diff(dim=k) - alpha.diff(dim=k)).abs().mean() for k in (2, 3))
        small = F.adaptive_avg_pool2d(alpha, rough.shape[-2:])
        total = entropy + w.overlap * overlap + w.slope * slope
        total = total + w.rough * F.binary_cross_entropy_with_logits(rough, small)
        return total, len(batch), {"entropy": float(entropy.detach()), "overlap": float(overlap.detach())}

    def evaluate(self) -> dict[str, float]:
        """IoU of the held-out photos, share of them below 0.5, and cross-entropy."""
        overlaps, entropies = [], []
        for start in range(0, len(self.held_out), 32):
            part = PhotoBatch(self.held_out.rgb[start : start + 32], self.held_out.alpha[start : start + 32])
            rgb, alpha = self._tensors(part)
            logits = self.model(rgb)[0].float()
            overlaps.append(iou(logits > 0, alpha >= 0.5))
            entropies.append(F.binary_cross_entropy_with_logits(logits, alpha, reduction="none").mean((1, 2, 3)))
        overlap = torch.cat(overlaps)
        return {
            "iou": float(overlap.mean()),
            "failed": float((overlap < 0.5).float().mean()),
            "held_out_entropy": float(torch.cat(entropies).mean()),
        }

    def save(self, folder: Path) -> None:
        """Write the model in half precision."""
        save_part(self.model, folder)

    def _tensors(self, batch: PhotoBatch) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 1 s s"]]:
        # A stack of pictures is in the fast layout when its channels are moved, not copied, to the front.
        rgb = torch.from_numpy(batch.rgb).to(self.device).float().permute(0, 3, 1, 2) / 255
        return rgb, torch.from_numpy(batch.alpha).to(self.device).float()[:, None] / 255


def soft_iou(mask: Float[Tensor, "b 1 s s"], alpha: Float[Tensor, "b 1 s s"]) -> Float[Tensor, "b"]:
    """Overlap over union of each pair of soft masks; two empty ones overlap fully."""
    both = (mask * alpha).sum((1, 2, 3))
    return (both + 1) / (mask.sum((1, 2, 3)) + alpha.sum((1, 2, 3)) - both + 1)
