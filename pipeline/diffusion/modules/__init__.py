"""Parts of view models: attention hook, conditioning, latents, cameras as tensors, coarse volume."""
