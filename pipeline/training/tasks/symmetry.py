"""Training of the symmetry head: photo to headings of symmetry planes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from pipeline.diffusion.checkpoints.parts import write_part
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.symmetry import SymmetryHead, opposite
from pipeline.training.data.photos import PhotoBatch, PhotoSettings, draw_photos, framed_target
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.data.symmetry import SymmetryLabels, near_a_plane
from pipeline.training.trainer import Task

TOLERANCE_DEG = 8.0
"""How far a plane may be off and still be of use."""


@dataclass(frozen=True, eq=False)
class SymmetryBatch:
    """Photos, and how far their objects are from their mirror images.

    Args:
        photos: see :class:`pipeline.training.data.photos.PhotoBatch`; their solids are not used.
        errors: see :func:`pipeline.training.data.symmetry.reflection_errors`.
    """

    photos: PhotoBatch
    errors: Float[np.ndarray, "b k"]


@dataclass(frozen=True, eq=False)
class HeldOutPhotos:
    """Every picture of held-out samples as a photo.

    Args:
        photo: prepared photos, straight alpha.
        azimuth: of their cameras in their objects' worlds, radians.
        errors: of their objects.
        object: whose photo it is.
    """

    photo: np.ndarray
    azimuth: Float[np.ndarray, "n"]
    errors: Float[np.ndarray, "n k"]
    object: Int[np.ndarray, "n"]

    @classmethod
    def of(cls, samples: SampleBatch, errors: Float[np.ndarray, "o k"]) -> HeldOutPhotos:
        """Sources and targets of samples."""
        low, high = (math.radians(angle) for angle in PhotoSettings().elevation_deg)
        photos, azimuths, whose = [], [], []
        for k in range(len(samples)):
            photos.append(samples.source[k])
            azimuths.append(0.0)
            whose.append(k)
            for rgba, orbit in zip(samples.targets[k], samples.target_cameras[k], strict=True):
                framed = framed_target(rgba, orbit) if low <= orbit[1] <= high else None
                if framed is not None:
                    photos.append(framed[0])
                    azimuths.append(float(orbit[0]))
                    whose.append(k)
        index = np.array(whose)
        return cls(np.stack(photos), np.array(azimuths), errors[index], index)


class SymmetryTask(Task[SymmetryBatch]):
    """Headings from photos; see :class:`pipeline.training.trainer.Task`.

    Args:
        model: the head to train.
        coarse: whose trunk it reads; it is not changed.
        store: samples.
        labels: of the first of them.
        held_out: photos to measure on.
        batch: photos of a step.
        device: where the models are.
        photos: how photos are made of samples.
        seed: of the data's order and of the photos.
    """

    def __init__(
        self,
        model: SymmetryHead,
        coarse: CoarseVolumeModel,
        store: SampleStore,
        labels: SymmetryLabels,
        held_out: HeldOutPhotos,
        batch: int,
        device: torch.device,
        photos: PhotoSettings = PhotoSettings(),
        seed: int = 0,
    ) -> None:
        self.model, self.store, self.labels, self.batch, self.device = model, store, labels, batch, device
        self.coarse = coarse.to(device).eval().requires_grad_(False)
        # Mirroring is done here, since it turns the labels as well.
        self.held_out, self.photos = held_out, replace(photos, mirror=0.0)
        self._rng = np.random.default_rng(seed)

    def batches(self) -> Iterator[SymmetryBatch]:
        """Endless random batches."""
        count = min(len(self.labels), len(self.store))
        while True:
            index = np.sort(self._rng.integers(count, size=self.batch))
            photos = draw_photos(self.store.batch(index), self._rng, self.photos)
            yield SymmetryBatch(photos, self.labels.errors[index])

    def loss(self, batch: SymmetryBatch) -> tuple[Tensor, int, dict[str, float]]:
        """Cross-entropy of "a true plane is near this heading", for photos and their mirror images."""
        rgba = images_from_rgba(torch.from_numpy(batch.photos.photo).to(self.device), 4)
        wanted = torch.from_numpy(self._near(batch.errors, batch.photos.azimuth)).to(self.device).float()
        flip = torch.rand(len(rgba), device=self.device) < 0.5
        rgba = torch.where(flip[:, None, None, None], rgba.flip(-1), rgba)
        wanted = torch.where(flip[:, None], opposite(wanted), wanted)
        with torch.no_grad():
            features = self.coarse.features(rgba)
        entropy = F.binary_cross_entropy_with_logits(self.model(features).float(), wanted)
        return entropy, len(rgba), {"entropy": float(entropy.detach())}

    def evaluate(self) -> dict[str, float]:
        """Cross-entropy on held-out photos, share whose likeliest plane is right, share used at 95 % precision."""
        held = self.held_out
        chance = self.chances()
        true = self._near(held.errors, held.azimuth)
        entropy = F.binary_cross_entropy(torch.from_numpy(chance), torch.from_numpy(true).float())
        best = chance.argmax(1)
        right = true[np.arange(len(best)), best]
        threshold = precise_threshold(chance.max(1), right, 0.95)
        return {
            "entropy": float(entropy),
            "right": float(right.mean()),
            "used_at_95": float((chance.max(1) >= threshold).mean()),
            "threshold_95": threshold,
        }

    @torch.no_grad()
    def chances(self) -> Float[np.ndarray, "n k"]:
        """Probabilities for all held-out photos."""
        parts = []
        for photo in np.array_split(self.held_out.photo, max(1, len(self.held_out.photo) // 64)):
            rgba = images_from_rgba(torch.from_numpy(photo).to(self.device), 4)
            parts.append(self.model.chances(self.coarse, rgba).cpu().numpy())
        return np.concatenate(parts)

    def save(self, folder: Path) -> None:
        """Write the head in half precision."""
        settings = {k: v for k, v in self.model.config.items() if not k.startswith("_")}
        twin = SymmetryHead(**settings)
        twin.load_state_dict(self.model.state_dict())
        write_part(twin.half(), folder)

    def _near(self, errors: Float[np.ndarray, "n k"], azimuth: Float[np.ndarray, "n"]) -> np.ndarray:
        count = int(self.model.config["headings"])
        headings = np.broadcast_to(np.arange(count) * math.pi / count, (len(azimuth), count))
        return near_a_plane(errors, np.asarray(azimuth, np.float64), headings, TOLERANCE_DEG)


def precise_threshold(confidence: Float[np.ndarray, "n"], right: np.ndarray, precision: float) -> float:
    """The lowest confidence from which at least so many are right; above all of them if there is none."""
    order = np.argsort(-confidence)
    precise = np.cumsum(right[order]) / np.arange(1, len(order) + 1) >= precision
    return float(confidence[order[np.nonzero(precise)[0][-1]]]) if precise.any() else 1.01
