"""The model that view training begins with, and which stored latents belong to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pipeline.diffusion.modules.conditioning import Conditioning
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.training.tasks.view_setup import FULL, latents_key, model_to_train
from scene.errors import InputError


def test_a_resumed_model_keeps_its_conditioning(tiny_checkpoint: Path) -> None:
    model = model_to_train(tiny_checkpoint, None, None)
    assert model_to_train(tiny_checkpoint, None, model.conditioning).conditioning == model.conditioning
    with pytest.raises(InputError, match=r"another conditioning.*without --resume"):
        model_to_train(tiny_checkpoint, None, Conditioning())


def test_a_fresh_model_needs_trained_parts(tiny_checkpoint: Path) -> None:
    with pytest.raises(InputError, match=r"needs a trained VAE.*--weights"):
        model_to_train(None, None, None)
    model = model_to_train(None, tiny_checkpoint, None)
    assert model.conditioning == FULL
    trained = model_to_train(tiny_checkpoint, None, None)
    assert model.vae.config["block_out_channels"] == trained.vae.config["block_out_channels"]
    assert model_to_train(None, tiny_checkpoint, Conditioning()).coarse is None


def test_stored_latents_belong_to_the_model_that_made_them(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "samples.json").write_text("{}", encoding="utf-8")

    def change_vae(model: ViewDiffusion) -> None:
        model.vae.decoder.conv_out.bias[0] += 1

    def change_coarse(model: ViewDiffusion) -> None:
        assert model.coarse is not None
        next(iter(model.coarse.parameters())).add_(1)

    def change_scale(model: ViewDiffusion) -> None:
        model.vae.register_to_config(latents_mean=[0.5] * 4)

    def change_unet(model: ViewDiffusion) -> None:
        model.unet.conv_in.weight.add_(1)

    def key(
        change: Callable[[ViewDiffusion], None] = lambda model: None, jitter: float = 0.2, views: int = 4, seed: int = 0
    ) -> str:
        model = model_to_train(tiny_checkpoint, None, None)
        with torch.no_grad():
            change(model)
        return latents_key(model, tmp_path, jitter, views, seed)

    plain = key()
    assert plain == key(change_unet)
    others = [key(change) for change in (change_vae, change_coarse, change_scale)]
    others += [key(jitter=0.1), key(views=2), key(seed=1)]
    (tmp_path / "samples.json").write_text('{"written": 1}', encoding="utf-8")
    assert len({plain, *others, key()}) == 8
