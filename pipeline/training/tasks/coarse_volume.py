"""Training of the coarse volume: photo to solid, colours and camera."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from pipeline.diffusion.checkpoints.parts import write_part
from pipeline.diffusion.modules.coarse_volume import CAMERA_SCALE, CoarseVolumeModel
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.training.data.photos import PhotoBatch, PhotoSettings, draw_photos
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.trainer import Task


@dataclass(frozen=True)
class CoarseLoss:
    """Weights of the coarse volume's loss.

    Args:
        dice: weight of 1 - Dice beside the cross-entropy.
        colour: weight of the absolute colour error at surface voxels.
        camera: weight of the camera error (Huber, in units of typical deviations).
        camera_jitter: deviation, in the same units, of the camera that places the frustum, since at use it is a guess.
    """

    dice: float = 1.0
    colour: float = 1.0
    camera: float = 0.3
    camera_jitter: float = 0.15


class CoarseTask(Task[PhotoBatch]):
    """Solid from photo; see :class:`pipeline.training.trainer.Task`.

    Args:
        model: the model to train.
        stores: samples; a batch comes from one of them, drawn by its size.
        held_out: samples to measure on.
        batch: photos of a step.
        device: where the model is.
        weights: of the loss.
        photos: how photos are made of samples.
        seed: of the data's order and of the photos.
    """

    def __init__(
        self,
        model: CoarseVolumeModel,
        stores: Sequence[SampleStore],
        held_out: SampleBatch,
        batch: int,
        device: torch.device,
        weights: CoarseLoss = CoarseLoss(),
        photos: PhotoSettings = PhotoSettings(),
        seed: int = 0,
    ) -> None:
        self.model, self.stores, self.batch, self.device, self.weights = model, stores, batch, device, weights
        self.held_out, self.photos = held_out, photos
        self._rng = np.random.default_rng(seed)

    def batches(self) -> Iterator[PhotoBatch]:
        """Endless random batches; stores that another process still fills grow meanwhile."""
        for step in itertools.count():
            if step % 200 == 0:
                for store in self.stores:
                    store.reread()
            sizes = np.array([len(store) for store in self.stores])
            store = self.stores[int(self._rng.choice(len(sizes), p=sizes / sizes.sum()))]
            yield draw_photos(store.batch(self._rng.integers(len(store), size=self.batch)), self._rng, self.photos)

    def loss(self, batch: PhotoBatch) -> tuple[Tensor, int, dict[str, float]]:
        """Occupancy, colour and camera errors."""
        w = self.weights
        photo, source, solid, colours = self._tensors(batch)
        azimuth = torch.from_numpy(batch.azimuth).to(self.device)
        jitter = torch.randn_like(source) * source.new_tensor(CAMERA_SCALE) * w.camera_jitter
        logits, painted, camera = self.model(photo, source + jitter, azimuth)
        entropy = F.binary_cross_entropy_with_logits(logits, solid)
        dice = 1 - dice_score(logits.sigmoid(), solid).mean()
        seen = (colours.sum(1, keepdim=True) > 0).float()
        colour = ((painted - colours).abs() * seen).sum() / (3 * seen.sum()).clamp(min=1)
        pose = F.smooth_l1_loss(camera / camera.new_tensor(CAMERA_SCALE), source / source.new_tensor(CAMERA_SCALE))
        total = 4 * entropy + w.dice * dice + w.colour * colour + w.camera * pose
        return (
            total,
            len(batch),
            {
                "entropy": float(entropy.detach()),
                "dice": float(dice.detach()),
                "colour": float(colour.detach()),
                "pose": float(pose.detach()),
            },
        )

    def evaluate(self) -> dict[str, float]:
        """IoU of the solid with the true and with the predicted camera, colour error, elevation error in degrees."""
        photo, source, solid, colours = self._tensors(PhotoBatch.of_sources(self.held_out))
        rows: dict[str, list[Tensor]] = {
            "iou": [],
            "iou_predicted_camera": [],
            "colour_l1": [],
            "elevation_error_deg": [],
            "focal_error": [],
        }
        for part in torch.arange(len(photo)).split(32):
            volume = self.model.predict(photo[part], source[part])
            guess = self.model.predict(photo[part])
            painted, camera = volume.colours, guess.source
            rows["iou"].append(iou(volume.occupancy > 0.5, solid[part] > 0))
            rows["iou_predicted_camera"].append(iou(guess.occupancy > 0.5, solid[part] > 0))
            seen = colours[part].sum(1, keepdim=True) > 0
            rows["colour_l1"].append(
                ((painted - colours[part]).abs() * seen).sum((1, 2, 3, 4)) / (3 * seen.sum((1, 2, 3, 4)))
            )
            rows["elevation_error_deg"].append(torch.rad2deg((camera[:, 0] - source[part, 0]).abs()))
            rows["focal_error"].append((camera[:, 1] / source[part, 1] - 1).abs())
        return {k: float(torch.cat(v).mean()) for k, v in rows.items()}

    def save(self, folder: Path) -> None:
        """Write the model in half precision."""
        twin = CoarseVolumeModel(**self.model.settings)
        twin.load_state_dict(self.model.state_dict())
        write_part(twin.half(), folder)

    def _tensors(
        self, batch: PhotoBatch
    ) -> tuple[Float[Tensor, "b 4 s s"], Float[Tensor, "b 4"], Float[Tensor, "b r r r"], Float[Tensor, "b 3 r r r"]]:
        photo = images_from_rgba(torch.from_numpy(batch.photo).to(self.device), 4)
        colours = torch.from_numpy(batch.solid_colours).to(self.device).float().movedim(-1, 1) / 255
        return (
            photo,
            torch.from_numpy(batch.camera).to(self.device),
            torch.from_numpy(batch.solid).to(self.device).float(),
            colours,
        )


def dice_score(probability: Float[Tensor, "b r r r"], solid: Float[Tensor, "b r r r"]) -> Float[Tensor, "b"]:
    """Soft Dice overlap of each volume."""
    both = (probability * solid).sum((1, 2, 3))
    return (2 * both + 1) / (probability.sum((1, 2, 3)) + solid.sum((1, 2, 3)) + 1)


def iou(a: Tensor, b: Tensor) -> Float[Tensor, "b"]:
    """Intersection over union of boolean arrays, over all but the first axis; 1 if both are empty."""
    both, either = (a & b).flatten(1).sum(1), (a | b).flatten(1).sum(1)
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both, dtype=torch.float32))
