"""A tiny editor with random weights, and views for it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel

from pipeline.editing.model import EditDiffusion
from pipeline.editing.task import EditTask
from scene.camera import Camera, orbit_camera
from tests.vaes import half_side_vae

SCHEDULER: dict[str, object] = {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
    "set_alpha_to_one": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def build_unet(**changes: Any) -> UNet2DConditionModel:
    """Two levels with self-attention on each, 8x8 latents; anything can be changed."""
    made = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": 1,
        "block_out_channels": (16, 32),
        "down_block_types": ("CrossAttnDownBlock2D",) * 2,
        "up_block_types": ("CrossAttnUpBlock2D",) * 2,
        "cross_attention_dim": 8,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**made, **changes}).eval()


def build_editor(
    unet: UNet2DConditionModel | None = None, seed: int = 0, tokens: int = 1, **scheduler: object
) -> EditDiffusion:
    """An editor for pictures of twice the latents' side, with one ControlNet for both kinds.

    Residuals of a new ControlNet are all zero; here they are made to count.
    """
    torch.manual_seed(seed)
    unet = build_unet() if unet is None else unet
    vae = half_side_vae(sample_size=16, scaling_factor=0.18215)
    # Its way from pictures to latents halves them as often as the VAE does: once.
    control = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 16)).eval()
    with torch.no_grad():
        for zeros in (
            control.controlnet_cond_embedding.conv_out,
            control.controlnet_mid_block,
            *control.controlnet_down_blocks,
        ):
            torch.nn.init.normal_(zeros.weight, std=0.2)
    prompt = torch.zeros(tokens, int(unet.config["cross_attention_dim"]))
    if tokens > 1:
        prompt = torch.randn(prompt.shape)
    networks = {"skeleton": control, "depth": control}
    return EditDiffusion(unet, vae, networks, {**SCHEDULER, **scheduler}, prompt, "test").to(torch.device("cpu"))  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def make_unet() -> Callable[..., UNet2DConditionModel]:
    """:func:`build_unet`."""
    return build_unet


@pytest.fixture(scope="session")
def make_editor() -> Callable[..., EditDiffusion]:
    """:func:`build_editor`, for tests that choose."""
    return build_editor


@pytest.fixture
def editor() -> EditDiffusion:
    """The tiny editor."""
    return build_editor()


@pytest.fixture(scope="session")
def cameras() -> list[Camera]:
    """Four cameras around the object."""
    return [orbit_camera(k * math.pi / 2, 0.2, size=16) for k in range(4)]


def build_task(cameras: list[Camera], seed: int = 0, **given: Any) -> EditTask:
    """A view for each camera, of random latents and controls; more can be given."""
    generator = torch.Generator().manual_seed(seed)
    originals = torch.randn(len(cameras), 4, 8, 8, generator=generator)
    pictures = torch.rand(len(cameras), 3, 16, 16, generator=generator)
    return EditTask(**{"originals": originals, "kind": "depth", "pictures": pictures, "cameras": cameras, **given})


@pytest.fixture(scope="session")
def make_task(cameras: list[Camera]) -> Callable[..., EditTask]:
    """:func:`build_task` for the four cameras."""
    return functools.partial(build_task, cameras)
