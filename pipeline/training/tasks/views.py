"""Training of the view U-Net on latents, with its photo encoder and pose projection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float, Int
from torch import Tensor, nn

from pipeline.diffusion.checkpoints.parts import load_part
from pipeline.diffusion.denoising.schedule import NoiseSchedule
from pipeline.diffusion.modules.attention import hooked
from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import CoarseMap, Conditioning, Conditions, PhotoEncoder, PoseProjection
from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.diffusion.modules.poses import Poses, pluecker_maps, pose_tokens
from pipeline.diffusion.sample import coarse_volume, decode_views, sample_latents, view_conditions
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.data.encoded import EncodedBatch
from pipeline.training.data.store import SampleBatch
from pipeline.training.tasks.latent_state import latent_state, require_latents
from pipeline.training.trainer import Task
from scene.errors import InputError
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


NANO_CONDITIONING = Conditioning(
    source_row=True, coarse=True, pluecker=True, joint=(8, 4), normalised=True, residual=True
)
"""What the shipped U-Net is conditioned on."""


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
        by_sensitivity: weigh latent channels by what an error in them does to pictures (:func:`channel_weights`).
        pictures: weight of the error of decoded clean estimates, squared on white and in alpha, beside that of v. What
            is best in the mean of latents decodes to something paler and smaller than what is best in that of pictures.
        foreground: how much more a pixel of the true object counts there than one of the background.
        decoded: views of a step that are decoded for it, drawn at random; decoding costs about as much as the U-Net.
    """

    views: int = 4
    drop: float = 0.1
    drop_coarse: float = 0.1
    joint_share: float = 0.5
    shift: float = 1.4
    camera_jitter: float = 0.2
    by_sensitivity: bool = True
    pictures: float = 0.0
    foreground: float = 1.0
    decoded: int = 24


@dataclass(frozen=True)
class ViewNetwork:
    """Architecture of a fresh view U-Net.

    Args:
        widths: channels of each level, the finest first.
        layers: residual blocks of a level of the encoder; the decoder has one more.
        heads: of attention.
        encoder_attention: self-attention at the finest level of the encoder too; the decoder has it anyway.
        zero_conditions: input channels beyond the noisy latent start at zero weight, as Zero123's did.
        token: length of the token of photo and pose.
    """

    widths: tuple[int, ...] = (64, 128, 192)
    layers: int = 1
    heads: int = 1
    encoder_attention: bool = False
    zero_conditions: bool = False
    token: int = 128


def nano_unet(conditioning: Conditioning, latents: int, network: ViewNetwork = ViewNetwork()) -> UNet2DConditionModel:
    """An untrained U-Net for latents of 16 places a side.

    Attention at 16x16 takes more time than all else together on a CPU; in the decoder it is kept, since that is where
    views are read, filtered and queried.
    """
    levels = len(network.widths)
    first = "CrossAttnDownBlock2D" if network.encoder_attention else "DownBlock2D"
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=conditioning.channels(latents),
        out_channels=latents,
        layers_per_block=network.layers,
        block_out_channels=network.widths,
        down_block_types=(first, *("CrossAttnDownBlock2D",) * (levels - 1)),
        up_block_types=("CrossAttnUpBlock2D",) * levels,
        cross_attention_dim=network.token,
        attention_head_dim=network.heads,  # diffusers' name for the number of heads of this class
        norm_num_groups=16,
    )
    with torch.no_grad():
        # The first step predicts nothing, or what the linear map says: no noise of its own to unlearn.
        unet.conv_out.weight.zero_()
        unet.conv_out.bias.zero_()
        if network.zero_conditions:
            unet.conv_in.weight[:, latents:] = 0
    return unet


def nano_parts(
    conditioning: Conditioning, latents: int, network: ViewNetwork = ViewNetwork()
) -> tuple[UNet2DConditionModel, PhotoEncoder, PoseProjection]:
    """Untrained parts of a view model."""
    # By keyword: diffusers forgets positional arguments when it rebuilds a model from its config.
    encoder, projection = PhotoEncoder(width=network.token), PoseProjection(width=network.token)
    return nano_unet(conditioning, latents, network), encoder, projection


def fresh_view_model(weights: Path, conditioning: Conditioning, network: ViewNetwork = ViewNetwork()) -> ViewDiffusion:
    """An untrained view model around a trained VAE and coarse volume.

    Its linear map, if the conditioning has one, is still empty: see :func:`with_fitted_map`.

    Args:
        weights: folder with ``vae/`` and ``coarse/``.
        conditioning: of the U-Net.
        network: its architecture.
    """
    vae = load_part(AutoencoderKL, weights / "vae")
    coarse = load_part(CoarseVolumeModel, weights / "coarse") if conditioning.coarse else None
    latents = int(vae.config["latent_channels"])
    unet, encoder, projection = nano_parts(conditioning, latents, network)
    coarse_map = CoarseMap(latents=latents) if conditioning.residual else None
    if coarse_map is not None:
        nn.init.zeros_(coarse_map.map.weight)
        nn.init.zeros_(coarse_map.map.bias)
    return ViewDiffusion(
        unet, vae, encoder, projection, conditioning, NANO_SCHEDULER, coarse, coarse_map, licence="Apache-2.0"
    )


