"""A tiny editor whose pictures show something: its U-Net is random, its VAE halves pictures and doubles them again."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import nn

from pipeline.editing.model import EditDiffusion
from tests.pipeline.editing.conftest import build_editor, build_unet
from tests.vaes import half_side_vae

SIDE = 32
"""Of its pictures."""


@torch.no_grad()
def seeing_vae() -> AutoencoderKL:
    """Pictures at half their size as latents, and back: residual blocks add nothing, and norms only scale.

    Each channel x goes through the hidden layers as (x, -x), which has the mean 0, and silu(x) - silu(-x) = x.
    """
    vae = half_side_vae(SIDE, scaling_factor=1.0)
    for name, module in vae.named_modules():
        if (isinstance(module, nn.Conv2d) and name.endswith("conv2")) or name.endswith("to_out.0"):
            module.weight.zero_()
            module.bias.zero_()
    apart = torch.stack([torch.eye(4), -torch.eye(4)], 1).flatten(0, 1)  # 8 x 4
    _set(vae.encoder.conv_in, apart)
    _set(vae.decoder.conv_in, apart)
    _set(vae.encoder.conv_out, torch.cat([apart.T, torch.zeros(4, 8)]))
    _set(vae.decoder.conv_out, apart.T)
    _set(vae.quant_conv, torch.eye(8))
    _set(vae.post_quant_conv, torch.eye(4))
    _set(vae.decoder.up_blocks[0].upsamplers[0].conv, torch.eye(8))
    down = vae.encoder.down_blocks[0].downsamplers[0].conv
    _set(down, torch.eye(8))
    down.weight.zero_()
    down.weight[:, :, :2, :2] = torch.eye(8)[:, :, None, None] / 4
    return vae


def _set(conv: nn.Conv2d, matrix: torch.Tensor) -> None:
    """Make a convolution a product with a matrix at each pixel."""
    conv.weight.zero_()
    conv.weight[:, :, conv.weight.shape[2] // 2, conv.weight.shape[3] // 2] = matrix
    assert conv.bias is not None
    conv.bias.zero_()


def seeing_editor(*, deaf: bool = False) -> EditDiffusion:
    """The editor, with one ControlNet for both kinds.

    Args:
        deaf: let the ControlNet be as a new one, whose residuals are all zero.
    """
    editor = build_editor(build_unet(sample_size=SIDE // 2))
    editor.vae = seeing_vae()
    if deaf:
        control = editor.controlnets["depth"]
        with torch.no_grad():
            for zeros in (control.controlnet_mid_block, *control.controlnet_down_blocks):
                zeros.weight.zero_()
                zeros.bias.zero_()
    return editor
