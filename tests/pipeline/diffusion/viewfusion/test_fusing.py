"""Streams become one prediction: order, number and padding must not matter; noise levels are those of training."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pipeline.diffusion.viewfusion.model import Streams, ViewFusionModel, fuse, linear_gammas, noised
from pipeline.diffusion.viewfusion.unet import Angle, Fusing, FusionUNet, periodic, sinusoids
from scene.errors import CheckpointError, InputError


def tiny(
    *, relative: bool = False, fusing: Fusing = "learned", angle: Angle = "raw", seed: int = 0, vae: str = ""
) -> FusionUNet:
    torch.manual_seed(seed)
    return FusionUNet(
        sample_size=8,
        width=16,
        multipliers=(1, 2),
        blocks=1,
        attended=(4,),
        groups=8,
        relative=relative,
        fusing=fusing,
        angle=angle,
        vae=vae,
    ).eval()


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def asked(views: int) -> tuple[Tensor, Tensor, Tensor]:
    noisy = torch.randn(views, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    return noisy, torch.linspace(0.2, 0.8, views), torch.linspace(0, 5, views)


@pytest.mark.parametrize(("relative", "count"), [(False, 33_947_206), (True, 33_948_934)])
def test_the_published_network_has_its_size(relative: bool, count: int) -> None:
    with torch.device("meta"):
        network = FusionUNet(relative=relative)
        out = network(torch.zeros(5, 9 if relative else 6, 64, 64), torch.zeros(5), torch.zeros(5))
    assert sum(p.numel() for p in network.parameters()) == count
    assert out.shape == (5, 6, 64, 64)
    attended = [name.removesuffix(".qkv.weight") for name in network.state_dict() if name.endswith("qkv.weight")]
    assert attended == [
        f"{part}.attention"
        for part in (*(f"downs.{k}" for k in (9, 10, 11)), "mid.0", *(f"ups.{k}" for k in (5, 6, 7, 8)))
    ]


@torch.no_grad()
@pytest.mark.parametrize("relative", [False, True])
def test_order_and_repetition_do_not_matter(relative: bool) -> None:
    model, given_, (noisy, gamma, azimuth) = ViewFusionModel(tiny(relative=relative)), pictures(4), asked(2)
    # The first picture of a relative network is the one that angles are told from: it keeps its place.
    order = [0, 3, 1, 2] if relative else [2, 0, 3, 1]
    found = model.predict(Streams.of(given_, 2), noisy, gamma, azimuth)
    turned = model.predict(Streams.of(given_[order], 2), noisy, gamma, azimuth)
    assert torch.allclose(found[0], turned[0], atol=1e-5)
    assert torch.allclose(found[1].unflatten(0, (2, 4))[:, order].flatten(0, 1), turned[1], atol=1e-5)
    once = model.predict(Streams.of(given_[:1], 2), noisy, gamma, azimuth)[0]
    twice = model.predict(Streams.of(given_[[0, 0]], 2), noisy, gamma, azimuth)[0]
    assert torch.allclose(once, twice, atol=1e-5)
    assert not torch.allclose(once, found[0], atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("rows", [None, 1, 3])
def test_objects_do_not_meet(rows: int | None) -> None:
    """Several objects of different numbers of pictures in one pass, however it is cut, as each alone."""
    model, given_, (noisy, gamma, azimuth) = ViewFusionModel(tiny(relative=True)), pictures(6), asked(3)
    counts = torch.tensor([1, 3, 2])
    together, weights = model.predict(Streams(given_, counts), noisy, gamma, azimuth, rows)
    ends = [0, 1, 4, 6]
    for k in range(3):
        part = given_[ends[k] : ends[k + 1]]
        alone, own = model.predict(Streams.of(part, 1), noisy[k : k + 1], gamma[k : k + 1], azimuth[k : k + 1])
        assert torch.allclose(together[k : k + 1], alone, atol=1e-5)
        assert torch.allclose(weights[ends[k] : ends[k + 1]], own, atol=1e-5)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([torch.float32, torch.float16]))
@settings(deadline=None, max_examples=30)
def test_weights_are_shares(counts: list[int], dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(sum(counts))
    noise, logits = (torch.randn(sum(counts), 2, 3, 3, generator=rng).to(dtype) for _ in range(2))
    streams = Streams(noise, torch.tensor(counts))
    fused, weights = fuse(noise, logits * 20, streams)
    sums = torch.zeros(len(counts), 2, 3, 3).index_add(0, streams.owners, weights)
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)
    assert torch.isfinite(fused).all()
    for k, part in enumerate(noise.float().split(counts)):
        assert (fused[k] >= part.amin(0) - 1e-4).all()
        assert (fused[k] <= part.amax(0) + 1e-4).all()
        equal = fuse(noise, None, streams)[0][k]
        assert torch.allclose(equal, part.mean(0), atol=1e-4)


@torch.no_grad()
def test_a_stream_that_knows_is_heard() -> None:
    noise = torch.tensor([1.0, -1.0, 5.0])[:, None, None, None].expand(3, 1, 2, 2)
    logits = torch.tensor([30.0, 0.0, 0.0])[:, None, None, None].expand(3, 1, 2, 2)
    fused, _ = fuse(noise, logits, Streams(noise, torch.tensor([2, 1])))
    assert fused[:, 0, 0, 0].tolist() == pytest.approx([1, 5])


@torch.no_grad()
def test_concatenated_pictures_fill_slots() -> None:
    network = tiny(fusing="concatenated")
    model, (noisy, gamma, azimuth) = ViewFusionModel(network), asked(1)
    assert network.downs[0].weight.shape[1] == 3 * 7
    found = {n: model.predict(Streams.of(pictures(8)[:n], 1), noisy, gamma, azimuth)[0] for n in (2, 6, 8)}
    assert torch.equal(found[6], found[8])
    assert not torch.allclose(found[2], found[6])


def test_counts_must_be_of_the_pictures() -> None:
    for counts in ([1, 1], [3, 0], [4, -1]):
        with pytest.raises(InputError, match="pictures are not"):
            Streams(pictures(3), torch.tensor(counts))


def test_angles() -> None:
    turns = torch.tensor([0.3, 0.3 + 2 * math.pi])
    whole = periodic(turns, 32)
    assert torch.allclose(whole[0], whole[1], atol=1e-4)
    assert not torch.allclose(*sinusoids(turns, 32), atol=0.1)
    assert sinusoids(torch.zeros(1), 32)[0].tolist() == [0.0] * 16 + [1.0] * 16
    model, (noisy, gamma, azimuth) = ViewFusionModel(tiny()), asked(2)
    streams = Streams.of(pictures(1), 2)
    with torch.no_grad():
        found = model.predict(streams, noisy, gamma, azimuth)[0]
        around = model.predict(streams, noisy, gamma, azimuth - 2 * math.pi)[0]
    assert torch.allclose(found, around, atol=1e-4)


def test_the_published_noise() -> None:
    gammas = linear_gammas()
    assert len(gammas) == 2000
    assert float(gammas[0]) == pytest.approx(0.999999)
    assert float(gammas[-1]) == pytest.approx(4.386e-5, rel=1e-3)
    assert float(linear_gammas(1000, 1e-4, 0.09)[-1]) == pytest.approx(6.6e-21, rel=0.05)
    clean, noise = pictures(2), torch.randn(2, 3, 8, 8)
    mixed = noised(clean, noise, torch.tensor([1.0, 0.0]))
    assert torch.equal(mixed[0], clean[0])
    assert torch.equal(mixed[1], noise[1])


def test_levels_of_training_lie_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = ViewFusionModel(tiny()), []
    predict = model.predict

    def noting(streams: Streams, noisy: Tensor, gamma: Tensor, azimuth: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(gamma)
        return predict(streams, noisy, gamma, azimuth)

    monkeypatch.setattr(model, "predict", noting)
    torch.manual_seed(0)
    loss = model.loss(Streams.of(pictures(1), 400), torch.rand(400, 3, 8, 8), torch.zeros(400))
    loss.backward()
    assert float(loss) > 0.5
    levels = torch.cat(seen)
    assert float(model.gammas[-1]) <= float(levels.min()) < 1e-3
    assert 0.995 < float(levels.max()) <= float(model.gammas[0])
    logits = model.unet.head["conv"].weight.grad
    assert logits is not None
    # One picture alone counts whole: nothing is learned of its weight.
    assert float(logits[3:].abs().max()) < 1e-9 < float(logits[:3].abs().max())


def test_latents_need_their_vae() -> None:
    with pytest.raises(CheckpointError, match="no VAE"):
        ViewFusionModel(tiny(vae="a digest"))
