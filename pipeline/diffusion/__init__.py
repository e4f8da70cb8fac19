"""View diffusion: backbones, the attention hook, the denoising loop, the coarse volume."""
