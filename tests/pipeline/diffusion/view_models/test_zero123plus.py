"""Zero123++: reference attention, the rig, the scales of its latents, and its layout."""

from __future__ import annotations

import json
import math
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import Attention

from pipeline.diffusion.checkpoints.clip_encoder import ClipPhotoEncoder
from pipeline.diffusion.generate import generate_six_views
from pipeline.diffusion.modules.attention import hooked
from pipeline.diffusion.settings import SamplingSettings
from pipeline.diffusion.view_models.load import checkpoint_info, load_view_model
from pipeline.diffusion.view_models.zero123 import ViewDiffusion
from pipeline.diffusion.view_models.zero123plus import (
    FOV,
    RIG_11,
    RIG_12,
    ReferenceAttention,
    SixViewDiffusion,
    on_grey,
    sample_six_views,
    split_tiles,
)
from scene.errors import CheckpointError, ViewloomError

files = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "checkpoints" / "layout_files.py")))


class Tower(torch.nn.Module):
    """Stands for the vision tower: mean colour, repeated."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(image_size=8, projection_dim=32)
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, pixels: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(image_embeds=pixels.mean((2, 3)).repeat(1, 11)[:, :32] * self.weight)


@pytest.fixture
def model() -> SixViewDiffusion:
    """A tiny model whose tiles are 8 pixels and whose reference has 16."""
    config = {**files.UNET_CONFIG, "in_channels": 4, "use_linear_projection": True, "attention_head_dim": [4, 8]}
    unet = UNet2DConditionModel.from_config(config)
    unet.load_state_dict(files.unet_weights(in_channels=4, use_linear_projection=True, attention_head_dim=[4, 8]))
    vae = AutoencoderKL.from_config(files.VAE_CONFIG)
    vae.load_state_dict(files.vae_weights())
    tower = ClipPhotoEncoder(Tower(), antialias=True)
    prompt, ramp = torch.randn(7, 32), torch.linspace(0, 0.3, 7)
    made = SixViewDiffusion(unet.eval(), vae.eval(), tower, prompt, ramp, files.PLUS_SCHEDULER, tile=8, image_size=16)
    return made.to(torch.device("cpu"))


def photo(side: int = 16) -> torch.Tensor:
    """A red square on transparency."""
    rgba = torch.zeros(1, side, side, 4, dtype=torch.uint8)
    rgba[:, side // 4 : -side // 4, side // 4 : -side // 4] = torch.tensor([200, 30, 30, 255], dtype=torch.uint8)
    return rgba


# --- the rig ----------------------------------------------------------------------------------------------------------


def test_the_rigs_are_the_published_ones() -> None:
    degrees = torch.rad2deg(RIG_12.orbits()[:, :2])
    assert degrees[:, 0].tolist() == pytest.approx([30, 90, 150, 210, 270, 330])
    assert degrees[:, 1].tolist() == pytest.approx([20, -10] * 3)
    assert torch.rad2deg(RIG_11.orbits()[:, 1]).tolist() == pytest.approx([30, -20] * 3)
    assert math.degrees(FOV) == pytest.approx(30)


def test_tiles_go_row_by_row() -> None:
    picture = torch.zeros(1, 12, 8)
    for k in range(6):
        picture[:, 4 * (k // 2) : 4 * (k // 2) + 4, 4 * (k % 2) : 4 * (k % 2) + 4] = k
    assert split_tiles(picture).mean((1, 2, 3)).tolist() == [0, 1, 2, 3, 4, 5]
    assert split_tiles(picture).shape == (6, 1, 4, 4)


# --- reference attention ----------------------------------------------------------------------------------------------


class Written:
    """The published form: hidden states are kept and joined before keys and values are made."""

    def __init__(self, name: str, kept: dict[str, torch.Tensor], writing: list[bool]) -> None:
        self.name, self.kept, self.writing = name, kept, writing

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is None:
            if self.writing[0]:
                self.kept[self.name] = hidden_states
            else:
                context = torch.cat([context, self.kept[self.name]], 1)
        q, k, v = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for x in (attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context))
        )
        out = F.scaled_dot_product_attention(q, k, v, scale=attn.scale).transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](out))


@torch.no_grad()
def test_reference_attention_is_the_published_one(model: SixViewDiffusion) -> None:
    z, reference, text = torch.randn(2, 4, 12, 8), torch.randn(2, 4, 8, 8), torch.randn(2, 7, 32)
    hook = ReferenceAttention()
    with hooked(model.unet, [hook], 12):
        hook.writing = True
        alone = model.unet(reference, 500, text).sample
        hook.writing = False
        ours = model.unet(z, 500, text).sample
        assert not hook.kept
    before = dict(model.unet.attn_processors)
    kept: dict[str, torch.Tensor] = {}
    writing = [True]
    model.unet.set_attn_processor({name: Written(name, kept, writing) for name in before})
    assert torch.allclose(alone, model.unet(reference, 500, text).sample, atol=1e-5)
    writing[0] = False
    theirs = model.unet(z, 500, text).sample
    model.unet.set_attn_processor(before)
    assert torch.allclose(ours, theirs, atol=1e-5)
    # The reference matters, far beyond rounding.
    assert (ours - model.unet(z, 500, text).sample).abs().max() > 100 * (ours - theirs).abs().max()


# --- scales -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_decoding_undoes_the_scales_of_latents_and_of_pictures(model: SixViewDiffusion) -> None:
    latents = torch.randn(1, 4, 12, 8) * 0.5
    picture = model.vae.decode((latents / 0.75 + 0.22) / 0.18215).sample[0] * 0.8 / 0.5
    expected = (picture * 0.5 + 0.5).clamp(0, 1)
    tiles = model.decode(latents)
    assert tiles.shape == (6, 3, 8, 8)
    assert torch.allclose(tiles[3], expected[:, 8:16, 8:], atol=1e-5)


@torch.no_grad()
def test_tiles_that_are_not_finite_are_refused(model: SixViewDiffusion) -> None:
    latents = torch.randn(1, 4, 12, 8)
    latents[0, 0, 0, 0] = float("nan")
    with pytest.raises(ViewloomError, match="not finite in float32"):
        model.decode(latents)


@torch.no_grad()
def test_the_reference_is_an_unscaled_draw_of_a_picture_of_deviation_0_8(model: SixViewDiffusion) -> None:
    values, noise = torch.rand(1, 3, 16, 16), torch.randn(1, 4, 8, 8)
    posterior = model.vae.encode((values - 0.5) / 0.8).latent_dist
    reference = model.encode_reference(values * 2 - 1, noise)
    assert torch.allclose(reference, posterior.mean + posterior.std * noise, atol=1e-5)


def test_photos_lie_on_grey() -> None:
    flat = on_grey(photo(), 16) * 0.5 + 0.5
    assert torch.allclose(flat[0, :, 0, 0], torch.tensor(127 / 255), atol=1e-6)
    assert torch.allclose(flat[0, :, 8, 8], torch.tensor([200.0, 30, 30]) / 255, atol=1e-6)


@torch.no_grad()
def test_the_photo_is_ramped_into_the_prompt(model: SixViewDiffusion) -> None:
    image = on_grey(photo(), 16)
    embedding = model.vision_encoder(image)[0]
    text = model.embed_text(image)[0]
    assert torch.allclose(text[0], model.prompt[0])
    assert torch.allclose(text[6], model.prompt[6] + 0.3 * embedding, atol=1e-6)


# --- sampling ---------------------------------------------------------------------------------------------------------


def passes(model: SixViewDiffusion, settings: SamplingSettings) -> tuple[torch.Tensor, list[tuple[object, ...]]]:
    """Six views, and the shapes, times and texts of every pass."""
    seen: list[tuple[object, ...]] = []
    handle = model.unet.register_forward_pre_hook(
        lambda module, inputs: seen.append((tuple(inputs[0].shape), int(inputs[1]), inputs[2]))
    )
    tiles = sample_six_views(model, photo(), settings)
    handle.remove()
    return tiles, seen


def test_every_step_writes_the_reference_and_reads_it(model: SixViewDiffusion) -> None:
    tiles, seen = passes(model, SamplingSettings(steps=2, guidance=4.0))
    assert tiles.shape == (6, 3, 8, 8)
    assert torch.isfinite(tiles).all()
    assert [(shape, t) for shape, t, _ in seen] == [
        ((2, 4, 8, 8), 999),
        ((2, 4, 12, 8), 999),
        ((2, 4, 8, 8), 499),
        ((2, 4, 12, 8), 499),
    ]
    # Without the photo: the prompt alone; it comes first.
    assert torch.equal(seen[0][2][0], model.prompt)  # type: ignore[index]
    assert not torch.equal(seen[0][2][1], model.prompt)  # type: ignore[index]
    assert [shape for shape, _, _ in passes(model, SamplingSettings(steps=1, guidance=1.0))[1]] == [
        (1, 4, 8, 8),
        (1, 4, 12, 8),
    ]


def test_little_memory_takes_the_passes_one_by_one_to_the_same_views(model: SixViewDiffusion) -> None:
    settings = SamplingSettings(steps=2, guidance=3.0, eta=0.5)
    together, _ = passes(model, settings)
    assert model.use_memory("low").vae.use_tiling
    model.vae.disable_tiling()  # tiles blend into each other, which changes the pictures a little
    apart, seen = passes(model, settings)
    assert [shape[0] for shape, _, _ in seen] == [1] * 8  # type: ignore[index]
    assert torch.allclose(together, apart, atol=1e-4)
    other, _ = passes(model, SamplingSettings(steps=2, guidance=3.0, eta=0.5, seed=1))
    assert not torch.allclose(apart, other, atol=1e-3)


def test_views_come_with_the_rigs_cameras(model: SixViewDiffusion) -> None:
    reported: list[tuple[int, int]] = []
    made = generate_six_views(
        model,
        photo()[0].numpy(),
        SamplingSettings(steps=2),
        elevation_deg=25.0,
        on_step=lambda done, total: reported.append((done, total)),
    )
    assert made.rgba.shape == (6, 8, 8, 4)
    assert made.rgba.dtype == np.uint8
    assert reported == [(1, 2), (2, 2)]
    assert math.degrees(made.elevation) == pytest.approx(25)
    for camera, azimuth in zip(made.cameras, (30, 90, 150, 210, 270, 330), strict=True):
        assert math.degrees(math.atan2(camera.centre[1], camera.centre[0])) % 360 == pytest.approx(azimuth, abs=1e-3)
        assert 2 * math.degrees(math.atan(4 / camera.fx)) == pytest.approx(30, abs=1e-4)


# --- the layout -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("version", "rig"), [("1.1", RIG_11), ("1.2", RIG_12)])
def test_published_folders_load(tmp_path: Path, version: str, rig: object) -> None:
    transformers = pytest.importorskip("transformers")
    folder = files.write_zero123plus(tmp_path, version=version)
    loaded = load_view_model(folder)
    assert isinstance(loaded, SixViewDiffusion)
    assert loaded.rig == rig
    assert loaded.vision_encoder.antialias
    assert loaded.schedule.prediction == "v_prediction"
    assert float(loaded.schedule.alphas_cumprod[0]) == pytest.approx(1 - 0.00085)
    assert (loaded.tile, loaded.image_size) == (320, 512)
    # The empty prompt: start, end, and padding with this tokenizer's "!".
    encoder = transformers.CLIPTextModel.from_pretrained(str(folder / "text_encoder"))
    with torch.no_grad():
        expected = encoder(torch.tensor([[3, 4, 0, 0, 0, 0, 0]])).last_hidden_state[0]
    assert torch.allclose(loaded.prompt, expected, atol=1e-5)
    info = checkpoint_info(folder)
    assert info.layout == f"Zero123++ v{version}, six views"
    assert set(info.parameters) == {"unet", "vae", "vision_encoder", "text_encoder"}


def test_the_two_kinds_of_models_point_at_each_other(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is Zero123\+\+, which makes six views.*load_view_model"):
        ViewDiffusion.from_pretrained(files.write_zero123plus(tmp_path / "plus"))
    with pytest.raises(CheckpointError, match=r"is no Zero123\+\+ checkpoint"):
        SixViewDiffusion.from_pretrained(files.write_kxic(tmp_path / "plain"))


def no_ramp(folder: Path) -> None:
    """Coefficients that are no numbers."""
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "ramping_coefficients": "steep"}))


@pytest.mark.parametrize("part", ["unet", "vae", "vision_encoder", "text_encoder"])
def test_missing_parts_are_told_before_anything_is_loaded(tmp_path: Path, part: str) -> None:
    folder = files.write_zero123plus(tmp_path)
    shutil.rmtree(folder / part)
    with pytest.raises(CheckpointError, match=f"{part}: a part of the checkpoint is missing"):
        checkpoint_info(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (no_ramp, "ramping_coefficients are no list of numbers"),
        (lambda f: shutil.rmtree(f / "tokenizer"), "tokenizer: cannot be used"),
        (lambda f: shutil.rmtree(f / "text_encoder"), "text_encoder: a part of the checkpoint is missing"),
        (lambda f: shutil.rmtree(f / "vision_encoder"), "vision_encoder: a part of the checkpoint is missing"),
    ],
)
def test_damaged_folders_say_what_is_wrong(tmp_path: Path, damage: Callable[[Path], object], message: str) -> None:
    pytest.importorskip("transformers")
    folder = files.write_zero123plus(tmp_path)
    damage(folder)
    with pytest.raises(CheckpointError, match=message):
        load_view_model(folder)
