"""Rows of fused views: what they make of known inputs, and how tables gather them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.diffusion.modules.latents import LatentCodec
from pipeline.evaluation.fusion import (
    FusionTarget,
    angles_table,
    bound_rows,
    composed,
    counts_table,
    coverage_table,
    draw_targets,
    fused,
    gains_table,
    input_rows,
    score_row,
    warped,
)
from pipeline.training.data.fusion_rings import FusionRingSettings, HeldOutRing, held_out_rings
from tests.vaes import half_side_vae

SMALL = FusionRingSettings(size=32, views=8, faces=3000, samples=1).exact()


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    """A tiny VAE that makes latents of half the pictures' side."""
    torch.manual_seed(0)
    return LatentCodec(half_side_vae())


@pytest.fixture(scope="module")
def rings(codec: LatentCodec) -> list[HeldOutRing]:
    """A chair and a car."""
    return list(held_out_rings(codec, 0, 2, SMALL))


def decoded(codec: LatentCodec, latents: torch.Tensor) -> np.ndarray:
    """Pictures of latents."""
    with torch.no_grad():
        return codec.decode(latents).numpy()


def all_alike(ring: HeldOutRing) -> HeldOutRing:
    """Every view is the first one, but for the azimuths' names."""
    same = np.zeros(len(ring.views), int)
    return replace(
        ring,
        views=ring.views[same],
        depths=ring.depths[same],
        cameras=(ring.cameras[0],) * len(same),
        latents=ring.latents[same],
        visible=ring.visible[0, 0].expand_as(ring.visible),
    )


def test_targets_are_spread_and_inputs_nested_without_the_target(rings: list[HeldOutRing]) -> None:
    targets = draw_targets(rings, 7, seed=1)
    assert [t.number for t in targets] == [0, 0, 0, 0, 1, 1, 1]
    assert len({(t.number, t.target) for t in targets}) == 7
    for target in targets:
        assert sorted([*target.order.tolist(), target.target]) == list(range(8))
    again = draw_targets(rings, 7, seed=1)
    assert all(np.array_equal(a.order, b.order) for a, b in zip(targets, again, strict=True))


def test_angles_go_round_the_ring(rings: list[HeldOutRing]) -> None:
    target = FusionTarget(rings[0], 0, 1, np.array([6, 0, 5, 2, 3, 4, 7]))
    assert np.allclose(target.angles(target.order), [135, 45, 180, 45, 90, 135, 90])
    assert target.by_angle(target.order).tolist() == [0, 2, 3, 7, 6, 4, 5]


def test_rows_of_inputs(codec: LatentCodec, rings: list[HeldOutRing]) -> None:
    ring, rows = rings[0], input_rows(codec)
    target = FusionTarget(ring, 0, 1, np.array([4, 3, 0, 2, 5, 6, 7]))
    views = ring.views.astype(np.float32) / 255
    assert np.array_equal(rows["nearest input as it is"](target, target.order[:2]), views[3])
    assert np.array_equal(rows["nearest input as it is"](target, target.order[:4]), views[0])
    mean = rows["mean of the inputs"](target, target.order[:2])
    assert np.allclose(mean[..., 3], views[[4, 3], ..., 3].mean(0))
    premultiplied = (views[[4, 3], ..., :3] * views[[4, 3], ..., 3:]).mean(0)
    assert np.allclose(mean[..., :3] * mean[..., 3:], premultiplied, atol=1e-5)
    through = rows["true view through the VAE"](target, target.order[:1])
    assert np.allclose(through, decoded(codec, ring.latents[1:2])[0], atol=1e-5)


def test_a_model_is_given_its_inputs_and_the_targets_azimuth(codec: LatentCodec, rings: list[HeldOutRing]) -> None:
    target = draw_targets(rings, 2)[1]
    given = []

    def copy(latents: torch.Tensor, azimuths: torch.Tensor, azimuth: float) -> torch.Tensor:
        given.append((azimuths, azimuth))
        return latents[-1]

    picture = fused(codec, copy)(target, target.order[:3])
    ring = target.ring
    assert np.allclose(picture, decoded(codec, ring.latents[target.order[2], None])[0], atol=1e-5)
    assert torch.equal(given[0][0], ring.azimuths[target.order[:3]])
    assert given[0][1] == pytest.approx(float(ring.azimuths[target.target]))


def test_places_come_from_views_that_see_them() -> None:
    values = torch.arange(12.0).reshape(3, 4, 1)
    shares = torch.tensor([[0.9, 0.0, 0.3, 0.0], [0.6, 0.5, 0.4, 0.0], [1.0, 1.0, 0.1, 0.0]])
    by_order = composed(values, shares, torch.tensor([[0.0], [1.0], [2.0]]))[:, 0]
    assert by_order.tolist() == [0, 5, 6, pytest.approx((0 + 5 + 6) / 3)]
    by_place = torch.tensor([[2.0, 0.0, 0.0, 0.0], [1.0, 2.0, 2.0, 0.0], [3.0, 1.0, 3.0, 0.0]])
    assert composed(values, shares, by_place)[:3, 0].tolist() == [4, 9, 6]
    blind = composed(values, torch.zeros(3, 4), torch.zeros(3, 1))
    assert torch.allclose(blind, values.mean().expand(4, 1))


