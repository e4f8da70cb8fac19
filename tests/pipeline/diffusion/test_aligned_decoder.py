"""A decoder that looks across views: plain while its gates are closed, whatever VAE it hangs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderKLTemporalDecoder
from torch import Tensor

from pipeline.diffusion.aligned_decoder import (
    AlignedDecoder,
    AlignedLayer,
    AlignedLayers,
    LayerPlace,
    nano_places,
    published_places,
)
from pipeline.diffusion.epipolar import Pixels, surface_points
from pipeline.diffusion.epipolar_attention import EpipolarSettings, Guide
from pipeline.diffusion.modules.latents import AnyVae, decode_latents
from pipeline.diffusion.modules.poses import Poses
from pipeline.training.tasks.vae import nano_vae
from scene.errors import CheckpointError, InputError

VIEWS = 3


def folded() -> AutoencoderKL:
    """The embedded VAE's shape, 32 pixels from latents of 4."""
    return nano_vae(4, 4, (16, 16)).eval()


def published(kind: type[AnyVae], **more: object) -> AnyVae:
    """The published layout of four levels: 32 pixels from latents of 4."""
    return kind(
        down_block_types=("DownEncoderBlock2D",) * 4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        latent_channels=4,
        **more,
    ).eval()


def still_image() -> AnyVae:
    return published(AutoencoderKL, up_block_types=("UpDecoderBlock2D",) * 4)


def temporal() -> AnyVae:
    return published(AutoencoderKLTemporalDecoder)


KINDS = [folded, still_image, temporal]


