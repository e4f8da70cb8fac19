"""A VAE's decoder that looks across views: layers of epipolar attention hung into it, around a clean front view.

Nothing of the VAE is changed: forward hooks on the last residual block of an up-block, and on the output convolution,
add what the layers find. With closed gates the output equals the plain decoder's bit for bit. A folded VAE (see
:func:`pipeline.diffusion.modules.latents.encode_images`) decodes blocks of pixels as channels, and has no larger maps:
a layer unfolds its features to the grid that it works on, and the last one works on the pixels themselves.

Source: Tang et al. 2024 (arXiv 2408.14016); the front view as one more view, read by the same geometry, is ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from jaxtyping import Float
from torch import Tensor, nn

from pipeline.diffusion.checkpoints.digests import part_digest
from pipeline.diffusion.checkpoints.parts import load_part, save_part
from pipeline.diffusion.epipolar import azimuth_order
from pipeline.diffusion.epipolar_attention import COLOURS, EpipolarAttention, EpipolarSettings, Guide, Reach
from pipeline.diffusion.modules.latents import (
    AnyVae,
    LatentCodec,
    checked_finite,
    rgba_from_images,
    vae_channels,
    vae_fold,
)
from scene.errors import CheckpointError, InputError


@dataclass(frozen=True)
class LayerPlace:
    """Where a layer hangs, and what it reads.

    Args:
        block: the up-block behind whose last residual block it hangs; None for the pixels, behind the output
            convolution.
        fold: places of its grid along each side of a feature.
        channels: of the features that it reads.
        level: of the front's maps: the one whose side is twice the grid's.
        reads: what it reads.
    """

    block: int | None
    fold: int
    channels: int
    level: int
    reads: EpipolarSettings = field(default_factory=EpipolarSettings)

    @classmethod
    def of(cls, vae: AnyVae, block: int | None, fold: int, reads: EpipolarSettings) -> LayerPlace:
        """A place in a VAE's decoder."""
        widths = list(vae.config["block_out_channels"])
        if block is None:
            return cls(None, vae_fold(vae), widths[0], 0, reads)
        smaller = 2 ** (len(widths) - 1 - block) * vae_fold(vae) // fold
        return cls(block, fold, widths[::-1][block], max(0, int(math.log2(smaller))), reads)


Others = Literal["pixels", "coarse", "none"]
"""Which of the embedded decoder's layers reads other views: that at the pixels, which copies from them; one on a grid
of a quarter of the picture's side, for comparison; or none."""


def nano_places(vae: AnyVae, *, others: Others = "pixels", reach: Reach = "truncated") -> tuple[LayerPlace, ...]:
    """The embedded decoder's layers: a grid of half of the picture's side, and the pixels; both read the front.

    Args:
        vae: a VAE of folded pictures of 4x4 blocks.
        others: which layer reads other views, too.
        reach: which points are read, for comparisons: of whole rays four times as many; of all pixels by the coarser
            layers only, as at the picture's own size they are too many.
    """
    more = 4 if reach == "line" else 1
    coarse = EpipolarSettings(width=48, samples=8 * more, nearest=8, reach=reach)
    front = EpipolarSettings(width=32, samples=4 * more, nearest=0, reach=reach)
    near = 2 if others == "pixels" else 0
    pixels = EpipolarSettings(width=24, samples=5 * more, nearest=near, reach=reach)
    return (
        *((LayerPlace.of(vae, 1, 1, coarse),) if others == "coarse" else ()),
        LayerPlace.of(vae, 1, 2, front),
        *((LayerPlace.of(vae, None, 4, pixels),) if reach != "dense" else ()),
    )


def published_places(vae: AnyVae) -> tuple[LayerPlace, ...]:
    """Layers for decoders of Stable Diffusion's shape, four up-blocks: grids of an eighth, a quarter, a half."""
    widths, samples = (128, 128, 64), (8, 8, 4)
    return tuple(
        LayerPlace.of(vae, block, 1, EpipolarSettings(width=widths[block], samples=samples[block], nearest=4))
        for block in range(3)
    )


