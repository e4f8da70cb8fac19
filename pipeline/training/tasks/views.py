"""Training of the view U-Net on latents, with its photo encoder and pose projection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from jaxtyping import Float, Int
from rich.progress import track
from torch import Tensor, nn

from pipeline.diffusion.modules.attention import hooked
from pipeline.diffusion.modules.coarse_volume import CAMERA_SCALE
from pipeline.diffusion.modules.conditioning import Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.modules.latents import images_from_rgba
from pipeline.diffusion.modules.poses import Poses, pluecker_maps, pose_tokens
from pipeline.diffusion.sample import coarse_renders, coarse_volume, decode_views, sample_latents, view_conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.store import SampleBatch, SampleStore
from pipeline.training.trainer import Task, autocast
from scene.metrics import view_scores

NANO_SCHEDULER: dict[str, object] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 0,
}


@dataclass(frozen=True)
class ViewLoss:
    """How the U-Net is trained.

    Args:
        views: target views of an object in a step.
        drop: chance that an object loses all its conditions (for classifier-free guidance).
        drop_coarse: chance that it loses the coarse picture only.
        joint_share: share of the steps in which views share attention.
        shift: how far noise levels are drawn towards high noise, in -logSNR. Latents of 16 pixels a side keep their
            large shapes visible at noise that hides those of 32.
        camera_jitter: deviation of the claimed source camera, in typical deviations of the predicted one.
    """

    views: int = 4
    drop: float = 0.1
    drop_coarse: float = 0.1
    joint_share: float = 0.5
    shift: float = 1.4
    camera_jitter: float = 0.2


def nano_unet(conditioning: Conditioning) -> UNet2DConditionModel:
    """The shipped architecture: 13.6 M parameters, three levels with self-attention on each."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=conditioning.channels,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(96, 128, 144),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=128,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def nano_parts(conditioning: Conditioning) -> tuple[UNet2DConditionModel, PhotoEncoder, PoseProjection]:
    """Untrained parts. Input channels beyond the noisy latent start at zero weight, as Zero123's did."""
    unet = nano_unet(conditioning)
    with torch.no_grad():
        unet.conv_in.weight[:, 8:] = 0
    # By keyword: diffusers forgets positional arguments when it rebuilds a model from its config.
    return unet, PhotoEncoder(width=128), PoseProjection(width=128)


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


class EncodedStore:
    """Encoded samples in memory, kept in a folder between runs.

    Args:
        folder: where to keep them; what is there is used if ``key`` is the same.
        key: names the weights and samples they were made from.
        build: makes them, batch by batch, if they are not there.
    """

    def __init__(self, folder: Path, key: str, build: Callable[[], Iterator[EncodedBatch]]) -> None:
        stamp = folder / "encoded.json"
        names = list(EncodedBatch.__dataclass_fields__)
        if not (stamp.is_file() and json.loads(stamp.read_text(encoding="utf-8")) == key):
            folder.mkdir(parents=True, exist_ok=True)
            stamp.unlink(missing_ok=True)
            parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
            for batch in build():
                for name in names:
                    parts[name].append(getattr(batch, name).half().cpu().numpy())
            for name in names:
                np.save(folder / f"{name}.npy", np.concatenate(parts[name]))
            stamp.write_text(json.dumps(key), encoding="utf-8")
        self._arrays = {name: np.load(folder / f"{name}.npy") for name in names}

    def __len__(self) -> int:
        return len(self._arrays["source"])

    def batch(self, rng: np.random.Generator, count: int, device: torch.device) -> EncodedBatch:
        """Random samples."""
        index = rng.integers(len(self), size=count)
        return EncodedBatch(**{k: torch.from_numpy(v[index]).to(device).float() for k, v in self._arrays.items()})


def encode_store(
    model: ViewDiffusion, store: SampleStore, jitter: float, seed: int, views: int | None = None, chunk: int = 16
) -> Iterator[EncodedBatch]:
    """Encode every sample of a store, with a progress bar.

    Args:
        model: gives the VAE and the coarse volume.
        store: the samples.
        jitter: deviation of the claimed source cameras, in typical deviations of the predicted one.
        seed: of the jitter and of the choice of views.
        views: encode so many target views of each sample, drawn at random; all of them if None.
        chunk: samples encoded at a time.
    """
    generator = torch.Generator().manual_seed(seed)
    for start in track(range(0, len(store), chunk), "encoding"):
        index = np.arange(start, min(start + chunk, len(store)))
        batch = store.batch(index)
        if views is not None and views < batch.targets.shape[1]:
            order = torch.rand(batch.targets.shape[:2], generator=generator).argsort(1)[:, :views].numpy()
            rows = np.arange(len(index))[:, None]
            batch = replace(batch, targets=batch.targets[rows, order], target_cameras=batch.target_cameras[rows, order])
        yield encode_samples(model, batch, jitter * torch.randn(len(index), 4, generator=generator))


class ViewModules(nn.Module):
    """The trained parts of a view model, as one module."""

    def __init__(self, model: ViewDiffusion) -> None:
        super().__init__()
        self.unet, self.image_encoder, self.cc_projection = model.unet, model.image_encoder, model.cc_projection