def guide(side: int = 32) -> Guide:
    """Views of a plate before each camera; the upper half of the last view is empty, and so is the first one."""
    orbits = torch.tensor([[k * 0.5, 0.2, 1.5] for k in range(VIEWS)])
    depth = torch.full((VIEWS, side, side), 1.4)
    depth[0], depth[-1, : side // 2] = 0, 0
    front_pose = Poses.of_orbits(torch.tensor([[0.2, 0.2, 1.5]]))
    front = torch.rand(4, 2 * side, 2 * side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return Guide(Poses.of_orbits(orbits), depth, front, front_pose, torch.full((1, 2 * side, 2 * side), 1.4))


def places(vae: AnyVae) -> tuple[LayerPlace, ...]:
    if vae.config.get("fold"):
        return nano_places(vae)
    return tuple(replace(p, reads=replace(p.reads, width=8)) for p in published_places(vae))


def aligned(make: Callable[[], AnyVae], *, gates: float = 0.0) -> AlignedDecoder:
    torch.manual_seed(0)
    vae = make()
    decoder = AlignedDecoder(vae, AlignedLayers.fresh(vae, places(vae)).eval())
    for layer in decoder.layers.layers:
        if gates:
            torch.nn.init.normal_(layer.gate.weight, std=gates)
    return decoder


def latents() -> Tensor:
    return torch.randn(VIEWS, 4, 4, 4, generator=torch.Generator().manual_seed(3))


def plain(vae: AnyVae, raw: Tensor) -> Tensor:
    if isinstance(vae, AutoencoderKLTemporalDecoder):
        return vae.decode(raw, num_frames=len(raw)).sample
    return decode_latents(vae, raw)


@torch.no_grad()
@pytest.mark.parametrize("make", KINDS)
def test_closed_gates_equal_the_plain_decoder(make: Callable[[], AnyVae]) -> None:
    decoder = aligned(make)
    true = plain(decoder.vae, decoder.codec.raw(latents()))
    assert true.shape[-1] == 32
    assert torch.equal(decoder.decode_images(latents(), guide()), true)
    assert torch.equal(decoder.decode_images(latents(), None), true)


@torch.no_grad()
@pytest.mark.parametrize("make", KINDS)
def test_open_gates_change_pictures_and_nothing_stays_behind(make: Callable[[], AnyVae]) -> None:
    decoder = aligned(make, gates=0.1)
    true = plain(decoder.vae, decoder.codec.raw(latents()))
    found = decoder.decode_images(latents(), guide())
    assert not torch.allclose(found[1], true[1], atol=1e-3)
    assert torch.equal(plain(decoder.vae, decoder.codec.raw(latents())), true)
    assert decoder.decode(latents(), guide()).shape == (VIEWS, 32, 32, 4)


@torch.no_grad()
def test_pixels_without_a_surface_stay_as_they_are() -> None:
    """The layer at the pixels: nothing changes farther than its gate's reach from the foreground."""
    torch.manual_seed(0)
    vae, known = folded(), guide()
    place = LayerPlace.of(vae, None, 4, EpipolarSettings(width=8, samples=2, nearest=0))
    decoder = AlignedDecoder(vae, AlignedLayers.fresh(vae, [place]).eval())
    torch.nn.init.normal_(decoder.layers.layers[0].gate.weight, std=0.1)
    changed = (decoder.decode_images(latents(), known) - decoder.decode_images(latents(), None)).abs().amax(1)
    assert changed[0].max() == 0
    assert changed[1].min() > 0
    assert changed[2, :15].max() == 0
    assert changed[2, 17:].min() > 0


@torch.no_grad()
@pytest.mark.parametrize("make", KINDS)
def test_the_order_of_views_does_not_matter(make: Callable[[], AnyVae]) -> None:
    """Not even to a decoder that mixes neighbours: it is given them by azimuth."""
    decoder, order = aligned(make, gates=0.2), torch.tensor([2, 0, 1])
    found = decoder.decode_images(latents()[order], guide().of(order))
    assert torch.allclose(found, decoder.decode_images(latents(), guide())[order], atol=1e-4)


@torch.no_grad()
def test_colours_are_copied_from_where_the_front_shows_the_surface() -> None:
    """The front is red to the left and green to the right; it and the views stand before one plate."""
    radii = torch.tensor([1.4, 1.5, 1.7])
    vae, told = folded(), guide()
    torch.manual_seed(0)
    decoder = AlignedDecoder(vae, AlignedLayers.fresh(vae, nano_places(vae, others="none")).eval())
    poses = Poses.of_orbits(torch.stack([torch.full((3,), 0.2), torch.full((3,), 0.2), radii], -1))
    depth = torch.where(told.depth > 0, (radii - 0.1)[:, None, None], 0.0)
    told = replace(told, poses=poses, depth=depth)
    layer = decoder.layers.layers[-1]
    assert isinstance(layer, AlignedLayer)
    # One tap of the gate copies what the first head finds: colours by the prior alone.
    for part in (layer.attention.query, layer.attention.key):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    for colour in range(3):
        layer.gate.weight[colour, layer.place.reads.width + colour, 1, 1] = 1
    assert told.front is not None
    told.front[:] = -1
    told.front[0, :, :32], told.front[1, :, 32:] = 1, 1
    plainly = decoder.decode_images(latents(), None)
    moved = decoder.decode_images(latents(), told) - plainly
    assert told.front_pose is not None
    for view in range(VIEWS):
        pixels = Pixels.of(told.depth[view])
        places = told.front_pose.project(surface_points(told.poses[view], pixels)[None])[0][0]
        for side, wanted in ((places[:, 0] < 0.45, (1.0, -1.0, -1.0)), (places[:, 0] > 0.55, (-1.0, 1.0, -1.0))):
            inside = side & ((places > 0.02) & (places < 0.98)).all(-1)
            index = pixels.index[inside]
            to, of = torch.tensor(wanted)[:, None], plainly[view, :3].flatten(1)[:, index]
            share = moved[view, :3].flatten(1)[:, index] / (to - of)
            # All but what the null token and points off the plate keep.
            assert not len(index) or ((share > 0.5) & (share < 1)).float().mean() > 0.95
        assert not moved[view].flatten(1)[:, told.depth[view].flatten() == 0].any()


@torch.no_grad()
def test_views_are_decoded_together_though_memory_is_low() -> None:
    decoder = aligned(folded, gates=0.1)
    found = decoder.decode_images(latents(), guide())
    decoder.vae.enable_slicing()
    decoder.vae.enable_tiling()
    assert torch.equal(decoder.decode_images(latents(), guide()), found)
    assert decoder.vae.use_slicing
    assert decoder.vae.use_tiling


@pytest.mark.parametrize("make", KINDS)
def test_layers_come_back_as_they_were_stored(make: Callable[[], AnyVae], tmp_path: Path) -> None:
    decoder = aligned(make, gates=0.1)
    decoder.layers.half().float()  # as it is stored
    decoder.save(tmp_path / "aligned")
    assert {path.name for path in (tmp_path / "aligned").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    loaded = AlignedDecoder.load(tmp_path / "aligned", decoder.vae)
    with torch.no_grad():
        assert torch.equal(loaded.decode_images(latents(), guide()), decoder.decode_images(latents(), guide()))


def test_another_decoder_is_refused(tmp_path: Path) -> None:
    decoder = aligned(folded, gates=0.1)
    decoder.save(tmp_path / "aligned")
    with pytest.raises(CheckpointError, match="another decoder"):
        AlignedDecoder.load(tmp_path / "aligned", folded())


def test_numbers_of_views_must_agree() -> None:
    with pytest.raises(InputError, match=r"2 latents, 3 cameras and 3 depth maps"):
        aligned(folded).decode_images(latents()[:2], guide())


@torch.no_grad()
def test_layers_read_otherwise_for_a_while() -> None:
    decoder = aligned(folded, gates=0.1)
    trained = decoder.decode_images(latents(), guide())
    decoder.reading(samples=2, half_width=0.5, nearest=1)
    other = decoder.decode_images(latents(), guide())
    assert [layer.attention.settings.nearest for layer in decoder.layers.layers] == [0, 1]
    assert not torch.allclose(other, trained)
    decoder.reading()
    assert torch.equal(decoder.decode_images(latents(), guide()), trained)


def test_hooks_go_though_decoding_fails() -> None:
    decoder, known = aligned(folded, gates=0.1), guide()
    broken = replace(known, front_depth=None)
    with pytest.raises(AssertionError), torch.no_grad():
        decoder.decode_images(latents(), broken)
    assert not any(module._forward_hooks for module in decoder.vae.decoder.modules())


def test_full_size_layers_fit_the_published_video_decoder() -> None:
    """Stable Video Diffusion's decoder: names and widths, without its weights."""
    with torch.device("meta"):
        vae = AutoencoderKLTemporalDecoder(
            down_block_types=("DownEncoderBlock2D",) * 4, block_out_channels=(128, 256, 512, 512), layers_per_block=2
        )
    assert sum(p.numel() for p in vae.decoder.parameters()) == pytest.approx(63.6e6, rel=0.01)
    found = published_places(vae)
    assert [(p.block, p.channels, p.level) for p in found] == [(0, 512, 3), (1, 512, 2), (2, 256, 1)]
    for place in found:
        assert place.block is not None
        last = vae.decoder.up_blocks[place.block].resnets[-1]
        assert last.spatial_res_block.out_channels == place.channels
