"""What decoding views together is worth: a bound from linear mixes of pixels; trained layers against plain decoding.

Objects are seen by eight views of a ring and a front view; latents are the encoder's. Gains are over the plain decoding
of the same latents. The layers' VAE stays as it is, so nothing of a gain is owed to a decoder that was trained longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLTemporalDecoder
from jaxtyping import Bool, Float
from torch import Tensor

from pipeline.diffusion.aligned_decoder import AlignedDecoder, AlignedLayers, LayerPlace
from pipeline.diffusion.epipolar import Pixels, masked_lookup, shown, surface_points
from pipeline.diffusion.epipolar_attention import Guide
from pipeline.diffusion.modules.latents import AnyVae, vae_fold
from pipeline.diffusion.modules.poses import Poses
from pipeline.evaluation.statistics import mean_and_interval
from pipeline.evaluation.tables import markdown_table
from pipeline.training.data.view_rings import DepthNoise, ViewRing
from pipeline.training.tasks.aligned import BEHIND, encoded_ring, masked_psnr, ring_guide, seen_by_front
from scene.camera import OBJECT_RADIUS
from scene.metrics import ssim

Scores = Mapping[str, Float[np.ndarray, "n"]]
"""Of one row, by column: a number for each object, NaN where an object has none."""


@dataclass(frozen=True, eq=False)
class MixedPixels:
    """Foreground pixels of one object, and what other pictures show of them; colours in [-1, 1].

    Args:
        true, own: the colour, and how it is decoded.
        around: four neighbours, decoded.
        others, truths: what the other views add to ``own`` in the mean, decoded, and as they truly are.
        front: what the front view adds.
        seen: whether the front sees it.
    """

    true: Float[Tensor, "n 3"]
    own: Float[Tensor, "n 3"]
    around: Float[Tensor, "n 12"]
    others: Float[Tensor, "n 3"]
    truths: Float[Tensor, "n 3"]
    front: Float[Tensor, "n 3"]
    seen: Bool[Tensor, "n"]


BOUND_ROWS: Mapping[str, tuple[str, ...]] = {
    "plain decoding": (),
    "own pixel and four neighbours": ("own", "around"),
    "+ mean of the other views' decodings": ("own", "around", "others"),
    "+ front view": ("own", "around", "front"),
    "+ both": ("own", "around", "front", "others"),
    "+ mean of the other views' true pictures": ("own", "around", "truths"),
}
"""Sources of the linear mixes."""


@torch.no_grad()
def mixed_pixels(decoder: AlignedDecoder, ring: ViewRing, noise: float = 0.0) -> MixedPixels:
    """Gather pixels of an object.

    Args:
        decoder: whose plain decoding is used.
        ring: the object.
        noise: factor on the noise of depth maps.
    """
    spoil = DepthNoise()
    guide = ring_guide(ring, spoil, noise, 0, 1) if noise else ring_guide(ring)
    assert guide.front is not None
    assert guide.front_pose is not None
    assert guide.front_depth is not None
    behind = BEHIND + noise * sum(spoil.amplitudes) * OBJECT_RADIUS
    target, latents = encoded_ring(decoder, ring)
    plain = decoder.decode_images(latents, None)[:, :3].float().clamp(-1, 1)
    parts: dict[str, list[Tensor]] = {name: [] for name in MixedPixels.__dataclass_fields__}
    for view in range(len(target)):
        found = Pixels.of(guide.depth[view])
        kept = target[view, 3].flatten()[found.index] > 0.99
        pixels = Pixels(found.index[kept], found.places[kept], found.depth[kept])
        points = surface_points(guide.poses[view], pixels)
        own = plain[view].flatten(1).T[pixels.index]
        wide = F.pad(plain[view : view + 1], (1, 1, 1, 1), mode="replicate")[0]
        moved = [wide[:, 1:-1, :-2], wide[:, 1:-1, 2:], wide[:, :-2, 1:-1], wide[:, 2:, 1:-1]]
        rest = [k for k in range(len(target)) if k != view]
        seen_of = _readers(guide.poses[rest], guide.depth[rest], points, behind)
        front, seen = _readers(guide.front_pose, guide.front_depth, points, behind)(guide.front[None, :3])
        parts["true"].append(target[view, :3].flatten(1).T[pixels.index])
        parts["own"].append(own)
        parts["around"].append(torch.cat([one.flatten(1).T[pixels.index] for one in moved], 1))
        for name, pictures in (("others", plain[rest]), ("truths", target[rest, :3])):
            mean, any_seen = seen_of(pictures)
            parts[name].append((mean - own) * any_seen[:, None])
        parts["front"].append((front - own) * seen[:, None])
        parts["seen"].append(seen)
    return MixedPixels(**{name: torch.cat(values) for name, values in parts.items()})


def _readers(
    poses: Poses, depth: Float[Tensor, "m h w"], points: Float[Tensor, "n 3"], behind: float
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Reads points in pictures of views: means over the views that see them, and whether any does."""
    places, seen = shown(poses, depth, points, behind)
    mask = (depth > 0).float()

    def read(pictures: Float[Tensor, "m 3 a b"]) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, "n"]]:
        # Of the pictures' own size, which is the depth maps'.
        values = masked_lookup(pictures, mask, places)[0] * seen[..., None]
        return values.sum(0) / seen.sum(0).clamp(min=1)[:, None], seen.any(0)

    return read


