"""What decoding views together is worth, on pixels and objects whose answer is known."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.diffusion.aligned_decoder import AlignedDecoder, AlignedLayers, nano_places, published_places
from pipeline.evaluation.aligned import (
    BOUND_ROWS,
    MixedPixels,
    alignment_error,
    decoding_times,
    mix_psnr,
    mixed_pixels,
    row_scores,
    rows_table,
    video_decoder,
)
from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.view_rings import RingSettings, ViewRing, heldout_ring
from pipeline.training.tasks.aligned import encoded_ring, ring_guide
from pipeline.training.tasks.vae import nano_vae


@pytest.fixture(scope="module")
def ring(pool_folder: Path) -> ViewRing:
    return heldout_ring(ObjectPool(pool_folder, "val"), 0, RingSettings(size=32), views=4)


@pytest.fixture(scope="module")
def decoder() -> AlignedDecoder:
    torch.manual_seed(0)
    vae = nano_vae(4, 4, (16, 16)).requires_grad_(False).eval()
    return AlignedDecoder(vae, AlignedLayers.fresh(vae, nano_places(vae)))


def pixels(seed: int) -> MixedPixels:
    """The front knows what the seen half lacks; nobody else knows anything."""
    rng = torch.Generator().manual_seed(seed)
    true = torch.rand(200, 3, generator=rng) - 0.5
    own = true + 0.2 * torch.randn(200, 3, generator=rng)
    seen = torch.arange(200) < 100
    nothing = torch.zeros(200, 3)
    return MixedPixels(true, own, own.repeat(1, 4), nothing, nothing, (true - own) * seen[:, None], seen)


def test_mixes_find_what_sources_hold() -> None:
    objects = [pixels(k) for k in range(4)]
    plain = mix_psnr(objects, (), seen_only=True)
    assert plain == pytest.approx([20] * 4, abs=1.5)
    assert mix_psnr(objects, BOUND_ROWS["+ front view"], seen_only=True).min() > 50
    assert mix_psnr(objects, ("others",), seen_only=True) == pytest.approx(plain, abs=0.5)
    whole = mix_psnr(objects, ("front",), seen_only=False)
    assert (whole - mix_psnr(objects, (), seen_only=False)).min() > 2


def test_pixels_of_an_object(decoder: AlignedDecoder, ring: ViewRing) -> None:
    found = mixed_pixels(decoder, ring)
    assert len(found.true) == len(found.own) == len(found.seen) > 100
    assert found.front[~found.seen].abs().max() == 0
    # What the front adds leads to the truth, but for edges: the decoder is not trained, the front is clean.
    error = (found.own + found.front - found.true)[found.seen].abs().mean()
    assert error < 0.2 * (found.own - found.true)[found.seen].abs().mean()


def test_alignment_counts_what_views_disagree_on(decoder: AlignedDecoder, ring: ViewRing) -> None:
    target, _ = encoded_ring(decoder, ring)
    guide = ring_guide(ring)
    true = alignment_error(target, guide)
    assert true < 0.1
    spoiled = target.clone()
    spoiled[0] = -spoiled[0]
    assert alignment_error(spoiled, guide) > true + 0.05


def test_plain_rows_gain_nothing(decoder: AlignedDecoder, ring: ViewRing) -> None:
    row = row_scores(decoder, [ring], None)
    assert row["gain"].tolist() == row["gain elsewhere"].tolist() == [0]
    assert row_scores(decoder, [ring], 1.0)["gain"].tolist() == [0]  # closed gates
    assert rows_table({"plain": row}).splitlines()[2].startswith("| plain | ")


def test_times_of_a_video_decoder(ring: ViewRing) -> None:
    vae = video_decoder((32, 32, 32, 32))
    plain, aligned = decoding_times(vae, published_places(vae), ring, 1).splitlines()[-2:]
    assert plain.split("|")[3].strip() == "1.00"
    assert float(aligned.split("|")[2]) > 0
