r"""Score generated views of known objects, beside simple baselines.

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
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.perceptual import perceptual_distance
from pipeline.evaluation.script import run_script
from pipeline.evaluation.subjects import near_symmetric, subjects
from pipeline.evaluation.view_baselines import NearestTraining, mean_images
from pipeline.evaluation.views import (
    Method,
    coarse_only,
    copied_photo,
    generated,
    mapped,
    score_views,
    through_vae,
    told_the_truth,
    true_samples,
    views_table,
)
from pipeline.training.data.store import SampleBatch, SampleStore
from scene.backends import pick_device
from scene.files import write_text
from scene.resources import default_weights


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
    perceptual: bool = False
    """Also how different they look to a network that was trained on photos (extra: eval)."""
    ours_only: bool = False
    """Leave out the baselines, but for the coarse volume."""
    device: str = "auto"
    """Where the model runs."""
    out: Path | None = None
    """Write the scores of every object as JSON."""


def methods(model: ViewDiffusion, batch: SampleBatch, arguments: Arguments) -> dict[str, Method]:
    """What is scored, by the name of its row."""
    sampling, mean_of = arguments.sampling, arguments.mean_of
    rows: dict[str, Method] = {
        "ours, true camera": lambda k: generated(model, batch, k, sampling, predict=False),
        "ours, predicted camera": lambda k: generated(model, batch, k, sampling, predict=True),
        "ours, from noise": lambda k: generated(model, batch, k, replace(sampling, strength=1.0), predict=False),
    }
    if model.conditioning.coarse:
        rows["ours, from noise, told the true views"] = lambda k: told_the_truth(model, batch, k, sampling)
    if model.coarse_map is not None:
        rows["linear map of the coarse volume"] = lambda k: mapped(model, batch, k)
    if mean_of > 1:
        name = f"ours, true camera, mean of {mean_of}"
        rows[name] = lambda k: generated(model, batch, k, sampling, predict=False, mean_of=mean_of)
    if model.coarse is not None:
        rows["coarse volume alone"] = lambda k: coarse_only(model, batch, k)
    if arguments.ours_only:
        return rows
    rows["copy of the photo"] = lambda k: copied_photo(batch, k)
    if arguments.samples_dir is not None:
        store = SampleStore.open(arguments.samples_dir)
        mean = mean_images(store, model.image_size)
        rows["mean training image at the pose"] = lambda k: np.stack([mean(p) for p in batch.target_cameras[k]])
        if arguments.samples_seed is not None:
            nearest = NearestTraining(arguments.objects, store, arguments.samples_seed)
            rows["nearest training object"] = lambda k: nearest.views(
                batch.source[k], batch.target_cameras[k], model.image_size
            )
    rows["true views through the VAE"] = lambda k: through_vae(model, batch, k)
    return rows


def main(arguments: Arguments) -> None:
    """Score all methods and print a table."""
    model = ViewDiffusion.from_pretrained(arguments.weights or default_weights()).to(pick_device(arguments.device))
    if arguments.sharpness is not None and model.coarse is not None:
        model.coarse.register_to_config(sharpness=arguments.sharpness)
    chosen = list(subjects(arguments.objects, arguments.meshes, arguments.limit))
    batch = true_samples(chosen, model.image_size)
    distance = perceptual_distance() if arguments.perceptual else None
    rows = {
        name: score_views(method, name, batch, distance) for name, method in methods(model, batch, arguments).items()
    }
    alike = np.array([near_symmetric(subject.mesh) for subject in chosen])
    print(f"\n{len(chosen)} objects x {batch.targets.shape[1]} views, {arguments.sampling}\n")
    print(views_table(rows, np.ones(len(chosen), bool)))
    if alike.any():
        print(f"\nwithout the {alike.sum()} near-symmetric ones\n")
        print(views_table(rows, ~alike))
    if arguments.out is not None:
        names = [{"name": subject.name, "near_symmetric": bool(a)} for subject, a in zip(chosen, alike, strict=True)]
        write_text(arguments.out, json.dumps({"objects": names, "rows": rows}, indent=1))


if __name__ == "__main__":
    run_script(main, Arguments)