class ViewTask(Task[EncodedBatch]):
    """v-prediction on target views; see :class:`pipeline.training.trainer.Task`."""

    def __init__(
        self,
        model: ViewDiffusion,
        draw: Callable[[np.random.Generator], EncodedBatch],
        held_out: SampleBatch,
        device: torch.device,
        weights: ViewLoss = ViewLoss(),
        seed: int = 0,
        sampling: SamplingSettings = SamplingSettings(steps=12, guidance=1.0),
        held_views: int = 3,
    ) -> None:
        self.model, self.draw, self.device, self.weights = model, draw, device, weights
        self.sampling, self.held_out, self.held_views = sampling, held_out, held_views
        self._rng = np.random.default_rng(seed)
        self._levels = shifted_timesteps(model, weights.shift)

    def batches(self) -> Iterator[EncodedBatch]:
        """Endless random batches."""
        while True:
            yield self.draw(self._rng)

    def loss(self, batch: EncodedBatch) -> tuple[Tensor, int, dict[str, float]]:
        """Squared error of the predicted v over the target rows."""
        w, model = self.weights, self.model
        objects, held = batch.targets.shape[:2]
        pick = torch.stack([torch.randperm(held)[: w.views] for _ in range(objects)]).to(self.device)
        rows = torch.arange(objects, device=self.device)[:, None]
        orbits, clean = batch.target_cameras[rows, pick], batch.targets[rows, pick]
        embedding = model.image_encoder(batch.photo)
        identity = torch.tensor([0.0, 0.0, 1.0, 0.0], device=self.device).expand(objects, 1, 4)
        size = model.latent_size
        given = Conditions(
            batch.source,
            model.codec.normalise(batch.source),
            model.tokens(embedding, pose_tokens(batch.source_camera[:, None], orbits)),
            model.tokens(embedding, identity)[:, 0],
            batch.coarse[rows, pick],
            batch.visible[rows, pick],
            pluecker_maps(Poses.of_orbits(orbits), size),
            pluecker_maps(Poses.of_sources(batch.source_camera), size),
        )
        keep = (torch.rand(objects, device=self.device) >= w.drop).float()
        given = given.dropped(keep, (torch.rand(objects, device=self.device) >= w.drop_coarse).float())
        # Views of one object are denoised together, so they share a noise level.
        t = self._levels[torch.randint(len(self._levels), (objects,))].to(self.device)
        times = t[:, None].expand(objects, w.views)
        noise = torch.randn_like(clean)
        noisy = model.schedule.add_noise(clean.flatten(0, 1), noise.flatten(0, 1), times.flatten()).view_as(clean)
        target = model.schedule.target(clean.flatten(0, 1), noise.flatten(0, 1), times.flatten()).view_as(clean)
        joint = bool(torch.rand(()) < w.joint_share)
        sharing = model.shared_views(w.views, joint=joint)
        with hooked(model.unet, [] if sharing is None else [sharing], size):
            error = (model.predict(noisy, times, given) - target).square().mean(dim=(2, 3, 4))
        high = error.detach()[t > 600].mean() if bool((t > 600).any()) else error.new_tensor(float("nan"))
        numbers = {} if bool(high.isnan()) else {"loss_high_noise": float(high)}
        return error.mean(), objects * w.views, numbers

    def evaluate(self) -> dict[str, float]:
        """Scores of sampled views of the held-out objects, with the true source camera."""
        totals: dict[str, float] = {}
        count = 0
        views = np.arange(self.held_views) * (self.held_out.targets.shape[1] // self.held_views)
        for start in range(0, len(self.held_out), 16):
            part = slice(start, start + 16)
            photo = torch.from_numpy(self.held_out.source[part])
            source = torch.from_numpy(self.held_out.source_camera[part]).to(self.device)
            orbits = torch.from_numpy(self.held_out.target_cameras[part][:, views]).to(self.device)
            volume = coarse_volume(self.model, photo, source)
            given = view_conditions(self.model, photo, source, orbits, volume)
            pictures = decode_views(self.model, sample_latents(self.model, given, self.sampling)).float().cpu().numpy()
            for rgba, truth in zip(
                pictures.reshape(-1, *pictures.shape[2:]),
                self.held_out.targets[part][:, views].reshape(-1, *pictures.shape[2:]),
                strict=True,
            ):
                for key, value in view_scores(rgba, truth.astype(np.float32) / 255).items():
                    totals[key] = totals.get(key, 0.0) + value
                count += 1
        return {key: value / count for key, value in totals.items()}

    def save(self, folder: Path) -> None:
        """Write the whole view model."""
        self.model.save_pretrained(folder)


def shifted_timesteps(model: ViewDiffusion, shift: float, count: int = 4096) -> Int[Tensor, "n"]:
    """Timesteps whose logSNR is that of evenly spread timesteps, lowered by ``shift``."""
    schedule = model.schedule
    everywhere = torch.linspace(0, len(schedule) - 1, count).round().long()
    wanted = schedule.log_snr(everywhere) - shift
    # log_snr falls with t, so its negative is sorted as searchsorted needs.
    levels = -schedule.log_snr(torch.arange(len(schedule)))
    return torch.searchsorted(levels, -wanted).clamp(max=len(schedule) - 1)
