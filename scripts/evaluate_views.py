"""Score generated views on the pool's val split, beside simple baselines.

Every object is photographed once (recentred and rescaled as `prepare` does) and has eight target views around it, at
the default radius, elevations -10 to 50 degrees; cameras follow from the seed. Scores are means over objects with 95 %
bootstrap intervals. ``foreground_psnr`` counts the pixels of the true mask, on white.

Example: python scripts/evaluate_views.py --objects DATA/meshes_train --samples-dir SAMPLES
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Float
from rich.progress import track

from pipeline.diffusion.backbone import ViewDiffusion
from pipeline.diffusion.coarse import picture_volume
from pipeline.diffusion.generate import source_camera
from pipeline.diffusion.latents import images_from_rgba
from pipeline.diffusion.poses import Poses
from pipeline.diffusion.sample import coarse_volume, sample_views
from pipeline.diffusion.settings import SamplingSettings
from pipeline.training.data import held_out_store
from pipeline.training.store import SampleBatch, SampleStore
from scene.backends import pick_device
from scene.camera import DEFAULT_RADIUS
from scene.metrics import view_scores
from scene.resources import default_weights

Pictures = Float[np.ndarray, "v s s 4"]


@dataclass(frozen=True)
class Arguments:
    """Score generated views on held-out objects."""

    objects: Path
    """Folder of the object pool; its val split is used."""
    samples_dir: Path | None = None
    """Training samples, for the mean-image baseline; left out without them."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    sampling: SamplingSettings = SamplingSettings()
    """How views are sampled."""
    limit: int | None = None
    """Score only the first objects."""
    ours_only: bool = False
    """Leave the baselines out."""
    device: str = "auto"
    """Where the model runs."""
    out: Path | None = None
    """Write the scores of every object as JSON."""


def mean_images(
    store: SampleStore, azimuths: int = 12, elevations: int = 6
) -> Callable[[Float[np.ndarray, "3"]], Pictures]:
    """The mean of the training targets at about the same angles: the best guess that does not look at the photo.

    Only targets at the default radius count, since the views scored have it.
    """
    size = store.settings.size
    total = np.zeros((azimuths, elevations, size, size, 4))
    count = np.zeros((azimuths, elevations))

    def cell(pose: np.ndarray) -> tuple[int, int]:
        e = int((np.degrees(pose[1]) + 30) / 115 * elevations)
        return int(pose[0] / (2 * np.pi) * azimuths) % azimuths, min(elevations - 1, max(0, e))

    rng = np.random.default_rng(0)
    for start in track(range(0, min(len(store), 6000), 50), "mean images"):
        batch = store.batch(rng.integers(len(store), size=50) if start else np.arange(50))
        images = batch.targets.astype(np.float32) / 255
        images[..., :3] *= images[..., 3:]
        for poses, pictures in zip(batch.target_cameras, images, strict=True):
            for pose, picture in zip(poses, pictures, strict=True):
                if abs(float(pose[2]) - DEFAULT_RADIUS) <= 0.05:
                    total[cell(pose)] += picture
                    count[cell(pose)] += 1
    mean = total / np.maximum(count, 1)[..., None, None, None]
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-3)
    return lambda pose: mean[cell(pose)]


def generated(
    model: ViewDiffusion, batch: SampleBatch, k: int, sampling: SamplingSettings, *, predict: bool
) -> Pictures:
    """Views of one object; with the predicted camera the targets keep their place relative to the photo."""
    photo = torch.from_numpy(batch.source[k : k + 1])
    truth = torch.from_numpy(batch.source_camera[k : k + 1]).to(model.device)
    orbits = torch.from_numpy(batch.target_cameras[k : k + 1]).to(model.device).clone()
    source = truth
    if predict:
        source = source_camera(model, photo)
        orbits[..., 1] += source[:, :1] - truth[:, :1]
    volume = coarse_volume(model, photo, source)
    return sample_views(model, photo, source, orbits, volume, sampling)[0].float().cpu().numpy()


@torch.no_grad()
def coarse_only(model: ViewDiffusion, batch: SampleBatch, k: int) -> Pictures:
    """The coarse volume's pictures, which the U-Net is given."""
    photo = images_from_rgba(torch.from_numpy(batch.source[k : k + 1]).to(model.device), 4)
    source = torch.from_numpy(batch.source_camera[k : k + 1]).to(model.device)
    volume = coarse_volume(model, torch.from_numpy(batch.source[k : k + 1]), source)
    assert volume is not None
    pictures = picture_volume(
        volume, photo, Poses.of_orbits(torch.from_numpy(batch.target_cameras[k : k + 1]).to(model.device))
    )
    colour = pictures.colour / pictures.alpha.clamp(min=1e-3)
    size = model.image_size
    rgba = F.interpolate(torch.cat([colour, pictures.alpha], 2)[0], (size, size), mode="bilinear")
    return rgba.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def through_vae(model: ViewDiffusion, batch: SampleBatch, k: int) -> Pictures:
    """The true views through the VAE: the ceiling of every latent model."""
    raw = model.codec.encode_raw(torch.from_numpy(batch.targets[k]).to(model.device))
    return model.codec.decode(model.codec.normalise(raw)).float().cpu().numpy()


def interval(values: np.ndarray, rounds: int = 2000) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over objects."""
    draws = np.random.default_rng(0).choice(values, (rounds, len(values))).mean(axis=1)
    return float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))


def main(arguments: Arguments) -> None:
    """Score all methods and print a table."""
    model = ViewDiffusion.from_pretrained(arguments.weights or default_weights()).to(pick_device(arguments.device))
    batch = held_out_store(arguments.objects).batch_all()
    count = min(len(batch), arguments.limit or len(batch))
    methods: dict[str, Callable[[int], Pictures]] = {
        "ours, true camera": lambda k: generated(model, batch, k, arguments.sampling, predict=False),
        "ours, predicted camera": lambda k: generated(model, batch, k, arguments.sampling, predict=True),
    }
    if not arguments.ours_only:
        methods["copy of the photo"] = lambda k: np.repeat(batch.source[k][None].astype(np.float32) / 255, 8, axis=0)
        if arguments.samples_dir is not None:
            mean = mean_images(SampleStore.open(arguments.samples_dir))
            methods["mean training image at the pose"] = lambda k: np.stack([mean(p) for p in batch.target_cameras[k]])
        if model.coarse is not None:
            methods["coarse volume alone"] = lambda k: coarse_only(model, batch, k)
        methods["true views through the VAE"] = lambda k: through_vae(model, batch, k)
    rows: dict[str, list[dict[str, float]]] = {}
    for name, method in methods.items():
        rows[name] = []
        for k in track(range(count), name):
            scores = [
                view_scores(rgba, true.astype(np.float32) / 255)
                for rgba, true in zip(method(k), batch.targets[k], strict=True)
            ]
            rows[name].append({key: float(np.mean([s[key] for s in scores])) for key in scores[0]})
    keys = ["foreground_psnr", "iou", "ssim", "psnr"]
    print(f"\n{count} objects x {batch.targets.shape[1]} views, {arguments.sampling}\n")
    print("| views | foreground PSNR (dB) | mask IoU | SSIM | full-frame PSNR (dB) |\n|---|---|---|---|---|")
    for name, scores in rows.items():
        cells = []
        for key in keys:
            values = np.array([s[key] for s in scores])
            low, high = interval(values)
            digits = 2 if "psnr" in key else 3
            cells.append(f"{values.mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f})")
        print(f"| {name} | " + " | ".join(cells) + " |")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(rows), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Arguments))
