"""Queries as colours."""

from __future__ import annotations

import pytest
import torch

from qnerf.principal import principal_axes


def test_axes_are_the_directions_of_most_variation() -> None:
    directions = torch.linalg.qr(torch.randn(6, 6))[0][:, :3]
    values = torch.randn(4000, 3) * torch.tensor([5.0, 2.0, 0.5]) @ directions.T + 0.01 * torch.randn(4000, 6) + 7
    found = principal_axes(values)
    assert found.spread.tolist() == pytest.approx([5, 2, 0.5], rel=0.1)
    assert (found.axes.T @ directions).abs().diagonal().tolist() == pytest.approx([1, 1, 1], abs=0.01)
    assert found.axes.T @ found.axes == pytest.approx(torch.eye(3), abs=1e-5)
    # Which of two opposite directions it is does not depend on chance.
    assert bool((found.axes.gather(0, found.axes.abs().argmax(0, keepdim=True)) > 0).all())
    assert torch.allclose(principal_axes(values.flip(0)).axes, found.axes, atol=1e-4)


def test_colours_are_grey_at_the_mean_and_end_where_they_must() -> None:
    values = torch.randn(500, 4) * torch.tensor([9.0, 3.0, 1.0, 0.1])
    found = principal_axes(values)
    assert found.colours(values.mean(0)).tolist() == pytest.approx([0.5] * 3, abs=1e-4)
    colours = found.colours(values)
    assert colours.std(0).tolist() == pytest.approx([0.2] * 3, abs=0.01)
    assert float(found.colours(1e3 * values).max()) == 1
    assert float(found.colours(1e3 * values).min()) == 0


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_queries_that_do_not_vary_and_few_channels_are_no_trouble(channels: int) -> None:
    same = torch.full((10, channels), 3.0)
    found = principal_axes(same)
    assert found.axes.shape == (channels, 3)
    assert found.colours(same) == pytest.approx(torch.full((10, 3), 0.5), abs=1e-3)