def mix_psnr(objects: Sequence[MixedPixels], sources: Sequence[str], *, seen_only: bool) -> Float[np.ndarray, "n"]:
    """PSNR (dB) of each object after the best linear mix of sources, fitted on the other half of the objects."""
    out = np.zeros(len(objects))

    def rows(one: MixedPixels) -> tuple[Tensor, Tensor, Tensor]:
        chosen = one.seen if seen_only else torch.ones_like(one.seen)
        columns = [torch.ones(len(one.own), 1), *(getattr(one, name) for name in sources)]
        return torch.cat(columns, 1)[chosen].double(), one.own[chosen].double(), one.true[chosen].double()

    for half in (0, 1):
        fitted = [rows(one) for k, one in enumerate(objects) if k % 2 != half]
        a, y = torch.cat([x for x, _, _ in fitted]), torch.cat([true - own for _, own, true in fitted])
        weights = torch.linalg.lstsq(a.T @ a + 1e-3 * torch.eye(a.shape[1]).double(), a.T @ y).solution
        for k in range(half, len(objects), 2):
            x, own, true = rows(objects[k])
            mixed = own + x @ weights if sources else own
            out[k] = -10 * float(((mixed.clamp(-1, 1) - true).square().mean() / 4).clamp(min=1e-10).log10())
    return out


def bound_table(decoder: AlignedDecoder, rings: Sequence[ViewRing], noise: float) -> str:
    """The best linear mixes of what is there, in Markdown."""
    objects = [mixed_pixels(decoder, ring, noise) for ring in rings]
    rows = [
        [name, *(f"{mix_psnr(objects, sources, seen_only=only).mean():.2f}" for only in (False, True))]
        for name, sources in BOUND_ROWS.items()
    ]
    return markdown_table([f"sources, noise {noise:g}", "all pixels", "pixels that the front sees"], rows)


@torch.no_grad()
def alignment_error(images: Float[Tensor, "v c s s"], guide: Guide) -> float:
    """Mean absolute difference, of [0, 1], of views and their next neighbour warped to them by true depth."""
    errors = []
    for view in range(len(images)):
        other = (view + 1) % len(images)
        pixels = Pixels.of(guide.depth[view])
        points = surface_points(guide.poses[view], pixels)
        read = _readers(guide.poses[other : other + 1], guide.depth[other : other + 1], points, BEHIND)
        values, seen = read(images[other : other + 1, :3].float().clamp(-1, 1))
        own = images[view, :3].float().clamp(-1, 1).flatten(1).T[pixels.index]
        if seen.any():
            errors.append(float((values - own)[seen].abs().mean()) / 2)
    return float(np.mean(errors))


_GAINS = ("gain", "gain where the front sees", "gain elsewhere")