def test_an_oracle_of_identical_views_returns_them(codec: LatentCodec, rings: list[HeldOutRing]) -> None:
    ring = all_alike(rings[1])
    target = draw_targets([ring], 1)[0]
    of = warped(ring, target.target)
    covered = of.covered > 0
    assert torch.allclose(of.latents[:, covered], ring.latents.flatten(2).mT[:, covered], atol=1e-5)
    assert of.seen.min() == 1
    rows = bound_rows(codec, 3)
    with torch.no_grad():
        blank = codec.normalise(codec.encode_raw(torch.zeros(1, 32, 32, 4, dtype=torch.uint8)))[0]
    expected = torch.where(covered.view(16, 16), ring.latents[0], blank)
    for name in (
        "oracle, warped latents",
        "best single input, warped latents",
        "oracle, warped latents, told the truth",
    ):
        assert np.allclose(rows[name](target, target.order[:3]), decoded(codec, expected[None])[0], atol=1e-4)
    for name in ("oracle, warped picture", "best single input, warped picture"):
        drawn = rows[name](target, target.order[:3])
        assert np.abs(drawn - decoded(codec, ring.latents[:1])[0]).mean() < 1e-3


def test_warping_moves_what_is_seen_to_its_place(rings: list[HeldOutRing]) -> None:
    ring = rings[1]
    of = warped(ring, 2)
    assert torch.equal(of.seen[2], torch.ones(len(of.index)))
    true = torch.from_numpy(ring.views[2, ..., :3] / np.float32(255)).flatten(0, 1)[of.index]
    assert torch.allclose(of.colours[2], true, atol=1e-5)
    # The neighbour's picture is nearer to the truth once it is moved.
    seen = of.seen[3] > 0
    flat = torch.from_numpy(ring.views[3].astype(np.float32) / 255).flatten(0, 1)[of.index]
    unmoved = flat[:, :3] * flat[:, 3:] + 1 - flat[:, 3:]
    assert float((of.colours[3] - true)[seen].abs().median()) < 0.3 * float((unmoved - true)[seen].abs().mean())


def test_more_inputs_never_harm_what_is_chosen_by_the_truth(codec: LatentCodec, rings: list[HeldOutRing]) -> None:
    targets = draw_targets(rings, 4)
    row = bound_rows(codec, 7)["best single input as it is"]
    scores = score_row(row, "best", targets, (1, 3, 7))
    values = np.array([[s["foreground_psnr"] for s in scores[n]] for n in (1, 3, 7)])
    assert (np.diff(values, axis=0) >= 0).all()
    assert np.diff(values, axis=0).max() > 0.1


def test_tables_hold_means_over_objects(rings: list[HeldOutRing]) -> None:
    targets = draw_targets(rings, 3)  # two of the first object, one of the second
    assert [t.number for t in targets] == [0, 0, 1]

    def scores(*values: int) -> list[dict[str, float]]:
        return [{"foreground_psnr": float(value), "ssim": 0.5, "iou": 1.0, "seconds": 0.0} for value in values]

    rows = {"row": {1: scores(10, 14, 20), 7: scores(12, 16, 30)}}
    assert "| row | 16.00 (12.00 to 20.00) | 22.00 (14.00 to 30.00) |" in counts_table(rows, targets, "foreground_psnr")
    gains = gains_table({"7 over 1": (rows["row"][7], rows["row"][1])}, targets)
    assert "| 7 over 1 | 6.00 (2.00 to 10.00) | 2.00 (2.00 to 2.00) | 10.00 (10.00 to 10.00) |" in gains
    assert "| gain in foreground PSNR (dB) | all | chair | car |" in gains
    # Seven of eight views leave the neighbour at 45 degrees.
    cells = [c.strip() for c in angles_table({"row": {7: rows["row"][7]}}, targets, "ssim").splitlines()[-1].split("|")]
    assert cells[2:7] == ["–", "–", "0.500 (0.500 to 0.500)", "–", "–"]


def test_coverage_grows_with_inputs(rings: list[HeldOutRing]) -> None:
    lines = coverage_table(draw_targets(rings, 4), (1, 7)).splitlines()[2:]
    single, every = ([float(cell.split()[0]) for cell in line.split("|")[2:4]] for line in lines)
    assert single[0] == every[0]
    assert single[0] < single[1] <= every[1] <= 1
