"""Zero123++: six views of a fixed rig at once, as one image of 3 x 2 tiles, conditioned by reference attention.

Source: Zero123++ (Shi et al. 2023), and the configuration of its published checkpoints v1.1 and v1.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor

from pipeline.diffusion.checkpoints.clip_encoder import ClipPhotoEncoder, build_tower
from pipeline.diffusion.checkpoints.clip_text import embed_prompt
from pipeline.diffusion.checkpoints.configs import read_config
from pipeline.diffusion.checkpoints.hub import local_checkpoint
from pipeline.diffusion.checkpoints.layouts import (
    Zero123PlusFolder,
    find_layout,
    licence_of,
    load_unet,
    load_vae,
    part_config,
    scheduler_config,
)
from pipeline.diffusion.checkpoints.weight_files import read_part
from pipeline.diffusion.denoising.loop import RowNoise, denoise, view_seeds
from pipeline.diffusion.denoising.schedule import NoiseSchedule, timestep_pairs, trailing_timesteps
from pipeline.diffusion.modules.attention import AttentionHook, Heads, Layer, Step, hooked
from pipeline.diffusion.modules.latents import checked_finite, save_decoder_memory
from pipeline.diffusion.settings import Memory, SamplingSettings
from scene.errors import CheckpointError, SettingsError

ROWS, COLUMNS = 3, 2
FOV = math.radians(30)
RADIUS = 2.4
"""Four times the object's radius: then it fills 30 degrees as it does in the published images. No file states it."""
GREY = 127 / 255
IMAGE_STD = 0.8
"""Images are ``(x - 0.5) / 0.8`` inside, where other VAEs' are ``(x - 0.5) / 0.5``."""
LATENT_SCALE, LATENT_SHIFT = 0.75, 0.22


@dataclass(frozen=True)
class Rig:
    """Where the six views stand: azimuths from the photo, elevations above the horizon, degrees."""

    azimuths_deg: tuple[float, ...]
    elevations_deg: tuple[float, ...]

    def orbits(self) -> Float[Tensor, "6 3"]:
        """(azimuth, elevation, radius), radians."""
        rows = zip(self.azimuths_deg, self.elevations_deg, strict=True)
        return torch.tensor([(math.radians(a), math.radians(e), RADIUS) for a, e in rows])


_AZIMUTHS = (30.0, 90.0, 150.0, 210.0, 270.0, 330.0)
RIG_11 = Rig(_AZIMUTHS, (30.0, -20.0) * 3)
RIG_12 = Rig(_AZIMUTHS, (20.0, -10.0) * 3)


@dataclass(eq=False)
class ReferenceAttention(AttentionHook):
    """Self-attention also reads the keys and values that the same layers had for the reference.

    First a pass with ``writing`` on, over as many rows as the pass that reads has.
    """

    writing: bool = False
    kept: dict[Layer, tuple[Heads, Heads]] = field(default_factory=dict)

    def project(self, layer: Layer, q: Heads, k: Heads, v: Heads) -> tuple[Heads, Heads, Heads]:
        """Keep keys and values, or widen them by what was kept; each layer's are read once and let go."""
        if self.writing:
            self.kept[layer] = k, v
            return q, k, v
        more_k, more_v = self.kept.pop(layer)
        return q, torch.cat([k, more_k], 2), torch.cat([v, more_v], 2)

    def reset(self) -> None:
        """Let go of everything."""
        self.kept.clear()