class FrontEncoder(nn.Module):
    """The clean front view as maps of falling size: learned features, and the picture itself.

    Args:
        widths: channels of each level's features; every further level has half the side.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        pairs = zip((4, *widths[:-1]), widths, strict=True)
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, stride=1 if k == 0 else 2, padding=1), nn.SiLU())
            for k, (before, after) in enumerate(pairs)
        )

    def forward(self, picture: Float[Tensor, "1 4 f f"]) -> list[Float[Tensor, "1 _ _ _"]]:
        """Maps of all levels, the largest first."""
        maps, features = [], picture
        for level in self.levels:
            features = level(features)
            side = features.shape[-1]
            shown = F.adaptive_avg_pool2d(picture, side) if side != picture.shape[-1] else picture
            maps.append(torch.cat([features, shown.to(features.dtype)], 1))
        return maps


class AlignedLayer(nn.Module):
    """Attention at one place, between unfolding and a gate that is closed at first.

    Args:
        place: where it hangs.
        front_channels: of the front's maps at its level.
        picture: channels of the decoder's pictures.
    """

    def __init__(self, place: LayerPlace, front_channels: int, picture: int) -> None:
        super().__init__()
        self.place, width, parts = place, place.reads.width, place.fold**2
        self.entry = nn.Conv2d(place.channels, width * parts, 1)
        pixels = place.block is None
        inside = width + (picture if pixels else 0)
        self.attention = EpipolarAttention(inside, front_channels, place.reads, copies=pixels)
        # Without bias: where attention finds nothing, nothing is added. At the pixels all pixels share its weights.
        self.gate = nn.Conv2d(
            *((self.attention.width, picture) if pixels else (width * parts, place.channels)), 3, padding=1, bias=False
        )
        nn.init.zeros_(self.gate.weight)

    def forward(
        self,
        features: Float[Tensor, "v c h w"],
        guide: Guide,
        front: Float[Tensor, "1 d t t"] | None,
        picture: Float[Tensor, "v p h w"] | None = None,
    ) -> Float[Tensor, "v _ h w"]:
        """What is added: to the features, or to the folded picture where the layer hangs at the pixels."""
        fold = self.place.fold
        maps = F.pixel_shuffle(self.entry(features), fold)
        if self.place.block is not None:
            return self.gate(F.pixel_unshuffle(self.attention(maps, guide, front), fold))
        assert picture is not None
        shown = F.pixel_shuffle(picture, fold).to(maps.dtype)
        found = self.attention(torch.cat([maps, shown], 1), guide, front, shown[:, :COLOURS])
        return F.pixel_unshuffle(self.gate(found), fold)


class AlignedLayers(ModelMixin, ConfigMixin):
    """All that is trained: layers and the front's encoder, stored as a folder in diffusers' layout.

    Args:
        places: of the layers, as mappings with the fields of :class:`LayerPlace`.
        picture: channels of the decoder's pictures.
        front_widths: of the front's encoder.
        decoder: digest of the decoder that they were trained with (:func:`decoder_digest`).
    """

    @register_to_config
    def __init__(
        self,
        places: Sequence[Mapping[str, Any]],
        picture: int = 4,
        front_widths: Sequence[int] = (16, 24, 32),
        decoder: str = "",
    ) -> None:
        super().__init__()
        self.front_encoder = FrontEncoder(front_widths)
        read = [LayerPlace(**{**place, "reads": EpipolarSettings(**place["reads"])}) for place in places]
        self.layers = nn.ModuleList(
            AlignedLayer(place, front_widths[min(place.level, len(front_widths) - 1)] + 4, picture) for place in read
        )

    @classmethod
    def fresh(
        cls, vae: AnyVae, places: Sequence[LayerPlace], front_widths: Sequence[int] = (16, 24, 32)
    ) -> AlignedLayers:
        """Untrained layers for a VAE, with closed gates; the front's encoder has no level that none reads."""
        held = [asdict(place) for place in places]
        front_widths = front_widths[: 1 + max((place.level for place in places), default=0)]
        # By name: diffusers takes what is given by position for its defaults, and does not store it.
        return cls(places=held, picture=vae_channels(vae), front_widths=list(front_widths), decoder=decoder_digest(vae))


def decoder_digest(vae: AnyVae) -> str:
    """SHA-256 over the decoder's weights and the scale of its latents: layers fit no other one."""
    return part_digest(vae.decoder, getattr(vae, "post_quant_conv", None))


def require_decoder(vae: AnyVae, layers: AlignedLayers) -> None:
    """Refuse layers of another decoder; both as they were loaded, before their precision changes.

    Raises:
        CheckpointError: they were trained with another one.
    """
    if layers.config["decoder"] != decoder_digest(vae):
        raise CheckpointError(
            "the aligned decoder's layers were trained with another decoder", fix="Train them anew for this VAE."
        )