@torch.no_grad()
def row_scores(decoder: AlignedDecoder, rings: Sequence[ViewRing], noise: float | None) -> Scores:
    """Gains of aligned over plain decoding, for each object.

    Args:
        decoder: with trained layers.
        rings: the objects.
        noise: factor on the noise of depth maps; None for no layers at all.
    """
    names = ("foreground PSNR", "SSIM", *_GAINS, "excess alignment error", "seconds")
    found = {name: np.full(len(rings), np.nan) for name in names}
    for k, ring in enumerate(rings):
        true = ring_guide(ring)
        guide = None if noise is None else ring_guide(ring, DepthNoise(), noise, 0, k) if noise else true
        target, latents = encoded_ring(decoder, ring)
        plain = decoder.decode_images(latents, None)
        if k == 0:
            # The first time is not like the others.
            decoder.decode_images(latents, guide)
        begun = time.perf_counter()
        images = decoder.decode_images(latents, guide)
        found["seconds"][k] = time.perf_counter() - begun
        whole, seen = target[:, 3] > 0, seen_by_front(ring)
        found["foreground PSNR"][k] = masked_psnr(images, target, whole)
        found["SSIM"][k] = np.mean([ssim(*pair) for pair in zip(_shown(images), _shown(target), strict=True)])
        for name, mask in zip(_GAINS, (whole, whole & seen, whole & ~seen), strict=True):
            if mask.any():
                found[name][k] = masked_psnr(images, target, mask) - masked_psnr(plain, target, mask)
        found["excess alignment error"][k] = alignment_error(images, true) - alignment_error(target, true)
    return found


def _shown(images: Float[Tensor, "v c s s"]) -> Float[np.ndarray, "v s s 3"]:
    """Colours on white in [0, 1]."""
    return ((images[:, :3].float().clamp(-1, 1) + 1) / 2).movedim(1, -1).cpu().numpy()


def video_decoder(widths: Sequence[int] = (128, 256, 512, 512)) -> AutoencoderKLTemporalDecoder:
    """A decoder of Stable Video Diffusion's layout and, by default, of its size, with random weights."""
    vae = AutoencoderKLTemporalDecoder(
        down_block_types=("DownEncoderBlock2D",) * len(widths), block_out_channels=tuple(widths), layers_per_block=2
    )
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def decoding_times(vae: AnyVae, places: Sequence[LayerPlace], ring: ViewRing, repeats: int = 3) -> str:
    """Seconds that untrained layers add to decoding a ring, in Markdown: they cost what trained ones do.

    Args:
        vae: whose decoder is timed; weights do not matter.
        places: of the layers.
        ring: whose cameras, depth and front are used; latents are random, of a side that gives its pictures.
        repeats: the fastest counts.
    """
    decoder = AlignedDecoder(vae, AlignedLayers.fresh(vae, places, (16, 24, 32, 48)))
    decoder.layers.eval()
    scale = 2 ** (len(vae.config["block_out_channels"]) - 1) * vae_fold(vae)
    side = ring.depths.shape[-1] // scale
    latents = torch.randn(len(ring.depths), vae.config["latent_channels"], side, side)
    guides = {"plain": None, "aligned": ring_guide(ring)}
    spent = dict.fromkeys(guides, float("inf"))
    # In turns, so that a busy moment of the machine is not one decoder's alone.
    for _ in range(repeats):
        for name, guide in guides.items():
            begun = time.perf_counter()
            decoder.decode_images(latents, guide)
            spent[name] = min(spent[name], time.perf_counter() - begun)
    rows = [[name, f"{seconds:.2f}", f"{seconds / spent['plain']:.2f}"] for name, seconds in spent.items()]
    return markdown_table(["decoder", "seconds", "of plain"], rows)


def rows_table(rows: Mapping[str, Scores]) -> str:
    """Rows with 95 % intervals over objects, in Markdown."""
    columns = list(next(iter(rows.values())))
    cells = [
        [name, *(mean_and_interval(v[np.isfinite(v)], _form(key)) for key, v in row.items())]
        for name, row in rows.items()
    ]
    return markdown_table(["", *columns], cells)


def _form(column: str) -> str:
    """How a column's numbers are written."""
    return ".2f" if any(word in column for word in ("PSNR", "gain", "seconds")) else ".4f"
