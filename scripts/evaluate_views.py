"""Score generated views of known objects, beside simple baselines.

Every object is photographed once (recentred and rescaled as `prepare` does) and has eight target views around it, at
the default radius, elevations -10 to 50 degrees; cameras follow from its place in the list. Scores are means over
objects with 95 % bootstrap intervals, and so are the differences from the first row. ``foreground_psnr`` counts the
pixels of the true mask, on white. Objects are those of the pool's val split, or GLB files.

Example: python scripts/evaluate_views.py --objects DATA/meshes_train --samples-dir SAMPLES
         python scripts/evaluate_views.py --meshes DATA/meshes_eval/ycb DATA/meshes_eval/khronos \
             --objects DATA/meshes_train --samples-dir SAMPLES --samples-seed 21 --mean-of 8
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from jaxtyping import Bool, Float
from rich.progress import track

from pipeline.diffusion.generate import source_camera
from pipeline.diffusion.modules.coarse_volume import render_coarse_volume
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses
from pipeline.diffusion.sample import coarse_volume, sample_views
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.objects import ObjectPool, ObjectSource
from pipeline.training.data.samples import Sample, SampleSettings, evaluation_sample, headed, heldout_mesh
from pipeline.training.data.store import SampleBatch, SampleStore
from scene.backends import pick_device
from scene.camera import DEFAULT_RADIUS, orbit_camera
from scene.errors import InputError
from scene.files import write_text
from scene.mesh import ColouredMesh
from scene.metrics import mask_iou, view_scores
from scene.render import MeshRenderer
from scene.resources import default_weights
from scripts.benchmark_recon import load_glb

Pictures = Float[np.ndarray, "v s s 4"]


@dataclass(frozen=True)
class Arguments:
    """Score generated views on held-out objects."""

    objects: Path
    """Folder of the object pool; its val split is used unless meshes are given."""
    meshes: tuple[Path, ...] = ()
    """Folders with GLB files, to be used in place of the val split."""
    samples_dir: Path | None = None
    """Training samples, for the baselines that know the training set; left out without them."""
    samples_seed: int | None = None
    """The seed they were rendered with, for the nearest training object, which is rendered anew."""
    mean_of: int = 1
    """Also score the mean of so many samples."""
    weights: Path | None = None
    """Checkpoint; the embedded one by default."""
    sampling: SamplingSettings = SamplingSettings()
    """How views are sampled."""
    limit: int | None = None
    """Score only so many objects, spread evenly over the list."""
    sharpness: float | None = None
    """Factor on the coarse volume's logits, in place of the checkpoint's own."""
    ours_only: bool = False
    """Leave out the baselines, but for the coarse volume."""
    device: str = "auto"
    """Where the model runs."""
    out: Path | None = None
    """Write the scores of every object as JSON."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A known object and its photo.

    Args:
        name: of the object.
        mesh: normalised, at the heading at which it is photographed.
        index: its place in the list, which decides heading and cameras.
    """

    name: str
    mesh: ColouredMesh
    index: int

    def sample(self, settings: SampleSettings = SampleSettings()) -> Sample:
        """Its photo and true views."""
        return evaluation_sample(self.mesh, self.index, settings)


def subjects(objects: Path | None, meshes: Sequence[Path], count: int | None) -> Iterator[Subject]:
    """Objects of GLB files, or else of the pool's val split, ``count`` of them spread evenly.

    Raises:
        InputError: the folders hold no GLB files, or there is neither pool nor folder.
    """
    if meshes:
        paths = sorted(path for folder in meshes for path in folder.rglob("*.glb"))
        if not paths:
            raise InputError("hold no GLB files", where=", ".join(map(str, meshes)))
        for index in _spread(len(paths), count):
            yield Subject(paths[index].stem, headed(load_glb(paths[index]), index), index)
        return
    if objects is None:
        raise InputError("there are no objects", fix="Give --objects or --meshes.")
    pool = ObjectPool(objects, "val")
    for index in _spread(len(pool), count):
        yield Subject(Path(pool.entries[index].file).stem, heldout_mesh(pool, index), index)


def _spread(length: int, count: int | None) -> list[int]:
    return [int(k) for k in np.linspace(0, length - 1, min(length, count or length)).round()]


def near_symmetric(mesh: ColouredMesh, threshold: float = 0.95) -> bool:
    """Whether an object looks alike from all around: the mean mask IoU of eight views with the first."""
    renderer = MeshRenderer(mesh)
    masks = [
        renderer.render(orbit_camera(k * np.pi / 4, np.radians(10), size=64), samples=1).rgba[..., 3] >= 0.5
        for k in range(8)
    ]
    return float(np.mean([mask_iou(mask, masks[0]) for mask in masks[1:]])) >= threshold


def mean_images(
    store: SampleStore, size: int, azimuths: int = 12, elevations: int = 6
) -> Callable[[Float[np.ndarray, "3"]], Pictures]:
    """The mean of the training targets at about the same angles: the best guess that does not look at the photo.

    Only targets at the default radius count, since the views scored have it.
    """
    side = store.settings.size
    total = np.zeros((azimuths, elevations, side, side, 4))
    count = np.zeros((azimuths, elevations))

    def place(pose: np.ndarray) -> tuple[int, int]:
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
                    total[place(pose)] += picture
                    count[place(pose)] += 1
    mean = total / np.maximum(count, 1)[..., None, None, None]
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-3)
    # Resized in parts: OpenCV takes a picture at a time.
    resized = np.stack([[cv2.resize(image, (size, size)) for image in row] for row in mean])
    return lambda pose: resized[place(pose)]


class NearestTraining:
    """The true views of the training object whose photo is most like the photo given, rendered anew.

    Args:
        objects: the object pool.
        store: samples whose photos are searched.
        seed: with which they were rendered.
        side: pixels at which photos are compared, on white and with their alpha.
    """

    def __init__(self, objects: Path, store: SampleStore, seed: int, side: int = 32) -> None:
        self._source, self._seed, self._side = ObjectSource(ObjectPool(objects, "train")), seed, side
        found = [
            self._small(store.batch(part).source)
            for part in track(np.array_split(np.arange(len(store)), max(1, len(store) // 500)), "training photos")
        ]
        self._photos = np.concatenate(found)

    def _small(self, rgba: np.ndarray) -> Float[np.ndarray, "n d"]:
        """Photos as vectors."""
        small = [cv2.resize(p, (self._side, self._side), interpolation=cv2.INTER_AREA) for p in rgba]
        values = np.stack(small).astype(np.float32) / 255
        values[..., :3] = values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
        return values.reshape(len(values), -1)

    def views(self, source: np.ndarray, orbits: Float[np.ndarray, "v 3"], size: int) -> Pictures:
        """Views of that object; its own photo stands at azimuth 0 too."""
        best = int(np.square(self._photos - self._small(source[None])).sum(axis=1).argmin())
        mesh, light = self._source.draw(np.random.default_rng([self._seed, best]))
        renderer = MeshRenderer(mesh, light)
        return np.stack([renderer.render(orbit_camera(*map(float, orbit), size=size)).rgba for orbit in orbits])


def generated(
    model: ViewDiffusion, batch: SampleBatch, k: int, sampling: SamplingSettings, *, predict: bool, mean_of: int = 1
) -> Pictures:
    """Views of one object; with the predicted camera the targets keep their place relative to the photo.

    The mean of several samples is that of premultiplied colours and alpha.
    """
    photo = torch.from_numpy(batch.source[k : k + 1])
    truth = torch.from_numpy(batch.source_camera[k : k + 1]).to(model.device)
    orbits = torch.from_numpy(batch.target_cameras[k : k + 1]).to(model.device).clone()
    source = truth
    if predict:
        source = source_camera(model, photo)
        orbits[..., 1] += source[:, :1] - truth[:, :1]
    volume = coarse_volume(model, photo, source)
    total = np.zeros((orbits.shape[1], model.image_size, model.image_size, 4))
    for seed in range(sampling.seed, sampling.seed + mean_of):
        settings = replace(sampling, seed=seed)
        views = sample_views(model, photo, source, orbits, volume, settings)[0].float().cpu().numpy()
        total += np.concatenate([views[..., :3] * views[..., 3:], views[..., 3:]], -1) / mean_of
    total[..., :3] /= np.maximum(total[..., 3:], 1e-6)
    return total.clip(0, 1)


@torch.no_grad()
def coarse_only(model: ViewDiffusion, batch: SampleBatch, k: int) -> Pictures:
    """The coarse volume's pictures, which the U-Net is given."""
    photo = images_from_rgba(torch.from_numpy(batch.source[k : k + 1]).to(model.device), 4)
    source = torch.from_numpy(batch.source_camera[k : k + 1]).to(model.device)
    volume = coarse_volume(model, torch.from_numpy(batch.source[k : k + 1]), source)
    assert volume is not None
    pictures = render_coarse_volume(
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
    if arguments.sharpness is not None and model.coarse is not None:
        model.coarse.register_to_config(sharpness=arguments.sharpness)
    chosen = list(subjects(arguments.objects, arguments.meshes, arguments.limit))
    held = SampleStore(SampleSettings(size=model.image_size), len(chosen))
    for subject in track(chosen, "true views"):
        held.append(subject.sample(held.settings))
    batch = held.batch_all()
    sampling, size = arguments.sampling, model.image_size
    methods: dict[str, Callable[[int], Pictures]] = {
        "ours, true camera": lambda k: generated(model, batch, k, sampling, predict=False),
        "ours, predicted camera": lambda k: generated(model, batch, k, sampling, predict=True),
    }
    if arguments.mean_of > 1:
        methods[f"ours, true camera, mean of {arguments.mean_of}"] = lambda k: generated(
            model, batch, k, sampling, predict=False, mean_of=arguments.mean_of
        )
    if model.coarse is not None:
        methods["coarse volume alone"] = lambda k: coarse_only(model, batch, k)
    if not arguments.ours_only:
        methods["copy of the photo"] = lambda k: np.stack(
            [batch.source[k].astype(np.float32) / 255] * len(batch.targets[k])
        )
        if arguments.samples_dir is not None:
            store = SampleStore.open(arguments.samples_dir)
            mean = mean_images(store, size)
            methods["mean training image at the pose"] = lambda k: np.stack([mean(p) for p in batch.target_cameras[k]])
            if arguments.samples_seed is not None:
                nearest = NearestTraining(arguments.objects, store, arguments.samples_seed)
                methods["nearest training object"] = lambda k: nearest.views(
                    batch.source[k], batch.target_cameras[k], size
                )
        methods["true views through the VAE"] = lambda k: through_vae(model, batch, k)
    rows: dict[str, list[dict[str, float]]] = {}
    for name, method in methods.items():
        rows[name] = []
        for k in track(range(len(chosen)), name):
            scores = [
                view_scores(rgba, true.astype(np.float32) / 255)
                for rgba, true in zip(method(k), batch.targets[k], strict=True)
            ]
            rows[name].append({key: float(np.mean([s[key] for s in scores])) for key in scores[0]})
    alike = [near_symmetric(subject.mesh) for subject in chosen]
    print(f"\n{len(chosen)} objects x {batch.targets.shape[1]} views, {sampling}\n")
    print_table(rows, np.ones(len(chosen), bool))
    if any(alike):
        print(f"\nwithout the {sum(alike)} near-symmetric ones\n")
        print_table(rows, ~np.array(alike))
    if arguments.out is not None:
        names = [{"name": subject.name, "near_symmetric": a} for subject, a in zip(chosen, alike, strict=True)]
        write_text(arguments.out, json.dumps({"objects": names, "rows": rows}, indent=1))


def print_table(rows: dict[str, list[dict[str, float]]], use: Bool[np.ndarray, "n"]) -> None:
    """Means over the objects used, with intervals, and how far the first row is ahead of each."""
    keys = ["foreground_psnr", "iou", "ssim", "psnr"]
    first = next(iter(rows.values()))
    print("| views | foreground PSNR (dB) | mask IoU | SSIM | full-frame PSNR (dB) | first row's lead, dB | IoU |")
    print("|---|---|---|---|---|---|---|")
    for name, scores in rows.items():
        cells = [cell(np.array([s[key] for s in scores])[use], 2 if "psnr" in key else 3) for key in keys]
        for key in ("foreground_psnr", "iou"):
            lead = np.array([a[key] - b[key] for a, b in zip(first, scores, strict=True)])[use]
            cells.append("–" if scores is first else cell(lead, 2 if "psnr" in key else 3))
        print(f"| {name} | " + " | ".join(cells) + " |")


def cell(values: Float[np.ndarray, "n"], digits: int) -> str:
    """A mean and its interval."""
    low, high = interval(values)
    return f"{values.mean():.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    main(tyro.cli(Arguments))
