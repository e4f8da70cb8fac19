"""Noise schedules and the one denoising loop."""
