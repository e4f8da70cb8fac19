"""Samples as the view U-Net takes them: latents of views and of coarse renders, stored once for many passes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import track
from torch import Tensor, nn

from pipeline.diffusion.checkpoints.digests import latent_digest, part_digest
from pipeline.diffusion.modules.coarse_volume import CAMERA_SCALE
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses
from pipeline.diffusion.sample import coarse_renders, coarse_volume
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.chunks import ChunkStore
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.trainer import autocast
from scene.errors import InputError


@dataclass(frozen=True, eq=False)
class EncodedBatch:
    """What the U-Net needs of samples; see :class:`pipeline.diffusion.modules.conditioning.Conditions`."""

    photo: Float[Tensor, "b 4 p p"]
    source: Float[Tensor, "b c h w"]
    targets: Float[Tensor, "b t c h w"]
    coarse: Float[Tensor, "b t c h w"]
    visible: Float[Tensor, "b t 4 h w"]
    source_camera: Float[Tensor, "b 4"]
    target_cameras: Float[Tensor, "b t 3"]


@torch.no_grad()
def encode_samples(model: ViewDiffusion, batch: SampleBatch, jitter: Float[Tensor, "b 4"]) -> EncodedBatch:
    """Latents, coarse pictures and cameras of samples.

    Args:
        model: gives the VAE and the coarse volume.
        batch: rendered samples.
        jitter: change of the claimed source cameras, in typical deviations of the predicted one.
    """
    device = model.device
    with autocast(device, "bf16"):
        return _encode(model, batch, jitter, device)


def _encode(
    model: ViewDiffusion, batch: SampleBatch, jitter: Float[Tensor, "b 4"], device: torch.device
) -> EncodedBatch:
    photo, targets = torch.from_numpy(batch.source).to(device), torch.from_numpy(batch.targets).to(device)
    source_camera = torch.from_numpy(batch.source_camera).to(device)
    source_camera = source_camera + jitter.to(device) * source_camera.new_tensor(CAMERA_SCALE)
    orbits = torch.from_numpy(batch.target_cameras).to(device)
    latents = torch.stack([model.codec.normalise(model.codec.encode_raw(t)) for t in targets])
    volume = coarse_volume(model, photo, source_camera)
    if volume is None:
        coarse, visible = torch.zeros_like(latents), torch.zeros_like(latents)
    else:
        coarse, visible = coarse_renders(model, photo, volume, Poses.of_orbits(orbits))
    small = nn.functional.interpolate(images_from_rgba(photo, 4), (64, 64), mode="bilinear", antialias=True)
    return EncodedBatch(small, model.codec.encode_raw(photo), latents, coarse, visible, source_camera, orbits)


_CHUNK = 256
"""Samples in a folder of the store: what a kill may cost."""


class EncodedStore:
    """Encoded samples in memory-mapped files, in folders of a few hundred; it grows with the samples it is made of.

    Args:
        folder: where they are kept.
        key: names the weights they were made by, and what was drawn of the samples.

    Raises:
        InputError: the folder holds samples that other weights made.
    """

    def __init__(self, folder: Path, key: str) -> None:
        names = [field.name for field in fields(EncodedBatch)]
        differs = "holds latents made by another VAE or coarse volume, or drawn otherwise"
        self._held = ChunkStore(folder, "encoded.json", key, names, differs)
        self.folder = folder

    def __len__(self) -> int:
        return len(self._held)

    def reread(self) -> None:
        """Take in what has been added, by this process or by another."""
        self._held.reread()

    def add(self, batches: Sequence[EncodedBatch]) -> None:
        """Append samples as one chunk."""
        names = [field.name for field in fields(EncodedBatch)]
        self._held.append(
            {n: np.concatenate([getattr(batch, n).half().cpu().numpy() for batch in batches]) for n in names}
        )

    def extend(self, model: ViewDiffusion, store: SampleStore, jitter: float, seed: int, views: int | None) -> None:
        """Encode the samples of a store that are not held yet, chunk by chunk, with a progress bar.

        Args:
            model: gives the VAE and the coarse volume.
            store: the samples.
            jitter: deviation of the claimed source cameras, in typical deviations of the predicted one.
            seed: of the jitter and of the choice of views.
            views: encode so many target views of each sample, drawn at random; all of them if None.
        """
        for start in track(range(len(self), len(store), _CHUNK), "encoding"):
            index = np.arange(start, min(start + _CHUNK, len(store)))
            self.add(list(encoded(model, store, index, jitter, seed, views)))

    def batch(self, rng: np.random.Generator, count: int, device: torch.device) -> EncodedBatch:
        """Random samples."""
        return self.of(np.sort(rng.integers(len(self), size=count)), device)

    def of(self, index: np.ndarray, device: torch.device) -> EncodedBatch:
        """The samples of these numbers."""
        rows = self._held.rows(index)
        return EncodedBatch(**{name: torch.from_numpy(row).to(device).float() for name, row in rows.items()})


def encoded(
    model: ViewDiffusion,
    store: SampleStore,
    index: np.ndarray,
    jitter: float,
    seed: int,
    views: int | None,
    few: int = 16,
) -> Iterator[EncodedBatch]:
    """Encode samples of a store, a few at a time; what is drawn of a sample follows from the seed and its number."""
    for start in range(0, len(index), few):
        part = index[start : start + few]
        batch = store.batch(part)
        draws = [np.random.default_rng([seed, int(k)]) for k in part]
        noise = torch.tensor(np.stack([rng.normal(size=4) for rng in draws]), dtype=torch.float32)
        if views is not None and views < batch.targets.shape[1]:
            order = np.stack([rng.permutation(batch.targets.shape[1])[:views] for rng in draws])
            rows = np.arange(len(part))[:, None]
            batch = replace(batch, targets=batch.targets[rows, order], target_cameras=batch.target_cameras[rows, order])
        yield encode_samples(model, batch, jitter * noise)


def encoded_stores(
    model: ViewDiffusion, samples: Sequence[Path], jitter: float, views: int, *, encode: bool, seed: int = 0
) -> list[EncodedStore]:
    """The encoded samples beside folders of rendered ones, those that are missing made first.

    Args:
        model: gives the VAE and the coarse volume, which name the folder.
        samples: folders of rendered samples.
        jitter, views, seed: as in :meth:`EncodedStore.extend`.
        encode: whether to make those that are missing.
    """
    made_by = (latent_digest(model.vae), part_digest(model.coarse))
    key = hashlib.sha256(repr((made_by, jitter, views, seed)).encode()).hexdigest()
    stores = []
    for folder in samples:
        store = EncodedStore(folder / f"encoded-{key[:12]}", key)
        if encode:
            store.extend(model, SampleStore.open(folder), jitter, seed, views)
        stores.append(store)
    if not any(len(store) for store in stores):
        raise InputError("none of the samples are encoded", where=samples[0], fix="Leave --no-encode out once.")
    return stores


class EncodedSource:
    """Draws training batches from stores of encoded samples, which may grow meanwhile.

    Args:
        stores: a sample comes from one of them, drawn by its size.
        count: samples of a batch.
        device: where the model is.
    """

    def __init__(self, stores: Sequence[EncodedStore], count: int, device: torch.device) -> None:
        self.stores, self.count, self.device = stores, count, device
        self._drawn = 0

    def draw(self, rng: np.random.Generator) -> EncodedBatch:
        """A random batch."""
        self._drawn += 1
        if self._drawn % 200 == 0:
            for store in self.stores:
                store.reread()
        sizes = np.array([len(store) for store in self.stores])
        return self.stores[int(rng.choice(len(sizes), p=sizes / sizes.sum()))].batch(rng, self.count, self.device)
