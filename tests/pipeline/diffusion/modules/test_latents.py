"""Between pictures and latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pipeline.diffusion.modules.latents import LatentCodec, images_from_rgba, rgba_from_images
from scene.errors import ViewloomError


def vae(channels: int = 4, **config: object) -> AutoencoderKL:
    """A tiny random VAE."""
    torch.manual_seed(0)
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
        **config,
    ).eval()  # type: ignore[arg-type]


def test_pictures_are_laid_on_white_in_minus_one_to_one() -> None:
    rgba = torch.tensor([[[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]]], dtype=torch.uint8)
    four = images_from_rgba(rgba, 4)
    assert torch.allclose(
        four[0, :, 0].T, torch.tensor([[1.0, -1, -1, 1], [1, 1, 1, -1], [0.6, 0.6, 0.6, -0.6]]), atol=1e-6
    )
    assert torch.equal(images_from_rgba(rgba, 3), four[:, :3])


@given(arrays(np.uint8, (1, 3, 5, 4)))
def test_round_trip_keeps_alpha_exactly_and_colour_where_it_shows(pixels: np.ndarray) -> None:
    rgba = torch.from_numpy(pixels)
    back = rgba_from_images(images_from_rgba(rgba, 4))
    assert back.shape == (1, 3, 5, 4)
    assert torch.allclose(back[..., 3] * 255, rgba[..., 3].float(), atol=1e-3)
    shown = rgba[..., 3] > 12
    assert torch.allclose(back[shown][:, :3], rgba[shown][:, :3].float() / 255, atol=1e-4)
    # Laid on white again, every pixel is the picture it came from.
    white = back[..., :3] * back[..., 3:] + 1 - back[..., 3:]
    assert torch.allclose(white, (images_from_rgba(rgba, 3).permute(0, 2, 3, 1) + 1) / 2, atol=0.025)


@given(st.floats(0, 1), st.floats(0.5, 0.99))
def test_three_channels_are_solid_where_darker_than_the_threshold(value: float, threshold: float) -> None:
    assume(abs(value - threshold) > 1e-5)
    image = torch.ones(1, 3, 2, 2)
    image[0, 1, 0, 0] = value * 2 - 1
    rgba = rgba_from_images(image, white_threshold=threshold)
    alpha = rgba[0, ..., 3]
    darker = value < threshold
    assert float(alpha[0, 0]) == float(darker)
    assert alpha.sum() == float(darker)
    assert torch.allclose(rgba[0, 0, 0, :3], torch.tensor([1.0, value, 1.0]) * darker, atol=1e-6)


def test_out_of_range_outputs_are_clipped() -> None:
    rgba = rgba_from_images(torch.tensor([3.0, -4.0, 0.0, 9.0]).view(1, 4, 1, 1))
    assert torch.allclose(rgba[0, 0, 0], torch.tensor([1.0, 0.0, 0.5, 1.0]))


def test_codec_uses_the_scaling_factor_of_public_checkpoints() -> None:
    codec = LatentCodec(vae(3, scaling_factor=0.18215))
    raw = torch.randn(2, 4, 8, 8)
    assert torch.allclose(codec.normalise(raw), raw * 0.18215, atol=1e-6)
    assert codec.channels == 3


def test_codec_prefers_statistics_per_channel() -> None:
    codec = LatentCodec(vae(latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[1.0, 2.0, 0.5, 4.0]))
    raw = torch.randn(2, 4, 8, 8)
    expected = (raw - torch.tensor([1.0, 2, 3, 4]).view(1, 4, 1, 1)) / torch.tensor([1.0, 2, 0.5, 4]).view(1, 4, 1, 1)
    assert torch.allclose(codec.normalise(raw), expected, atol=1e-6)


@pytest.mark.parametrize(
    "config", [{"scaling_factor": 0.18215}, {"latents_mean": [1.0, 2.0, 3.0, 4.0], "latents_std": [1.0, 2.0, 0.5, 4.0]}]
)
def test_decoding_undoes_the_normalisation(config: dict[str, object]) -> None:
    codec = LatentCodec(vae(**config))
    raw = torch.randn(1, 4, 8, 8)
    with torch.no_grad():
        direct = rgba_from_images(codec.vae.decode(raw).sample)
        assert torch.allclose(codec.decode(codec.normalise(raw)), direct, atol=1e-5)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("dtype", "fix"),
    [
        (torch.float16, "Use --dtype bfloat16 or float32."),
        (torch.bfloat16, "Use --dtype float32."),
        (torch.float32, "Try another --views.sampling.seed"),
    ],
)
@torch.no_grad()
def test_pictures_that_are_not_finite_are_no_empty_pictures(
    channels: int, wrong: float, dtype: torch.dtype, fix: str
) -> None:
    codec = LatentCodec(vae(channels).to(dtype))
    latents = torch.randn(2, 4, 8, 8)
    codec.decode(latents)
    latents[1, 0, 3, 3] = wrong
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(ViewloomError, match=f"produced numbers that are not finite in {name}") as caught:
        codec.decode(latents)
    assert str(caught.value.fix).startswith(fix)


def test_encoding_is_the_unscaled_mode_and_does_not_flicker() -> None:
    """A sample of the posterior instead would differ between calls; a scaled one is the commonest porting bug."""
    codec = LatentCodec(vae(scaling_factor=0.18215))
    rgba = torch.randint(0, 256, (2, 16, 16, 4), dtype=torch.uint8)
    with torch.no_grad():
        first, second = codec.encode_raw(rgba), codec.encode_raw(rgba)
        moments = codec.vae.encode(images_from_rgba(rgba, 4)).latent_dist.mean
    assert torch.equal(first, second)
    assert torch.allclose(first, moments, atol=1e-6)
    assert first.shape == (2, 4, 8, 8)
