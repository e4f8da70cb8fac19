"""Tiny random models: every class as shipped, in other sizes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from pipeline.diffusion.modules.coarse_volume import CoarseVolumeModel
from pipeline.diffusion.modules.conditioning import Conditioning, PhotoEncoder, PoseProjection
from pipeline.diffusion.view_models.zero123 import ViewDiffusion

PLAIN = Conditioning()
FULL = Conditioning(source_row=True, coarse=True, pluecker=True, joint=(4, 2))
ZERO123_SCHEDULER: dict[str, object] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
NANO_SCHEDULER: dict[str, object] = {
    **ZERO123_SCHEDULER,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "set_alpha_to_one": True,
    "steps_offset": 0,
    "timestep_spacing": "trailing",
}


def tiny_unet(channels: int = 8, sample_size: int = 8) -> UNet2DConditionModel:
    """Three levels, self-attention on each, as the shipped model."""
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=channels,
        out_channels=4,
        layers_per_block=2,
        block_out_channels=(8, 16, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    ).eval()


def tiny_vae(channels: int = 4) -> AutoencoderKL:
    """Latents of half the picture's side."""
    return AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
        scaling_factor=0.18215,
    ).eval()


def tiny_coarse() -> CoarseVolumeModel:
    """A 32-pixel photo to 8 voxels a side."""
    return CoarseVolumeModel(image_size=32, resolution=8, channels=(16, 16, 16), fine_channels=8).eval()


def build_model(conditioning: Conditioning = PLAIN, seed: int = 0, **parts: object) -> ViewDiffusion:
    """A whole view model for pictures of 16 pixels; parts can be replaced."""
    torch.manual_seed(seed)
    made: dict[str, object] = {
        "unet": tiny_unet(conditioning.channels(4)),
        "vae": tiny_vae(),
        "image_encoder": PhotoEncoder(width=16, image_size=32).eval(),
        "cc_projection": PoseProjection(width=16).eval(),
        "scheduler": NANO_SCHEDULER if conditioning.coarse else ZERO123_SCHEDULER,
        "coarse": tiny_coarse() if conditioning.coarse else None,
        "licence": "test",
    }
    return ViewDiffusion(conditioning=conditioning, **{**made, **parts})  # type: ignore[arg-type]


@pytest.fixture(params=[PLAIN, FULL], ids=["plain", "full"])
def model(request: pytest.FixtureRequest) -> ViewDiffusion:
    """A plain Zero123 model, and one with every condition."""
    return build_model(request.param).to(torch.device("cpu"))


@pytest.fixture(scope="session")
def make_model() -> Callable[..., ViewDiffusion]:
    """:func:`build_model`, for tests that choose."""
    return build_model


@pytest.fixture(scope="session")
def make_unet() -> Callable[[int], UNet2DConditionModel]:
    """:func:`tiny_unet`, of so many channels."""
    return tiny_unet
