"""Scores of generated views of known objects, beside baselines and ceilings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from rich.progress import track

from pipeline.diffusion.generate import source_camera
from pipeline.diffusion.modules.coarse_volume import render_coarse_volume
from pipeline.diffusion.modules.conditioning import Conditions
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses
from pipeline.diffusion.sample import coarse_volume, decode_views, sample_latents, sample_views, view_conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.evaluation.statistics import mean_and_interval
from pipeline.evaluation.subjects import Subject
from pipeline.evaluation.tables import markdown_table
from pipeline.evaluation.view_baselines import Images
from pipeline.training.data.samples import SampleSettings
from pipeline.training.data.store import SampleBatch, SampleStore
from scene.metrics import view_scores
from scene.render import over_white

Scores = dict[str, list[dict[str, float]]]
"""Of every method: one dictionary an object."""
Method = Callable[[int], Images]
"""Views of the object at a place in the batch."""
Distance = Callable[[np.ndarray, np.ndarray], float]
"""Of two pictures, sRGB in [0, 1]."""


def true_samples(chosen: Sequence[Subject], size: int) -> SampleBatch:
    """Photos and true views of objects."""
    held = SampleStore(SampleSettings(size=size), len(chosen))
    for subject in track(chosen, "true views"):
        held.append(subject.sample(held.settings))
    return held.batch_all()


def generated(
    model: ViewDiffusion, batch: SampleBatch, k: int, sampling: SamplingSettings, *, predict: bool, mean_of: int = 1
) -> Images:
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
def coarse_only(model: ViewDiffusion, batch: SampleBatch, k: int) -> Images:
    """The coarse volume's renders, which the U-Net is conditioned on."""
    photo = images_from_rgba(torch.from_numpy(batch.source[k : k + 1]).to(model.device), 4)
    source = torch.from_numpy(batch.source_camera[k : k + 1]).to(model.device)
    volume = coarse_volume(model, torch.from_numpy(batch.source[k : k + 1]), source)
    assert volume is not None
    renders = render_coarse_volume(
        volume, photo, Poses.of_orbits(torch.from_numpy(batch.target_cameras[k : k + 1]).to(model.device))
    )
    colour = renders.colour / renders.alpha.clamp(min=1e-3)
    size = model.image_size
    rgba = F.interpolate(torch.cat([colour, renders.alpha], 2)[0], (size, size), mode="bilinear")
    return rgba.clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def mapped(model: ViewDiffusion, batch: SampleBatch, k: int) -> Images:
    """What the linear map of the coarse renders says, of a model that predicts the residual over it."""
    conditions = _true_conditions(model, batch, k)
    assert model.coarse_map is not None
    assert conditions.coarse is not None
    assert conditions.visible is not None
    coarse = model.codec.normalise(conditions.coarse[0])[None]
    latents = model.coarse_map(coarse, conditions.visible)
    return decode_views(model, latents)[0].float().clamp(0, 1).cpu().numpy()


@torch.no_grad()
def told_the_truth(model: ViewDiffusion, batch: SampleBatch, k: int, sampling: SamplingSettings) -> Images:
    """Views from noise by a model that is told the true views in place of the coarse ones: whether it reads them."""
    conditions = _true_conditions(model, batch, k)
    assert conditions.visible is not None
    told = model.codec.encode_raw(torch.from_numpy(batch.targets[k]).to(model.device))[None]
    conditions = replace(conditions, coarse=told, visible=torch.ones_like(conditions.visible))
    latents = sample_latents(model, conditions, replace(sampling, strength=1.0))
    return decode_views(model, latents)[0].float().clamp(0, 1).cpu().numpy()


def _true_conditions(model: ViewDiffusion, batch: SampleBatch, k: int) -> Conditions:
    """Conditions of one object's views, with the true camera."""
    photo = torch.from_numpy(batch.source[k : k + 1])
    source = torch.from_numpy(batch.source_camera[k : k + 1]).to(model.device)
    orbits = torch.from_numpy(batch.target_cameras[k : k + 1]).to(model.device)
    return view_conditions(model, photo, source, orbits, coarse_volume(model, photo, source))


@torch.no_grad()
def through_vae(model: ViewDiffusion, batch: SampleBatch, k: int) -> Images:
    """The true views through the VAE: the ceiling of every latent model."""
    raw = model.codec.encode_raw(torch.from_numpy(batch.targets[k]).to(model.device))
    return model.codec.decode(model.codec.normalise(raw)).float().cpu().numpy()


def copied_photo(batch: SampleBatch, k: int) -> Images:
    """The photo in place of every view."""
    return np.stack([batch.source[k].astype(np.float32) / 255] * len(batch.targets[k]))


def score_views(
    method: Method, name: str, batch: SampleBatch, distance: Distance | None = None
) -> list[dict[str, float]]:
    """Mean scores of a method's views of each object."""
    return [mean_scores(method(k), batch.targets[k], distance) for k in track(range(len(batch)), name)]


def mean_scores(
    views: Images, truths: UInt8[np.ndarray, "v s s 4"], distance: Distance | None = None
) -> dict[str, float]:
    """Means over the views of one object.

    Args:
        views, truths: what is compared.
        distance: of pictures on white; its mean is ``perceptual``.
    """
    scores = []
    for rgba, eight_bits in zip(views, truths, strict=True):
        true = eight_bits.astype(np.float32) / 255
        scores.append(view_scores(rgba, true))
        if distance is not None:
            scores[-1]["perceptual"] = distance(over_white(rgba), over_white(true))
    return {key: float(np.mean([s[key] for s in scores])) for key in scores[0]}


def views_table(rows: Scores, use: Bool[np.ndarray, "n"]) -> str:
    """Means over the objects used, with intervals, and how far the first row is ahead of each."""
    keys = ["foreground_psnr", "iou", "ssim", "psnr"]
    leads = ["foreground_psnr", "iou"]
    names = ["foreground PSNR (dB)", "mask IoU", "SSIM", "full-frame PSNR (dB)", "first row's lead, dB", "IoU"]
    if "perceptual" in next(iter(rows.values()))[0]:
        keys, leads = [*keys, "perceptual"], [*leads, "psnr", "perceptual"]
        names = [*names[:4], "perceptual distance", *names[4:], "full-frame dB", "perceptual"]
    first = next(iter(rows.values()))

    def cell(values: Float[np.ndarray, "n"], key: str) -> str:
        return mean_and_interval(values[use], ".2f" if "psnr" in key else ".3f")

    lines = []
    for name, scores in rows.items():
        cells = [cell(np.array([s[key] for s in scores]), key) for key in keys]
        for key in leads:
            lead = np.array([a[key] - b[key] for a, b in zip(first, scores, strict=True)])
            cells.append("–" if scores is first else cell(lead, key))
        lines.append([name, *cells])
    return markdown_table(["views", *names], lines)
