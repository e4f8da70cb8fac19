"""Sampling methods as hooks: attention map filtering, mutual self-attention, Zero-to-Hero."""