def with_fitted_map(
    model: ViewDiffusion, draw: Callable[[np.random.Generator], EncodedBatch], *, seed: int = 0, batches: int = 60
) -> ViewDiffusion:
    """The model, its linear map fitted to training samples if it has one that is still empty; in place."""
    if model.coarse_map is not None and not bool(model.coarse_map.map.weight.any()):
        rng = np.random.default_rng([seed, 1])
        found = fitted_coarse_map((draw(rng) for _ in range(batches)), model.codec)
        model.coarse_map.load_state_dict(found.state_dict())
    return model


def fitted_coarse_map(
    batches: Iterable[EncodedBatch], codec: LatentCodec, ridge: float = 1e-3, kernel: int = 3
) -> CoarseMap:
    """The linear map of coarse renders to views that is best in the mean square, over batches of encoded samples.

    Args:
        batches: training samples; some thousand views are enough.
        codec: of the latents.
        ridge: added to the diagonal, per sample.
        kernel: side of the neighbourhood.
    """
    gram: Tensor | None = None
    moment: Tensor | None = None
    for batch in batches:
        coarse = codec.normalise(batch.coarse.flatten(0, 1))
        planes = torch.cat([coarse, batch.visible.flatten(0, 1)], 1)
        columns = F.unfold(planes, kernel, padding=kernel // 2).transpose(1, 2).flatten(0, 1)
        columns = torch.cat([columns, torch.ones_like(columns[:, :1])], 1).double()
        wanted = batch.targets.flatten(0, 1).flatten(2).transpose(1, 2).flatten(0, 1).double()
        gram = columns.T @ columns + (0 if gram is None else gram)
        moment = columns.T @ wanted + (0 if moment is None else moment)
    if gram is None or moment is None:
        raise InputError("a linear map needs samples to be fitted to")
    diagonal = ridge * gram[-1, -1] * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    solved = torch.linalg.solve(gram + diagonal, moment).float()
    found = CoarseMap(latents=codec.latents, kernel=kernel)
    with torch.no_grad():
        found.map.weight.copy_(solved[:-1].T.reshape(found.map.weight.shape))
        found.map.bias.copy_(solved[-1])
    return found.requires_grad_(False)


_PROBED = 24
"""Views that channels are weighed on."""


@torch.no_grad()
def channel_weights(codec: LatentCodec, latents: Float[Tensor, "n c h w"], *, size: float = 0.3) -> Float[Tensor, "c"]:
    """How much an error of each normalised channel changes pictures, as weights whose mean is 1.

    A VAE uses some channels hardly at all, and normalised they look like the others: a U-Net would spend as much on
    what nobody sees. What counts is the squared change of colours on white and of alpha.

    Args:
        codec: whose decoder is asked.
        latents: normalised, of some views.
        size: deviation of the noise that is added to one channel at a time.
    """
    shown = _on_white(codec.decode(latents).float())
    noise = size * torch.randn(latents[:, 0].shape, generator=torch.Generator().manual_seed(0)).to(latents)
    change = []
    for channel in range(latents.shape[1]):
        moved = latents.clone()
        moved[:, channel] += noise
        change.append((_on_white(codec.decode(moved).float()) - shown).square().mean())
    weights = torch.stack(change) / torch.stack(change).mean().clamp(min=1e-12)
    # None is left without any: its noise would have no end.
    weights = weights.clamp(min=0.02)
    return weights / weights.mean()


def _on_white(rgba: Float[Tensor, "n s s 4"]) -> Float[Tensor, "n s s 4"]:
    alpha = rgba[..., 3:]
    return torch.cat([rgba[..., :3] * alpha + 1 - alpha, alpha], -1)


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
        sampling: SamplingSettings = SamplingSettings(steps=12, guidance=1.0, strength=1.0),
        held_views: int = 3,
    ) -> None:
        self.model, self.draw, self.device, self.weights = model, draw, device, weights
        self.sampling, self.held_out, self.held_views = sampling, held_out, held_views
        self._rng = np.random.default_rng(seed)
        self._levels = shifted_timesteps(model.schedule, weights.shift)
        few = draw(np.random.default_rng([seed, 2])).targets[:, 0][:_PROBED].to(device)
        uniform = torch.ones(model.codec.latents, device=device)
        self.channels = channel_weights(model.codec, few) if weights.by_sensitivity else uniform

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
            predicted = model.predict(noisy, times, given)
        error = ((predicted - target).square() * self.channels[:, None, None]).mean(dim=(2, 3, 4))
        high = error.detach()[t > 600].mean() if bool((t > 600).any()) else error.new_tensor(float("nan"))
        numbers = {} if bool(high.isnan()) else {"loss_high_noise": float(high)}
        loss = error.mean()
        if w.pictures:
            some = torch.randperm(objects * w.views)[: w.decoded].to(self.device)
            z, v, at = (x.flatten(0, 1)[some] for x in (noisy, predicted, times))
            shown = self.picture_error(model.schedule.predict_x0(v, z, at), clean.flatten(0, 1)[some])
            loss, numbers = loss + w.pictures * shown, {**numbers, "loss_pictures": float(shown.detach())}
        return loss, objects * w.views, numbers

    def picture_error(self, estimate: Float[Tensor, "n c h w"], clean: Float[Tensor, "n c h w"]) -> Float[Tensor, ""]:
        """Squared error of decoded latents on white, and in alpha; the VAE's own errors are no part of it."""
        # A CPU without bf16 matrix units decodes faster in fp32, and the last bits of colours matter here.
        with torch.autocast(estimate.device.type, enabled=False):
            with torch.no_grad():
                true = self.model.codec.decode_images(clean.float()).clamp(-1, 1)
            # Not clamped: an estimate that is emptier than empty still has to be pulled back.
            squares = (self.model.codec.decode_images(estimate.float()) - true).square() / 4
        inside = (true[:, 3:] > 0).to(squares) if true.shape[1] == 4 else (true.amin(1, keepdim=True) < 0.9).to(squares)
        error = (squares[:, :3] * (1 + self.weights.foreground * inside)).mean()
        return error + squares[:, 3:].mean() if true.shape[1] == 4 else error

    def evaluate(self) -> dict[str, float]:
        """Scores of views of the held-out objects, with the true source camera.

        Returns:
            Scores of sampled views, of the estimate that one step from pure noise makes (``one_step_...``), and, where
            there is one, of the linear map alone (``map_...``), which a network that uses its conditions must pass.
        """
        totals: dict[str, float] = {}
        count = 0
        views = np.arange(self.held_views) * (self.held_out.targets.shape[1] // self.held_views)
        for start in range(0, len(self.held_out), 16):
            part = slice(start, start + 16)
            photo = torch.from_numpy(self.held_out.source[part])
            source = torch.from_numpy(self.held_out.source_camera[part]).to(self.device)
            orbits = torch.from_numpy(self.held_out.target_cameras[part][:, views]).to(self.device)
            volume = coarse_volume(self.model, photo, source)
            conditions = view_conditions(self.model, photo, source, orbits, volume)
            truth = self.held_out.targets[part][:, views].astype(np.float32) / 255
            for name, latents in self._estimates(conditions).items():
                images = decode_views(self.model, latents).float().cpu().numpy()
                for rgba, true in zip(images.reshape(-1, *images.shape[2:]), truth.reshape(-1, *truth.shape[2:])):
                    for key, value in view_scores(rgba, true).items():
                        totals[name + key] = totals.get(name + key, 0.0) + value
            count += len(truth) * len(views)
        return {key: value / count for key, value in totals.items()}

    def _estimates(self, conditions: Conditions) -> dict[str, Float[Tensor, "o v c h w"]]:
        """Latents of the same views: sampled, of one step from noise, and of the linear map."""
        model, (objects, views) = self.model, conditions.tokens.shape[:2]
        found = {"": sample_latents(model, conditions, self.sampling)}
        last = len(model.schedule) - 1
        generator = torch.Generator().manual_seed(0)
        shape = (objects, views, model.codec.latents, model.latent_size, model.latent_size)
        noise = torch.randn(shape, generator=generator).to(self.device)
        sharing = model.shared_views(views, joint=True)
        with hooked(model.unet, [] if sharing is None else [sharing], model.latent_size):
            times = torch.full((objects, views), last, device=self.device)
            found["one_step_"] = model.schedule.predict_x0_eps(model.predict(noise, times, conditions), noise, last)[0]
        if model.coarse_map is not None and conditions.coarse is not None and conditions.visible is not None:
            flat = model.codec.normalise(conditions.coarse.flatten(0, 1)).unflatten(0, (objects, views))
            found["map_"] = model.coarse_map(flat, conditions.visible)
        return found

    def save(self, folder: Path) -> None:
        """Write the whole view model."""
        self.model.save_pretrained(folder)

    def state(self) -> dict[str, Any]:
        """Which VAE the latents are of."""
        return latent_state(self.model.vae)

    def load_state(self, state: dict[str, Any]) -> None:
        """Refuse to go on with another VAE.

        Raises:
            InputError: its latents mean something else.
        """
        require_latents(self.model.vae, state)


def shifted_timesteps(schedule: NoiseSchedule, shift: float, count: int = 4096) -> Int[Tensor, "n"]:
    """Timesteps whose logSNR is that of evenly spread timesteps, lowered by ``shift``."""
    everywhere = torch.linspace(0, len(schedule) - 1, count).round().long()
    wanted = schedule.log_snr(everywhere) - shift
    # log_snr falls with t, so its negative is sorted as searchsorted needs.
    levels = -schedule.log_snr(torch.arange(len(schedule)))
    return torch.searchsorted(levels, -wanted).clamp(max=len(schedule) - 1)