class AlignedDecoder:
    """Decodes all views of one object together.

    Args:
        vae: of the latents.
        layers: that were trained with its decoder (:func:`require_decoder`).
    """

    def __init__(self, vae: AnyVae, layers: AlignedLayers) -> None:
        self.vae, self.layers = vae, layers
        self.codec = LatentCodec(vae)

    @classmethod
    def load(cls, folder: Path, vae: AnyVae) -> AlignedDecoder:
        """Layers of a folder around a VAE.

        Raises:
            CheckpointError: the folder cannot be read, or its layers fit another decoder.
        """
        layers = cast(AlignedLayers, load_part(AlignedLayers, folder))
        require_decoder(vae, layers)
        return cls(vae, layers)

    def reading(self, samples: int | None = None, half_width: float | None = None, nearest: int | None = None) -> None:
        """Let the layers read otherwise than they were trained to; None is as they were trained.

        Args:
            samples: points of a ray.
            half_width: of the interval about the depth, in units of the object's radius.
            nearest: other views that are read, by layers that read any.
        """
        for layer in self.layers.layers:
            assert isinstance(layer, AlignedLayer)
            reads = layer.place.reads
            layer.attention.settings = replace(
                reads,
                samples=reads.samples if samples is None else samples,
                half_width=reads.half_width if half_width is None else half_width,
                nearest=reads.nearest if nearest is None or not reads.nearest else nearest,
            )

    def save(self, folder: Path) -> None:
        """Write the layers, without the VAE, in half precision."""
        save_part(self.layers, folder)

    def decode(self, latents: Float[Tensor, "v l h w"], guide: Guide) -> Float[Tensor, "v H W 4"]:
        """Normalised latents of all views of one object to straight-alpha pictures in [0, 1].

        Raises:
            InputError: the guide does not fit the latents.
            ViewloomError: the pictures are not finite.
        """
        return rgba_from_images(self.decode_images(latents, guide))

    def decode_images(self, latents: Float[Tensor, "v l h w"], guide: Guide | None) -> Float[Tensor, "v c H W"]:
        """Normalised latents to pictures on white, about [-1, 1] and not clamped; plainly without a guide.

        A temporal decoder mixes neighbouring views by convolution: it is given them by azimuth, from the view nearest
        to the front. Without a guide they keep their order.

        Raises:
            InputError: the guide does not fit the latents.
            ViewloomError: the pictures are not finite.
        """
        if guide is not None and not len(latents) == len(guide.poses) == len(guide.depth):
            raise InputError(
                f"{len(latents)} latents, {len(guide.poses)} cameras and {len(guide.depth)} depth maps do not go "
                "together",
                fix="Give a camera and a depth map for each view.",
            )
        order = None
        if guide is not None and isinstance(self.vae, AutoencoderKLTemporalDecoder):
            order = azimuth_order(guide.poses, guide.front_pose)
            guide, latents = guide.of(order), latents[order]
        with self._whole_objects(), contextlib.nullcontext() if guide is None else self._guided(guide):
            images = checked_finite(self._decoded(self.codec.raw(latents)))
        return images if order is None else images[order.argsort()]

    def _decoded(self, raw: Float[Tensor, "v l h w"]) -> Float[Tensor, "v c H W"]:
        more = {"num_frames": len(raw)} if isinstance(self.vae, AutoencoderKLTemporalDecoder) else {}
        return F.pixel_shuffle(self.vae.decode(raw.to(self.vae.dtype), **more).sample, vae_fold(self.vae))

    @contextlib.contextmanager
    def _whole_objects(self) -> Iterator[None]:
        """Neither slices nor tiles within this block: they would part views, and pixels from their places."""
        names = [name for name in ("use_slicing", "use_tiling") if getattr(self.vae, name, False)]
        for name in names:
            setattr(self.vae, name, False)
        try:
            yield
        finally:
            for name in names:
                setattr(self.vae, name, True)

    @contextlib.contextmanager
    def _guided(self, guide: Guide) -> Iterator[None]:
        """The layers hang in the decoder within this block."""
        maps = None
        if guide.front is not None:
            maps = self.layers.front_encoder(guide.front[None].to(self.layers.dtype))
        removers = []
        try:
            for layer in self.layers.layers:
                assert isinstance(layer, AlignedLayer)
                place = layer.place
                front = None if maps is None else maps[min(place.level, len(maps) - 1)]
                hook = _pixel_hook(layer, guide, front) if place.block is None else _block_hook(layer, guide, front)
                decoder = self.vae.decoder
                module = decoder.conv_out if place.block is None else decoder.up_blocks[place.block].resnets[-1]
                removers.append(module.register_forward_hook(hook))
            yield
        finally:
            for remover in removers:
                remover.remove()


_Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]


def _block_hook(layer: AlignedLayer, guide: Guide, front: Tensor | None) -> _Hook:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        added = layer(output.to(layer.entry.weight.dtype), guide, front)
        return output + added.to(output.dtype)

    return add


def _pixel_hook(layer: AlignedLayer, guide: Guide, front: Tensor | None) -> _Hook:
    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        dtype = layer.entry.weight.dtype
        return output + layer(inputs[0].to(dtype), guide, front, output.to(dtype)).to(output.dtype)

    return add
