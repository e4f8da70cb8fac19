"""Does an accelerator agree with the CPU? Sampling, training and fitting on both, of procedural objects only."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8

from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.sample import coarse_volume, decode_views, sample_latents, view_conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.encoded import EncodedBatch, encode_samples
from pipeline.training.data.samples import SampleSettings, SampleStream, to_bytes
from pipeline.training.data.store import SampleStore
from pipeline.training.procedural import random_object
from pipeline.training.tasks.vae import nano_vae
from pipeline.training.tasks.views import NANO_CONDITIONING, NANO_SCHEDULER, ViewModules, ViewTask, nano_parts
from pipeline.training.trainer import TrainSettings, train
from recon.fit import fit_surface
from recon.settings import FitSettings
from scene.camera import orbit_camera
from scene.render import MeshRenderer
from scene.view import View
from scene.viewset import ViewSet

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Check:
    """A number that must not exceed a limit."""

    name: str
    value: float
    limit: float

    @property
    def good(self) -> bool:
        """Whether it does not."""
        return self.value <= self.limit

    def __str__(self) -> str:
        return f"{'ok  ' if self.good else 'FAIL'} {self.name}: {self.value:.3g} (limit {self.limit:g})"


def fresh_model(seed: int = 0) -> ViewDiffusion:
    """The nano architecture with random weights."""
    torch.manual_seed(seed)
    conditioning, vae = replace(NANO_CONDITIONING, residual=False), nano_vae()
    unet, encoder, projection = nano_parts(conditioning, vae.config["latent_channels"])
    return ViewDiffusion(unet, vae, encoder, projection, conditioning, NANO_SCHEDULER, CoarseVolumeModel())


def rendered_store(samples: int, workers: int) -> SampleStore:
    """Training samples of procedural objects, in memory."""
    store = SampleStore(SampleSettings(targets=4), samples)
    for item in SampleStream(None, store.settings, workers=workers).read(0, samples):
        store.append(item)
    return store


def check_sampling(device: torch.device, store: SampleStore) -> Check:
    """Four views of a photo on both."""
    photo = store.batch(np.array([0])).source[0]
    images = [_sampled(fresh_model(), where, photo) for where in (CPU, device)]
    return Check("sampled views, mean difference", float(np.abs(images[0] - images[1]).mean()), 5e-3)


def _sampled(
    model: ViewDiffusion, device: torch.device, photo: UInt8[np.ndarray, "s s 4"]
) -> Float[np.ndarray, "v s s 4"]:
    model.to(device)
    source = torch.tensor([[0.3, 1.1, 0.5, 0.5]], device=device)
    orbits = torch.tensor([[[0.5, 0.2, 1.5], [2.0, 0.3, 1.5], [3.5, 0.1, 1.5], [5.0, 0.4, 1.5]]])
    batch = torch.from_numpy(photo[None])
    conditions = view_conditions(model, batch, source, orbits, coarse_volume(model, batch, source))
    return decode_views(model, sample_latents(model, conditions, SamplingSettings(steps=8)))[0].float().cpu().numpy()


def check_training(device: torch.device, store: SampleStore, steps: int, report: Callable[[str], None]) -> Check:
    """Some training steps on the device lower the loss."""
    model = fresh_model()
    for part in (model.vae, model.coarse):
        assert part is not None
        part.to(device).requires_grad_(False)
    for part in (model.unet, model.image_encoder, model.cc_projection):
        part.to(device)

    def draw(rng: np.random.Generator) -> EncodedBatch:
        return encode_samples(model, store.batch(rng.integers(len(store), size=8)), torch.zeros(8, 4))

    held_out, tasks = store.batch(np.arange(4)), list[ViewTask]()

    def make(on: torch.device) -> ViewTask:
        tasks.append(ViewTask(model, draw, held_out, on, held_views=2))
        return tasks[-1]

    def loss(task: ViewTask) -> float:
        with torch.no_grad():
            return float(np.mean([float(task.loss(draw(np.random.default_rng(k)))[0]) for k in range(8)]))

    with tempfile.TemporaryDirectory() as folder:
        start, count = time.monotonic(), steps * 32
        settings = TrainSettings(
            out=Path(folder), samples=count, batch=8, device=str(device), every_minutes=1e9, warmup=20
        )
        torch.manual_seed(1)
        before = loss(make(device))
        train(ViewModules(model), make, settings)
        after = loss(tasks[0])
        seconds = time.monotonic() - start
    report(f"trained {steps} steps of 32 views in {seconds:.1f} s ({count / seconds:.0f} views/s)")
    return Check("loss after over loss before", after / before, 0.9)


def check_fit(device: torch.device, report: Callable[[str], None]) -> Check:
    """The same capture fitted on both."""
    views, solids = orbit_views(), []
    for where in (CPU, device):
        start = time.monotonic()
        solids.append(fit_surface(views, FitSettings(), device=where).sdf < 0)
        report(f"fit on {where}: {time.monotonic() - start:.1f} s")
    overlap = (solids[0] & solids[1]).sum() / (solids[0] | solids[1]).sum()
    return Check("fitted solids, 1 - IoU", float(1 - overlap), 0.02)


def orbit_views(count: int = 16) -> ViewSet:
    """A textured procedural object from all around."""
    renderer = MeshRenderer(random_object(7, "creature"))
    cameras = [orbit_camera(k * 2 * np.pi / count, 0.2 + 0.4 * (k % 2)) for k in range(count)]
    return ViewSet(tuple(View(f"{k:02d}", c, to_bytes(renderer.render(c).rgba)) for k, c in enumerate(cameras)), True)
