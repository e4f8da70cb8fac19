"""Conditions of a view model."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pipeline.diffusion.modules.conditioning import (
    Conditioning,
    Conditions,
    PhotoEncoder,
    PoseProjection,
    fold_visibility,
)


def make_conditions(objects: int = 3, views: int = 2) -> Conditions:
    """Random conditions of every kind."""
    latents = (objects, views, 4, 8, 8)
    return Conditions(
        torch.randn(objects, 4, 8, 8),
        torch.randn(objects, 4, 8, 8),
        torch.randn(objects, views, 16),
        torch.randn(objects, 16),
        torch.randn(latents),
        torch.rand(latents),
        torch.randn(objects, views, 6, 8, 8),
        torch.randn(objects, 6, 8, 8),
    )


@pytest.mark.parametrize(
    ("conditioning", "channels"),
    [
        (Conditioning(), 8),
        (Conditioning(source_row=True, joint=(8, 4)), 8),
        (Conditioning(coarse=True), 16),
        (Conditioning(pluecker=True), 14),
        (Conditioning(source_row=True, coarse=True, pluecker=True), 22),
    ],
)
def test_input_channels(conditioning: Conditioning, channels: int) -> None:
    assert conditioning.channels(4) == channels
    assert conditioning.channels(8) == channels + 4 * (2 + conditioning.coarse)


def test_dropping_blanks_whole_objects_but_not_their_rays() -> None:
    conditions = make_conditions()
    dropped = conditions.dropped(torch.tensor([1.0, 0.0, 1.0]))
    for name in ("source", "source_clean", "tokens", "source_token", "coarse", "visible"):
        before, after = getattr(conditions, name), getattr(dropped, name)
        assert torch.equal(after[[0, 2]], before[[0, 2]]), name
        assert (after[1] == 0).all(), name
    assert torch.equal(dropped.rays, conditions.rays)
    assert torch.equal(dropped.source_rays, conditions.source_rays)


def test_the_coarse_picture_can_be_dropped_by_itself() -> None:
    conditions = make_conditions()
    dropped = conditions.dropped(torch.tensor([1.0, 0.0, 1.0]), torch.tensor([0.0, 1.0, 1.0]))
    assert torch.equal(dropped.source[0], conditions.source[0])
    assert (dropped.coarse[[0, 1]] == 0).all()
    assert (dropped.visible[[0, 1]] == 0).all()
    assert torch.equal(dropped.coarse[2], conditions.coarse[2])


def test_the_null_is_zero123s_unconditional_input() -> None:
    """Zero tokens (no bias, no pose) and zero image latents; absent conditions stay absent."""
    null = make_conditions().null()
    assert all((getattr(null, n) == 0).all() for n in ("source", "source_clean", "tokens", "source_token", "coarse"))
    conditions = make_conditions()
    plain = Conditions(conditions.source, conditions.source_clean, conditions.tokens, conditions.source_token).null()
    assert plain.coarse is plain.visible is plain.rays is plain.source_rays is None


@pytest.mark.parametrize("size", [16, 48])
def test_visibility_is_folded_two_by_two(size: int) -> None:
    """Four channels per latent pixel: its quarters, each the mean of the pixels there."""
    visible = torch.rand(2, 3, 1, size, size)
    folded = fold_visibility(visible, 8)
    assert folded.shape == (2, 3, 4, 8, 8)
    step = size // 16
    for channel, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        quarter = visible[
            1,
            2,
            0,
            (2 * 5 + row) * step : (2 * 5 + row + 1) * step,
            (2 * 6 + column) * step : (2 * 6 + column + 1) * step,
        ]
        assert float(folded[1, 2, channel, 5, 6]) == pytest.approx(float(quarter.mean()), abs=1e-6)
    assert folded.mean() == pytest.approx(float(visible.mean()), abs=1e-5)


def test_photo_encoder_reads_photos_of_any_size() -> None:
    encoder = PhotoEncoder(width=16, image_size=32).eval()
    photo = torch.rand(2, 4, 4, 4) * 2 - 1
    large, small = (F.interpolate(photo, (side, side), mode="bilinear") for side in (96, 32))
    assert encoder(small).shape == (2, 16)
    assert (encoder(large) - encoder(small)).abs().max() < 0.05 * encoder(small).std()
    assert not torch.allclose(encoder(small)[0], encoder(small)[1], atol=1e-3)


def test_pose_projection_begins_as_the_identity_on_the_image() -> None:
    projection, embedding = PoseProjection(width=16), torch.randn(2, 3, 16)
    assert torch.allclose(projection(embedding, torch.randn(2, 3, 4)), embedding, atol=1e-6)
    assert projection.projection.weight.shape == (16, 20)
    with torch.no_grad():
        projection.projection.weight[:, 16:] = 1
    assert torch.allclose(projection(embedding, torch.full((2, 3, 4), 0.5)), embedding + 2, atol=1e-5)
