"""Does everything run on this machine's accelerator, and does it agree with the CPU? Trains, samples and fits on both.

Uses procedural objects only, so it needs no data: python scripts/gpu_check.py
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

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
from scene.backends import pick_device
from scene.camera import orbit_camera
from scene.render import MeshRenderer
from scene.view import View
from scene.viewset import ViewSet


@dataclass(frozen=True)
class Arguments:
    """Compare an accelerator with the CPU."""

    device: str = "auto"
    """The accelerator; on a machine without one the CPU is compared with itself."""
    steps: int = 200
    """Training steps on the accelerator."""
    samples: int = 48
    """Rendered training samples."""
    workers: int = 2
    """Rendering processes."""


def fresh_model(seed: int = 0) -> ViewDiffusion:
    """The nano architecture with random weights."""
    torch.manual_seed(seed)
    conditioning, vae = replace(NANO_CONDITIONING, residual=False), nano_vae()
    unet, encoder, projection = nano_parts(conditioning, vae.config["latent_channels"])
    return ViewDiffusion(unet, vae, encoder, projection, conditioning, NANO_SCHEDULER, CoarseVolumeModel())


def orbit_views(count: int = 16) -> ViewSet:
    """A textured procedural object from all around."""
    renderer = MeshRenderer(random_object(7, "creature"))
    cameras = [orbit_camera(k * 2 * np.pi / count, 0.2 + 0.4 * (k % 2)) for k in range(count)]
    return ViewSet(tuple(View(f"{k:02d}", c, to_bytes(renderer.render(c).rgba)) for k, c in enumerate(cameras)), True)


def sample(model: ViewDiffusion, device: torch.device, photo: np.ndarray) -> np.ndarray:
    """Four views of a photo."""
    model.to(device)
    source = torch.tensor([[0.3, 1.1, 0.5, 0.5]], device=device)
    orbits = torch.tensor([[[0.5, 0.2, 1.5], [2.0, 0.3, 1.5], [3.5, 0.1, 1.5], [5.0, 0.4, 1.5]]])
    batch = torch.from_numpy(photo[None])
    given = view_conditions(model, batch, source, orbits, coarse_volume(model, batch, source))
    return decode_views(model, sample_latents(model, given, SamplingSettings(steps=8)))[0].float().cpu().numpy()


def main(arguments: Arguments) -> int:
    """Run all checks; the exit code counts failures."""
    device, cpu = pick_device(arguments.device), torch.device("cpu")
    print(f"torch {torch.__version__}, comparing {device} with cpu", flush=True)
    failures = 0

    def check(name: str, value: float, limit: float) -> None:
        nonlocal failures
        good = value <= limit
        failures += not good
        print(f"{'ok  ' if good else 'FAIL'} {name}: {value:.3g} (limit {limit:g})", flush=True)

    settings = SampleSettings(targets=4)
    store = SampleStore(settings, arguments.samples)
    start = time.monotonic()
    for item in SampleStream(None, settings, workers=arguments.workers).read(0, arguments.samples):
        store.append(item)
    print(f"rendered {arguments.samples} samples in {time.monotonic() - start:.1f} s")

    pictures = [sample(fresh_model(), d, store.batch(np.array([0])).source[0]) for d in (cpu, device)]
    check("sampled views, mean difference", float(np.abs(pictures[0] - pictures[1]).mean()), 5e-3)

    model = fresh_model()
    for part in (model.vae, model.coarse):
        assert part is not None
        part.to(device).requires_grad_(False)
    for part in (model.unet, model.image_encoder, model.cc_projection):
        part.to(device)

    def draw(rng: np.random.Generator) -> EncodedBatch:
        return encode_samples(model, store.batch(rng.integers(len(store), size=8)), torch.zeros(8, 4))

    held_out = store.batch(np.arange(4))
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        train_settings = TrainSettings(
            out=Path(folder), samples=arguments.steps * 32, batch=8, device=str(device), every_minutes=1e9, warmup=20
        )
        task: list[ViewTask] = []

        def make(on: torch.device) -> ViewTask:
            task.append(ViewTask(model, draw, held_out, on, held_views=2))
            return task[0]

        torch.manual_seed(1)
        with torch.no_grad():
            before = np.mean([float(make(device).loss(draw(np.random.default_rng(k)))[0]) for k in range(8)])
        train(ViewModules(model), make, train_settings)
        with torch.no_grad():
            after = np.mean([float(task[0].loss(draw(np.random.default_rng(k)))[0]) for k in range(8)])
        seconds = time.monotonic() - start
        rate = arguments.steps * 32 / seconds
        print(f"trained {arguments.steps} steps of 32 views in {seconds:.1f} s ({rate:.0f} views/s)")
        check("loss after over loss before", float(after / before), 0.9)

    views = orbit_views()
    surfaces = []
    for where in (cpu, device):
        start = time.monotonic()
        surfaces.append(fit_surface(views, FitSettings(), device=where).sdf)
        print(f"fit on {where}: {time.monotonic() - start:.1f} s")
    solids = [s < 0 for s in surfaces]
    overlap = (solids[0] & solids[1]).sum() / (solids[0] | solids[1]).sum()
    check("fitted solids, 1 - IoU", float(1 - overlap), 0.02)
    print("all good" if not failures else f"{failures} checks failed")
    return failures


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments)))