@dataclass(eq=False)
class SixViewDiffusion:
    """A Zero123++ model.

    Args:
        unet: denoises the image of six tiles.
        vae: images to latents and back.
        vision_encoder: photo to embedding.
        prompt: text embedding of the empty prompt.
        ramp: how much of the photo's embedding is added to each of its tokens.
        scheduler: config of the noise process, in diffusers' terms.
        rig: where the views stand.
        licence: of the weights.
        tile: side of a view in pixels.
        image_size: side of the photo as the reference.
        rows_at_once: passes of guidance that go together, at most two; None for both.
    """

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    vision_encoder: ClipPhotoEncoder
    prompt: Float[Tensor, "n d"]
    ramp: Float[Tensor, "n"]
    scheduler: dict[str, object]
    rig: Rig = RIG_12
    licence: str = "unknown"
    tile: int = 320
    image_size: int = 512
    rows_at_once: int | None = None

    def __post_init__(self) -> None:
        wanted, found = int(self.vae.config["latent_channels"]), self.unet.config["in_channels"]
        if wanted != found:
            raise CheckpointError(f"the U-Net has {found} input channels, the VAE {wanted} latent channels")
        widths = self.vision_encoder.width, self.prompt.shape[1], int(self.unet.config["cross_attention_dim"])
        if len(set(widths)) > 1:
            raise CheckpointError(
                f"its parts do not fit: embeddings of {widths[0]}, text of {widths[1]}, a U-Net that reads {widths[2]}"
            )
        if len(self.ramp) != len(self.prompt):
            raise CheckpointError(f"the ramp has {len(self.ramp)} entries for {len(self.prompt)} tokens")
        self.schedule = NoiseSchedule.of_config(self.scheduler)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.unet.device

    @property
    def down(self) -> int:
        """Pixels per latent pixel."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> SixViewDiffusion:
        """Move every part, in place."""
        for part in (self.unet, self.vae, self.vision_encoder):
            part.to(device=device, dtype=dtype)
        self.prompt, self.ramp = self.prompt.to(device), self.ramp.to(device)
        return self

    def use_memory(self, memory: Memory) -> SixViewDiffusion:
        """Trade time for memory, in place: ``low`` runs guidance's two passes one by one, and decodes in tiles."""
        self.rows_at_once = 1 if memory == "low" else None
        save_decoder_memory(self.vae, memory)
        return self

    @classmethod
    def from_pretrained(cls, source: Path | str, *, dtype: torch.dtype = torch.float32) -> SixViewDiffusion:
        """Load a checkpoint folder, or a repository of the hub named ``owner/name``, onto the CPU.

        Raises:
            CheckpointError: the checkpoint is missing, incomplete, or no Zero123++.
            MissingBackendError: transformers is not installed.
        """
        found = find_layout(local_checkpoint(source))
        if not isinstance(found, Zero123PlusFolder):
            raise CheckpointError(
                "is no Zero123++ checkpoint", where=found.path, fix="Load it with load_view_model instead."
            )
        return cls.of_layout(found, dtype=dtype)

    @classmethod
    def of_layout(cls, found: Zero123PlusFolder, *, dtype: torch.dtype = torch.float32) -> SixViewDiffusion:
        """Load a folder that :func:`.layouts.find_layout` found; as :meth:`from_pretrained`."""
        root = found.path
        ramp = ramp_of(found)
        scheduler = scheduler_config(root)
        encoder = root / "vision_encoder"
        # Its processor reduces images with a filter, unlike Zero-1-to-3's.
        config = read_config(part_config(encoder))
        tower = build_tower(config, read_part(encoder), encoder, dtype, antialias=True)
        return cls(
            load_unet(root / "unet", dtype),
            load_vae(root / "vae", dtype),
            tower,
            embed_prompt(root, "", len(ramp)),
            ramp,
            scheduler,
            # The two versions differ in nothing else that a file states.
            RIG_11 if float(ramp[0]) == 0 else RIG_12,
            licence_of(root),
        )

    def embed_text(self, photo: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b n d"]:
        """The empty prompt with the photo's embedding ramped in; photo on grey, [-1, 1]."""
        return self.prompt + self.vision_encoder(photo).float()[:, None] * self.ramp[:, None]

    def encode_reference(
        self, photo: Float[Tensor, "b 3 s s"], noise: Float[Tensor, "b c h w"]
    ) -> Float[Tensor, "b c h w"]:
        """A draw from the VAE's posterior, unscaled, of images in [-1, 1]."""
        posterior = self.vae.encode((photo * 0.5 / IMAGE_STD).to(self.vae.dtype)).latent_dist
        return posterior.mean.float() + posterior.std.float() * noise

    def decode(self, latents: Float[Tensor, "1 c h w"]) -> Float[Tensor, "6 3 t t"]:
        """The six tiles of denoised latents, row by row, in [0, 1].

        Raises:
            ViewloomError: the images are not finite.
        """
        raw = (latents / LATENT_SCALE + LATENT_SHIFT) / float(self.vae.config["scaling_factor"])
        image = checked_finite(self.vae.decode(raw.to(self.vae.dtype)).sample).float() * IMAGE_STD / 0.5
        return split_tiles((image[0] * 0.5 + 0.5).clamp(0, 1))


def ramp_of(found: Zero123PlusFolder) -> Float[Tensor, "n"]:
    """The ramp that the index holds.

    Raises:
        CheckpointError: it is no list of numbers.
    """
    try:
        ramp = torch.tensor(found.index["ramping_coefficients"], dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError("ramping_coefficients are no list of numbers", where=found.path) from error
    if ramp.ndim != 1 or not len(ramp) or not torch.isfinite(ramp).all():
        raise CheckpointError("ramping_coefficients are no list of numbers", where=found.path)
    return ramp


def split_tiles(image: Float[Tensor, "c h w"]) -> Float[Tensor, "6 c t t"]:
    """The tiles of an image of three rows and two columns, row by row."""
    rows = image.chunk(ROWS, 1)
    return torch.stack([tile for row in rows for tile in row.chunk(COLUMNS, 2)])


def on_grey(photo: UInt8[Tensor, "b h w 4"], size: int) -> Float[Tensor, "b 3 s s"]:
    """Straight-alpha photos laid on the grey that the model was trained with, in [-1, 1]."""
    values = photo.permute(0, 3, 1, 2).float() / 255
    flat = values[:, :3] * values[:, 3:] + GREY * (1 - values[:, 3:])
    if flat.shape[-1] != size:
        flat = F.interpolate(flat, (size, size), mode="bilinear", align_corners=False, antialias=True)
    return flat * 2 - 1


@torch.no_grad()
def sample_six_views(
    model: SixViewDiffusion,
    photo: UInt8[Tensor, "1 s s 4"],
    settings: SamplingSettings,
    *,
    on_step: Callable[[Step], None] | None = None,
) -> Float[Tensor, "6 3 t t"]:
    """The six views of a prepared photo on grey, in [0, 1].

    Args:
        model: the model.
        photo: framed cut-out.
        settings: steps, guidance, eta, seed.
        on_step: called after every step.

    Raises:
        SettingsError: filtering is asked for.
    """
    if settings.filtering != "none":
        raise SettingsError(
            f"filtering {settings.filtering} is for models that make one view per row, not for Zero123++",
            fix="Leave --filtering out, or choose another checkpoint.",
        )
    plan, device, schedule = settings.plan(), model.device, model.schedule
    side, channels = model.image_size // model.down, int(model.vae.config["latent_channels"])
    views_seed, reference_seed = view_seeds(settings.seed, 2)
    reference_noise = RowNoise.of([reference_seed])
    image = on_grey(photo.to(device), model.image_size)
    references, texts = image, model.embed_text(image)
    if plan.guidance != 1:
        # The unconditional half: grey in place of the photo, and the prompt alone.
        references, texts = torch.cat([torch.zeros_like(image), image]), torch.cat([model.prompt[None], texts])

    def fresh() -> Tensor:
        """Noise for every row of the reference."""
        drawn = [reference_noise.draw((channels, side, side), device) for _ in references]
        return torch.cat(drawn)

    clean = model.encode_reference(references, fresh())
    hook = ReferenceAttention()
    dtype, count = model.unet.dtype, model.rows_at_once or len(references)

    def predict(z: Tensor, t: int) -> Tensor:
        times = torch.full((len(clean),), t, device=device)
        noisy = schedule.add_noise(clean, fresh(), times)
        outs = []
        for reference, text in zip(noisy.to(dtype).split(count), texts.to(dtype).split(count), strict=True):
            hook.writing = True
            model.unet(reference, t, text)
            hook.writing = False
            outs.append(model.unet(z.expand(len(text), -1, -1, -1).to(dtype), t, text).sample.float())
        out = torch.cat(outs)
        return out if len(out) == 1 else out[:1] + plan.guidance * (out[1:] - out[:1])

    height, width = ROWS * model.tile // model.down, COLUMNS * model.tile // model.down
    noise = RowNoise.of([views_seed])
    start = noise.draw((channels, height, width), device)
    pairs = timestep_pairs(trailing_timesteps(plan.steps, len(schedule)))
    with hooked(model.unet, [hook], height):
        out = denoise(predict, start, schedule, pairs, noise=noise, eta=settings.eta, on_step=on_step)
    return model.decode(out)
