"""A VAE that is small enough for tests."""

from __future__ import annotations

from diffusers import AutoencoderKL


def half_side_vae(sample_size: int = 32, scaling_factor: float = 2.0) -> AutoencoderKL:
    """Pictures with alpha to latents of half their side; weights are drawn from torch's generator."""
    return AutoencoderKL(
        in_channels=4,
        out_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=sample_size,
        scaling_factor=scaling_factor,
    ).eval()
